"""The forms that answers are made to keep to: what is read of them, and grammars that force a call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from alloyforge.answers import function_of
from alloyforge.errors import invalid
from alloyforge.results import Completion

C = TypeVar("C", bound=Completion)

Mark = Callable[[str], str]
"""A mark of a chat template as a symbol of a grammar: one token where the vocabulary has it as one."""

_FORMS = ("schema", "regex", "grammar")


def parser_of(sampling: Mapping[str, Any]) -> Callable[[str], Any] | None:
    """What makes an object of an answer, where a schema was given."""
    schema = sampling.get("schema")
    if schema is None:
        return None
    if isinstance(schema, type):
        parse: Callable[[str], Any] | None = getattr(schema, "model_validate_json", None)
        return parse
    return json.loads


def with_parser(completion: C, parse: Callable[[str], Any] | None) -> C:
    """The completion, whose choices know how they are parsed."""
    if parse is None:
        return completion
    others = [replace(choice, parse=parse) for choice in completion.others]
    return replace(completion, parse=parse, others=others)


def forced(
    tools: Sequence[Mapping[str, Any]] | None, tool_choice: object
) -> Sequence[Mapping[str, Any]] | None:
    """The tools one of which is to be called; `None` where the model decides.

    Raises:
        InvalidRequestError: none was offered, or none of that name.
    """
    if tool_choice in ("auto", "none", None):
        return None
    if tool_choice == "required":
        if not tools:
            raise invalid("tool_choice", "a call is required, and no tools are given")
        return tools
    name = None
    if isinstance(tool_choice, Mapping) and tool_choice.get("type") == "function":
        name = function_of(tool_choice).get("name")
    if not isinstance(name, str):
        raise invalid(
            "tool_choice",
            f"must be 'auto', 'none', 'required' or {{'type': 'function', …}}, not {tool_choice!r}",
        )
    found = [tool for tool in tools or () if function_of(tool).get("name") == name]
    if not found:
        raise invalid("tool_choice", f"no tool is called {name!r}")
    return found


def check_alone(sampling: Mapping[str, Any]) -> None:
    """Refuses a form beside a call that is forced.

    Raises:
        InvalidRequestError: there is one.
    """
    for name in _FORMS:
        if sampling.get(name) is not None:
            raise invalid(name, "cannot be said where `tool_choice` forces a call")


# JSON as templates write it. Where white space is free a model may go on with it for ever.
_WRITTEN = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def json_call(mark: Mark, template: str, prompt: str, tools: Sequence[Mapping[str, Any]]) -> str:
    """A call as `{"name": …, "arguments": …}`, in `<tool_call>` where the template writes such."""
    call = f"%json {_schema({'anyOf': [_call_schema(tool) for tool in tools]})}"
    start, rules = "call", [f"call: {call}"]
    if "<tool_call>" in template:
        start = f'{mark("<tool_call>")} "\\n" call "\\n" {mark("</tool_call>")}'
    if prompt.rstrip().endswith("<think>"):
        # The prompt has begun the reasoning.
        start = f'thought {mark("</think>")} "\\n\\n" {start}'
        rules.append("thought: /[^<]*/")
    return "\n".join([f"start: {start}", *rules])


def mistral_call(mark: Mark, template: str, _prompt: str, tools: Sequence[Mapping[str, Any]]) -> str:
    """A call behind `[TOOL_CALLS]`: a list with one, or, with `[ARGS]`, its name and its arguments."""
    if "[ARGS]" not in template:
        call = f"%json {_schema({'anyOf': [_call_schema(tool) for tool in tools]})}"
        return f'start: {mark("[TOOL_CALLS]")} "[" call "]"\ncall: {call}'
    rules = [
        f"call{i}: {json.dumps(_name(tool))} {mark('[ARGS]')} arguments{i}\n"
        f"arguments{i}: %json {_schema(_parameters(tool))}"
        for i, tool in enumerate(tools)
    ]
    calls = " | ".join(f"call{i}" for i in range(len(tools)))
    return "\n".join([f"start: {mark('[TOOL_CALLS]')} ({calls})", *rules])


def harmony_call(mark: Mark, _template: str, _prompt: str, tools: Sequence[Mapping[str, Any]]) -> str:
    """A message in the channel `commentary` to the function."""
    rules = [
        f"call{i}: {mark('<|channel|>')} {json.dumps(f'commentary to=functions.{_name(tool)} ')} "
        f'{mark("<|constrain|>")} "json" {mark("<|message|>")} arguments{i} {mark("<|call|>")}\n'
        f"arguments{i}: %json {_schema(_parameters(tool))}"
        for i, tool in enumerate(tools)
    ]
    calls = " | ".join(f"call{i}" for i in range(len(tools)))
    return "\n".join([f"start: {calls}", *rules])


def _schema(schema: Mapping[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": _WRITTEN})


def _name(tool: Mapping[str, Any]) -> str:
    return str(function_of(tool).get("name"))


def _parameters(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    found = function_of(tool).get("parameters")
    return found if isinstance(found, Mapping) and found else {"type": "object"}


def _call_schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": _name(tool)}, "arguments": _parameters(tool)},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
