# Everything from a fresh clone: `make quickstart` trains on made-up shapes, `make test` runs the tests.
# Both make .venv when there is none, and bring it up to date when pyproject.toml has changed.
# Another interpreter: `make test PYTHON=python3.12`. To start over: `rm -r .venv`.
# Without a GPU: `make quickstart TORCH=cpu` installs the CPU build of PyTorch, which is much smaller.

PYTHON ?= python3
TORCH ?=
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
# A worker for each core, with one thread each and up to 4 GB. Tests that share a model or a run stay on one worker.
IN_PARALLEL := -n auto --maxprocesses 4 --dist worksteal

.PHONY: help quickstart test test-quick lint pictures findings clean
# The stamps below share one environment, which two pips at a time would break.
.NOTPARALLEL:

help:
	@echo "make quickstart  train a small detector on made-up shapes, evaluate it, draw its predictions"
	@echo "make test        run all tests"
	@echo "make test-quick  run the tests that take little time, in a minute or so"
	@echo "make lint        check style, types and who imports whom"
	@echo "make pictures    make the pictures of README.md from the newest quickstart run, and of docs/sweeps.md"
	@echo "make docs        build the site of docs/ in build/site"
	@echo "make findings    check that other software still surprises as findings/ says; installs some 10 GB, one by one"
	@echo "make clean       remove caches and built files; .venv and runs/ stay"
	@echo "TORCH=cpu        with any of these: install the CPU build of PyTorch (about 0.8 GB instead of 5.5 GB)"

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
	$(VENV_PYTHON) docs/make_sweep_pictures.py

findings:
	@changed=""; \
	for script in findings/*.sh; do \
	  echo "== $$script"; \
	  bash "$$script" || changed="$$changed $$script"; \
	done; \
	if [ -n "$$changed" ]; then echo "changed, or could not run:$$changed"; exit 1; fi; \
	echo "all as described"

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
	@case "$(TORCH)" in ""|cpu) ;; *) echo "TORCH must be cpu or empty, not $(TORCH)"; exit 1 ;; esac
	@echo "Installing this project and what it needs into $(VENV), PyTorch included. The first time this takes minutes."
	@$(announce_size)
	test -x $(VENV_PYTHON) || $(PYTHON) -m venv $(VENV)
	$(VENV_PYTHON) -m pip install "pip>=22"
	$(if $(filter cpu,$(TORCH)),$(VENV_PYTHON) -m pip install torch torchvision --index-url $(TORCH_CPU_INDEX))
	$(VENV_PYTHON) -m pip install -e ".[$(1)]"
endef

# PyPI has CUDA builds of PyTorch for Linux, CPU builds for macOS.
define announce_size
if [ "$$(uname)" != Linux ] || [ "$(TORCH)" = cpu ]; then \
	  echo "The CPU build of PyTorch takes about 0.8 GB of disk."; \
	else \
	  echo "The CUDA build of PyTorch takes about 5.5 GB of disk."; \
	  if [ ! -e /dev/nvidia0 ] && ! command -v nvidia-smi >/dev/null; then \
	    echo "No NVIDIA GPU is found here: the CPU build of PyTorch is enough (0.8 GB): make $(MAKECMDGOALS) TORCH=cpu"; \
	  fi; \
	fi
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
