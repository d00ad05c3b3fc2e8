#!/usr/bin/env python3
"""Fills data/cases.jsonl with what jinja2 makes of each template, set up as transformers does.

usage: generate_cases.py    (needs jinja2 3.1.6 or later)

Each line is [template, expected]; expected is null where jinja2 raises. To add a case, add its line
with null and run this. The variables are those of data/context.json, the clock is NOW.
"""

import copy
import datetime
import json
import pathlib

import jinja2.ext
import jinja2.sandbox
import jinja2.utils

NOW = "2025-01-02T03:04:05"
DATA = pathlib.Path(__file__).parent / "data"


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


class Dict:
    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args, **kwargs):
        return dict.fromkeys(*args, **kwargs)


class Namespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        attrs = dict(*args, **kwargs)
        for name in attrs:
            Namespace._check(name)
        jinja2.utils.Namespace.__init__(self, attrs)

    def __setitem__(self, name, value):
        Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(name)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(format):
    return datetime.datetime.fromisoformat(NOW).strftime(format)


def render(template, context):
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals.update(
        raise_exception=raise_exception, strftime_now=strftime_now, dict=Dict(), namespace=Namespace
    )
    try:
        return env.from_string(template).render(**copy.deepcopy(context))
    except Exception:  # whatever it is, the case must fail
        return None


def main():
    context = json.loads((DATA / "context.json").read_text())
    path = DATA / "cases.jsonl"
    cases = [json.loads(line) for line in path.read_text().splitlines() if line]
    lines = [json.dumps([template, render(template, context)]) for template, _ in cases]
    path.write_text("\n".join(lines) + "\n")
    print(len(lines), "cases")


if __name__ == "__main__":
    main()
