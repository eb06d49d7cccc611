# Two commands matter: `make demo` and `make test`. Everything lives in .venv; nothing else is touched.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: help demo up test chaos check format clean
help:
	@echo "make demo    rasters to Cloud Optimized GeoTIFFs from end to end (RASTERS=folder for your own)"
	@echo "make up      the whole stack on this machine, until Ctrl-C (UP='--port 0 --fresh' for options)"
	@echo "make test    the environment and all tests that need no Docker"
	@echo "make chaos   the stack under load while its parts are killed (SEED=n, TASKS=10000, MINUTES=4)"
	@echo "make check   ruff, mypy --strict, import-linter"
	@echo "make format  let ruff format the code"
	@echo "make clean   remove the environment and local data"

.venv/.ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.14 is needed and none was found on PATH; or set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[raster,local,test]'
	@touch $@

demo: .venv/.ready
	RASTERS="$(RASTERS)" $(BIN)/coremachine demo $(DEMO)

up: .venv/.ready
	$(BIN)/coremachine up $(UP)

test: .venv/.ready
	$(BIN)/python -m pytest

chaos: .venv/.ready
	SEED="$(SEED)" TASKS="$(TASKS)" MINUTES="$(MINUTES)" KEEP="$(KEEP)" $(BIN)/python -m tests.chaos

check: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .coremachine build *.egg-info
