"""Answers of models that mark what they say with special tokens."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloyforge.dialects import dialect_of
from alloyforge.harmony import HarmonyReader
from alloyforge.mistral import MistralReader

TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "clock"}},
]
CALL = '{"city": "Köln"}'
BEGUN = "<|start|>user<|message|>Hi<|end|><|start|>assistant"

Read = tuple[str, str, list[tuple[str, str]]]


def read(reader: HarmonyReader | MistralReader, text: str, cuts: list[int] | None = None) -> Read:
    content = reasoning = ""
    bounds = [0, *sorted(c % (len(text) + 1) for c in cuts or []), len(text)]
    for start, end in itertools.pairwise(bounds):
        more_content, more_reasoning = reader.feed(text[start:end])
        content, reasoning = content + more_content, reasoning + more_reasoning
    more_content, more_reasoning = reader.finish()
    calls = [(c["function"]["name"], c["function"]["arguments"]) for c in reader.tool_calls]
    return content + more_content, reasoning + more_reasoning, calls


# The forms are those of OpenAI's description of the format.
HARMONY: list[tuple[str, str, str, Read]] = [
    (
        "reasoning and answer",
        BEGUN,
        "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>Four.",
        ("Four.", "Easy.", []),
    ),
    ("answer alone", BEGUN, "<|channel|>final<|message|>Four.", ("Four.", "", [])),
    (
        "a call",
        BEGUN,
        "<|channel|>analysis<|message|>Ask.<|end|><|start|>assistant<|channel|>commentary "
        f"to=functions.weather <|constrain|>json<|message|>{CALL}",
        ("", "Ask.", [("weather", CALL)]),
    ),
    (
        "the recipient before the channel",
        BEGUN,
        f" to=functions.weather<|channel|>commentary json<|message|>{CALL}<|call|>",
        ("", "", [("weather", CALL)]),
    ),
    (
        "a preamble",
        BEGUN,
        "<|channel|>commentary<|message|>Let me see.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.clock<|message|>{}<|call|>",
        ("Let me see.", "", [("clock", "{}")]),
    ),
    (
        "a channel without a start",
        BEGUN,
        "<|channel|>analysis<|message|>So.<|channel|>final<|message|>Yes.",
        ("Yes.", "So.", []),
    ),
    (
        "begun by the prompt",
        BEGUN + "<|channel|>final<|message|>",
        "Four.",
        ("Four.", "", []),
    ),
    (
        "a tool that was not offered",
        BEGUN,
        "<|channel|>analysis to=python<|message|>2+2<|call|>",
        ("", "2+2", []),
    ),
    ("cut off while thinking", BEGUN, "<|channel|>analysis<|message|>Two and", ("", "Two and", [])),
    ("cut off in a header", BEGUN, "<|channel|>ana", ("", "", [])),
    ("no marks at all", "", "Just text.", ("Just text.", "", [])),
    ("marks of another kind", BEGUN, "<|channel|>final<|message|>a <| b <|en", ("a <| b <|en", "", [])),
    ("nothing", BEGUN, "", ("", "", [])),
]

MISTRAL: list[tuple[str, str, str, Read]] = [
    ("text", "", "Four.", ("Four.", "", [])),
    (
        "a list of calls",
        "",
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Köln"}, "id": "a"}, {"name": "clock"}]',
        ("", "", [("weather", CALL), ("clock", "{}")]),
    ),
    ("a named call", "", f"[TOOL_CALLS]weather[ARGS]{CALL}", ("", "", [("weather", CALL)])),
    (
        "two named calls, with ids",
        "",
        f"See:[TOOL_CALLS]weather[CALL_ID]abc[ARGS]{CALL}[TOOL_CALLS]clock[CALL_ID]d[ARGS]{{}}",
        ("See:", "", [("weather", CALL), ("clock", "{}")]),
    ),
    ("reasoning", "", "[THINK]Two.[/THINK]Four.", ("Four.", "Two.", [])),
    ("begun by the prompt", "x[THINK]", "Two.[/THINK]Four.", ("Four.", "Two.", [])),
    (
        "a call that was cut off",
        "",
        '[TOOL_CALLS]weather[ARGS]{"ci',
        ('[TOOL_CALLS]weather[ARGS]{"ci', "", []),
    ),
    ("a tool that was not offered", "", "[TOOL_CALLS]rm[ARGS]{}", ("[TOOL_CALLS]rm[ARGS]{}", "", [])),
    ("almost a mark", "", "a [TOOL", ("a [TOOL", "", [])),
]


@pytest.mark.parametrize(("prompt", "text", "want"), [c[1:] for c in HARMONY], ids=[c[0] for c in HARMONY])
def test_harmony(prompt: str, text: str, want: Read) -> None:
    assert read(HarmonyReader(prompt, TOOLS), text) == want


@pytest.mark.parametrize(("prompt", "text", "want"), [c[1:] for c in MISTRAL], ids=[c[0] for c in MISTRAL])
def test_mistral(prompt: str, text: str, want: Read) -> None:
    assert read(MistralReader(prompt, TOOLS), text) == want


@given(st.sampled_from(range(len(HARMONY))), st.lists(st.integers(0, 500), max_size=8))
def test_harmony_in_pieces(which: int, cuts: list[int]) -> None:
    _, prompt, text, want = HARMONY[which]
    assert read(HarmonyReader(prompt, TOOLS), text, cuts) == want


@given(st.sampled_from(range(len(MISTRAL))), st.lists(st.integers(0, 500), max_size=8))
def test_mistral_in_pieces(which: int, cuts: list[int]) -> None:
    _, prompt, text, want = MISTRAL[which]
    assert read(MistralReader(prompt, TOOLS), text, cuts) == want


@given(st.text('[]<|>{}TOOL_CALSARGstendmcharnlfig "', max_size=80))
def test_any_text_ends(text: str) -> None:
    for reader in (HarmonyReader(BEGUN, TOOLS), MistralReader("", TOOLS)):
        _, _, calls = read(reader, text)
        if isinstance(reader, MistralReader):
            assert all(json.loads(arguments) is not None or arguments for _, arguments in calls)


def test_dialects_are_told_from_templates() -> None:
    assert dialect_of("{{ '<|channel|>' }}").reader is HarmonyReader
    assert dialect_of("[TOOL_CALLS]").reader is MistralReader
    assert not dialect_of("<tool_call>").has_special_text
    assert not dialect_of(None).has_special_text
