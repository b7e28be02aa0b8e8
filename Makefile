# Everything on a fresh machine with Python 3.11 or newer and make: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint audit soak benchmark clean

demo: $(READY)
	$(BIN)/phbatch demo demo

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What can be said of the dependencies without a network: they fit each other, all are declared, none is capped.
audit: $(READY)
	$(BIN)/python -m pip check
	$(BIN)/python -m pytest -q tests/test_dependencies.py

# The long part of the fault campaign, which takes an hour.
soak: $(READY)
	PHBATCH_SOAK=1 $(BIN)/python -m pytest tests/faults

benchmark: $(READY)
	$(BIN)/python benchmarks/end_to_end.py

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("phbatch needs Python 3.11 or newer, set PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo
