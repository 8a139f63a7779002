# All that people and CI do with taskq.  A target makes .venv when it is missing and installs into
# it only when pyproject.toml has changed, so that the second run starts at once.

PYTHON ?= $(shell scripts/find-python python3 python3.13 python3.12 python3.11)

VENV := .venv
BIN := $(VENV)/bin

# What is asked of the other Pythons that are found: whether taskq means the same there.  The tests
# of whole processes would mostly repeat themselves.
OTHER_PYTHONS := 3.11 3.12 3.13

# Most tests wait for processes, so that two runs side by side take two thirds of the time of one.
# Each has servers of its own, and the tests of a file stay together, because some share a server.
SIDE_BY_SIDE := -n 2 --dist loadfile
PORTABLE := tests/unit tests/wire tests/contract

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-long bench check format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/installed ## thousands of real tasks here and now, with no server
	@$(BIN)/python examples/demo.py

test: $(VENV)/installed-dev servers ## install the servers that tests need, run all tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)
	@$(MAKE) --no-print-directory $(OTHER_PYTHONS:%=portable-%)

test-long: $(VENV)/installed-dev servers ## faults, histories and schedules in full: takes an hour
	TASKQ_TEST_SCALE=10 $(BIN)/python -m pytest tests/faults tests/unit/test_dispatcher.py \
	    tests/unit/test_crontab_oracles.py --timeout 3600 -vv

bench: $(VENV)/installed-bench servers ## measure taskq beside its peers, or some rows of it: ROWS=1,3
	$(BIN)/python -m benchmarks $(or $(ROWS),--report)

check: $(VENV)/installed-dev ## format, lint, types and the rules of the house
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/house

format: $(VENV)/installed-dev ## let ruff lay out the code and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what the other targets made
	rm -rf $(VENV) .taskq .mypy_cache .ruff_cache .hypothesis dist tests/artefacts
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- the parts they are made of ---------------------------------------------------------------

.PHONY: servers portable $(OTHER_PYTHONS:%=portable-%)

servers:
	@scripts/install-test-servers

# The environment of another Python lies inside the main one; only the variables differ.
$(OTHER_PYTHONS:%=portable-%): portable-%:
	@if [ -e $(BIN)/python$* ]; then exit 0; fi; \
	python=$$(scripts/find-python python$*) || { echo "Python $* was not found: left out"; exit 0; }; \
	$(MAKE) --no-print-directory portable PYTHON="$$python" VENV=$(VENV)/python$*

portable: $(VENV)/installed-dev
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(PORTABLE)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(VENV)/installed $@

$(VENV)/installed-bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	@touch $(VENV)/installed $(VENV)/installed-dev $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
	    echo "taskq needs Python 3.11 or newer, with venv and sqlite3, and none was found here."; \
	    echo "Install one (Debian: apt-get install python3-venv), or name it: make PYTHON=..."; \
	    exit 1; } >&2
	$(PYTHON) -m venv $(VENV)
