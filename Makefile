# `make demo` and `make test` set themselves up in .venv on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := ltxbuild runtime cache tests bench

.PHONY: demo test test-all lint bench clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.build: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[build]'
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.build
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps ltx-core==1.0.0
	@touch $@

# A video with sound from nothing: tiny checkpoint, compile, generate.
demo: $(VENV)/.build
	$(BIN)/ltxbuild make-tiny-checkpoint demo/checkpoint
	$(BIN)/ltxbuild compile recipes/cpu_tiny.yaml
	$(BIN)/ltx-run cpu-tiny --prompt "a red ball rolls to the left while a tone rises" -o demo/out.mp4
	@echo "the video is at $(CURDIR)/demo/out.mp4"

lint: $(VENV)/.test
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -m "not slow" -n 2 --dist loadgroup

test-all: lint
	$(BIN)/pytest -n 2 --dist loadgroup

bench: $(VENV)/.test
	$(BIN)/python bench/run.py

clean:
	rm -rf $(VENV) demo build *.egg-info
