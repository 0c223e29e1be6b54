# The same pipeline in a container, and the image of its steps on a cluster (docs/cluster.md):
#
#   docker build -t adapruner .
#   docker run --rm -v adapruner-home:/app/.adapruner -v adapruner-runs:/app/runs adapruner
#   docker build --build-arg EXTRAS=kubernetes,s3,server -t registry.example.org/adapruner:0.1.0 .
FROM python:3.11.13-slim-bookworm

# ZenML runs every step in /app.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 adapruner \
    && install --directory --owner=adapruner --group=adapruner /app

USER adapruner
WORKDIR /app
COPY --chown=adapruner:adapruner . .

# torch without CUDA; with it: docker build --build-arg PIP_EXTRA_INDEX_URL= -t adapruner .
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG PIP_NO_CACHE_DIR=1
# Extras of pyproject.toml: kubernetes, kubeflow, s3, server, torchao.
ARG EXTRAS=server
# A mounted volume takes over the owner of the folder that it covers.
RUN make setup EXTRAS="${EXTRAS}" && mkdir .adapruner mlflow runs

# Cache keys are computed from the source files below the root, also in the orchestrator's pod.
# Waiting threads sleep (adapruner/threads.py), also where ZenML imports PyTorch before our package.
ENV PATH=/app/.venv/bin:$PATH \
    ZENML_CUSTOM_SOURCE_ROOT=/app \
    ZENML_ANALYTICS_OPT_IN=false \
    ZENML_LOGGING_COLORS_DISABLED=true \
    OMP_WAIT_POLICY=passive \
    GOMP_SPINCOUNT=1000

ENTRYPOINT ["/app/.venv/bin/adapruner"]
CMD ["compress", "-c", "configs/demo.yaml"]
