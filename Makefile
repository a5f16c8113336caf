# `make` lists the targets. Everything runs in .venv, which is created from requirements.lock on first use.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
PEERS := .venv/.peers

# Unit tests keep a core busy; many others wait for processes, so three workers are needed to keep two cores busy.
WORKERS ?= $(if $(FAST),2,3)
TESTS := tests/unit $(if $(FAST),,tests/pipelines $(if $(ALL),tests/system))
# Threads of one worker that spin while they wait would slow down the others.
TEST := HYPOTHESIS_PROFILE=$(if $(ALL),thorough,fast) OMP_WAIT_POLICY=passive $(BIN)/python -m pytest

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY) ## train, export, check and register the preset iris
	@$(BIN)/hallmark train iris

test: $(READY) ## run unit tests and pipelines (FAST=1: only unit tests, ALL=1: all tests)
	@$(TEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

lint: $(READY) ## ruff, mypy --strict on tasks.ml, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

cases: $(READY) ## run every case of odd tables and hostile files (ONLY="text" runs those whose name contains it)
	@OMP_WAIT_POLICY=passive $(BIN)/python -m tests.cases $(ONLY)

bench: $(PEERS) ## time Hallmark against others (ONLY="engine sweep" runs only these)
	@$(BIN)/python -m tests.bench $(ONLY)

ui: $(READY) ## serve the MLflow UI for the project's runs
	@$(BIN)/hallmark ui

lock: ## resolve pyproject.toml into requirements.lock
	@$(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet "uv>=0.9"
	@.venv-lock/bin/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --upgrade --quiet \
		--custom-compile-command "make lock" --no-emit-index-url --no-emit-find-links --output-file requirements.lock
	@rm -rf .venv-lock

clean: ## remove .venv and every cache; runs, models and datasets stay
	@rm -rf .venv .venv-lock .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	@find flows tasks tests -name __pycache__ -prune -exec rm -rf {} +

# If the lock file has changed, .venv is rebuilt from scratch, so that no old package remains. The lock is complete, so pip
# must not resolve dependencies again: a new release of a package that is required with extras would make it fail.
$(READY): requirements.lock
	@test -n "$(PYTHON)" || { echo "Hallmark needs Python 3.11, 3.12 or 3.13; none is on the PATH: install one or run make PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Packages that the benchmarks compare Hallmark with. Not locked, because nothing else uses them.
$(PEERS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[bench]"
	@touch $@

.PHONY: help run test lint cases bench ui lock clean
