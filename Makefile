# `make help` lists the targets. GNU make 3.81 (macOS) is enough.

.DEFAULT_GOAL := help

# The interpreter of .venv, which is the default one: `make setup PYTHON=python3.11` chooses, else it is the newest found.
# The choice stays until the next one or `make clean`, and spares every later run the search.
PYTHON ?= $(shell cat .venv/made-with 2>/dev/null || scripts/pythons | tail -n 1)
# How many runs `make test` has side by side: one more than most machines have cores for, since many tests wait.
JOBS ?= 3
# Passed on to pytest or the benchmark: `make test ARGS="tests/unit -k retry"`.
ARGS ?=

BIN := .venv/bin

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Make .venv with everything for development (instant if nothing changed)
	@scripts/venv "$(PYTHON)" .venv dev

.PHONY: demo
demo: ## Run an order saga, with the runtime dependencies only
	@scripts/venv "$(PYTHON)" .venvs/demo
	@.venvs/demo/bin/python -m examples.order_saga

.PHONY: test
test: lint types ## Check everything: lint and types once, then the tests on every Python found
	@scripts/programs
	@$(BIN)/python scripts/test_matrix.py "$(PYTHON)" $(JOBS) $(ARGS)

.PHONY: lint
lint: setup ## Check style (ruff) and import contracts (import-linter)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo

.PHONY: types
types: setup ## Check types (pyright strict)
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

.PHONY: format
format: setup ## Format the code and apply safe fixes
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: soak
soak: setup ## Run the tests that take minutes
	@DURABLY_SOAK=1 $(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS) tests

.PHONY: bench
bench: setup ## Measure speed
	@$(BIN)/python -m bench $(ARGS)

.PHONY: clean
clean: ## Remove everything that make has made
	@rm -rf .venv .venvs .hypothesis .pytest_cache .ruff_cache .import_linter_cache build dist
	@find src tests scripts examples bench -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
