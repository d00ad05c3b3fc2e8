"""Answers that keep to a JSON Schema, a regular expression, a grammar, or are one call of a tool."""

from __future__ import annotations

import asyncio
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

import alloyforge as af

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "size": {"type": "integer", "minimum": 3, "maximum": 41},
        "colour": {"enum": ["red", "green", None]},
    },
    "required": ["name", "size", "colour"],
    "additionalProperties": False,
}
PROMPT = "A thing in JSON, with its name, size and colour:\n"
SAID: dict[str, Any] = {"max_tokens": 200, "temperature": 1.2}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "maxLength": 10}, "days": {"enum": [1, 3]}},
                "required": ["place", "days"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("weather", "climate")
]


class Thing:
    """What pydantic's models offer of themselves."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return SCHEMA

    @classmethod
    def model_validate_json(cls, text: str) -> Thing:
        return cls(json.loads(text))


@pytest.fixture(scope="module")
def model(smollm2: pathlib.Path) -> Iterator[af.Session]:
    with af.Session(smollm2, context_len=1024) as session:
        yield session


def check(found: Any) -> None:
    assert list(found) == ["name", "size", "colour"]
    assert isinstance(found["name"], str)
    assert len(found["name"]) <= 12
    assert 3 <= found["size"] <= 41
    assert found["colour"] in ("red", "green", None)


def test_a_schema(model: af.Session) -> None:
    answers = [model.generate(PROMPT, **SAID, schema=SCHEMA, seed=seed) for seed in range(4)]
    for answer in answers:
        assert answer.finish_reason == "stop"
        assert answer.parsed == json.loads(answer.text)
        check(answer.parsed)
    # The same in company, as JSON text, and of a stream.
    said = [model.generate(PROMPT, **SAID, schema=json.dumps(SCHEMA), seed=0)]
    with model.stream(PROMPT, **SAID, schema=SCHEMA, seed=0) as stream:
        text = "".join(chunk.text for chunk in stream)
    assert stream.completion.parsed == answers[0].parsed
    assert (text, said[0].tokens) == (answers[0].text, answers[0].tokens)
    together = model.generate_batch([PROMPT] * 3, **SAID, schema=SCHEMA, seed=0)
    assert [a.tokens for a in together] == [answers[0].tokens] * 3
    assert together[0].parsed == answers[0].parsed


def test_a_model_of_pydantic_and_several_choices(model: af.Session) -> None:
    answer = asyncio.run(model.agenerate(PROMPT, **SAID, schema=Thing, seed=3, n=2))
    for choice in answer.choices:
        assert isinstance(choice.parsed, Thing)
        check(choice.parsed.fields)


def test_a_chat_in_json(model: af.Session) -> None:
    answer = model.chat(QUESTION, **SAID, schema=SCHEMA, seed=1)
    check(answer.parsed)
    stream = model.stream_chat(QUESTION, **SAID, schema=SCHEMA, seed=1)
    assert "".join(c.text for c in stream) == answer.text
    assert stream.completion.parsed == answer.parsed


def test_an_answer_that_was_cut_off_is_no_object(model: af.Session) -> None:
    answer = model.generate(PROMPT, **{**SAID, "max_tokens": 3}, schema=SCHEMA)
    assert (answer.finish_reason, answer.parsed) == ("length", None)
    assert model.generate(PROMPT, max_tokens=3).parsed is None


def test_a_regular_expression_and_a_grammar(model: af.Session) -> None:
    for seed in range(3):
        answer = model.generate("Call me: ", **SAID, regex=r"\+49 [1-9][0-9]{2,5}-[0-9]{3}", seed=seed)
        assert re.fullmatch(r"\+49 [1-9][0-9]{2,5}-[0-9]{3}", answer.text), answer.text
        lark = 'start: verb " the " /[a-z]{3,8}/ "."\nverb: "Open" | "Close"'
        answer = model.generate("Do it: ", **SAID, grammar=lark, seed=seed)
        assert re.fullmatch(r"(Open|Close) the [a-z]{3,8}\.", answer.text), answer.text
        assert answer.parsed is None


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"schema": {"type": "nothing"}}, "schema"),
        ({"schema": "{"}, "schema"),
        ({"schema": 3}, "schema"),
        ({"schema": {"type": "object"}, "regex": "a"}, "regex"),
        ({"regex": "("}, "regex"),
        ({"regex": ["a"]}, "regex"),
        ({"grammar": "start: nowhere"}, "grammar"),
    ],
)
def test_what_cannot_be_kept_to(shared: af.Session, options: Any, name: str) -> None:
    with pytest.raises(af.InvalidRequestError) as caught:
        shared.generate([10, 11], max_tokens=2, **options)
    assert caught.value.name == name


def test_forms_need_a_session() -> None:
    with pytest.raises(af.InvalidRequestError, match="regex: needs a session"):
        af.probabilities([0.0, 1.0], regex="a")


PLAIN = "{% for m in messages %}{{ m.content }}\n{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        None,
        PLAIN + "{# <tool_call> #}",
        PLAIN + "{# [TOOL_CALLS] #}",
        PLAIN + "{# [TOOL_CALLS] [ARGS] #}",
        PLAIN + "{# <|channel|> #}<|start|>assistant",
    ],
)
def test_a_call_that_is_forced(model: af.Session, template: str | None) -> None:
    said: dict[str, Any] = {**SAID, "tools": TOOLS, "template": template, "max_tokens": 300}
    named = {"type": "function", "function": {"name": "climate"}}
    choices: list[tuple[Any, tuple[str, ...]]] = [("required", ("weather", "climate")), (named, ("climate",))]
    for choice, names in choices:
        for seed in range(2):
            answer = model.chat(QUESTION, tool_choice=choice, seed=seed, **said)
            assert answer.finish_reason == "tool_calls", answer
            (call,) = answer.tool_calls
            assert call["function"]["name"] in names
            arguments = json.loads(call["function"]["arguments"])
            assert list(arguments) == ["place", "days"]
            assert arguments["days"] in (1, 3)
            assert answer.text == ""


def test_a_call_that_cannot_be_forced(model: af.Session) -> None:
    def refused(match: str, **options: Any) -> None:
        with pytest.raises(af.InvalidRequestError, match=match):
            model.chat(QUESTION, max_tokens=4, **options)

    refused("tool_choice: .*no tools are given", tool_choice="required")
    other = {"type": "function", "function": {"name": "other"}}
    refused("no tool is called 'other'", tools=TOOLS, tool_choice=other)
    refused("tool_choice: must be", tools=TOOLS, tool_choice="sometimes")
    refused("regex: .*forces a call", tools=TOOLS, tool_choice="required", regex="a")
