"""Reading an answer in the harmony format, which GPT-OSS is trained on.

An answer is a row of messages, each `<|start|>HEADER<|message|>BODY` up to `<|end|>` or `<|call|>`. The
header names a channel: `analysis` is reasoning, `final` the answer, `commentary` what is said before a
call; and, for a call, a recipient: `to=functions.NAME`. The prompt has written the first `<|start|>`
and role. Source: OpenAI's harmony response format, cookbook.openai.com/articles/openai-harmony.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from alloyforge.answers import function_of, hold_back

_MESSAGE = "<|message|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>")
_RECIPIENT = re.compile(r"to=([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")

_Kind = Literal["reasoning", "content", "call"]


class HarmonyReader:
    """Splits an answer as it is written.

    Args:
        prompt: The text before the answer, which may have begun a message.
        tools: The tools that were offered; what is addressed to any other is no call.
    """

    def __init__(self, prompt: str = "", tools: Sequence[Mapping[str, Any]] = ()) -> None:
        self.tool_calls: list[dict[str, Any]] = []
        self._names = {function_of(tool).get("name") for tool in tools}
        self._held = ""
        self._kind: _Kind | None = None
        """What the message at hand is; `None` in a header."""
        self._name = ""
        head = prompt.rpartition("<|start|>")[2]
        if prompt and _MESSAGE in head:
            self._open(head.partition(_MESSAGE)[0])
        elif prompt and head != prompt:
            # The role, and perhaps a channel, which the answer's header goes on from.
            self._held = head

    def feed(self, text: str) -> tuple[str, str]:
        """Takes more of the answer; gives what it adds to the content and to the reasoning."""
        self._held += text
        content = reasoning = ""
        while True:
            if self._kind is None:
                header, mark, rest = self._held.partition(_MESSAGE)
                if not mark:
                    return content, reasoning
                self._held = rest
                self._open(header)
            body, end, rest = self._split()
            if self._kind == "reasoning":
                reasoning += body
            elif self._kind == "content":
                content += body
            elif end is not None:
                self._call(body)
            if end is None:
                self._held = rest
                return content, reasoning
            self._kind, self._held = None, rest

    def finish(self) -> tuple[str, str]:
        """Takes the end of the answer, which settles what was open."""
        held, self._held = self._held, ""
        if self._kind == "call":
            self._call(held)
            return "", ""
        if self._kind == "reasoning":
            return "", held
        if self._kind == "content":
            return held, ""
        # An answer without any header is text; a header without a message is nothing.
        is_header = "<|" in held or not held.removeprefix("assistant").strip()
        return ("" if is_header else held.removeprefix("assistant")), ""

    def _open(self, header: str) -> None:
        recipient = _RECIPIENT.search(header)
        self._name = recipient[1].removeprefix("functions.") if recipient else ""
        channel = _CHANNEL.search(header)
        if self._name and self._name in self._names:
            self._kind = "call"
        else:
            self._kind = "reasoning" if channel and channel[1] == "analysis" else "content"

    def _split(self) -> tuple[str, str | None, str]:
        """The body as far as it is certain, the mark that ends it, and what is left."""
        found = min(((at, mark) for mark in _ENDS if (at := self._held.find(mark)) >= 0), default=None)
        if found is not None:
            at, mark = found
            # These two begin a header, which they are part of.
            begins = mark if mark == "<|channel|>" else ""
            return self._held[:at], mark, begins + self._held[at + len(mark) :]
        if self._kind == "call":
            return "", None, self._held
        cut = hold_back(self._held, _ENDS)
        return self._held[:cut], None, self._held[cut:]

    def _call(self, body: str) -> None:
        function = {"name": self._name, "arguments": body.strip()}
        self.tool_calls.append({"type": "function", "function": function})
