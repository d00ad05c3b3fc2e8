"""Answer a file of requests, in OpenAI's batch format; goes on where it was interrupted."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO

from alloyforge import openai
from alloyforge.cli import options
from alloyforge.errors import AlloyForgeError, QueueFullError, SessionClosedError, invalid
from alloyforge.progress import ProgressBar
from alloyforge.session import Session

_AT_ONCE = 128
"""Requests under way at a time: enough to fill every step, few enough to cost little."""
_RETRY_SECONDS = 0.05


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("input", type=pathlib.Path, metavar="IN.jsonl", help="one request a line")
    parser.add_argument(
        "output",
        type=pathlib.Path,
        metavar="OUT.jsonl",
        help="one response a line, in the order in which they are done; what is in it is not done again",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="a .gguf file, a folder, a Hugging Face id or a name in the catalogue; what the requests name "
        "where it is left out",
    )
    options.add_loading(parser)


def handle(arguments: argparse.Namespace) -> None:
    """Runs it."""
    requests = read_requests(arguments.input)
    with _locked(arguments.output) as output:
        done = _settle(output, arguments.output)
        missing = [line for line in requests if line["custom_id"] not in done]
        if not missing:
            return
        arguments.model = arguments.model or _model_of(requests)
        with options.open_session(arguments) as session, ProgressBar("answering") as bar:
            bar.count(len(requests) - len(missing), len(requests))
            asyncio.run(_answer_all(session, missing, output, bar, len(requests)))
        os.fsync(output.fileno())


def read_requests(path: pathlib.Path) -> list[dict[str, Any]]:
    """The requests of a batch file.

    Raises:
        InvalidRequestError: a line that is no request, or a `custom_id` that two have, by their numbers.
    """
    requests: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                request = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise invalid("input", f"{where}: is no JSON: {error}") from None
            name = request.get("custom_id") if isinstance(request, dict) else None
            if not isinstance(name, str):
                raise invalid("input", f"{where}: must be an object with a custom_id")
            if name in numbers:
                raise invalid("input", f"{where}: custom_id {name!r} is that of line {numbers[name]} too")
            numbers[name] = number
            requests.append(request)
    return requests


def _model_of(requests: list[dict[str, Any]]) -> str:
    bodies = (request.get("body") for request in requests)
    named = {body.get("model") for body in bodies if isinstance(body, dict)}
    if len(named) != 1 or not isinstance(model := named.pop(), str):
        raise invalid("model", "the requests do not all name one and the same: say --model")
    return model


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[BinaryIO]:
    """The output, opened for appending, and nobody else's meanwhile."""
    with path.open("a+b") as output:
        try:
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise invalid("output", f"{path} is being written by another process") from None
        yield output


def _settle(output: BinaryIO, path: pathlib.Path) -> set[str]:
    """The requests whose responses are in the output, from which a line that was cut off is taken."""
    output.seek(0)
    done: set[str] = set()
    end = 0
    for line in output:
        if not line.endswith(b"\n"):
            break
        end += len(line)
        if not line.strip():
            continue
        try:
            response = json.loads(line)
            done.add(response["custom_id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise invalid(
                "output", f"{path}: holds a line that is no response; it is left as it is"
            ) from None
    output.truncate(end)
    output.seek(0, os.SEEK_END)
    return done


async def _answer_all(
    session: Session, requests: list[dict[str, Any]], output: BinaryIO, bar: ProgressBar, total: int
) -> None:
    waiting = iter(requests)
    done = total - len(requests)

    async def work() -> None:
        nonlocal done
        for request in waiting:
            line = await _response(session, request)
            # One write a line: what a kill interrupts is at most the last one, which is then done again.
            os.write(output.fileno(), (openai.dumps(line) + "\n").encode())
            done += 1
            bar.count(done, total)

    async with contextlib.AsyncExitStack() as stack:
        workers = [asyncio.ensure_future(work()) for _ in range(min(_AT_ONCE, len(requests)))]
        for worker in workers:
            stack.callback(worker.cancel)
        await asyncio.gather(*workers)


async def _response(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    body = request.get("body")
    named = body.get("model") if isinstance(body, dict) else None
    model = named if isinstance(named, str) else ""
    try:
        if request.get("method", "POST") != "POST":
            raise invalid("method", "must be POST")
        while True:
            try:
                given: Any = body
                found = await openai.answer(session, str(request.get("url")), given, model)
                break
            except QueueFullError:
                await asyncio.sleep(_RETRY_SECONDS)
        status = 200
    except SessionClosedError:
        raise
    except (AlloyForgeError, TypeError) as error:
        status, found = openai.error_of(error)
    return {
        "id": f"batch_req_{uuid.uuid4().hex}",
        "custom_id": request["custom_id"],
        "response": {"status_code": status, "request_id": uuid.uuid4().hex, "body": found},
        "error": None,
    }
