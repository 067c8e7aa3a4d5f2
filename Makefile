# Everything sets itself up: a machine with python3 and make is enough.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(STAMP)  ## build .venv with everything pinned

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "umbel: installing into .venv (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## real upstreams, the gateway before them, and what to curl
	@$(BIN)/umbel demo

test: $(STAMP)  ## run all tests
	$(BIN)/python -m pytest

check: $(STAMP)  ## lint, types, import rules
	$(BIN)/ruff check src tests examples
	$(BIN)/ruff format --check src tests examples
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:randomly tests/unit/test_imports.py

clean:  ## remove what make built
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
