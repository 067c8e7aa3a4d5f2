# Everything sets itself up: a machine with python3 (3.11 or newer) and make is enough.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(STAMP)  ## build .venv with everything pinned

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/pip || $(MAKE) --no-print-directory --silent .venv/bin/pip
	@echo "umbel: installing into .venv (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv/bin/pip:
	@command -v "$(PYTHON)" >/dev/null \
	  || { echo "umbel: there is no $(PYTHON) here; name one with 'make PYTHON=/path/to/python3'" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "umbel: $(PYTHON) is too old; name a Python 3.11 or newer with 'make PYTHON=/path/to/python3'" >&2; exit 1; }
	@"$(PYTHON)" -m venv .venv \
	  || { rm -rf .venv; echo "umbel: $(PYTHON) cannot make a virtual environment (Debian has it in python3-venv)" >&2; exit 1; }

demo: $(STAMP)  ## real upstreams, the gateway before them, and what to curl; options in ARGS='--slow offers'
	@$(BIN)/umbel demo $(ARGS)

test: $(STAMP)  ## run all tests; options for pytest in ARGS
	$(BIN)/python -m pytest $(ARGS)

check: $(STAMP)  ## lint, types, import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:randomly tests/unit/test_imports.py

format: $(STAMP)  ## put the code into the one form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove what make built
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
