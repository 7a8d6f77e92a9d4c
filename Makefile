# `make run` starts AutoVoice and `make test` tests it; both do all the set-up they need, once.
# CONTRIBUTING.md tells of the other targets.

# On Windows make may find cmd.exe alone, so what must run there is plain commands and Python.
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
STAMP := $(BIN)/python -c "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"

.PHONY: run test lint check bench-tables soak memory kills judges processes screenshots clean

run: .venv/run.stamp
ifeq ($(OS),Windows_NT)
	$(BIN)/autovoice
else
	@if [ "$$(uname -s)" = Linux ] && [ -z "$$DISPLAY$$WAYLAND_DISPLAY" ]; then \
	  echo "No display here: rendering the bundled demo in the terminal."; $(BIN)/autovoice demo; \
	else $(BIN)/autovoice; fi
endif

test: .venv/test.stamp
	$(BIN)/python -m pytest

# Everything that continuous integration asks for.
check: test lint

lint: .venv/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Thirty minutes of live conversion against a plain passthrough.
soak: .venv/test.stamp
	$(BIN)/autovoice bench soak

# Separation and conversion of a generated two-hour file, and the memory they took.
memory: .venv/test.stamp
	$(BIN)/autovoice bench memory

# Two hundred kills at random moments of work on the store.
kills: .venv/test.stamp
	$(BIN)/python -m pytest -m slow tests/engine/store

# Training by two processes that average their gradients.
processes: .venv/test.stamp
	$(BIN)/python -m pytest -m slow tests/engine/test_training.py

# Judges of the bench that take long to import, against their packages' own calls.
judges: .venv/test.stamp
	$(INSTALL) -e ".[dev,bench,training]"
	$(BIN)/python -m pytest -m slow tests/engine/test_bench_judges.py

# The tables of README and model cards, from the reports of the bench.
bench-tables: .venv/test.stamp
	$(BIN)/python -m engine.bench.tables docs/bench/*.json --into README.md resources/models/decoder.md resources/models/separator.md

screenshots: .venv/test.stamp
	$(BIN)/python packaging/screenshots.py

.venv/run.stamp: pyproject.toml constraints.txt packaging/system-packages.sh
ifneq ($(OS),Windows_NT)
	@sh packaging/system-packages.sh run
endif
	$(if $(wildcard $(BIN)/python*),,$(PYTHON) packaging/make_venv.py)
	@echo "Installing AutoVoice into .venv (several GB, once)"
	$(INSTALL) -e .
	@$(STAMP) $@

.venv/test.stamp: .venv/run.stamp
ifneq ($(OS),Windows_NT)
	@sh packaging/system-packages.sh test
endif
	$(INSTALL) -e ".[dev,bench]"
	@$(STAMP) $@

clean:
	$(PYTHON) -c "import glob, shutil, sys; [shutil.rmtree(f, True) for a in sys.argv[1:] for f in glob.glob(a)]" \
	  .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
