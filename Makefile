# Two commands: `make demo` and `make test`. Both need python3 with pip, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help demo test check pytest soak bench bench-schedules bench-reminders bench-progress install requirements clean

help:  ## what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.run  ## a fresh machine to a running platform with data, live (ARGS="--for 60s")
	@$(BIN)/kitaab-jobs demo $(ARGS)

test: $(VENV)/.dev check pytest  ## a fresh machine to a green test run

install: $(VENV)/.dev  ## the virtual environment with everything that tests need

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

pytest: $(VENV)/.dev
	$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

soak: $(VENV)/.dev  ## the fault tests in their long form, with their figures (about half an hour)
	KITAAB_TEST_SOAK=1 $(BIN)/pytest tests/faults -n 0 -s -p no:randomly $(ARGS)

bench: $(VENV)/.run  ## measure beside other job systems, on a quiet machine (ARGS="--quick"; benchmarks/README.md)
	@$(BIN)/python -m benchmarks.jobs $(ARGS)

bench-schedules: $(VENV)/.run  ## measure the scheduler beside celery beat and celery-redbeat (benchmarks/README.md)
	@$(BIN)/python -m benchmarks.schedules $(ARGS)

bench-reminders: $(VENV)/.run  ## measure the dispatch of a million reminders (ARGS="--quick"; benchmarks/README.md)
	@$(BIN)/python -m benchmarks.reminders $(ARGS)

bench-progress: $(VENV)/.run  ## measure progress over 10,000,000 entries (about ten minutes; ARGS="--quick")
	@$(BIN)/python -m benchmarks.progress $(ARGS)

# The virtual environment has no pip of its own: the system's pip installs into it, which works where
# Debian has no ensurepip and calls its own environment externally managed.
$(VENV)/bin/python:
	$(PYTHON) -m venv --without-pip $(VENV)

$(VENV)/.run: requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) ..."
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	@echo "Installing the test tools into $(VENV) ..."
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

requirements: | $(VENV)/bin/python  ## write the hashed requirement files anew from pyproject.toml
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile pyproject.toml --extra embedded --extra build --extra dev --universal --generate-hashes --no-emit-index-url -q --custom-compile-command "make requirements" -o requirements-dev.txt
	$(BIN)/uv pip compile pyproject.toml --extra embedded --extra build --universal --generate-hashes --no-emit-index-url -q --custom-compile-command "make requirements" -c requirements-dev.txt -o requirements.txt

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
