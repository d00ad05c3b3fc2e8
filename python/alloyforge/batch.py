"""Many prompts at once, with a word on how far they are."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alloyforge import _native
from alloyforge.errors import QueueFullError
from alloyforge.forms import parser_of, with_parser
from alloyforge.progress import ProgressBar
from alloyforge.results import Completion

Told = Callable[[int, int], object]
"""Told how many are done, and how many there are."""

_PATIENCE_SECONDS = 1.0
_TURN_SECONDS = 0.05
"""How long a wait goes on before signals are looked at."""


def run_batch(
    session: _native.Session,
    prompts: Sequence[str | Sequence[int]],
    sampling: Mapping[str, Any],
    progress: Told | bool | None,
) -> list[Completion]:
    """Completes the prompts together; the answers come in their order.

    Raises:
        InvalidRequestError: a parameter, or any of the prompts, is wrong; then none is completed.
    """
    if progress is None or isinstance(progress, bool):
        with ProgressBar("completing", patience=_PATIENCE_SECONDS) as bar:
            return _run(session, prompts, sampling, _silent if progress is False else bar.count)
    return _run(session, prompts, sampling, progress)


def _silent(done: int, total: int) -> None:
    pass


def _run(
    session: _native.Session, prompts: Sequence[str | Sequence[int]], sampling: Mapping[str, Any], told: Told
) -> list[Completion]:
    bell = _native.Bell()
    answers: dict[int, Completion] = {}
    requests: dict[int, _native.Request] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(bell.fileno(), selectors.EVENT_READ)

        def take() -> None:
            """Takes the answers that are there, after a wait for the first."""
            selector.select(_TURN_SECONDS)
            for tag in bell.answer():
                event = requests[tag].poll() if tag in requests else None
                if isinstance(event, Completion):
                    answers[tag] = event
                    del requests[tag]
                    told(len(answers), len(prompts))

        try:
            for tag, prompt in enumerate(prompts):
                while True:
                    try:
                        requests[tag] = session.submit(prompt, sampling, bell=bell, tag=tag)
                        break
                    except QueueFullError:
                        # More prompts than may wait: the rest go in as others come out.
                        if not requests:
                            raise
                        take()
            while requests:
                take()
        except BaseException:
            for request in requests.values():
                request.cancel()
            raise
    parse = parser_of(sampling)
    return [with_parser(answers[tag], parse) for tag in range(len(prompts))]
