#!/usr/bin/env python3
"""Measure a model as AlloyForge runs it today: speed on each backend, time to load, memory.

usage: baseline.py MODEL.gguf [--threads N] [--repeat 3]

Every figure comes from a process of its own: the speeds from `alloyforge bench --json`, load time and
peak memory from a process that opens the model and closes it. Where llama-cpp-python is installed, its
load is measured the same way. Prints one Markdown table; nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from typing import Any

BACKENDS = ("native", "candle")
SPEEDS = (
    ("prefill 512", ["--prompt-tokens", "512", "--gen-tokens", "1"], "prefill"),
    ("decode 64 behind 128", ["--prompt-tokens", "1", "--gen-tokens", "64", "--depth", "128"], "decode"),
    ("decode 32 behind 2048", ["--prompt-tokens", "1", "--gen-tokens", "32", "--depth", "2048"], "decode"),
    (
        "decode, 16 sequences",
        ["--prompt-tokens", "1", "--gen-tokens", "48", "--depth", "32", "--concurrency", "16"],
        "decode",
    ),
)
LOAD = """
import resource, sys, time
start = time.perf_counter()
{body}
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
ALLOYFORGE = """
import alloyforge
start = time.perf_counter()
session = alloyforge.Session(sys.argv[1], backend={backend!r}, context_len=4096)
"""
LLAMA_CPP = """
import llama_cpp
start = time.perf_counter()
model = llama_cpp.Llama(sys.argv[1], n_ctx=4096, verbose=False)
"""


def speed(model: str, backend: str, options: list[str], metric: str, threads: list[str], repeat: int) -> str:
    """The median of one measurement, and its range."""
    command = [sys.executable, "-m", "alloyforge", "bench", model, "--json", "--backend", backend, *threads]
    done = subprocess.run(
        [*command, "--repeat", str(repeat), *options], capture_output=True, text=True, check=True
    )
    rows: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    found = next(row["tokens_per_second"] for row in rows if row["metric"] == metric)
    return f"{found['median']:.1f} ({found['min']:.1f} to {found['max']:.1f})"


def load(model: str, body: str, repeat: int) -> tuple[float, float]:
    """Seconds to open the model, the median, and the peak of memory in MiB."""
    code = LOAD.format(body=body)
    said = [
        subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, check=True).stdout
        for _ in range(repeat)
    ]
    seconds, peaks = zip(*(map(float, line.split()[-2:]) for line in said), strict=True)
    return statistics.median(seconds), max(peaks)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    threads = ["--threads", str(arguments.threads)] if arguments.threads else []
    print(f"| {arguments.model} | " + " | ".join(BACKENDS) + " |")
    print("| --- |" + " --- |" * len(BACKENDS))
    for name, options, metric in SPEEDS:
        cells = [speed(arguments.model, b, options, metric, threads, arguments.repeat) for b in BACKENDS]
        print(f"| {name}, tokens/s | " + " | ".join(cells) + " |", flush=True)
    loads = [load(arguments.model, ALLOYFORGE.format(backend=b), arguments.repeat) for b in BACKENDS]
    print("| load, s | " + " | ".join(f"{seconds:.2f}" for seconds, _ in loads) + " |")
    print("| peak memory, MiB | " + " | ".join(f"{peak:.0f}" for _, peak in loads) + " |")
    if importlib.util.find_spec("llama_cpp"):
        seconds, peak = load(arguments.model, LLAMA_CPP, arguments.repeat)
        print(f"\nllama.cpp loads it in {seconds:.2f} s with a peak of {peak:.0f} MiB.")


if __name__ == "__main__":
    main()
