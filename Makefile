# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests mostly wait; the tests of a file share servers, so that a file stays in one process.
AT_ONCE := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo dev test test-quick faults soak bench lint format clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## Import the sample recordings, embed them through Dagster, search them
	@$(BIN)/embedding-assets demo

dev: $(READY) ## The Dagster UI on http://127.0.0.1:3000, its daemon, search on port 8080
	@$(BIN)/embedding-assets dev

test: lint ## Everything CI runs: lint, then all tests
	$(BIN)/pytest $(AT_ONCE)

test-quick: lint ## As test, without the tests that take minutes
	$(BIN)/pytest $(AT_ONCE) -m 'not slow'

SEED := 1
faults: $(READY) ## The whole table of faults, half an hour; other moments with SEED=2
	$(BIN)/pytest embedding_assets_tests/faults --faults=all --faults-seed=$(SEED) \
		--faults-report=.local/faults.md --numprocesses logical --maxprocesses 4 --dist worksteal

bench: $(READY) ## Measure speed, growth and cost beside the committed figures; half an hour
	$(BIN)/python -m benchmarks

soak: $(READY) ## An hour of everything with a kill a minute: does anything grow, is anything lost
	$(BIN)/python -m embedding_assets_tests.soak --minutes 60

lint: $(READY) ## ruff, strict types, the engine's independence of Dagster
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the virtual environment; data in .local stays
	rm -rf $(VENV)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it with PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into $(VENV), a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@
