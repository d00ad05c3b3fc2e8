"""Sessions on a tiny checkpoint, and real models."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

import alloyforge as af

REFERENCE = pathlib.Path(__file__).parent / "data" / "reference"


@pytest.fixture(scope="session")
def tiny_path() -> pathlib.Path:
    """A checkpoint of 100,000 random weights: quick, and its text is noise."""
    return REFERENCE / "llama"


@pytest.fixture(scope="session")
def shared(tiny_path: pathlib.Path) -> Iterator[af.Session]:
    """One session on it for all tests that leave it as it was."""
    with af.Session(tiny_path, threads=1) as session:
        yield session


@pytest.fixture
def session(tiny_path: pathlib.Path) -> Iterator[af.Session]:
    """A session of the test's own."""
    with af.Session(tiny_path, threads=1) as session:
        yield session


@pytest.fixture(scope="session")
def smollm2() -> pathlib.Path:
    """SmolLM2-135M-Instruct in Q4_1, fetched once into the user's cache."""
    return af.find_model("smollm2-135m")


@pytest.fixture(scope="session")
def gemma3() -> pathlib.Path:
    """Gemma 3 270M in Q4_K_M, likewise."""
    return af.find_model("gemma3-270m")
