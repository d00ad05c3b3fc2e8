"""Show what is in a model, and what it would take to run it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import Counter

from alloyforge import _native
from alloyforge.cli import options
from alloyforge.results import Inspection

_MB = 1e6


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    options.add_model(parser)
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--metadata", action="store_true", help="list every key")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")


def handle(arguments: argparse.Namespace) -> None:
    """Runs it."""
    found = _native.inspect(options.locate(arguments.model))
    if arguments.json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    for name, value in _summary(found):
        print(f"{name:16s}{value}")
    if arguments.metadata:
        print()
        for key, value in found.metadata.items():
            print(f"{key} = {' '.join(value.split())}")
    if arguments.tensors:
        print()
        for tensor in found.tensors:
            print(f"{tensor.name}  {tensor.type}  {list(tensor.shape)}  {tensor.bytes} bytes")


def _summary(found: Inspection) -> list[tuple[str, str]]:
    types = Counter(tensor.type for tensor in found.tensors)
    rows = [
        ("format", found.format),
        ("files", ", ".join(found.files)),
        ("tensors", f"{len(found.tensors)} ({', '.join(f'{n} {name}' for name, n in types.most_common())})"),
        ("chat template", "yes" if found.chat_template else "no"),
    ]
    model = found.model
    if model is None:
        return [*rows, ("cannot run", found.fault or "")]
    return [
        ("architecture", model.architecture),
        ("parameters", f"{model.parameters / 1e6:.1f} M"),
        ("stored as", model.file_type),
        ("layers", f"{model.num_layers}, {model.hidden_dim} wide"),
        ("heads", f"{model.num_heads}, {model.num_kv_heads} of them with keys, {model.head_dim} wide"),
        ("vocabulary", f"{model.vocab_size} tokens"),
        ("context", f"{model.context_len} tokens"),
        *rows,
        (
            "to run it",
            f"{found.tensor_bytes / _MB:.0f} MB of weights, {model.kv_bytes_per_token} bytes of KV cache a "
            f"token in f16: {(found.tensor_bytes + model.kv_bytes) / _MB:.0f} MB with a full context",
        ),
    ]
