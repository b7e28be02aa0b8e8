# Everything on a fresh machine with Python 3.11 or newer and make: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
EXTRAS := test,judges,lint,docs,kubernetes,deploy,readers,viewer
DEMO := demo
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# uv settles what all extras ask for in seconds, where pip takes minutes; pip is left for what only its own settings reach.
INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[$(EXTRAS)]'

RESULTS ?= build/benchmarks
BENCHMARKS := end_to_end peak precision_check frame_statistics normalize_only host start fixed_cost mosaic train pyramid gpu growth peers

JUDGE_PYTHON ?= $(BIN)/python

.PHONY: demo test judges smoke mutants soak settings lint audit docs benchmark soak-memory clean

demo: $(READY)
	$(BIN)/phbatch demo $(DEMO)

# Several processes, which take tests from each other at the end; more than cores, since one waits for SLURM for minutes.
# By hand, `pytest tests/test_lane.py` is one process.
# Hundreds of processes import the package: what the first one compiles, the others read, whatever the environment says.
# Their files are in memory where there is room: thousands of small ones that live for seconds. Else, or with
# `make test SCRATCH=`, they are where temporary files are.
SCRATCH ?= $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 8000000 { print $$6 }')
test: export PYTHONDONTWRITEBYTECODE :=
test: $(READY)
	$(if $(SCRATCH),TMPDIR=$(SCRATCH)) $(BIN)/python -m pytest --numprocesses 4 --durations 10 --dist worksteal $(PYTEST_OPTIONS)

# Readers of OME-Zarr that do not install beside ours, in environments of their own, which tests/test_judges.py uses where
# they are. Of iohub a Python of 3.12 or newer is wanted: JUDGE_PYTHON=python3.13.
judges: $(READY)
	$(BIN)/python -m tests.judge_environments --python $(JUDGE_PYTHON)

# What tells within minutes whether another Python or other versions will do: statistics, a CARE model, shards, resume,
# networks kept as their frameworks' graphs, the guard of what is decoded, S3. `.ci/pythons` runs it on all that it finds.
PARITY := tests/test_csbdeep_parity.py
DAMAGED := tests/faults/test_damaged_inputs.py
STORES := tests/faults/test_object_stores.py
PROGRAMS := tests/network/test_programs.py
SMOKE := tests/test_dependencies.py tests/places/test_refusals.py tests/test_statistics_table.py tests/places/test_encoding.py tests/test_lane.py \
	tests/test_resume.py tests/faults/test_trust.py $(PARITY)::test_frames_of_any_size \
	$(PROGRAMS)::test_the_second_run_imports_no_keras_and_gives_the_same_bytes \
	$(PROGRAMS)::test_a_kept_graph_of_tensorflow_computes_the_same_bytes \
	tests/test_backends.py::test_jax_does_what_tensorflow_does \
	$(PARITY)::test_every_frame_of_a_series_is_normalized_and_restored_on_its_own \
	$(DAMAGED)::test_the_guard_lets_good_chunks_pass $(DAMAGED)::test_a_bomb_in_an_object_store_is_refused \
	$(STORES)::test_the_bytes_are_those_of_a_local_run \
	tests/test_xarray_outputs.py::test_the_engine_opens_what_xarray_finds_to_be_an_output

smoke: $(READY)
	$(BIN)/python -m pytest $(PYTEST_OPTIONS) $(SMOKE)

# One fault at a time in a copy of the package: a test that passes all the same has a hole.
mutants: $(READY)
	$(BIN)/python -m tests.mutants

# The long part of the fault campaign, which takes hours, and the image, built for real.
soak: $(READY)
	$(BIN)/python -m tests.faults.soak
	PHBATCH_SOAK=1 $(BIN)/python -m pytest tests/faults
	PHBATCH_IMAGES=1 $(BIN)/python -m pytest tests/cluster/test_images.py

# The two files that are made of the table of settings; tests hold them against it.
settings: $(READY)
	$(BIN)/python -m phbatch.shell.settings_types
	$(BIN)/python -m phbatch.shell.settings_page > docs/reference/settings.md

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What can be said of the dependencies without a network: they fit each other, all are declared, none is capped.
audit: $(READY)
	$(BIN)/python -m pip check
	$(BIN)/python -m pytest -q tests/test_dependencies.py

# The pages, as HTML in build/docs/index.html; needs no network, and a warning is an error.
docs: $(READY)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs

benchmark: $(addprefix benchmark-,$(BENCHMARKS))

benchmark-end_to_end: ARGUMENTS := --kernel 5 --kernel 3 --filters 32 --filters 16 --size 1024 --size 2048
benchmark-frame_statistics: ARGUMENTS := --no-memory --profile

# Never two at once, even under make -j: they would measure each other.
.NOTPARALLEL:

# Its tables go into the page of docs/benchmarks that shows them.
benchmark-%: $(READY)
	mkdir -p $(RESULTS)
	$(BIN)/python benchmarks/$*.py $(ARGUMENTS) --json $(RESULTS)/$*.json > $(RESULTS)/$*.txt; result=$$?; cat $(RESULTS)/$*.txt; exit $$result
	$(BIN)/python benchmarks/write_tables.py $* $(RESULTS)/$*.txt $(ARGUMENTS)

# With glibc's own, growing threshold its arenas fragment: what is resident rises, and what is held does not.
soak-memory: export MALLOC_MMAP_THRESHOLD_ := 4194304
soak-memory: $(READY)
	$(BIN)/python benchmarks/soak.py --json $(RESULTS)/soak.json

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("phbatch needs Python 3.11 or newer, set PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip uv
	$(INSTALL) || $(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo build/pythons
