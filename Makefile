# Two commands matter: `make demo` and `make test`. Everything lives in .venv; nothing else is touched.
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: help demo up test test-fast chaos bench bench-quick bench-against check format clean
help:
	@echo "make demo    rasters to Cloud Optimized GeoTIFFs from end to end (RASTERS=folder for your own)"
	@echo "make up      the whole stack on this machine, until Ctrl-C (UP='--port 0 --fresh' for options)"
	@echo "make test    the environment and all tests that need no Docker, several at a time (TESTERS=1 for one)"
	@echo "make test-fast  those that need no server and no process of the stack"
	@echo "make chaos   the stack under load while its parts are killed (SEED=n, TASKS=10000, MINUTES=4)"
	@echo "make bench   CoreMachine beside its peers, in an environment of its own (about half an hour; REPEATS=5, BENCH='--only ...')"
	@echo "make bench-quick  the same in two minutes: ours, the floor and one peer"
	@echo "make bench-against BEFORE=folder  this checkout beside another one of the project: what does a change cost?"
	@echo "make bench-rasters  the flood risk job's conversion beside gdal_translate and rio cogeo (BENCH='--only striped')"
	@echo "make check   ruff, mypy --strict, import-linter"
	@echo "make docs    the documents as a site to read in a browser, without a network"
	@echo "make reference  the generated pages of docs/reference, after a change of what they describe"
	@echo "make format  let ruff format the code"
	@echo "make clean   remove the environment and local data"

.venv/.ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.14 is needed and none was found on PATH; or set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[raster,geoparquet,local,docs,test]'
	@touch $@

demo: .venv/.ready
	RASTERS="$(RASTERS)" $(BIN)/coremachine demo $(DEMO)

up: .venv/.ready
	$(BIN)/coremachine up $(UP)

test: .venv/.ready
	$(BIN)/python -m pytest -n $(or $(TESTERS),auto)

test-fast: .venv/.ready
	$(BIN)/python -m pytest -n $(or $(TESTERS),auto) tests/unit

# The engine's suite where the server's default gives a transaction one snapshot: wrong answers, if it counted.
.PHONY: test-isolation
test-isolation: .venv/.ready
	for default in 'repeatable read' serializable; do \
	COREMACHINE_TEST_SETTINGS="default_transaction_isolation=$$default" \
	$(BIN)/python -m pytest -q -n $(or $(TESTERS),auto) tests/integration/engine -k 'not broker and not emulator' || exit 1; done

chaos: .venv/.ready
	SEED="$(SEED)" TASKS="$(TASKS)" MINUTES="$(MINUTES)" KEEP="$(KEEP)" $(BIN)/python -m tests.chaos

# The peers have an environment of their own, so that none of them decides about a version that CoreMachine uses.
.bench-venv/.ready: pyproject.toml bench/requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.14 is needed and none was found on PATH; or set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .bench-venv
	.bench-venv/bin/python -m pip install --quiet --upgrade pip
	.bench-venv/bin/python -m pip install --quiet --editable '.[local]' --requirement bench/requirements.txt
	@touch $@

.PHONY: bench-programs test-programs
bench-programs: PROGRAMS = redis-server wrk
test-programs: PROGRAMS = chromium pgbouncer
bench-programs test-programs:
	@for p in $(PROGRAMS); do { command -v $$p || test -x /usr/sbin/$$p; } >/dev/null && continue; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	{ apt-get -qq update && RUNLEVEL=1 apt-get -qq install -y --no-install-recommends $$p; } >/dev/null \
	|| echo "$$p could not be installed: what needs it is left out"; \
	else echo "$$p is not installed: what needs it is left out"; fi; done

# Azure Blob Storage on this machine, from npm.
test-programs: azurite
.PHONY: azurite
azurite:
	@command -v azurite-blob >/dev/null || test -x .node/node_modules/.bin/azurite-blob \
	|| { command -v npm >/dev/null && npm install --silent --no-audit --no-fund --prefix .node azurite >/dev/null; } \
	|| echo "azurite could not be installed: what needs it is left out"

bench: .bench-venv/.ready bench-programs
	.bench-venv/bin/python -m bench --repeats $(or $(REPEATS),5) $(BENCH)

bench-quick: .bench-venv/.ready
	.bench-venv/bin/python -m bench --quick

.PHONY: bench-rasters
bench-rasters: .venv/.ready
	$(BIN)/python -m bench.rasters --repeats $(or $(REPEATS),3) $(BENCH)

bench-against: .venv/.ready
	$(BIN)/python -m bench.against $(BEFORE) --repeats $(or $(REPEATS),5)

check: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The generated pages of docs/reference; a test fails while one of them is old.
.PHONY: reference
reference: .venv/.ready
	$(BIN)/python -m coremachine.reference

# Warnings are errors: a broken link, a missing anchor, a page that is not in the navigation.
.PHONY: docs
docs: .venv/.ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --clean
	@echo "read site/index.html"

format: .venv/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .bench-venv .coremachine build site *.egg-info
