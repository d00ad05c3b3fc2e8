"""Options that several commands share."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

from alloyforge.models import find_model
from alloyforge.models.find import DEFAULT_MODEL
from alloyforge.progress import ProgressBar
from alloyforge.results import Completion
from alloyforge.session import Session

MODEL_HELP = "a .gguf file, a folder, a Hugging Face id or a name in the catalogue"

_LOADING: dict[str, dict[str, Any]] = {
    "device": {"help": "auto, cpu, cuda, cuda:N or metal"},
    "backend": {"help": "auto, native or candle"},
    "dtype": {"help": "what unquantised weights are computed in: auto, f32, f16 or bf16"},
    "quantize": {"metavar": "TYPE", "help": "a type or mix to quantise weights to at load"},
    "context-len": {"type": int, "metavar": "N", "help": "most tokens that one sequence may hold"},
    "kv-dtype": {"help": "what the KV cache is kept in: auto, f32, f16, bf16 or q8_0"},
    "kv-memory": {"type": int, "metavar": "BYTES", "help": "bytes for the KV cache"},
    "threads": {"type": int, "metavar": "N", "help": "threads that compute"},
}

_SAMPLING: dict[str, dict[str, Any]] = {
    "max-tokens": {"type": int, "metavar": "N", "help": "most tokens to draw"},
    "temperature": {"type": float, "metavar": "X", "help": "0 is greedy"},
    "top-k": {"type": int, "metavar": "K", "help": "keep the K most probable tokens"},
    "top-p": {"type": float, "metavar": "P", "help": "keep the fewest tokens that reach P"},
    "min-p": {"type": float, "metavar": "P", "help": "keep tokens of this share of the highest"},
    "typical-p": {"type": float, "metavar": "P", "help": "keep the most typical tokens that reach P"},
    "top-n-sigma": {"type": float, "metavar": "N", "help": "keep logits within N standard deviations"},
    "xtc-probability": {"type": float, "metavar": "P", "help": "the chance that top choices are excluded"},
    "xtc-threshold": {"type": float, "metavar": "P", "help": "what counts as a top choice"},
    "repetition-penalty": {"type": float, "metavar": "X", "help": "1 is neutral"},
    "frequency-penalty": {"type": float, "metavar": "X", "help": "0 is neutral"},
    "presence-penalty": {"type": float, "metavar": "X", "help": "0 is neutral"},
    "dry-multiplier": {"type": float, "metavar": "X", "help": "penalise repeated sequences"},
    "seed": {"type": int, "metavar": "N", "help": "same seed, same answer"},
    "stop": {"action": "append", "metavar": "TEXT", "help": "a text that ends the answer; repeatable"},
}


def add_model(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """The model, and how it is loaded."""
    if optional:
        parser.add_argument(
            "model", nargs="?", metavar="MODEL", help=f"{MODEL_HELP}; {DEFAULT_MODEL} if left out"
        )
    else:
        parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)


def add_loading(parser: argparse.ArgumentParser) -> None:
    """How the model is loaded."""
    _add(parser.add_argument_group("loading"), _LOADING)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """How tokens are drawn, and the speed of it."""
    group = parser.add_argument_group("sampling", "what is left out is the model's own choice")
    _add(group, _SAMPLING)
    group.add_argument("--ignore-eos", action="store_true", default=None, help="go on behind the end token")
    parser.add_argument("--stats", action="store_true", help="print the speed on stderr")


def _add(group: Any, options: dict[str, dict[str, Any]]) -> None:
    for name, rest in options.items():
        group.add_argument(f"--{name}", **rest)


def sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sampling parameters that were said."""
    names = [name.replace("-", "_") for name in _SAMPLING] + ["ignore_eos"]
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def locate(model: str) -> pathlib.Path:
    """The path of a model, fetched under a progress bar where need be."""
    with ProgressBar() as bar:
        return find_model(model, bar.bytes)


def open_session(arguments: argparse.Namespace, **options: Any) -> Session:
    """The session that the arguments describe, loaded under a progress bar where it takes long."""
    model = arguments.model or DEFAULT_MODEL
    path = locate(model)
    names = [name.replace("-", "_") for name in _LOADING]
    said = {name: value for name in names if (value := getattr(arguments, name, None)) is not None}
    with ProgressBar(f"loading {model}", patience=0.5) as bar:
        session = Session(path, progress=bar.fraction, **{**options, **said})
    if arguments.verbose:
        info = session.info
        print(
            f"{path}: {info.architecture}, {info.parameters / 1e6:.0f} M parameters, {info.file_type}, "
            f"on {info.device} with {info.threads} threads, {info.memory.total / 1e6:.0f} MB, "
            f"context {info.context_len}",
            file=sys.stderr,
        )
    return session


def text_of(text: str) -> str:
    """The text, or stdin where it is `-`."""
    return sys.stdin.read() if text == "-" else text


def print_stats(completion: Completion) -> None:
    """Says on stderr how fast an answer came."""
    usage, timings = completion.usage, completion.timings
    prompt = usage.prompt_tokens - usage.cached_tokens
    print(
        f"prompt {prompt} tokens in {timings.prefill:.2f} s ({_rate(prompt, timings.prefill)}), "
        f"answer {usage.completion_tokens} tokens in {timings.decode:.2f} s "
        f"({_rate(usage.completion_tokens - 1, timings.decode)})",
        file=sys.stderr,
    )


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.1f} tokens/s" if tokens > 0 and seconds > 0 else "too short to time"
