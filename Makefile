# `make demo` and `make test` set themselves up in .venv on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := ltxbuild runtime cache tests bench tools

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

# Videos with sound from the small trained model in demo_model/: compile, then generate.
demo: $(VENV)/.build
	@mkdir -p demo
	$(BIN)/ltxbuild compile recipes/demo_two_stage.yaml
	$(BIN)/ltx-run demo-two-stage --prompts recipes/demo_prompts.jsonl -o demo/
	@echo "Look and listen: demo/yellow-triangle.mp4 is a yellow triangle that moves right while the tone rises, and"
	@echo "each of the other three what its prompt in recipes/demo_prompts.jsonl says. The PNGs show their frames."

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
