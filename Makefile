# make install | demo | test | test-all | lint | types | docs | format | clean
# These targets install everything into .venv and change nothing else on the machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= demo
# pytest-xdist's processes. A file's tests stay in one of them, which keeps the runs and folders that they share; files
# start in the order of tests/conftest.py.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: install demo test test-all lint types docs format clean

install: $(STAMP)

$(STAMP): setup.py constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) else f"Python {v[0]}.{v[1]} found; 3.10 to 3.12 is needed (mediapipe 0.10.21): make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=23.2' 'setuptools>=77' wheel
	$(BIN)/python -m pip install --quiet --no-build-isolation -e '.[test,dev,docs]' -c constraints.txt
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/dfdc-video demo --out $(DEMO) --open

test: lint types docs
	$(PYTEST) -m "not slow"

test-all: lint types docs
	$(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf docs/_build docs/_generated build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
