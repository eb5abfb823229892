# Each command makes its own virtual environment: PYTHON chooses the interpreter, VENV the place.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERSION = $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
# The versions the tests pass with; without a file for this Python the floors of setup.py hold.
CONSTRAINTS = $(addprefix -c ,$(wildcard constraints/$(VERSION).txt))

.PHONY: demo test lint

demo: $(VENV)/.run
	$(BIN)/python -m experiments.train_stg

test: lint
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(PYTEST)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

$(VENV)/.run: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(CONSTRAINTS) -e .
	touch $@

$(VENV)/.test: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(CONSTRAINTS) -e '.[test]'
	touch $@
