"""Time prefill and decode, each in tokens per second."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from alloyforge.cli import options
from alloyforge.progress import ProgressBar
from alloyforge.session import Session

_GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    options.add_model(parser)
    parser.add_argument(
        "--prompt-tokens", type=_positive, default=512, metavar="N", help="prefill this many (512)"
    )
    parser.add_argument("--gen-tokens", type=_positive, default=64, metavar="N", help="decode this many (64)")
    parser.add_argument("--concurrency", type=_positive, default=1, metavar="N", help="sequences at once (1)")
    parser.add_argument(
        "--depth", type=_natural, default=0, metavar="N", help="tokens before the timed ones (0)"
    )
    parser.add_argument(
        "--repeat", type=_positive, default=5, metavar="N", help="timed runs, after one untimed (5)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options.add_loading(parser)


def handle(arguments: argparse.Namespace) -> None:
    """Runs it."""
    a = arguments
    # What was computed for one run must not serve the next.
    defaults = {
        "prefix_cache": False,
        "context_len": a.depth + a.prompt_tokens + a.gen_tokens + 1,
        "max_batch": max(a.concurrency, 1),
    }
    with options.open_session(a, **defaults) as session, ProgressBar("timing", patience=0.5) as bar:
        timed = Timed(session, a.concurrency, a.depth)
        rows: list[tuple[str, int, Callable[[int], float]]] = [
            ("prefill", a.prompt_tokens, lambda salt: timed.prefill(a.prompt_tokens, salt)),
            ("decode", a.gen_tokens, lambda salt: timed.decode(a.gen_tokens, salt)),
        ]
        for i, (metric, tokens, measure) in enumerate(rows):
            speeds = []
            for run in range(a.repeat + 1):
                bar.fraction((i * (a.repeat + 1) + run) / (len(rows) * (a.repeat + 1)))
                seconds = measure(run)
                speeds.append(tokens * a.concurrency / seconds)
            report(a, session, metric, tokens, speeds[1:])


def report(
    a: argparse.Namespace, session: Session, metric: str, tokens: int, speeds: Sequence[float]
) -> None:
    """Prints one measurement."""
    median, low, high = statistics.median(speeds), min(speeds), max(speeds)
    if a.json:
        row = {
            "metric": metric,
            "tokens": tokens,
            "depth": a.depth,
            "concurrency": a.concurrency,
            "tokens_per_second": {"median": median, "min": low, "max": high},
            "runs": len(speeds),
            "threads": session.info.threads,
            "model": a.model,
            "device": session.info.device,
        }
        print(json.dumps(row), flush=True)
    else:
        print(f"{metric:8s} {median:9.1f} tokens/s  (from {low:.1f} to {high:.1f})", flush=True)


class Timed:
    """Measurements on one session.

    All prompts of a run differ, and those of two runs too. The wall clock is read around whole
    batches; what a measurement must not count is timed by itself and taken off.
    """

    def __init__(self, session: Session, concurrency: int, depth: int) -> None:
        self._session = session
        self._concurrency = concurrency
        self._depth = depth
        self._vocab_size = session.info.vocab_size

    def prefill(self, tokens: int, salt: int) -> float:
        """Seconds to read `tokens` tokens behind `depth` others."""
        whole = self._wall(self._depth + tokens, 1, salt)
        return max(whole - (self._wall(self._depth, 1, salt) if self._depth else 0.0), 1e-9)

    def decode(self, tokens: int, salt: int) -> float:
        """Seconds to draw `tokens` tokens behind the first, which prefill gives."""
        prompt = max(self._depth, 1)
        return max(self._wall(prompt, tokens + 1, salt) - self._wall(prompt, 1, salt), 1e-9)

    def _wall(self, prompt: int, answer: int, salt: int) -> float:
        prompts = [self._tokens(prompt, salt * self._concurrency + i) for i in range(self._concurrency)]
        start = time.perf_counter()
        self._session.generate_batch(prompts, max_tokens=answer, **_GREEDY)
        return time.perf_counter() - start

    def _tokens(self, count: int, salt: int) -> list[int]:
        """Ordinary-looking tokens, the same in every process."""
        state, out = 12345 + salt, []
        low = min(100, self._vocab_size // 2)
        for _ in range(count):
            state = (1103515245 * state + 12345) % 2**31
            out.append(low + state % max(min(self._vocab_size - low, 30000), 1))
        return out


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {number}")
    return number
