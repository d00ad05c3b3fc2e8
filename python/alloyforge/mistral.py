"""Reading an answer of Mistral's models, which mark calls and reasoning with special tokens.

Calls come behind `[TOOL_CALLS]`: a list of them as JSON, or, from the eleventh version of their
tokenizer on, `NAME[ARGS]JSON`, each behind a mark of its own and perhaps with `[CALL_ID]ID` in between.
Reasoning stands between `[THINK]` and `[/THINK]`. Source: the templates of mistral-common.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from alloyforge.answers import calls_in, function_of, hold_back

_CALLS, _ARGS, _CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_THINK, _THINK_END = "[THINK]", "[/THINK]"


class MistralReader:
    """Splits an answer as it is written.

    Args:
        prompt: The text before the answer: one that ends in `[THINK]` has begun the reasoning.
        tools: The tools that were offered; without any, calls are ordinary text.
    """

    def __init__(self, prompt: str = "", tools: Sequence[Mapping[str, Any]] = ()) -> None:
        self.tool_calls: list[dict[str, Any]] = []
        self._names = {function_of(tool).get("name") for tool in tools}
        self._held = ""
        begins = prompt.rstrip().endswith(_THINK)
        self._state: Literal["content", "reasoning", "calls"] = "reasoning" if begins else "content"

    def feed(self, text: str) -> tuple[str, str]:
        """Takes more of the answer; gives what it adds to the content and to the reasoning."""
        self._held += text
        content = reasoning = ""
        while True:
            if self._state == "calls":
                return content, reasoning
            if self._state == "reasoning":
                body, mark = self._until((_THINK_END,))
                reasoning += body
                if mark:
                    self._state = "content"
            else:
                body, mark = self._until((_THINK, _CALLS) if self._names else (_THINK,))
                content += body
                if mark:
                    self._state = "calls" if mark == _CALLS else "reasoning"
            if not mark:
                return content, reasoning

    def finish(self) -> tuple[str, str]:
        """Takes the end of the answer, which settles what was open."""
        held, self._held = self._held, ""
        if self._state == "reasoning":
            return "", held
        if self._state == "content":
            return held, ""
        calls = self._read_calls(held)
        self.tool_calls += calls
        # What is no call, or was cut off, is text, as it was written.
        return ("" if calls else _CALLS + held), ""

    def _until(self, marks: Sequence[str]) -> tuple[str, str]:
        """What is certain before the first of `marks`, and that mark where it is there."""
        found = min(((at, mark) for mark in marks if (at := self._held.find(mark)) >= 0), default=None)
        if found is None:
            cut = hold_back(self._held, marks)
            body, self._held = self._held[:cut], self._held[cut:]
            return body, ""
        at, mark = found
        body, self._held = self._held[:at], self._held[at + len(mark) :]
        return body, mark

    def _read_calls(self, text: str) -> list[dict[str, Any]]:
        if text.lstrip().startswith(("[", "{")):
            # Several marks with a list behind each, or one.
            lists = [calls_in(part, self._names) for part in text.split(_CALLS)]
            return [call for calls in lists for call in calls] if all(lists) else []
        calls = []
        for part in text.split(_CALLS):
            name, mark, arguments = part.partition(_ARGS)
            name = name.partition(_CALL_ID)[0].strip()
            if not mark or name not in self._names or not _is_json(arguments):
                return []
            calls.append({"type": "function", "function": {"name": name, "arguments": arguments.strip()}})
        return calls


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
