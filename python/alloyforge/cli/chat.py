"""Hold a conversation in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from alloyforge.cli import options
from alloyforge.errors import InvalidRequestError
from alloyforge.session import Session

_HELP = "/clear forgets the conversation, /exit or the end of the input ends it, Ctrl-C ends an answer"


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    options.add_model(parser, optional=True)
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before everything else")
    parser.add_argument("--prompt", metavar="TEXT", help="answer this one message and end; - is stdin")
    options.add_sampling(parser)
    options.add_loading(parser)


def handle(arguments: argparse.Namespace) -> None:
    """Runs it."""
    with options.open_session(arguments) as session:
        if session.info.chat_template is None:
            raise InvalidRequestError(f"{arguments.model} has no chat template: use `alloyforge run`")
        if arguments.prompt is not None:
            _answer(session, [*_start(arguments), _user(options.text_of(arguments.prompt))], arguments)
            return
        _converse(session, arguments)


def _converse(session: Session, arguments: argparse.Namespace) -> None:
    messages = _start(arguments)
    if sys.stdin.isatty():
        print(_HELP, file=sys.stderr)
    for line in _lines():
        match line.strip():
            case "":
                continue
            case "/exit":
                return
            case "/help":
                print(_HELP, file=sys.stderr)
                continue
            case "/clear":
                messages = _start(arguments)
                continue
        turn = [*messages, _user(line)]
        try:
            answer = _answer(session, turn, arguments)
        except InvalidRequestError as error:
            # A message that does not fit is no reason to lose the others.
            if not sys.stdin.isatty():
                raise
            print(f"alloyforge: {error}", file=sys.stderr)
            continue
        messages = [*turn, answer]


def _answer(
    session: Session, messages: list[dict[str, Any]], arguments: argparse.Namespace
) -> dict[str, Any]:
    with session.stream_chat(messages, **options.sampling(arguments)) as stream:
        try:
            for chunk in stream:
                if chunk.reasoning and sys.stdout.isatty():
                    # What the model thinks is shown to a person, dimly, and not to a program.
                    print(f"\x1b[2m{chunk.reasoning}\x1b[0m", end="", flush=True)
                print(chunk.text, end="", flush=True)
        except KeyboardInterrupt:
            if arguments.prompt is not None or not sys.stdin.isatty():
                raise
            stream.cancel()
    print(flush=True)
    completion = stream.completion
    if arguments.stats or arguments.verbose:
        options.print_stats(completion)
    return completion.message


def _lines() -> Iterator[str]:
    """The user's messages, one a line."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives `input` a history and keys)
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return


def _start(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    return [{"role": "system", "content": arguments.system}] if arguments.system else []


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}
