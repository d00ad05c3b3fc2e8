"""`af.dequantize` and `af.quantize`: block types as numbers, and numbers as blocks."""

from __future__ import annotations

import numpy as np
import pytest

import alloyforge as af


def test_plain_types() -> None:
    numbers = np.array([0.0, -1.5, 3.25, 65504.0], dtype=np.float32)
    np.testing.assert_array_equal(af.dequantize(numbers.tobytes(), "f32"), numbers)
    np.testing.assert_array_equal(af.dequantize(numbers.astype(np.float16).tobytes(), "f16"), numbers)
    half = (numbers[:3].view(np.uint32) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(af.dequantize(half.tobytes(), "bf16"), numbers[:3])


def test_q8_0() -> None:
    scale = np.float16(0.5)
    values = np.arange(-16, 16, dtype=np.int8)
    got = af.dequantize(scale.tobytes() + values.tobytes(), "q8_0")
    np.testing.assert_array_equal(got, values.astype(np.float32) * 0.5)
    assert got.dtype == np.float32


@pytest.mark.parametrize(
    ("kind", "worst"),
    [
        ("f32", 0.0),
        ("f16", 1e-3),
        ("bf16", 1e-2),
        ("q8_0", 0.02),
        ("q6_k", 0.08),
        ("q4_k", 0.3),
        ("q4_0", 0.4),
    ],
)
def test_there_and_back(kind: str, worst: float) -> None:
    numbers = np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32)
    data = af.quantize(numbers, kind)
    assert isinstance(data, bytes)
    assert np.abs(af.dequantize(data, kind).reshape(3, 512) - numbers).max() <= worst
    # what was read from blocks fits them again
    assert (
        af.quantize(af.dequantize(data, "f32") if kind == "f32" else numbers.astype(np.float64), kind) == data
    )


def test_what_cannot_be_written() -> None:
    with pytest.raises(af.InvalidRequestError, match="array: rows of 33 numbers"):
        af.quantize(np.zeros((2, 33), dtype=np.float32), "q8_0")
    with pytest.raises(af.InvalidRequestError, match="type: iq2_xs can be read but not written"):
        af.quantize(np.zeros(256, dtype=np.float32), "iq2_xs")


def test_faults() -> None:
    assert af.dequantize(b"", "q4_k").shape == (0,)
    with pytest.raises(af.InvalidRequestError, match="data: 35 bytes are no whole blocks of 34 bytes"):
        af.dequantize(bytes(35), "q8_0")
    with pytest.raises(af.InvalidRequestError, match="type: `q9` is none of f32"):
        af.dequantize(b"", "q9")
    with pytest.raises(TypeError):
        af.dequantize("text", "q8_0")  # type: ignore[arg-type]
