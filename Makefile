# Everything sets itself up: a machine with python3 (3.11 or newer) and make is enough.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

# Some containers forbid compiled files: each process that a test starts would then compile all of src/umbel.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test cover figures picture docs soak fuzz external test-all bench bench-path bench-where \
  bench-upstream bench-policies bench-server bench-proxy bench-logs bench-supervisor bench-stalls bench-trim bench-hooks bench-compress bench-auth bench-limits bench-observe bench-console bench-entries bench-large bench-growth \
  check typecheck format clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

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

JOBS ?= 2
test: $(STAMP)  ## run all tests on two cores; JOBS=4 for more, options for pytest in ARGS
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

cover: $(STAMP)  ## run all tests under coverage and print which lines and branches they do not reach; options for pytest in ARGS
	@$(BIN)/python -m tools.cover $(ARGS)

figures: $(STAMP)  ## the figures of the structure of src/umbel, some seconds; ARGS=--json; ARGS=--coverage adds what make cover measured
	@$(BIN)/python -m tools.figures $(ARGS)

picture: $(STAMP)  ## take docs/pictures/console.png, a screenshot of the demo's console; needs chromium
	@$(BIN)/python -m tools.picture

docs: $(STAMP)  ## build the documentation site into .ext/docs/site; ARGS='serve' serves it and follows changes
	@$(BIN)/python -m tools.external docs --install-only
	@NO_MKDOCS_2_WARNING=1 .ext/docs/bin/mkdocs $(or $(ARGS),build --strict)

soak: $(STAMP) .bench/.ready  ## clients that leave, 10 GiB through a proxy route, 10,000 paced POSTs to seven servers, an hour; options in ARGS
	UMBEL_SOAK=1 $(BIN)/python -m pytest --timeout 900 tests/e2e/test_churn.py tests/e2e/upstream/test_pool_churn.py tests/e2e/upstream/calls/test_cancelled.py \
	  tests/e2e/server/hostile/test_soak.py tests/e2e/server/hostile/test_memory.py \
	  tests/e2e/gateway/proxy/test_fidelity.py tests/e2e/gateway/proxy/test_volume.py \
	  tests/e2e/gateway/proxy/test_leaving.py tests/e2e/gateway/proxy/test_drain.py \
	  tests/unit/auth/jwt/test_mutated_tokens.py tests/unit/auth/jwt/test_token_cache.py \
	  tests/process/supervisor/test_soak.py tests/process/supervisor/test_limits.py tests/process/reported/test_paced_posts.py $(ARGS)

SECONDS ?= 60
fuzz: $(STAMP)  ## hostile input for the server, made from tests/corpus; SECONDS=60 SEED=1 ARGS='--protocol http2'
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

external: $(STAMP)  ## tests with other people's programs (curl, nginx, a browser, …), installed first; ARGS='curl nginx'
	@$(BIN)/python -m tools.external $(ARGS)

test-all: $(STAMP)  ## make test, then make external with everything; the last lines say what was skipped
	$(MAKE) --no-print-directory test ARGS=
	@$(MAKE) --no-print-directory external ARGS=

bench: .bench/.ready  ## the gateway beside what people pick instead, ten minutes; ARGS=--quick for a glance
	@.bench/bin/python benchmarks/gateways.py $(ARGS)

bench-upstream: .bench/.ready  ## the HTTP client beside its peers, some minutes; ARGS=--quick for a glance
	@.bench/bin/python benchmarks/upstream.py $(ARGS)

bench-logs: .bench/.ready  ## what a record costs beside its peers, some minutes; ARGS=--quick for a glance
	@.bench/bin/python benchmarks/logs.py $(ARGS)

bench-policies: $(STAMP)  ## what each policy of a call costs, and what a call weighs; ARGS=--quick for a glance
	@$(BIN)/python benchmarks/policies.py $(ARGS)

bench-server: .bench/.ready  ## the server beside its peers, two minutes; ARGS=--quick for a glance
	@.bench/bin/python benchmarks/server.py $(ARGS)

bench-proxy: .bench/.ready  ## a proxy route beside nginx, Node and FastAPI, ten minutes; ARGS='--quick --only small'
	@.bench/bin/python -m benchmarks.proxy $(ARGS)

bench-supervisor: .bench/.ready  ## the master beside its peers, a quarter of an hour; ARGS=--quick for a glance
	@.bench/bin/python benchmarks/supervisor.py $(ARGS)

bench-stalls: $(STAMP)  ## the longest stall of the loop by hostile input, a minute; ARGS='--only sockets --json FILE'
	@$(BIN)/python -m benchmarks.stalls $(ARGS)

bench-trim: $(STAMP)  ## the memory that malloc_trim returns after a load peak, some seconds
	@$(BIN)/python -m benchmarks.trim

bench-hooks: $(STAMP)  ## what hooks of an application cost a request of a configured route, some seconds
	@$(BIN)/python benchmarks/hooks.py

bench-compress: $(STAMP)  ## what compressing a response costs and saves, some seconds
	@$(BIN)/python benchmarks/compress.py

bench-auth: $(STAMP)  ## what a token costs a route of ten calls, what verifying it costs, the memory of a million, two minutes
	@$(BIN)/python benchmarks/auth_route.py; route=$$?; $(BIN)/python benchmarks/auth.py && exit $$route

bench-limits: $(STAMP)  ## what a limit costs a request, and the memory of a million keys, a minute
	@$(BIN)/python benchmarks/limits.py

bench-where: .bench/.ready  ## where a request's microseconds go, five minutes; ARGS='--quick --functions 20 --only proxy'
	@.bench/bin/python benchmarks/where.py $(ARGS)

bench-entries: $(STAMP)  ## the functions that a request enters, by stage, some seconds; ARGS='--doc docs/performance.md'
	@$(BIN)/python -m benchmarks.entries $(ARGS)

bench-large: .bench/.ready  ## bodies of 10 and 100 KiB beside FastAPI with aiohttp, and the cost of checking JSON, three minutes; ARGS='--only check'
	@.bench/bin/python benchmarks/large.py $(ARGS)

bench-growth: .bench/.ready  ## cost against size: clients, routes, upstreams, calls, header fields, five minutes; ARGS='--quick --only calls'
	@.bench/bin/python benchmarks/growth.py $(ARGS)

bench-path: .bench/.ready  ## own time, kinds of calls, workers, memory, tail beside their bars, a quarter of an hour; ARGS='--quick --only tail'
	@.bench/bin/python benchmarks/path.py $(ARGS)

bench-observe: .bench/.ready  ## what counting and a scrape cost beside their bars, some minutes; ARGS='--quick --only counting'
	@.bench/bin/python benchmarks/observe.py $(ARGS)

bench-console: $(STAMP)  ## how long a tree of 10,000 tasks holds the event loop, and what an open page costs, a minute; ARGS=--quick
	@$(BIN)/python -m benchmarks.console $(ARGS)

# The peers live apart, so that nothing of theirs is ever there when Umbel runs.
.bench/.ready: pyproject.toml constraints.txt benchmarks/requirements.txt
	@test -x .bench/bin/pip || "$(PYTHON)" -m venv .bench
	@echo "umbel: installing what is compared into .bench (once) ..."
	@.bench/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -r benchmarks/requirements.txt -e .
	@touch $@

check: $(STAMP)  ## lint, types, import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@$(MAKE) --no-print-directory typecheck
	$(BIN)/python -m pytest -q -p no:randomly tests/unit/test_imports.py

typecheck:  ## types alone, with the .venv that is there
	$(BIN)/mypy

format: $(STAMP)  ## put the code into the one form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove what make built
	rm -rf .venv .bench .cover .ext benchmarks/peers/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
