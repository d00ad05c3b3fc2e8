# A fresh clone needs Python 3.10 or newer, cargo, make and a C compiler; the rest is set up here.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
QUESTION ?= Why is the sky blue?
# With the module beside it, so that the other crates have the features that they were built with.
FAULTS := -p alloyforge-engine -p alloyforge-python --features alloyforge-engine/inject-faults --test faults

# The Rust tests and the module that the Python tests import share their artefacts, which takes one
# interpreter and one way of linking for both.
export PYO3_PYTHON := $(abspath $(BIN)/python)
export PYO3_BUILD_EXTENSION_MODULE := 1
export VIRTUAL_ENV := $(abspath $(VENV))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport CONDA_PREFIX

.PHONY: demo test test-rust test-python lint lint-cuda build release cuda clean

# Sets everything up and lets a real model answer a question.
demo: release
	@echo
	@echo "> $(QUESTION)"
	@$(BIN)/alloyforge chat smollm2-135m --prompt "$(QUESTION)" --temperature 0 --max-tokens 200 --stats

test: lint lint-cuda test-rust test-python

# Formatting, lints, types, and the documentation's links.
lint: build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy $(FAULTS) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest alloyforge._native

# The code behind `cuda` and `flash-attn`, with our kernels compiled and without Candle's: see tools/nvcc-types.
lint-cuda: $(READY)
ifeq ($(shell uname -s),Linux)
	CUDA_HOME="$$($(BIN)/python tools/cuda_toolkit.py)" NVCC="$(CURDIR)/tools/nvcc-types" \
	cargo clippy --target-dir target/cuda-types --all-targets --features cuda,flash-attn \
	-p alloyforge-backend-candle -p alloyforge -p alloyforge-python -p alloyforge-cuda-libraries -- -D warnings
else
	@echo "the features cuda and flash-attn are for Linux"
endif

test-rust: $(READY)
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace; \
	else cargo test --workspace --lib --bins --tests; fi
	cargo test $(FAULTS)
	cargo test --workspace --doc

test-python: build
	$(BIN)/python -m pytest

# The module for development, in the profile of the Rust tests.
build: $(READY)
	$(BIN)/maturin develop --quiet

# The module as it is shipped.
release: $(READY)
	$(BIN)/maturin develop --release

# A wheel with CUDA, in dist: with the toolkit that CUDA_HOME names, else with NVIDIA's compiler from PyPI.
cuda: $(READY)
	rm -rf dist/cuda
	CUDA_HOME="$$($(BIN)/python tools/cuda_toolkit.py)" \
	$(BIN)/maturin build --release --features cuda,flash-attn --out dist/cuda
	$(BIN)/python tools/check_cuda_wheel.py dist/cuda/alloyforge-*.whl

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group checks
	touch $@

clean:
	rm -rf $(VENV) target dist .cuda
