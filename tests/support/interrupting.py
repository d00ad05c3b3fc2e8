"""Processes that a test interrupts."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator


def _heed() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def interruptible(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that heeds Ctrl-C, also where the tests run in the background, and is never left behind."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed
    ) as process:
        try:
            yield process
        finally:
            process.kill()
