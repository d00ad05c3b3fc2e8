"""Real models against llama.cpp: tokens, and text for as long as it is sure."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

import alloyforge as af

GOLDEN = pathlib.Path(__file__).parent / "data" / "golden"


def cases(model: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((GOLDEN / f"{model}.json").read_text())
    return found


@pytest.fixture(scope="module", params=["native", "candle"])
def smollm2_session(smollm2: pathlib.Path, request: pytest.FixtureRequest) -> Any:
    with af.Session(smollm2, backend=request.param, context_len=1024) as session:
        yield session


@pytest.mark.parametrize("name", cases("smollm2"))
def test_smollm2(smollm2_session: af.Session, name: str) -> None:
    check(smollm2_session, cases("smollm2")[name])


def test_smollm2_chats(smollm2_session: af.Session) -> None:
    messages = [{"role": "user", "content": "What is gravity?"}]
    text = smollm2_session.render(messages)
    assert text.startswith("<|im_start|>system\n")
    assert text.endswith("<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n")
    answer = smollm2_session.chat(messages, temperature=0, max_tokens=48)
    assert "<|im_" not in answer.text
    assert "gravity" in answer.text.lower()
    stream = smollm2_session.stream_chat(messages, temperature=0, max_tokens=48)
    assert "".join(c.text for c in stream) == answer.text


def test_gemma3(gemma3: pathlib.Path) -> None:
    with af.Session(gemma3, context_len=512) as session:
        assert session.info.architecture == "gemma3"
        for case in cases("gemma3").values():
            check(session, case)


def check(session: af.Session, case: dict[str, Any]) -> None:
    assert session.tokenize(case["prompt"]) == case["ids"]
    sure = case["sure"]
    if sure:
        answer = session.generate(case["ids"], temperature=0, max_tokens=sure, ignore_eos=True)
        assert answer.tokens == case["greedy"][:sure]
