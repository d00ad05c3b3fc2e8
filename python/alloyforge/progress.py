"""A progress bar, on a terminal only."""

from __future__ import annotations

import sys
import time
from types import TracebackType

_WIDTH = 30
_REDRAW_SECONDS = 0.1


class ProgressBar:
    """One line on stderr that is drawn over and erased at the end; nothing where stderr is no terminal.

    Args:
        label: What takes long.
        patience: Seconds that pass before the bar is shown, so that short work stays quiet.
    """

    def __init__(self, label: str = "", patience: float = 0.0) -> None:
        self._label = label
        self._is_shown = sys.stderr.isatty()
        self._next = time.monotonic() + patience
        self._has_drawn = False

    def bytes(self, label: str, done: int, total: int) -> None:
        """Draws a download."""
        self._label = label
        self._draw(done / max(total, 1), f"{done / 1e6:.0f} of {total / 1e6:.0f} MB")

    def count(self, done: int, total: int) -> None:
        """Draws things done of all that there are."""
        self._draw(done / max(total, 1), f"{done} of {total}")

    def fraction(self, done: float) -> None:
        """Draws a share of the whole."""
        self._draw(done, "")

    def _draw(self, done: float, text: str) -> None:
        now = time.monotonic()
        if not self._is_shown or now < self._next:
            return
        self._next = now + _REDRAW_SECONDS
        self._has_drawn = True
        done = min(max(done, 0.0), 1.0)
        filled = round(done * _WIDTH)
        bar = "#" * filled + "-" * (_WIDTH - filled)
        sys.stderr.write(f"\r\x1b[K{self._label} [{bar}] {done:4.0%} {text}")
        sys.stderr.flush()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._has_drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
