"""Write a model to a GGUF file in other types."""

from __future__ import annotations

import argparse
import sys

from alloyforge import _native
from alloyforge.cli import options
from alloyforge.progress import ProgressBar


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "source",
        metavar="IN",
        help="a .gguf file, the first shard of one, a Hugging Face id or a name in the catalogue",
    )
    parser.add_argument("target", metavar="OUT", help="the GGUF file to write; one that is there is replaced")
    parser.add_argument(
        "--type",
        required=True,
        metavar="TYPE",
        help="q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, q4_0, q3_k_l, q3_k_m, q3_k_s, "
        "q2_k, mxfp4, tq1_0, tq2_0, f16, bf16 or f32; int8 is q8_0, int4, as q4_k, is q4_k_m, and q5_k is "
        "q5_k_m",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads that convert")


def handle(arguments: argparse.Namespace) -> None:
    """Runs it."""
    a = arguments
    source = options.locate(a.source)
    with ProgressBar(f"quantising {a.source}", patience=0.5) as bar:
        written = _native.quantize_model(
            source, a.target, type=a.type, threads=a.threads, progress=bar.fraction
        )
    if written.requantized:
        print(
            f"alloyforge: {written.requantized} tensors of {a.source} had been quantised before: what is "
            "made from the original loses less",
            file=sys.stderr,
        )
    print(
        f"{a.target}: {written.file_type}, {written.bytes / 1e6:.1f} MB of {written.tensors} tensors, "
        f"{written.bytes_before / 1e6:.1f} MB before"
    )
    if a.verbose and written.fallbacks:
        print(
            f"{written.fallbacks} tensors have rows that are no whole blocks of their type and got another",
            file=sys.stderr,
        )
