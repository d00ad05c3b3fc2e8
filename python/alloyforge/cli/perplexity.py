"""Measure how well a model predicts a text.

The text is scored in windows that overlap by half, so that every token but those of the first window
has at least half a window before it.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
from collections.abc import Iterator, Sequence

from alloyforge.cli import options
from alloyforge.errors import invalid
from alloyforge.progress import ProgressBar
from alloyforge.session import Session

_WINDOW = 512


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    options.add_model(parser)
    parser.add_argument("file", metavar="FILE", help="the text, as UTF-8")
    parser.add_argument(
        "--window", type=int, default=_WINDOW, metavar="N", help=f"tokens a window ({_WINDOW})"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options.add_loading(parser)


def handle(arguments: argparse.Namespace) -> None:
    """Runs it."""
    text = pathlib.Path(arguments.file).read_text(encoding="utf-8")
    with options.open_session(arguments, prefix_cache=False) as session:
        window = min(arguments.window, session.info.context_len)
        if window < 2:
            raise invalid("window", f"must be at least 2, found {window}")
        tokens = session.tokenize(text, special=False)
        if len(tokens) < 2:
            raise invalid("file", "must hold at least two tokens")
        mean = sum(_losses(session, tokens, window)) / (len(tokens) - 1)
        report = {
            "perplexity": math.exp(mean),
            "mean_loss": mean,
            "tokens": len(tokens) - 1,
            "window": window,
            "model": arguments.model,
            "device": session.info.device,
        }
    print(json.dumps(report) if arguments.json else f"{report['perplexity']:.4f}")


def windows(num_tokens: int, window: int) -> Iterator[tuple[int, int, int]]:
    """The windows, each as its start, its end, and where its own tokens begin.

    Every token but the very first is a window's own exactly once.
    """
    start, scored = 0, 1
    while scored < num_tokens:
        end = min(start + window, num_tokens)
        yield start, end, scored
        scored = end
        start = max(end - window // 2, 0)


def _losses(session: Session, tokens: Sequence[int], window: int) -> Iterator[float]:
    with ProgressBar("scoring", patience=0.5) as bar:
        for start, end, own in windows(len(tokens), window):
            logprobs = session.score(tokens[start:end]).logprobs
            yield from (-float(x) for x in logprobs[own - start - 1 :])
            bar.fraction(end / len(tokens))
