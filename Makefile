# A fresh clone needs Python 3.10 or newer, cargo, make and a C compiler; the rest is set up here.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
QUESTION ?= Why is the sky blue?

# The Rust tests and the module that the Python tests import share their artefacts, which takes one
# interpreter and one way of linking for both.
export PYO3_PYTHON := $(abspath $(BIN)/python)
export PYO3_BUILD_EXTENSION_MODULE := 1
export VIRTUAL_ENV := $(abspath $(VENV))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport CONDA_PREFIX

.PHONY: demo test test-rust test-python lint build release clean

# Sets everything up and lets a real model answer a question.
demo: release
	@echo
	@echo "> $(QUESTION)"
	@$(BIN)/alloyforge chat smollm2-135m --prompt "$(QUESTION)" --temperature 0 --max-tokens 200 --stats

test: lint test-rust test-python

# Formatting, lints, types, and the documentation's links.
lint: build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest alloyforge._native

test-rust: $(READY)
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace; \
	else cargo test --workspace --lib --bins --tests; fi
	cargo test --workspace --doc

test-python: build
	$(BIN)/python -m pytest

# The module for development, in the profile of the Rust tests.
build: $(READY)
	$(BIN)/maturin develop --quiet

# The module as it is shipped.
release: $(READY)
	$(BIN)/maturin develop --release

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group checks
	touch $@

clean:
	rm -rf $(VENV) target dist
