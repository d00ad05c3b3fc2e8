"""Every text family against what transformers gives, through the public interface."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import alloyforge as af
from tests.conftest import REFERENCE

CASES = sorted(
    path.parent.name
    for path in REFERENCE.glob("*/case.json")
    if "greedy_ids" in json.loads(path.read_text()).get("expected", ())
    and not (path.parent / "media").exists()
)
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 16, "ignore_eos": True}
TOLERANCE = 5e-4


def test_all_families_are_here() -> None:
    assert len(CASES) == 14


@pytest.mark.parametrize("config", ["v4", "v5"])
@pytest.mark.parametrize("backend", ["native", "candle"])
@pytest.mark.parametrize("name", CASES)
def test_case(name: str, backend: str, config: str, tmp_path: pathlib.Path) -> None:
    folder = REFERENCE / name
    if config == "v4":
        folder = shutil.copytree(folder, tmp_path / name)
        shutil.copy(folder / "config.v4.json", folder / "config.json")
    inputs, want = load_file(folder / "inputs.safetensors"), load_file(folder / "expected.safetensors")
    with af.Session(folder, device="cpu", backend=backend, dtype="f32", kv_dtype="f32") as session:
        ids = inputs["input_ids"][0].tolist()
        logits = session.logits(ids)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, want["logits"][0], rtol=0, atol=TOLERANCE)
        assert session.generate(ids, **GREEDY).tokens == want["greedy_ids"][0].tolist()
        if "batch_greedy_ids" not in want:
            return
        rows = [
            row[mask.astype(bool)].tolist()
            for row, mask in zip(inputs["batch_input_ids"], inputs["batch_attention_mask"], strict=True)
        ]
        answers = session.generate_batch(rows, **GREEDY)
        assert [a.tokens for a in answers] == [row.tolist() for row in want["batch_greedy_ids"]]


@pytest.mark.parametrize("name", CASES)
def test_the_description(name: str) -> None:
    case = json.loads((REFERENCE / name / "case.json").read_text())
    found = af.inspect(REFERENCE / name)
    assert found.format == "safetensors"
    assert found.model is not None
    assert found.fault is None
    assert found.model.parameters == case["parameters"]
    assert found.model.vocab_size == case["expected"]["logits"][0][-1]
    assert sum(tensor.bytes for tensor in found.tensors) == found.tensor_bytes
