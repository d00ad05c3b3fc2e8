"""How a model marks what it thinks, says and wants called: told from its chat template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from alloyforge.answers import AnswerReader
from alloyforge.forms import Mark, harmony_call, json_call, mistral_call
from alloyforge.harmony import HarmonyReader
from alloyforge.mistral import MistralReader


class Reader(Protocol):
    """Splits an answer as it is written."""

    tool_calls: list[dict[str, Any]]
    """The calls found so far, as OpenAI's dictionaries without their ids."""

    def feed(self, text: str) -> tuple[str, str]:
        """Takes more of the answer; gives what it adds to the content and to the reasoning."""

    def finish(self) -> tuple[str, str]:
        """Takes the end of the answer, which settles what was open."""


@dataclass(frozen=True)
class Dialect:
    """A way of marking answers."""

    reader: Callable[[str, Sequence[Mapping[str, Any]]], Reader]
    """Makes a reader, from the prompt's text and the tools that were offered."""
    has_special_text: bool
    """Whether the marks are special tokens, which an answer's text leaves out otherwise."""
    call: Callable[[Mark, str, str, Sequence[Mapping[str, Any]]], str]
    """The grammar of an answer that calls one of some tools, from how marks are spelled, the template's
    source and the prompt's text."""


_PLAIN = Dialect(AnswerReader, has_special_text=False, call=json_call)
_BY_MARK = (
    ("<|channel|>", Dialect(HarmonyReader, has_special_text=True, call=harmony_call)),
    ("[TOOL_CALLS]", Dialect(MistralReader, has_special_text=True, call=mistral_call)),
    ("[THINK]", Dialect(MistralReader, has_special_text=True, call=mistral_call)),
)


def dialect_of(template: str | None) -> Dialect:
    """The dialect that a chat template speaks."""
    return next((dialect for mark, dialect in _BY_MARK if mark in (template or "")), _PLAIN)
