# What people, CI and the README run. Nothing here needs an activated virtual environment.

PYTHON ?= python3.11
TORCH := torch==2.13.0
# Another package index for torch alone, such as one with its CPU or CUDA builds: make repro TORCH_INDEX=URL
TORCH_INDEX ?=
# Which published number to reproduce, a folder of conf/numbers, and the folder with the files of its benchmark.
NUMBER ?=
DATA ?=
# Which of its trainings alone, such as seed-2, when they are shared out among machines.
RUN ?=
# What `make bench` measures with besides DATA: a trained Transformer, the Python that has JoeyNMT, threads.
MODEL ?=
JOEYNMT ?=
THREADS ?=

VENV := $(CURDIR)/.venv
INSTALLED := $(VENV)/.installed
# In kB: .venv takes 2.2 GB with a CPU build of torch; the libraries of CUDA are several GB more.
ROOM := 3000000

export PATH := $(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# No operator of DeepSpeed is compiled: it would take minutes and a compiler.
export DS_BUILD_OPS := 0
unexport VIRTUAL_ENV PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help install repro test check reproduce bench ui doctor deps lock

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

install: $(INSTALLED) ## create .venv with the locked packages; done by every command that needs it

$(INSTALLED): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; name a Python 3.11 with PYTHON=" >&2; exit 1; }
	@case "$$($(PYTHON) -V 2>&1)" in "Python 3.11."*) ;; *) echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1); name a Python 3.11 with PYTHON=" >&2; exit 1;; esac
	@free=$$(df -Pk $(CURDIR) | awk 'NR == 2 {print $$4}'); test -x $(VENV)/bin/python || test "$$free" -ge $(ROOM) || \
	  { echo "make: $$((free / 1000)) MB free in $(CURDIR); .venv needs $$(($(ROOM) / 1000)) MB, and more with CUDA" >&2; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into .venv: $(TORCH), requirements.lock, this project (once; takes minutes)"
	@$(VENV)/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@$(VENV)/bin/python -m pip install --quiet --require-hashes --no-deps --use-pep517 --no-build-isolation -r requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

repro: $(INSTALLED) ## run every stage whose inputs changed, then print the results
	@test -e .git || dvc config --local core.no_scm true
	dvc repro
	@pipeline results

test: $(INSTALLED) ## run the tests
	python -m pytest

check: $(INSTALLED) ## format, lint, types, import contracts
	ruff format --check .
	ruff check .
	mypy pipeline tests benchmarks
	lint-imports

reproduce: $(INSTALLED) ## reproduce a published number beside the chain: NUMBER=ID DATA=FOLDER [RUN=NAME]; lists them without
	@python -m pipeline.reproduce $(NUMBER) $(if $(DATA),--data '$(DATA)') $(addprefix --run ,$(RUN))

bench: $(INSTALLED) ## measure against peers, both sides in one run: DATA=FOLDER MODEL=FOLDER JOEYNMT=PYTHON GLUE=FOLDER THREADS=N
	@python -m benchmarks $(if $(DATA),--data '$(DATA)') $(if $(MODEL),--model '$(MODEL)') $(if $(JOEYNMT),--joeynmt '$(JOEYNMT)') $(if $(GLUE),--glue '$(GLUE)') $(if $(THREADS),--threads '$(THREADS)')

ui: $(INSTALLED) ## show the MLflow runs on http://127.0.0.1:5000
	MLFLOW_TRACKING_URI=$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db} mlflow ui --host 127.0.0.1 --port 5000

doctor: $(INSTALLED) ## look for what would stop a run: versions, devices, disk, one batch through each stage
	@pipeline doctor

deps: $(INSTALLED) ## rewrite the code dependencies in dvc.yaml from each stage's imports
	@python -m pipeline.provenance

lock: $(INSTALLED) ## rewrite requirements.lock from pyproject.toml; needs a TORCH_INDEX with CPU builds
	@pip-compile --quiet --all-extras --generate-hashes --strip-extras --no-annotate --no-header \
	  --no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --unsafe-package torch --unsafe-package pip $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
	  --output-file requirements.lock pyproject.toml 2>/dev/null
	@sed -i '/^#/d; /^$$/d' requirements.lock
	@! grep -E '^(nvidia|cuda|triton)' requirements.lock
