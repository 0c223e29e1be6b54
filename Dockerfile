# The same pipeline in a container:
#
#   docker build -t adapruner .
#   docker run --rm -v adapruner-home:/home/adapruner/app/.adapruner \
#       -v adapruner-runs:/home/adapruner/app/runs adapruner
FROM python:3.11.13-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 adapruner

USER adapruner
WORKDIR /home/adapruner/app
COPY --chown=adapruner:adapruner . .

# torch without CUDA; with it: docker build --build-arg PIP_EXTRA_INDEX_URL= -t adapruner .
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG PIP_NO_CACHE_DIR=1
# A mounted volume takes over the owner of the folder that it covers.
RUN make setup && mkdir .adapruner mlflow runs

ENTRYPOINT ["/home/adapruner/app/.venv/bin/adapruner"]
CMD ["compress", "-c", "configs/demo.yaml"]
