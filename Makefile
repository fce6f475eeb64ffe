.DEFAULT_GOAL := help
.PHONY: help test fast lint types format quickstart wheel results docs

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: ## the whole test suite, in .venv
	@scripts/test

fast: ## the tests that start no program of their own
	@scripts/test -m "not slow"

lint: ## ruff
	@.venv/bin/python -m ruff check . && .venv/bin/python -m ruff format --check .

types: ## mypy
	@.venv/bin/python -m mypy

format: ## ruff's formatter
	@.venv/bin/python -m ruff check --fix . && .venv/bin/python -m ruff format .

quickstart: ## the main job on the embedded digits
	@scripts/quickstart

wheel: ## dist/*.whl
	@.venv/bin/python -m build --wheel

results: ## the tables of docs/results that a laptop can make
	@.venv/bin/python scripts/results.py

docs: ## the documentation site: docs/_build/index.html
	@.venv/bin/python -m sphinx -q -W --keep-going docs docs/_build
