# `make demo` and `make test` do all their own set-up: they need python3 (3.11 or newer) with pip, and nothing else.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

export UV_PYTHON_DOWNLOADS := never
# once, not at each start of a process
export UV_COMPILE_BYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint types check bench chaos siege soak fuzz audit lock clean

help:
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1#\2/p' Makefile | while IFS='#' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

demo: .venv/.runtime  ## start a cluster with a chat for the browser; Ctrl-C ends it
	@echo "Starting a chat; open its pages in a browser, best in two windows. Ctrl-C ends it."
	@$(BIN)/gatecrew start -c examples/chat/gatecrew.toml $(ARGS)

test: .venv/.development  ## run the tests; ARGS="-k lane" runs some of them
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/.development  ## check style, format, who may import whom, and the lock file
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/uv lock --check

types: .venv/.development  ## check the types of everything
	$(BIN)/mypy

check: lint types test  ## all that CI does

bench: .venv/.development  ## measure against a bare server; needs a C compiler
	$(BIN)/python benchmarks/bench.py $(ARGS)

siege: .venv/.development  ## let strangers do their worst to a cluster beside honest clients; ARGS="--seconds 60" is shorter
	$(BIN)/python -m gatecrew.benchmarks.siege $(ARGS)

chaos: .venv/.development  ## break a cluster under load, again and again; ARGS="--only reloads --count 9" is a part
	$(BIN)/python -m gatecrew.benchmarks.chaos $(ARGS)

soak: .venv/.development  ## simulate clusters under faults, each from a new seed; ARGS="--seconds 3600" for an hour
	$(BIN)/python -m gatecrew.tests.sim.soak $(ARGS)

fuzz: .venv/.development-fuzz  ## look for inputs that break what reads them, a minute for each; ARGS="600 frame" is ten for one
	$(BIN)/python tests/fuzz $(ARGS)

audit: .venv/.development-audit  ## look up what is known against the dependencies, in PyPI's list; ARGS="-s osv" in another one
	@$(BIN)/uv export --quiet --frozen --no-emit-project --all-extras --all-groups --output-file .venv/requirements.txt
	$(BIN)/pip-audit -r .venv/requirements.txt --disable-pip --strict $(ARGS)

lock: .venv/bin/uv  ## write uv.lock anew after a change of the dependencies in pyproject.toml
	$(BIN)/uv lock

clean:  ## remove all that make and the tools made
	rm -rf .venv build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Tools that only one target needs.
.venv/.development-%: uv.lock | .venv/.development
	@$(call install,--group $*)
	@touch $@

# pip of python3 puts uv into the environment, so that venv need not find a pip of its own (Debian keeps that one apart).
.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Gatecrew needs Python 3.11 or newer as $(PYTHON); name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { \
		echo "$(PYTHON) has no pip; on Debian and Ubuntu: apt-get install python3-pip" >&2; exit 1; }
	@$(PYTHON) -m venv --without-pip .venv
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet uv

# What the lock file names, by uv; where only pip is set up to reach the packages (a mirror, a proxy), by pip.
install = $(BIN)/uv sync --quiet --frozen --inexact $(1) || { \
	$(BIN)/uv export --quiet --frozen --no-emit-project $(1) --output-file .venv/requirements.txt && \
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --requirement .venv/requirements.txt && \
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --no-deps --editable . ; }

.venv/.runtime: pyproject.toml uv.lock | .venv/bin/uv
	@echo "Installing into .venv ..."
	@$(call install,--no-dev)
	@touch $@

.venv/.development: pyproject.toml uv.lock | .venv/bin/uv
	@echo "Installing into .venv, with the tools ..."
	@$(call install,)
	@mkdir -p .venv/src && ln -sfn ../.. .venv/src/gatecrew
	@touch .venv/.runtime $@
