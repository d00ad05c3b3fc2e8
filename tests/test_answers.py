"""Chat answers taken apart: reasoning, text, tool calls."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloyforge.answers import AnswerReader

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL = '{"name": "weather", "arguments": {"city": "Köln"}}'


def read(
    text: str, *, prompt: str = "", tools: bool = False, cuts: list[int] | None = None
) -> tuple[str, str, list[str]]:
    """Content, reasoning and the called names, with `text` fed in the pieces that `cuts` make."""
    reader = AnswerReader(prompt, TOOLS if tools else ())
    content = reasoning = ""
    bounds = [0, *sorted(c % (len(text) + 1) for c in cuts or []), len(text)]
    for start, end in itertools.pairwise(bounds):
        more_content, more_reasoning = reader.feed(text[start:end])
        content, reasoning = content + more_content, reasoning + more_reasoning
    more_content, more_reasoning = reader.finish()
    names = [call["function"]["name"] for call in reader.tool_calls]
    return content + more_content, reasoning + more_reasoning, names


CASES = [
    ("plain text", "Hello.", {}, ("Hello.", "", [])),
    ("space is kept", "  Hello. \n", {}, ("  Hello. \n", "", [])),
    ("nothing", "", {}, ("", "", [])),
    ("reasoning", "<think>\nTwo and two.\n</think>\n\nFour.", {}, ("Four.", "Two and two.", [])),
    ("blank lines inside", "<think>a\n\n b </think>c", {}, ("c", "a\n\n b", [])),
    ("empty reasoning", "<think>\n\n</think>\n\nFour.", {}, ("Four.", "", [])),
    (
        "begun by the prompt",
        "Two.</think>Four.",
        {"prompt": "<|assistant|>\n<think>\n"},
        ("Four.", "Two.", []),
    ),
    ("cut off while thinking", "<think>Two and", {}, ("", "Two and", [])),
    ("not at the start", "I <think> so.", {}, ("I <think> so.", "", [])),
    ("almost the mark", "<thin ice>", {}, ("<thin ice>", "", [])),
    ("a lone piece of the mark", "<thi", {}, ("<thi", "", [])),
    ("a call", f"<tool_call>\n{CALL}\n</tool_call>", {"tools": True}, ("", "", ["weather"])),
    (
        "text before a call",
        f"Let me see.\n<tool_call>{CALL}</tool_call>",
        {"tools": True},
        ("Let me see.", "", ["weather"]),
    ),
    (
        "two calls",
        f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>\n",
        {"tools": True},
        ("", "", ["weather", "weather"]),
    ),
    (
        "reasoning, then a call",
        f"<think>x</think>\n<tool_call>{CALL}</tool_call>",
        {"tools": True},
        ("", "x", ["weather"]),
    ),
    ("bare JSON", CALL, {"tools": True}, ("", "", ["weather"])),
    ("a list", f"[{CALL}, {CALL}]", {"tools": True}, ("", "", ["weather", "weather"])),
    ("JSON with parameters", CALL.replace("arguments", "parameters"), {"tools": True}, ("", "", ["weather"])),
    ("JSON that is no call", '{"name": "other"}', {"tools": True}, ('{"name": "other"}', "", [])),
    (
        "an unknown function",
        "<tool_call>{}</tool_call>",
        {"tools": True},
        ("<tool_call>{}</tool_call>", "", []),
    ),
    ("a call cut off", '<tool_call>{"name"', {"tools": True}, ('<tool_call>{"name"', "", [])),
    (
        "a call, without tools",
        f"<tool_call>{CALL}</tool_call>",
        {},
        (f"<tool_call>{CALL}</tool_call>", "", []),
    ),
    ("JSON, without tools", CALL, {}, (CALL, "", [])),
    ("a comparison", "1 < 2 and 3 <t", {"tools": True}, ("1 < 2 and 3 <t", "", [])),
]


@pytest.mark.parametrize(("text", "options", "want"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_cases(text: str, options: dict[str, object], want: tuple[str, str, list[str]]) -> None:
    assert read(text, **options) == want  # type: ignore[arg-type]


@given(case=st.sampled_from(CASES), cuts=st.lists(st.integers(0, 200), max_size=12))
def test_the_pieces_do_not_matter(
    case: tuple[str, str, dict[str, object], tuple[str, str, list[str]]], cuts: list[int]
) -> None:
    _, text, options, want = case
    assert read(text, cuts=cuts, **options) == want  # type: ignore[arg-type]


@given(
    text=st.text(alphabet="<>/think tool_cal{}\n", max_size=60),
    tools=st.booleans(),
    cuts=st.lists(st.integers(0, 60)),
)
def test_any_text_reads_alike_whole_and_in_pieces(text: str, tools: bool, cuts: list[int]) -> None:
    assert read(text, tools=tools, cuts=cuts) == read(text, tools=tools)


def test_arguments_are_json_text() -> None:
    reader = AnswerReader("", TOOLS)
    reader.feed(CALL)
    reader.finish()
    (call,) = reader.tool_calls
    assert json.loads(call["function"]["arguments"]) == {"city": "Köln"}
    assert call["type"] == "function"
