# Two commands: `make demo` and `make test`. PYTHON and TORCH may be set on the command line, such as
#   make demo TORCH="torch==2.13.0 --index-url ..."   (see docs/install.md)
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint types floors tests docs wheel clean

demo: .venv/.demo
	$(BIN)/unmix demo

test: lint types floors tests

lint: .venv/.dev
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs

types: .venv/.dev
	$(BIN)/mypy

floors: .venv/.dev
	$(BIN)/lint-imports

tests: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

docs: .venv/.docs
	$(BIN)/sphinx-build -q -W --keep-going docs docs/_build/html
	@echo "open docs/_build/html/index.html"

wheel: .venv/.dev
	$(BIN)/python -m build --wheel

.venv/.torch:
	$(PYTHON) -m venv .venv || { echo "python venv is missing; on Debian: apt-get install python3-venv"; exit 1; }
	$(PIP) $(TORCH)
	@touch $@

.venv/.demo: .venv/.torch pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e ".[demo]"
	@touch $@

.venv/.dev: .venv/.torch pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e ".[dev]"
	@touch $@

.venv/.docs: .venv/.torch pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e ".[docs]"
	@touch $@

clean:
	rm -rf .venv dist build docs/_build docs/_gallery docs/_reference .mypy_cache .ruff_cache .pytest_cache
