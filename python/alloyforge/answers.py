"""Reading a chat answer: what the model thinks, what it says, and the calls it asks for.

One reader serves whole and streamed answers alike, so that the chunks of a stream join exactly to the
text of its completion. It knows the marks that most models are trained on: `<think>` around
reasoning, `<tool_call>` around a call as JSON, and an answer that is nothing but such JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

_THINK, _THINK_END = "<think>", "</think>"
_CALL, _CALL_END = "<tool_call>", "</tool_call>"

_State = Literal["start", "reasoning", "content", "call", "json"]


@dataclass
class AnswerReader:
    """Splits an answer as it is written.

    Args:
        prompt: The text before the answer: one that ends in `<think>` has begun the reasoning.
        tools: The tools that were offered; without any, calls are ordinary text.
    """

    prompt: str = ""
    tools: Sequence[Mapping[str, Any]] = ()
    tool_calls: list[dict[str, Any]] = field(default_factory=list, init=False)
    """The calls found so far."""
    _state: _State = field(default="start", init=False)
    _held: str = field(default="", init=False)
    """Text whose meaning is still open."""
    _is_fresh: bool = field(default=False, init=False)
    """Whether blank space is passed over."""

    def __post_init__(self) -> None:
        self._names = {function_of(tool).get("name") for tool in self.tools}
        if self.prompt.rstrip().endswith(_THINK):
            self._enter("reasoning", "")

    def feed(self, text: str) -> tuple[str, str]:
        """Takes more of the answer; gives what it adds to the content and to the reasoning."""
        self._held += text
        content = reasoning = ""
        while True:
            before = self._state, self._held
            more_content, more_reasoning = self._advance()
            content, reasoning = content + more_content, reasoning + more_reasoning
            if (self._state, self._held) == before:
                return content, reasoning

    def finish(self) -> tuple[str, str]:
        """Takes the end of the answer, which settles what was open."""
        held, self._held = self._held, ""
        match self._state:
            case "reasoning":
                return "", held.rstrip()
            case "json":
                calls = calls_in(held, self._names)
                self.tool_calls += calls
                return ("" if calls else held), ""
            case "call":
                # A call that was cut off is text, as it was written.
                return _CALL + held, ""
            case _:
                return held, ""

    def _advance(self) -> tuple[str, str]:
        """Settles as much of what is held as can be; gives content and reasoning."""
        if self._is_fresh:
            self._held = self._held.lstrip()
            self._is_fresh = not self._held
        match self._state:
            case "start":
                body = self._held.lstrip()
                if body.startswith(_THINK):
                    self._enter("reasoning", body[len(_THINK) :])
                elif self._names and body.startswith(("{", "[")):
                    self._state = "json"
                elif not _THINK.startswith(body):
                    self._state = "content"
            case "reasoning":
                body, mark, rest = self._held.partition(_THINK_END)
                if not mark:
                    return "", self._release(_THINK_END)
                self._enter("start", rest)
                return "", body.rstrip()
            case "content" if self._names:
                body, mark, rest = self._held.partition(_CALL)
                if not mark:
                    return self._release(_CALL), ""
                self._enter("call", rest)
                return body.rstrip(), ""
            case "content":
                body, self._held = self._held, ""
                return body, ""
            case "call":
                body, mark, rest = self._held.partition(_CALL_END)
                if mark:
                    self._enter("content", rest)
                    calls = calls_in(body, self._names)
                    self.tool_calls += calls
                    return ("" if calls else _CALL + body + _CALL_END), ""
            case "json":
                pass
        return "", ""

    def _enter(self, state: _State, rest: str) -> None:
        """Goes on with `rest` in another state, which blank space in front does not count to."""
        self._state, self._held, self._is_fresh = state, rest, True

    def _release(self, mark: str) -> str:
        """Lets go of what is held, but for an end that may become `mark`, and the space before it."""
        cut = len(self._held[: hold_back(self._held, (mark,))].rstrip())
        text, self._held = self._held[:cut], self._held[cut:]
        return text


def hold_back(text: str, marks: Sequence[str]) -> int:
    """Where the end of `text` begins that may become one of `marks`; its length where none does."""
    for n in range(min(max(map(len, marks)) - 1, len(text)), 0, -1):
        if any(len(mark) > n and text.endswith(mark[:n]) for mark in marks):
            return len(text) - n
    return len(text)


def function_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a tool says of its function."""
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) else {}


def calls_in(text: str, names: set[Any]) -> list[dict[str, Any]]:
    """The calls that `text` holds as JSON, one or a list; none where any of it is something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    calls = []
    for item in found if isinstance(found, list) else [found]:
        if not isinstance(item, dict) or item.get("name") not in names:
            return []
        arguments = item.get("arguments", item.get("parameters", {}))
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        calls.append({"type": "function", "function": {"name": item["name"], "arguments": text}})
    return calls
