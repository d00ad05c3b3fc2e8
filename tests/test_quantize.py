"""Models written in other types, and loaded in them."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest

import alloyforge as af

COMMAND = str(pathlib.Path(sys.executable).with_name("alloyforge"))


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def run(*arguments: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "quantize", *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )


def test_a_model_written_and_run(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    target = tmp_path / "small.gguf"
    told: list[float] = []
    written = af.quantize_model(smollm2, target, type="Q8_0", progress=told.append)
    assert (written.file_type, written.tensors, written.fallbacks) == ("q8_0", 272, 0)
    # the head is q8_0 already
    assert written.converted == written.requantized == 210
    found = af.inspect(target)
    assert found.tensor_bytes == written.bytes
    assert found.chat_template == af.inspect(smollm2).chat_template
    assert told == sorted(told)
    with af.Session(target, threads=1) as session, af.Session(smollm2, threads=1) as before:
        assert session.info.file_type == "q8_0"
        text = "The capital of France is"
        assert session.tokenize(text) == before.tokenize(text)
        assert " Paris" in session.generate(text, temperature=0, max_tokens=8).text
        ours, theirs = log_softmax(session.logits(text)), log_softmax(before.logits(text))
    # eight bits lose next to nothing: the mean KL divergence over a long text is 0.005
    assert (np.exp(theirs) * (theirs - ours)).sum(-1).mean() < 0.05


def test_quantising_at_load_is_quantising_a_file(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    target = tmp_path / "mixed.gguf"
    af.quantize_model(smollm2, target, type="q4_k_m")
    with af.Session(target, threads=1) as session:
        expected = session.logits("One, two, three")
    with af.Session(smollm2, threads=1, quantize="q4_k_m") as session:
        np.testing.assert_array_equal(session.logits("One, two, three"), expected)


def test_the_command(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    target = tmp_path / "small.gguf"
    done = run(smollm2, target, "--type", "int8", "--threads", "1")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{target}: q8_0, 143.0 MB of 272 tensors")
    assert "had been quantised before" in done.stderr
    before = target.read_bytes()
    done = run(target, target, "--type", "q4_0")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is the source itself" in done.stderr
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["small.gguf"]


@pytest.mark.parametrize(
    ("source", "kind", "error", "said"),
    [
        ("smollm2", "q9", af.InvalidRequestError, "`q9` is none of f32"),
        ("smollm2", "iq2_xs", af.InvalidRequestError, "none of"),
        ("nowhere.gguf", "q8_0", FileNotFoundError, "nowhere.gguf"),
        ("garbage.gguf", "q8_0", af.ModelFormatError, "garbage.gguf"),
    ],
)
def test_faults(
    smollm2: pathlib.Path,
    tmp_path: pathlib.Path,
    source: str,
    kind: str,
    error: type[Exception],
    said: str,
) -> None:
    (tmp_path / "garbage.gguf").write_bytes(b"GGUF\x03\x00\x00\x00\xff\xff")
    path = smollm2 if source == "smollm2" else tmp_path / source
    with pytest.raises(error, match=said):
        af.quantize_model(path, tmp_path / "out.gguf", type=kind)
    assert not (tmp_path / "out.gguf").exists()


def test_a_folder_is_refused(tiny_path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(af.UnsupportedModelError, match="writing a folder to a GGUF file"):
        af.quantize_model(tiny_path, tmp_path / "out.gguf", type="q8_0")
