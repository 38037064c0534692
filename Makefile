# Everything a newcomer needs: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
ARGS ?=
# Processes that share out the tests, each with servers of its own. More than the cores, since many
# tests wait for a lease or a process to end; a file's tests stay together.
JOBS ?= 3
BIN := .venv/bin
PACKAGES := samplemind worker tasks schedules
SOURCES := $(PACKAGES) migrations tests benchmarks

# BLAS threads make two workers on two cores slower than one; the worker sets the same.
export OPENBLAS_NUM_THREADS := 1
export OMP_NUM_THREADS := 1

.PHONY: help setup setup-dev setup-bench demo test check lint format types imports unit bench lock docs clean

help:  ## List these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

setup: .venv/runtime.stamp  ## Make .venv with what the platform runs on
setup-dev: .venv/dev.stamp  ## Make .venv with the test tools too
setup-bench: .venv/bench.stamp  ## Make .venv with the benchmarks' peers too

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed: install it, or name one with make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { \
	  echo "python3 -m venv failed: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }

# A larger lock holds the smaller one's versions, so the stamps only ever add.
.venv/%.stamp: requirements-%.lock pyproject.toml | .venv/bin/python
	@echo "Installing from $< …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## Start everything, ingest a small pack, show searches (ARGS="--once" stops it again)
	@$(BIN)/samplemind demo $(ARGS)

test: setup-dev  ## Run the tests (ARGS="-k name" chooses, JOBS=0 runs them in one process)
	@tests/tools
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: lint types imports test  ## What CI runs: lint, types, imports, tests

lint: setup-dev  ## Style, dead code, formatting
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)

format: setup-dev  ## Rewrite the sources in the house style
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

types: setup-dev  ## mypy, strict
	@$(BIN)/mypy

imports: setup-dev  ## Imports run one way
	@$(BIN)/lint-imports

bench: setup-bench  ## Measure, beside the peers (ARGS="--quick" for a short run)
	@$(BIN)/python -m benchmarks.run $(ARGS)

lock: .venv/bin/python  ## Pin the dependencies anew, with hashes and no index address
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@compile="$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	  --fork-strategy fewest --generate-hashes --no-emit-index-url --no-annotate --no-header --extra setup"; \
	$$compile -o requirements-runtime.lock && \
	$$compile --extra dev -c requirements-runtime.lock -o requirements-dev.lock && \
	$$compile --extra dev --extra bench -c requirements-dev.lock -o requirements-bench.lock

docs: setup  ## Write docs/tasks.md, docs/settings.md and docs/metrics.md from the code
	@$(BIN)/python -m samplemind.jobs.catalogue
	@$(BIN)/python -m samplemind.settings_catalogue
	@$(BIN)/python -m worker.metrics.document

clean:  ## Remove .venv and caches; data of a stack is not touched
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
