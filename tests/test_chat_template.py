"""`af.ChatTemplate`: what goes in, and what comes out."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

import alloyforge as af

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MESSAGES = [{"role": "user", "content": "hi"}]


def test_messages() -> None:
    template = af.ChatTemplate(CHATML)
    want = "<|im_start|>user\nhi<|im_end|>\n"
    assert template.render(messages=MESSAGES) == want + "<|im_start|>assistant\n"
    assert template.render(messages=MESSAGES, add_generation_prompt=False) == want
    # what the context says outright comes first
    assert template.render({"messages": MESSAGES, "add_generation_prompt": False}) == want


def test_tools_and_the_clock() -> None:
    template = af.ChatTemplate("{{ tools[0].name }} {{ strftime_now('%d %b %Y') }}")
    assert template.render(tools=[{"name": "weather"}], now="2025-01-02T03:04:05") == "weather 02 Jan 2025"


def test_the_clock_shows_local_time() -> None:
    script = (
        "import datetime, alloyforge as af\n"
        "template = af.ChatTemplate(\"{{ strftime_now('%Y-%m-%d %H:%M') }}\")\n"
        "text = lambda: datetime.datetime.now().strftime('%Y-%m-%d %H:%M')\n"
        "before = text(); shown = template.render(); after = text()\n"
        "print(shown in (before, after))\n"
    )
    for zone in ("UTC0", "AHEAD-13:30", "BEHIND+11"):
        environment = os.environ | {"TZ": zone}
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == "True", zone


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (-3, "-3"),
        (2**63, str(2**63)),
        (1.5, "1.5"),
        ("ü", "ü"),
        ([1, [2]], "[1, [2]]"),
        ((1, 2), "[1, 2]"),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_values(value: Any, text: str) -> None:
    assert af.ChatTemplate("{{ x }}").render({"x": value}) == text


def deep(levels: int) -> list[Any]:
    out: list[Any] = []
    for _ in range(levels):
        out = [out]
    return out


def endless() -> list[Any]:
    out: list[Any] = []
    out.append(out)
    return out


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (object(), "a value of type object"),
        ({1: 2}, "the key 1, which is no string"),
        (2**64, "more than 64 bits"),
        (float("nan"), "the number NaN"),
        (deep(100), "nested deeper"),
        (endless(), "nested deeper"),
    ],
)
def test_values_that_are_no_data(value: Any, fault: str) -> None:
    with pytest.raises(af.InvalidRequestError, match=fault) as caught:
        af.ChatTemplate("{{ x }}").render({"x": value})
    assert caught.value.name == "context"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("{% for %}", "chat_template"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
    ],
)
def test_templates_that_fail(source: str, fault: str) -> None:
    with pytest.raises(af.InvalidRequestError, match=fault):
        af.ChatTemplate(source).render()


def test_templates_that_take_too_much() -> None:
    for source in ("{{ '-' * 10000000000 }}", "{% for i in range(1000000000) %}{{ i }}{% endfor %}"):
        with pytest.raises(af.InvalidRequestError):
            af.ChatTemplate(source).render()
