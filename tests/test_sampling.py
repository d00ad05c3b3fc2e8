"""Sampling parameters: their names, their ranges, and the distribution that they make."""

from __future__ import annotations

import math
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import alloyforge as af

FOUR = np.log(np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32))

# One value of each that is in range, and some that are not.
PARAMETERS: dict[str, tuple[Any, list[Any]]] = {
    "max_tokens": (3, [0, -1, 1.5, "three"]),
    "temperature": (0.7, [-0.1, math.nan, math.inf, 1e39, "hot", [1.0]]),
    "top_k": (5, [-1, 2.5, "all"]),
    "top_p": (0.9, [-0.1, 1.1, math.nan, "most"]),
    "min_p": (0.05, [-0.1, math.nan]),
    "typical_p": (0.9, [-0.1, 1.1]),
    "top_n_sigma": (1.5, [math.inf, math.nan]),
    "xtc_probability": (0.5, [-0.1, 1.1]),
    "xtc_threshold": (0.1, [-0.1, 1.1]),
    "mirostat": (True, [1, 3, "yes", {"rho": 1.0}, (1.0, 2.0, 3.0)]),
    "mirostat_tau": (3.0, ["much"]),
    "mirostat_eta": (0.2, ["slow"]),
    "repetition_penalty": (1.2, [0.0, -1.0, math.inf]),
    "frequency_penalty": (0.5, [math.nan, "none"]),
    "presence_penalty": (-0.5, [math.inf, "none"]),
    "dry_multiplier": (0.8, [-1.0]),
    "dry_base": (1.75, [0.5]),
    "dry_allowed_length": (2, [-1, 1.5]),
    "dry_sequence_breakers": (["\n"], ["\n", 3, [3.5]]),
    "logit_bias": ({5: -1.0}, [{-1: 1.0}, {10**9: 1.0}, {5: math.nan}, {"a": 1.0}, [5]]),
    "seed": (7, [-1, 2**64, 1.5]),
    "n": (2, [0, -1, 1.5]),
    "stop": (["\n\n"], ["", [""], 3, [3]]),
    "stop_tokens": ([2], [[-1], [10**9], "2", 2]),
    "ignore_eos": (True, ["yes", 2]),
    "logprobs": (2, [-1, 10**9, "all"]),
    "priority": ("high", ["urgent", 3]),
    "timeout": (60.0, [0, -1.0, math.nan, math.inf, "soon"]),
}


def test_the_table_is_whole() -> None:
    # forms of answers are in test_forms
    assert {*PARAMETERS, "schema", "regex", "grammar"} == set(get_type_hints(af.Sampling))


@pytest.mark.parametrize("name", PARAMETERS)
def test_in_range(shared: af.Session, name: str) -> None:
    value, _ = PARAMETERS[name]
    options: Any = {"max_tokens": 2, name: value}
    assert shared.generate([10, 11, 12], **options).usage.completion_tokens >= 1
    options[name] = None
    assert shared.generate([10, 11, 12], **{**options, "timeout": 60}).finish_reason in ("stop", "length")


@pytest.mark.parametrize(
    ("name", "value"), [(name, bad) for name, (_, many) in PARAMETERS.items() for bad in many]
)
def test_out_of_range(shared: af.Session, name: str, value: Any) -> None:
    options: Any = {
        "max_tokens": 2,
        "mirostat": name.startswith("mirostat_"),
        "dry_multiplier": 1.0,
        name: value,
    }
    with pytest.raises(af.InvalidRequestError) as caught:
        shared.generate([10, 11, 12], **options)
    assert isinstance(caught.value, ValueError)
    assert caught.value.name == name
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize("value", [3, None])
def test_an_unknown_name(shared: af.Session, value: Any) -> None:
    options: Any = {"top_kk": value}
    for call in (shared.generate, shared.stream):
        with pytest.raises(TypeError, match="unknown sampling parameter `top_kk`"):
            call([10, 11, 12], **options)
    with pytest.raises(TypeError, match="top_kk"):
        af.probabilities(FOUR, **options)


CASES: list[tuple[dict[str, Any], list[float]]] = [
    ({}, [0.1, 0.2, 0.3, 0.4]),
    ({"temperature": 0}, [0, 0, 0, 1]),
    ({"temperature": 0.5}, [1 / 30, 4 / 30, 9 / 30, 16 / 30]),
    ({"top_k": 3}, [0, 2 / 9, 3 / 9, 4 / 9]),
    ({"top_p": 0}, [0, 0, 0, 1]),
    ({"top_p": 0.7}, [0, 0, 3 / 7, 4 / 7]),
    ({"min_p": 0.74}, [0, 0, 3 / 7, 4 / 7]),
    ({"logit_bias": {0: math.log(4)}}, [4 / 13, 2 / 13, 3 / 13, 4 / 13]),
    ({"logit_bias": {3: -math.inf}}, [1 / 6, 2 / 6, 3 / 6, 0]),
    ({"top_k": 3, "temperature": 0.5}, [0, 4 / 29, 9 / 29, 16 / 29]),
]


@pytest.mark.parametrize(("options", "want"), CASES)
def test_probabilities(options: dict[str, Any], want: list[float]) -> None:
    got = af.probabilities(FOUR, **options)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_probabilities_with_history() -> None:
    even = np.zeros(5, dtype=np.float32)
    np.testing.assert_allclose(
        af.probabilities(even, tokens=[0], frequency_penalty=5.0, presence_penalty=5.0),
        [1.1e-5, 0.249997, 0.249997, 0.249997, 0.249997],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        af.probabilities(
            even, tokens=[0, 1, 2, 0, 1], dry_multiplier=2.0, dry_base=1.1, dry_sequence_breakers=[]
        ),
        [0.241818, 0.241818, 0.032727, 0.241818, 0.241818],
        atol=1e-5,
    )


def test_mirostat_in_all_its_forms() -> None:
    forms: list[Any] = [True, 2, (5.0, 0.1), {"tau": 5.0}, {"tau": 5.0, "eta": 0.1}]
    first, *others = [af.probabilities(FOUR, mirostat=form) for form in forms]
    assert all(np.array_equal(first, other) for other in others)
    for off in (False, 0, None):
        np.testing.assert_allclose(af.probabilities(FOUR, mirostat=off), np.exp(FOUR), atol=1e-6)


def test_logits_of_any_type() -> None:
    want = af.probabilities(FOUR)
    for logits in (
        FOUR.tolist(),
        FOUR.astype(np.float64),
        FOUR.astype(np.float16),
        np.stack([FOUR, FOUR])[:, ::1][0],
    ):
        np.testing.assert_allclose(af.probabilities(logits), want, atol=1e-3)


def test_logits_that_are_not_numbers() -> None:
    with pytest.raises(af.InternalError, match="NaN"):
        af.probabilities([0.0, math.nan])


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=50),
    temperature=st.floats(0.1, 5),
    top_k=st.integers(0, 60),
    top_p=st.floats(0, 1),
)
def test_a_distribution(logits: list[float], temperature: float, top_k: int, top_p: float) -> None:
    got = af.probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    assert got.sum() == pytest.approx(1, abs=1e-5)
    assert got.min() >= 0
    assert (got > 0).sum() <= (top_k or len(logits))
    # what is kept is never less probable than what is dropped
    kept, dropped = np.array(logits)[got > 0], np.array(logits)[got == 0]
    assert not len(dropped) or kept.min() >= dropped.max() - 1e-4 or temperature < 0.5
