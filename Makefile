# Each command makes its own virtual environment: PYTHON chooses the interpreter, VENV the place.
PYTHON ?= python3
VENV ?= .venv
# "test,compilers" adds the compilers of the TPU and GPU kernels (600 MB), which need neither.
EXTRAS ?= test
BIN := $(VENV)/bin
COMMA := ,
VERSION = $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
# The versions the tests pass with; without a file for this Python the floors of setup.py hold.
CONSTRAINTS = $(addprefix -c ,$(wildcard constraints/$(VERSION).txt))

.PHONY: demo test test-extras lint

TESTER := $(VENV)/.$(subst $(COMMA),-,$(EXTRAS))

demo: $(VENV)/.run
	$(BIN)/python -m experiments.train_stg

test: lint
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST)

# What needs packages of its own, a browser (chromium, chromedriver) or a server.
test-extras: $(TESTER)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/extras

lint: $(TESTER)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

$(VENV)/.run: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(CONSTRAINTS) -e .
	touch $@

$(TESTER): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(CONSTRAINTS) -e '.[$(EXTRAS)]'
	touch $@
