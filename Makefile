# Everything runs from .venv and build/; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
EXAMPLE := example_bundle/credit_scoring
DEMO := build/demo

.PHONY: help demo test lint types imports tests bench example docs clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/.demo ## build a bundle from the real MLflow store, verify it with a sandboxed re-run, render the site
	@scripts/system-packages.sh bwrap=bubblewrap git
	@$(BIN)/python scripts/demo.py $(DEMO)

test: $(VENV)/.dev lint types imports tests ## set up, lint, type-check, run every test

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

tests: $(VENV)/.dev
	@scripts/system-packages.sh bwrap=bubblewrap chromium git openssl \
		"$$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -n 1)=postgresql"
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term --cov-fail-under=95 --durations=8

bench: $(VENV)/.dev ## measure import, hashing and start-up beside their peers
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/hashing.py
	$(BIN)/python benchmarks/mlflow_import.py
	$(BIN)/python benchmarks/mlflow_rest.py
	$(BIN)/python benchmarks/build_memory.py
	$(BIN)/python benchmarks/rerun_overhead.py

example: ## train all runs of the example anew (3 minutes; rewrites the committed store)
	$(PYTHON) -m venv build/example-venv
	build/example-venv/bin/python -m pip install -q -r $(EXAMPLE)/requirements-tracking.txt
	cd $(EXAMPLE) && ../../build/example-venv/bin/python search.py --fresh

docs: $(VENV)/.dev ## write the generated parts of docs/
	$(BIN)/python scripts/generate_docs.py

clean: ## remove what was built
	rm -rf build $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q 'pip>=26.1.2'
	$(PIP) install -q -c constraints.txt -e '.[sandlock]'
	@touch $@

$(VENV)/.demo: $(VENV)/.base $(EXAMPLE)/requirements.txt
	$(PIP) install -q -c constraints.txt -r $(EXAMPLE)/requirements.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install -q -c constraints.txt --group dev
	@touch $@
