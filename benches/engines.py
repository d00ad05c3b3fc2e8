#!/usr/bin/env python3
"""Time AlloyForge and llama.cpp on the same GGUF files, in turn, and print a table of both.

usage: engines.py MODEL.gguf... [--threads 2] [--rounds 3]

llama.cpp is llama-cpp-python's, which is the honest rival where it was compiled for this machine:
`CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary llama-cpp-python llama-cpp-python`. Every run is a
process of its own, and the engines take turns, so that a noisy machine moves both alike. A cell has the
medians of tokens a second, AlloyForge first, and the median of the rounds' ratios. Nothing else should
run on the machine; and a speed says nothing unless the text is right, which the tests look after.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# tokens of the prompt, tokens generated behind it, sequences side by side
WORK = {
    "prefill 512": (512, 0, 1),
    "decode at 128": (128, 64, 1),
    "decode at 2048": (2048, 32, 1),
    "16 sequences": (32, 48, 16),
}


def prompt(length: int, vocab: int, seed: int) -> list[int]:
    """Tokens that are no text: what they are does not change the work."""
    return [100 + (seed * 7919 + i * i * 31 + i * 97) % min(vocab - 200, 30000) for i in range(length)]


def alloyforge(model: str, threads: int) -> dict[str, float]:
    """Tokens a second of each kind of work."""
    import alloyforge as af

    speeds = {}
    options: dict[str, Any] = {"temperature": 0, "ignore_eos": True}
    with af.Session(model, threads=threads, prefix_cache=False, context_len=4096) as session:
        vocab = session.info.vocab_size
        session.generate(prompt(64, vocab, 0), max_tokens=4, **options)
        for name, (length, count, sequences) in WORK.items():
            prompts = [prompt(length, vocab, 1 + i) for i in range(sequences)]
            if sequences == 1:
                done = session.generate(prompts[0], max_tokens=max(count, 1), **options)
                spent = done.timings.decode if count else done.timings.prefill
                speeds[name] = ((len(done.tokens) - 1) if count else length) / spent
                continue
            # the batch less the same batch asked for one token
            seconds = []
            for tokens in (1, count):
                start = time.perf_counter()
                session.generate_batch(prompts, max_tokens=tokens, **options)
                seconds.append(time.perf_counter() - start)
            speeds[name] = sequences * (count - 1) / (seconds[1] - seconds[0])
    return speeds


def llama_cpp(model: str, threads: int) -> dict[str, float]:
    """The same, of llama.cpp by its C interface."""
    import llama_cpp as lc

    lc.llama_backend_init()
    quiet = lc.llama_log_callback(lambda *_: None)
    lc.llama_log_set(quiet, None)
    loaded = lc.llama_model_load_from_file(model.encode(), lc.llama_model_default_params())
    vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(loaded))
    params = lc.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 4096, 2048, 512, 16
    params.n_threads = params.n_threads_batch = threads
    if hasattr(params, "kv_unified"):
        params.kv_unified = True
    context = lc.llama_init_from_model(loaded, params)
    batch = lc.llama_batch_init(2048, 0, 1)

    def step(rows: list[tuple[int, int, int, bool]]) -> None:
        batch.n_tokens = len(rows)
        for i, (token, place, sequence, is_wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, place, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, is_wanted
        if lc.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        lc.llama_synchronize(context)

    speeds = {}
    step([(token, i, 0, i == 63) for i, token in enumerate(prompt(64, vocab, 0))])
    for name, (length, count, sequences) in WORK.items():
        lc.llama_memory_clear(lc.llama_get_memory(context), True)
        start = time.perf_counter()
        for s in range(sequences):
            step([(token, i, s, i == length - 1) for i, token in enumerate(prompt(length, vocab, 1 + s))])
        read = time.perf_counter()
        for i in range(count - 1):
            step([(1000 + i, length + i, s, True) for s in range(sequences)])
        done = time.perf_counter()
        speeds[name] = sequences * (count - 1) / (done - read) if count else length / (read - start)
    return speeds


ENGINES = {"alloyforge": alloyforge, "llama_cpp": llama_cpp}


def run(engine: str, model: str, threads: int) -> dict[str, float]:
    """The engine's speeds, measured in a process of its own."""
    command = [sys.executable, __file__, model, "--threads", str(threads), "--as", engine]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{engine} failed on {model}: {done.stderr[-600:]}")
    speeds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--as", dest="engine", choices=ENGINES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        print(json.dumps(ENGINES[arguments.engine](arguments.models[0], arguments.threads)))
        return
    print("| model | " + " | ".join(WORK) + " |")
    print("| --- |" + " --- |" * len(WORK))
    for model in arguments.models:
        rounds = [{e: run(e, model, arguments.threads) for e in ENGINES} for _ in range(arguments.rounds)]
        cells = []
        for name in WORK:
            ours, theirs = ([r[e][name] for r in rounds] for e in ENGINES)
            ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            cells.append(f"{statistics.median(ours):.0f} / {statistics.median(theirs):.0f} = {ratio:.2f}")
        print(f"| {Path(model).stem} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
