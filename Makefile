# Everything on a fresh machine with Python 3.11 or newer and make: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test soak lint benchmark clean

demo: $(READY)
	$(BIN)/phbatch demo demo

test: $(READY)
	$(BIN)/python -m pytest

soak: $(READY)
	$(BIN)/python -m tests.faults.soak

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
