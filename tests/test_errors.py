"""Exceptions: every error of the core has its class, and a file's faults are named."""

from __future__ import annotations

import inspect
import pathlib
import shutil

import pytest

import alloyforge as af
from alloyforge import _native, errors

SAMPLES: dict[type[Exception], tuple[str, dict[str, object]]] = {
    af.ModelFormatError: (
        "model.gguf: tensor `output.weight`: ends behind the file (at byte 96)",
        {"file": "model.gguf", "item": "tensor `output.weight`", "offset": 96},
    ),
    af.UnsupportedModelError: (
        "model.gguf: architecture `new` is not supported",
        {"file": "model.gguf", "what": "architecture `new`"},
    ),
    af.InvalidRequestError: ("top_p: must be from 0 to 1", {"name": "top_p"}),
    af.ContextLengthError: (
        "the request needs 9 tokens, the context holds 8",
        {"name": "prompt", "tokens": 9, "limit": 8},
    ),
    af.QueueFullError: ("4 requests are waiting, the queue holds 4", {"waiting": 4, "limit": 4}),
    af.RequestTimeout: ("the request did not finish within its timeout of 0.5 s", {"seconds": 0.5}),
    af.OutOfMemoryError: (
        "weights needs 2 bytes, 1 are available",
        {"what": "weights", "needed": 2, "available": 1},
    ),
    af.DeviceError: ("device `cuda`: is missing", {"device": "cuda"}),
    af.MediaError: ("images[0]: is empty", {"item": "images[0]"}),
    FileNotFoundError: ("[Errno 2] no such file: 'model.gguf'", {"filename": "model.gguf", "errno": 2}),
    af.SessionClosedError: ("the session is closed", {}),
    af.InternalError: ("internal error: a panic", {}),
}


def test_every_error_of_the_core_has_its_exception() -> None:
    samples = _native.error_samples()
    assert {type(e): str(e) for e in samples} == {kind: text for kind, (text, _) in SAMPLES.items()}
    for error in samples:
        facts = SAMPLES[type(error)][1]
        assert {name: getattr(error, name) for name in facts} == facts


def test_every_exception_is_an_alloyforge_error() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    assert all(issubclass(c, af.AlloyForgeError) for c in classes)
    assert {c.__name__ for c in classes} <= set(af.__all__)
    assert issubclass(af.InvalidRequestError, ValueError)
    assert issubclass(af.ContextLengthError, af.InvalidRequestError)


def test_a_damaged_file_names_itself(tiny_path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = shutil.copytree(tiny_path, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(af.ModelFormatError, match=r"model\.safetensors") as caught:
        af.Session(folder)
    assert caught.value.file.endswith("model.safetensors")
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"GGUF\x03\x00\x00\x00\xff\xff")
    for opener in (af.Session, af.Tokenizer, af.inspect):
        with pytest.raises(af.ModelFormatError, match=r"garbage\.gguf"):
            opener(garbage)


def test_an_unknown_architecture_is_named(tiny_path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = shutil.copytree(tiny_path, tmp_path / "model")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"mamba"').replace("LlamaFor", "MambaFor"))
    with pytest.raises(af.UnsupportedModelError, match=r"[Mm]amba"):
        af.Session(folder)
    assert "amba" in (af.inspect(folder).fault or "")
