#!/usr/bin/env python3
"""Measure many requests at once on one session.

usage: serving.py MODEL.gguf [--what throughput,share,mixed,prefix,speculation,soak] [--seconds 1200]
                  [--repeat 3]

throughput   tokens a second of 1, 16 and 64 sequences that decode together
share        the engine's own share of a step of 16 sequences (scheduling, drawing, delivery), by how
             tokens are drawn
mixed        Poisson arrivals with prompts of 16 to 2,000 tokens: the gap between two tokens of a running
             answer while other prompts are read, its 95th percentile against its median
prefix       time to the first token of a prompt with a head of 2,000 tokens, cold and warm
speculation  `draft="ngram"` on a text that repeats its input, and on one that does not
soak         random requests, cancellations, priorities and sizes from 32 asyncio tasks for SECONDS: memory,
             blocks, and every finished answer against its solo run

Prints one line a measurement. Nothing else should run on the machine. `soak` fails with status 1 where
something is lost; the others measure and do not judge.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import statistics
import sys
import time
from typing import Any

import alloyforge as af

WORDS = ["river", "lantern", "bridge", "copper", "winter", "harbour", "signal", "meadow", "engine"]
GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}


def text(session: af.Session, tokens: int, seed: int) -> list[int]:
    """Exactly so many tokens of words in a random order."""
    words = random.Random(seed).choices(WORDS, k=tokens)
    return session.tokenize(" ".join(words))[:tokens]


def median(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def throughput(model: str, repeat: int) -> None:
    with af.Session(model, context_len=512) as session:
        for count in (1, 16, 64):
            rates = []
            for turn in range(repeat + 1):
                prompts = [text(session, 16, 100 * turn + i) for i in range(count)]
                tokens = 96 if count < 64 else 64
                answers = session.generate_batch(prompts, progress=False, max_tokens=tokens, **GREEDY)
                # All decode together from when the last has begun until the first is over.
                seconds = statistics.median(a.timings.decode for a in answers)
                if turn:
                    rates.append(count * (tokens - 1) / seconds)
            print(f"throughput, {count} sequences: {median(rates)} tokens/s", flush=True)


def share(model: str, repeat: int) -> None:
    ways: dict[str, dict[str, Any]] = {
        "greedy": {"temperature": 0.0},
        "temperature 1": {"temperature": 1.0, "seed": 3},
        "top_p 0.95": {"temperature": 0.8, "top_p": 0.95, "seed": 3},
        "top_k 50, top_p 0.95": {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "seed": 3},
        "min_p 0.05": {"temperature": 0.8, "min_p": 0.05, "seed": 3},
    }
    with af.Session(model, context_len=512) as session:
        prompts = [text(session, 16, i) for i in range(16)]
        session.generate_batch(prompts, progress=False, max_tokens=8, **GREEDY)
        for way, said in ways.items():
            shares, steps = [], []
            for _ in range(repeat):
                before = session.stats()
                session.generate_batch(prompts, progress=False, max_tokens=64, ignore_eos=True, **said)
                after = session.stats()
                busy = after.busy_seconds - before.busy_seconds
                shares.append(100 * (1 - (after.model_seconds - before.model_seconds) / busy))
                steps.append(1e3 * busy / (after.steps - before.steps))
            print(f"share, 16 sequences, {way}: {median(shares)} % of {median(steps)} ms a step", flush=True)


def mixed(model: str, seconds: float) -> None:
    """Streams decode all along; prompts arrive beside them."""
    gaps: list[float] = []
    alone: list[float] = []

    async def stream(session: af.Session, seed: int, stop: asyncio.Event, out: list[float]) -> None:
        while not stop.is_set():
            last = None
            async for _ in session.astream(text(session, 24, seed), max_tokens=400, **GREEDY):
                now = time.perf_counter()
                if last is not None:
                    out.append(now - last)
                last = now
                if stop.is_set():
                    break
            seed += 1000

    async def arrivals(session: af.Session, stop: asyncio.Event) -> int:
        numbers = random.Random(5)
        tasks: list[asyncio.Task[Any]] = []
        while not stop.is_set():
            size = int(16 * (2000 / 16) ** numbers.random())
            prompt = text(session, size, len(tasks))
            tasks.append(asyncio.create_task(session.agenerate(prompt, max_tokens=16, **GREEDY)))
            await asyncio.sleep(numbers.expovariate(1.5))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(tasks)

    async def run(session: af.Session, out: list[float], with_arrivals: bool) -> int:
        stop = asyncio.Event()
        work = [asyncio.create_task(stream(session, i, stop, out)) for i in range(4)]
        count = asyncio.create_task(arrivals(session, stop)) if with_arrivals else None
        await asyncio.sleep(seconds)
        stop.set()
        await asyncio.gather(*work)
        return await count if count else 0

    with af.Session(model, context_len=4096, prefix_cache=False) as session:
        session.generate(text(session, 512, 0), max_tokens=32, **GREEDY)
        asyncio.run(run(session, alone, with_arrivals=False))
        count = asyncio.run(run(session, gaps, with_arrivals=True))
    for name, values in (("alone", alone), (f"with {count} arrivals", gaps)):
        cuts = statistics.quantiles(values, n=100)
        print(
            f"gap between tokens, 4 streams {name}: median {1e3 * cuts[49]:.1f} ms, "
            f"95 % {1e3 * cuts[94]:.1f} ms ({cuts[94] / cuts[49]:.2f} times), "
            f"99 % {1e3 * cuts[98]:.1f} ms, longest {1e3 * max(values):.1f} ms",
            flush=True,
        )


def prefix(model: str, repeat: int) -> None:
    with af.Session(model, context_len=4096) as session:
        session.generate(text(session, 64, 0), max_tokens=4, **GREEDY)
        ratios = []
        for turn in range(repeat):
            head = text(session, 2000, 50 + turn)
            first = session.generate([*head, *text(session, 10, 1)], max_tokens=2, **GREEDY)
            second = session.generate([*head, *text(session, 10, 2)], max_tokens=2, **GREEDY)
            ratios.append(first.timings.first_token / second.timings.first_token)
            print(
                f"first token behind 2,000: cold {1e3 * first.timings.first_token:.0f} ms, "
                f"warm {1e3 * second.timings.first_token:.1f} ms",
                flush=True,
            )
        print(f"prefix cache: {median(ratios)} times sooner")


def speculation(model: str, repeat: int) -> None:
    article = (
        "The harbour master wrote down every ship that came in before the storm. First came the copper "
        "trader from the north with a broken mast, then two fishing boats that had lost their nets, and "
        "last of all the mail ship with eleven letters for the lighthouse. He closed the book at nine."
    )
    repeating = f"Copy this text three times, word for word.\n\n{article}\n\n{article}\n\n{article}\n\n"
    original = "Write a story about a lighthouse keeper who collects words.\n\n"
    cases: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("repeats its input", repeating, {}),
        ("does not", original, {"temperature": 1.0, "seed": 7}),
    )
    rates: dict[tuple[str, str | None], list[float]] = {}
    sessions = {draft: af.Session(model, context_len=2048, draft=draft) for draft in (None, "ngram")}
    usage: dict[str, str] = {}
    for turn in range(repeat + 1):
        for name, prompt, sampling in cases:
            answers = {}
            for draft, session in sessions.items():
                said = {**GREEDY, **sampling, "max_tokens": 200}
                answers[draft] = answer = session.generate(prompt, **said)
                if turn:
                    rates.setdefault((name, draft), []).append(199 / answer.timings.decode)
            if answers[None].tokens != answers["ngram"].tokens:
                sys.exit(f"speculation changed the answer that {name}")
            used = answers["ngram"].usage
            usage[name] = f"{used.accepted_tokens} of {used.drafted_tokens} guesses right"
    for name, _, _ in cases:
        plain, guessed = rates[name, None], rates[name, "ngram"]
        ratio = statistics.median(guessed) / statistics.median(plain)
        print(
            f"text that {name}: {median(plain)} tokens/s, with ngram {median(guessed)}, {ratio:.2f} times; "
            f"{usage[name]}",
            flush=True,
        )
    for session in sessions.values():
        session.close()


def soak(model: str, seconds: float) -> None:
    """See the module's first lines. Fails where an answer, a block or memory is lost."""
    numbers = random.Random(1)
    options = {"context_len": 1024, "max_batch": 16}
    with af.Session(model, prefix_cache=False, **options) as session:  # type: ignore[arg-type]
        requests = []
        for i in range(48):
            said: dict[str, Any] = {"max_tokens": numbers.randint(1, 40), "ignore_eos": True}
            said |= {"temperature": 0.0} if i % 2 else {"temperature": 0.9, "top_p": 0.95, "seed": i}
            if i % 6 == 5:
                said["regex"] = "[a-z]{2,9}( [a-z]{2,9}){1,4}[.]"
            head = text(session, 96, i % 3) if i % 3 else []
            requests.append((head + text(session, numbers.randint(1, 300), i), said))
        want = [session.generate(prompt, **said).tokens for prompt, said in requests]
        token_bytes = session.info.kv_bytes_per_token
    counts = dict.fromkeys(("finished", "cancelled", "timed out", "wrong"), 0)
    memory: list[float] = []

    async def caller(session: af.Session, seed: int, end: float) -> None:
        numbers = random.Random(seed)
        while time.monotonic() < end:
            which = numbers.randrange(len(requests))
            prompt, said = requests[which]
            priority = numbers.choice(["low", "normal", "high", "critical"])
            task = asyncio.create_task(session.agenerate(prompt, **{**said, "priority": priority}))
            match numbers.randrange(8):
                case 0:
                    await asyncio.sleep(numbers.random() * 0.5)
                    task.cancel()
                    try:
                        await task
                    except asyncio.CancelledError:
                        counts["cancelled"] += 1
                        continue
                case 1:
                    task.cancel()
                    limited = session.agenerate(prompt, **{**said, "timeout": 0.2})
                    try:
                        tokens = (await limited).tokens
                    except af.RequestTimeout:
                        counts["timed out"] += 1
                        continue
                    counts["wrong"] += tokens != want[which]
                case 2:
                    task.cancel()
                    async with session.astream(prompt, **said) as stream:
                        async for _ in stream:
                            if numbers.random() < 0.2:
                                break
                    counts["cancelled"] += 1
                    continue
                case _:
                    counts["wrong"] += (await task).tokens != want[which]
            counts["finished"] += 1

    async def watch(end: float) -> None:
        while time.monotonic() < end:
            await asyncio.sleep(max(seconds / 40, 0.5))
            memory.append(resident())

    async def run(session: af.Session) -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(watch(end), *(caller(session, i, end) for i in range(32)))

    # Room for about six of the sixteen that may run.
    few = token_bytes * 6 * 440
    with af.Session(model, kv_memory=few, draft="ngram", **options) as session:  # type: ignore[arg-type]
        asyncio.run(run(session))
        deadline = time.monotonic() + 5
        while (stats := session.stats()).running or stats.waiting or stats.kv_blocks_used:
            if time.monotonic() > deadline:
                sys.exit(f"soak: something is left: {stats}")
            time.sleep(0.01)
    early, late = memory[len(memory) // 4], memory[-1]
    print(
        f"soak of {seconds:.0f} s: {counts}, {stats.preemptions} preemptions, hits {stats.prefix_hit_tokens}"
    )
    print(f"memory: {early:.0f} MB after a quarter, {late:.0f} MB at the end, peak {peak():.0f} MB")
    if counts["wrong"] or not counts["finished"] or late > 1.05 * early + 16:
        sys.exit("soak: failed")


def resident() -> float:
    """Memory held, in MB."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return peak()


def peak() -> float:
    """The most memory held, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--what", default="throughput,share,mixed,prefix,speculation")
    parser.add_argument(
        "--seconds", type=float, default=1200.0, help="of the soak; a twentieth of it for mixed"
    )
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    model, repeat = arguments.model, arguments.repeat
    for what in arguments.what.split(","):
        match what:
            case "throughput":
                throughput(model, repeat)
            case "share":
                share(model, repeat)
            case "mixed":
                mixed(model, arguments.seconds / 20)
            case "prefix":
                prefix(model, repeat)
            case "speculation":
                speculation(model, repeat)
            case "soak":
                soak(model, arguments.seconds)
            case _:
                parser.error(f"{what!r} is none of throughput, share, mixed, prefix, speculation, soak")


if __name__ == "__main__":
    main()
