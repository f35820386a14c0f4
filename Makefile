# Scanfleet: `make run` runs the main job once, start to finish, on this machine. `make help` lists the rest.

PYTHON ?= python3
AGENTS ?= 2
PORT   ?= 8080
SINCE  ?= 15m
STAGE  ?= dev
BASE   ?= origin/main

BIN    := .venv/bin
PYTEST := $(BIN)/python -m pytest
# One process more than needed costs a second emulator, so: never more than four.
JOBS   ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ "$$n" -lt 4 ] && echo "$$n" || echo 4)
# JOBS given by the caller means the campaign's jobs there.
FAULT_JOBS := $(if $(filter file,$(origin JOBS)),1000,$(JOBS))
SEED   ?= 7
# Tests that need the same costly fixture stay in one process (tests/conftest.py groups them).
SPREAD := -n $(JOBS) --dist loadgroup
CODE   := app.py cdk stacks runtime scripts tests $(wildcard benchmarks)
CDK    := PATH="$(CURDIR)/$(BIN):$$PATH" node_modules/.bin/cdk

.DEFAULT_GOAL := help
.PHONY: help setup setup-checks run up test test-fast test-system test-browser check lint types synth diff snapshots dashboards faults bench deploy fmt clean

help: ## List these commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## Install everything into this folder; quick when nothing changed
	@$(PYTHON) scripts/bootstrap.py

setup-checks: ## The same, and the checkers of templates and policies that tests use
	@$(PYTHON) scripts/bootstrap.py --checks

run: setup ## The main job once, from scans to result (SCANS=folder takes your own)
	@exec $(BIN)/python -m scanfleet.local run $(if $(SCANS),--scans "$(SCANS)")

up: setup ## The whole system, until Ctrl-C (AGENTS=2 PORT=8080)
	@exec $(BIN)/python -m scanfleet.local up --agents $(AGENTS) --port $(PORT)

test: test-fast test-system test-browser ## Every test

test-fast: setup-checks ## Unit and synth tests
	@$(PYTEST) -q $(SPREAD) tests/unit tests/synth

test-system: setup ## Tests with real processes and the emulator
	@$(PYTEST) -q $(SPREAD) --ignore=tests/unit --ignore=tests/synth --ignore=tests/browser tests

test-browser: setup ## The console in a headless Chromium; pictures of every view in build/screenshots
	@$(PYTEST) -q tests/browser

check: lint types synth test-fast ## What CI asks: format, lint, types, a fully validated synth, unit and synth tests

lint: setup ## Format and lint, changing nothing
	@$(BIN)/ruff format --check -q $(CODE)
	@$(BIN)/ruff check -q $(CODE)

types: setup ## Strict types; the agent's as Windows sees them, too
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/mypy --no-error-summary --platform win32 runtime/scanfleet/agent runtime/scanfleet/processors
	@$(BIN)/python scripts/build_console.py --check

synth: setup ## Templates into cdk.out, with every validation on (STAGE=dev)
	@$(CDK) synth --quiet -c stage=$(STAGE)

diff: setup ## What this checkout does to the templates of another commit (BASE=origin/main STAGE=dev)
	@exec $(BIN)/python scripts/template_diff.py --base "$(BASE)" --stage $(STAGE) $(if $(REPORT),--report "$(REPORT)")

snapshots: setup ## Write the templates that reviewers read, and the table of seeded faults
	@PATH="$(CURDIR)/$(BIN):$$PATH" CDK_VALIDATION=false $(BIN)/python -m tests.support.snapshots

deploy: setup ## Deploy to AWS with the credentials of this shell (STAGE=dev APPROVAL=never asks nothing)
	@$(CDK) deploy --all -c stage=$(STAGE) $(if $(APPROVAL),--require-approval $(APPROVAL))

dashboards: setup ## Pictures of the dashboards, with what a running `make up` has measured (SINCE=15m)
	@CDK_VALIDATION=false $(CDK) synth --quiet -c stage=local --output build/cdk/dashboards
	@$(BIN)/scanfleet dashboard render --stage local --assembly build/cdk/dashboards --since $(SINCE)

faults: setup ## Real agents while everything around them fails (JOBS=1000 SEED=7; BROKEN=fencing must fail)
	@exec $(BIN)/python -m tests.faults --jobs $(FAULT_JOBS) --seed $(SEED) $(if $(BROKEN),--broken $(BROKEN))

bench: setup ## Benchmarks against named peers (ONLY=name runs one)
	@exec $(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

fmt: setup ## Format and fix what can be fixed
	@$(BIN)/ruff format -q $(CODE)
	@$(BIN)/ruff check -q --fix $(CODE)

clean: ## Remove what was built and the local mode's state; the installed packages stay
	@rm -rf build cdk.out .scanfleet .pytest_cache .mypy_cache .ruff_cache
