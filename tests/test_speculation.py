"""Guessing changes how fast an answer comes, and nothing else."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

import alloyforge as af

TEXT = "The quick brown fox jumps over the lazy dog. " * 6
KINDS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.9, "top_p": 0.95, "seed": 3},
    {"temperature": 1.2, "seed": 5, "repetition_penalty": 1.1, "n": 2},
]


def essence(completion: af.Completion) -> list[Any]:
    return [(c.tokens, [p.logprob for p in c.logprobs or []]) for c in completion.choices]


@pytest.mark.parametrize("draft", ["ngram", "model"])
def test_tokens_and_logprobs_are_the_same(draft: str, smollm2: pathlib.Path) -> None:
    said: dict[str, Any] = {"max_tokens": 48, "ignore_eos": True, "logprobs": 1}
    with af.Session(smollm2, context_len=1024) as session:
        want = [essence(session.generate(TEXT, **said, **kind)) for kind in KINDS]
    # The model itself knows best what it will say.
    named = smollm2 if draft == "model" else draft
    with af.Session(smollm2, context_len=1024, draft=named) as session:
        alone = [session.generate(TEXT, **said, **kind) for kind in KINDS]
        assert [essence(c) for c in alone] == want
        assert [c.tokens for c in session.generate_batch([TEXT] * 4, **said, **KINDS[1])] == [
            want[1][0][0]
        ] * 4
        stats = session.stats()
    assert stats.drafted_tokens >= stats.accepted_tokens > 0
    assert alone[0].usage.accepted_tokens > 0


def test_nothing_is_guessed_unless_asked(shared: af.Session) -> None:
    usage = shared.generate([5] * 40, max_tokens=20, ignore_eos=True, temperature=0).usage
    assert (usage.drafted_tokens, usage.accepted_tokens) == (0, 0)


def test_a_draft_needs_the_same_tokens(tiny_path: pathlib.Path, smollm2: pathlib.Path) -> None:
    with pytest.raises(af.InvalidRequestError, match="draft"):
        af.Session(tiny_path, draft=smollm2)
    with pytest.raises(FileNotFoundError):
        af.Session(tiny_path, draft="nothing-there")
