# The README's commands. Each sets everything up by itself: needs Python 3.11 or newer with pip.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The S3 server of the tests, in an environment of its own. Linux only: elsewhere its tests are skipped and say so.
SWIFT := $(if $(filter Linux,$(shell uname -s)),$(VENV)/.swift/.ready)

.PHONY: demo test test-long test-slow soak check format docs benchmark clean

demo: $(READY)
	$(BIN)/simswap demo

test: $(READY) $(SWIFT)
	$(BIN)/python -m pytest -m "not long and not slow and not gpu"

test-long: $(READY) $(SWIFT)
	$(BIN)/python -m pytest -m long $(LONG)

test-slow: $(READY) $(SWIFT)
	$(BIN)/python -m pytest -m slow

soak: $(READY) $(SWIFT)
	$(BIN)/python -m tests.faults.soak $(SOAK)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .
	$(BIN)/shellcheck .ci/run
	$(BIN)/hadolint cluster/image/Dockerfile

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python -m jobs.settings_page > docs/settings.md

benchmark: $(READY)
	$(BIN)/python benchmarks/stages.py
	$(BIN)/python -m benchmarks.video

clean:
	rm -rf $(VENV) demo-output

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,export]'
	touch $(READY)

$(VENV)/.swift/.ready: tests/swift-requirements.txt | $(READY)
	$(PYTHON) -m venv $(VENV)/.swift
	$(VENV)/.swift/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --requirement tests/swift-requirements.txt
	touch $@
