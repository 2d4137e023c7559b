# srq-hw. `make demo` and `make test` are all a newcomer needs; both set up .venv first.
# Variables: PYTHON (interpreter to make .venv with), PIP_ARGS (extra options of pip install), JOBS (test workers).

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_ARGS ?=
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install $(PIP_ARGS)

.PHONY: help setup demo test quick lint format golden docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.project ## Put everything into .venv (again only when a lock file changes)

# FINN+ comes last and without its declared dependencies: requirements/finn.txt says why.
$(VENV)/.locked: requirements/lock.txt requirements/finn.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"srq-hw needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Try: make PYTHON=python3.11")'
	"$(PYTHON)" -m venv $(VENV)
	$(PIP) -r requirements/lock.txt
	$(PIP) --no-deps -r requirements/finn.txt
	@touch $@

$(VENV)/.project: $(VENV)/.locked pyproject.toml setup.py
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## Build the embedded default network for the ZCU104 into build/demo
	$(BIN)/srq-hw build --target zcu104 --out build/demo

test: setup lint ## Run ruff, mypy and all tests
	$(BIN)/python -m pytest -q -n $(JOBS)

quick: setup ## Run the tests that take no more than seconds
	$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow"

lint: setup ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: setup ## Write the golden files anew; look at the difference before you commit it
	$(BIN)/python -m pytest -q --update-golden

docs: setup ## Write the generated docs anew
	$(BIN)/python scripts/make_target_docs.py
	$(BIN)/python scripts/make_report_docs.py

clean: ## Remove .venv, build/ and all caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
