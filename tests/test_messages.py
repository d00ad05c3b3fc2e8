"""Chat messages checked and made what a template expects."""

from __future__ import annotations

from typing import Any

import pytest

from alloyforge.errors import InvalidRequestError
from alloyforge.messages import checked_messages, checked_tools

TOOL = {"type": "function", "function": {"name": "weather"}}


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert checked_messages([{"role": "user", "content": parts}]) == [{"role": "user", "content": "one\ntwo"}]


def test_arguments_of_earlier_calls_are_read() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
    (message,) = checked_messages([{"role": "assistant", "tool_calls": [call]}])
    assert message["content"] is None
    assert message["tool_calls"][0]["function"]["arguments"] == {"city": "Köln"}
    # the caller's own message stays as it was
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Köln"}'}


@pytest.mark.parametrize(
    ("messages", "name"),
    [
        ("hi", "messages"),
        ([], "messages"),
        ({"role": "user"}, "messages"),
        (["hi"], "messages[0]"),
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": b"hi"}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "song", "text": "la"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0]"),
        (
            [
                {"role": "user", "content": ""},
                {"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]},
            ],
            "messages[1].tool_calls[0].function.arguments",
        ),
    ],
)
def test_faults_are_named(messages: Any, name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        checked_messages(messages)
    assert caught.value.name == name
    assert str(caught.value).startswith(f"{name}: ")


def test_tools() -> None:
    assert checked_tools([TOOL], "auto") == [TOOL]
    assert checked_tools([TOOL], "none") is None
    assert checked_tools(None, "auto") is None
    assert checked_tools([], "auto") is None


@pytest.mark.parametrize("tools", [[{}], ["weather"], [{"function": {"name": 3}}], TOOL])
def test_a_tool_without_a_name_is_refused(tools: Any) -> None:
    with pytest.raises(InvalidRequestError, match="tools"):
        checked_tools(tools, "auto")
