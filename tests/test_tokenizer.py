"""`af.Tokenizer`: text to tokens and back."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import alloyforge as af
from tests.conftest import REFERENCE

TOKENIZER = af.Tokenizer(REFERENCE / "llama" / "tokenizer.json")


def test_a_folder_or_its_file(tiny_path: pathlib.Path) -> None:
    folder, file = af.Tokenizer(tiny_path), af.Tokenizer(str(tiny_path / "tokenizer.json"))
    text = "The river, the lantern."
    assert folder.encode(text, add_bos=False) == file.encode(text, add_bos=False)
    assert folder.vocab_size == file.vocab_size == 320


def test_special_tokens() -> None:
    assert TOKENIZER.encode("a</s>", add_bos=False)[-1] == 2
    literal = TOKENIZER.encode("a</s>", special=False, add_bos=False)
    assert 2 not in literal
    assert TOKENIZER.decode(literal) == "a</s>"
    assert TOKENIZER.decode([*TOKENIZER.encode("a", add_bos=False), 2]) == "a</s>"
    assert TOKENIZER.decode([*TOKENIZER.encode("a", add_bos=False), 2], skip_special=True) == "a"


def test_bos(tiny_path: pathlib.Path) -> None:
    tokenizer = af.Tokenizer(tiny_path)
    plain = tokenizer.encode("hi", add_bos=False)
    assert tokenizer.encode("hi", add_bos=True) == [1, *plain]
    assert tokenizer.encode("<s>hi", add_bos=True) == [1, *plain]
    assert tokenizer.decode([1, *plain]) == "hi"


@given(st.text(max_size=60))
def test_any_text_survives(text: str) -> None:
    tokens = TOKENIZER.encode(text, special=False, add_bos=False)
    assert TOKENIZER.decode(tokens) == text


def test_faults(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        af.Tokenizer(tmp_path / "none.json")
    damaged = tmp_path / "tokenizer.json"
    damaged.write_text('{"version": "1.0"')
    with pytest.raises(af.ModelFormatError, match=r"tokenizer\.json"):
        af.Tokenizer(damaged)
    with pytest.raises(af.InvalidRequestError, match="tokens"):
        TOKENIZER.decode([10**6])
    with pytest.raises(TypeError):
        TOKENIZER.encode(3)  # type: ignore[arg-type]
