# `make run` and `make test` are all the set-up there is; the rest is for working on lcbench itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# What to measure; `make run METHOD=all` takes every method there is, and some twenty minutes more.
METHOD ?= vanilla,sliding-window,recurrence,sparse-global
# Tests at once: as many as a small machine has cores; each may hold a copy of torch or two.
WORKERS ?= 2
# What a pull request is made to.
BASE ?= origin/main
# Passed on to the command: make run ARGS="--suite smoke", make test ARGS="-k store".
ARGS ?=

.PHONY: run test check pr-check bench app docs help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

run: $(VENV)/installed  ## make the environment, measure METHOD, show the leaderboard
	$(BIN)/lcbench run --method $(METHOD) $(ARGS)

test: $(VENV)/installed-dev  ## make the environment, run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: $(VENV)/installed-dev  ## lint, format, types, import arrows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -q tests/test_layers.py

# Named to the shell, not pasted into its command: a branch may be called anything.
export BASE

pr-check: $(VENV)/installed  ## what a pull request to BASE is held to: rules, checks, a few cells, the board
	$(BIN)/lcbench review --changed-since "$$BASE" $(ARGS)

bench: $(VENV)/installed-dev  ## time the project's own hot paths
	$(BIN)/python -m pytest tests/bench --benchmark-enable --benchmark-only $(ARGS)

app: $(VENV)/installed  ## open the leaderboard in a browser
	$(BIN)/lcbench app $(ARGS)

docs: $(VENV)/installed  ## write docs/methods.md and app/methods.json anew from the methods
	$(BIN)/lcbench methods --format markdown > docs/methods.md
	$(BIN)/lcbench methods --format json > app/methods.json

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "lcbench needs Python 3.11 or newer; name one: make run PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing lcbench into $(VENV) (a few minutes the first time) ..."
	$(INSTALL) -e '.[app]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) -e '.[app,dev,oracles]'
	@touch $@
