# Everything from a fresh clone: `make quickstart` trains on made-up shapes, `make test` runs the tests.
# Both make .venv when there is none, and bring it up to date when pyproject.toml has changed.
# Another interpreter: `make test PYTHON=python3.12`. To start over: `rm -r .venv`.

PYTHON ?= python3
VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
# A worker for each core, with one thread each and up to 4 GB. Tests that share a model or a run stay on one worker.
IN_PARALLEL := -n auto --maxprocesses 4 --dist worksteal

.PHONY: help quickstart test test-quick lint pictures clean
# The stamps below share one environment, which two pips at a time would break.
.NOTPARALLEL:

help:
	@echo "make quickstart  train a small detector on made-up shapes, evaluate it, draw its predictions"
	@echo "make test        run all tests"
	@echo "make test-quick  run the tests that take little time, in a minute or so"
	@echo "make lint        check style, types and who imports whom"
	@echo "make pictures    make the pictures of README.md from the newest quickstart run"
	@echo "make docs        build the site of docs/ in build/site"
	@echo "make clean       remove caches and built files; .venv and runs/ stay"

quickstart: $(VENV)/.test-installed
	$(VENV_PYTHON) train.py experiment=quickstart
	$(VENV_PYTHON) eval.py run=runs/quickstart

test: $(VENV)/.test-installed
	$(VENV_PYTHON) -m pytest $(IN_PARALLEL)

test-quick: $(VENV)/.test-installed
	$(VENV_PYTHON) -m pytest $(IN_PARALLEL) -m "not slow"

lint: $(VENV)/.dev-installed
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy
	$(VENV)/bin/lint-imports

pictures: $(VENV)/.test-installed
	$(VENV_PYTHON) docs/make_pictures.py

.PHONY: docs
docs: $(VENV)/.docs-installed
	NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --strict

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# The pip that comes with Python may be too old to install a pyproject.toml in editable mode.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "$(PYTHON) must be Python 3.10 or newer; name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	test -x $(VENV_PYTHON) || $(PYTHON) -m venv $(VENV)
	$(VENV_PYTHON) -m pip install --quiet "pip>=22"
	$(VENV_PYTHON) -m pip install --quiet -e ".[$(1)]"
endef

$(VENV)/.test-installed: pyproject.toml
	$(call install,test)
	touch $@

# The dev extra holds the test extra.
$(VENV)/.dev-installed: pyproject.toml
	$(call install,dev)
	touch $(VENV)/.test-installed $@

$(VENV)/.docs-installed: pyproject.toml
	$(call install,docs)
	touch $@
