# make demo | make test | make test-all | make lint | make docs | make clean
# Everything is installed into .venv by these targets; nothing else on the machine is changed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= demo

.PHONY: install demo test test-all lint types docs clean

install: $(STAMP)

$(STAMP): setup.py constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) else f"Python {v[0]}.{v[1]} found; 3.10 to 3.12 is needed (mediapipe 0.10.21): make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=23.2' 'setuptools>=77' wheel
	$(BIN)/python -m pip install --quiet --no-build-isolation -e '.[test,dev,docs]' -c constraints.txt
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/dfdc-video demo --out $(DEMO) --open

test: $(STAMP) lint types docs
	$(BIN)/python -m pytest -m "not slow"

test-all: $(STAMP) lint types docs
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html

clean:
	rm -rf docs/_build docs/_generated build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
