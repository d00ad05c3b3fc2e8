"""Every way to give a request up frees its blocks, while a prompt is read and while an answer is written."""

from __future__ import annotations

import asyncio
import gc
import pathlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

import alloyforge as af
from tests.test_session import settle

SAID: dict[str, Any] = {"max_tokens": 2000, "ignore_eos": True, "temperature": 0.0}
PROMPTS = {"reading": list(range(100, 3900)), "writing": [100, 101, 102]}
"""A prompt that takes seconds to read, and an answer that takes long to write."""


@pytest.fixture(scope="module")
def model(smollm2: pathlib.Path) -> Iterator[af.Session]:
    with af.Session(smollm2, context_len=8192, prefix_cache=False) as session:
        yield session


@pytest.fixture(params=PROMPTS)
def prompt(request: pytest.FixtureRequest) -> list[int]:
    return PROMPTS[request.param]


def under_way(session: af.Session) -> None:
    """Waits until a request is served."""
    end = time.monotonic() + 30
    while not session.stats().kv_blocks_used:
        assert time.monotonic() < end
        time.sleep(0.001)


def freed(session: af.Session) -> None:
    """What is left is nothing, long before the request would have been over by itself."""
    settle(session, seconds=5)


def test_cancel(model: af.Session, prompt: list[int]) -> None:
    stream = model.stream(prompt, **SAID)
    reader = threading.Thread(target=lambda: [None for _ in stream])
    reader.start()
    under_way(model)
    stream.cancel()
    freed(model)
    reader.join(10)
    assert not reader.is_alive()
    assert stream.completion.finish_reason == "cancelled"


@pytest.mark.parametrize("way", ["with", "close", "drop", "generator"])
def test_leaving(model: af.Session, prompt: list[int], way: str) -> None:
    def chunks() -> Generator[af.Chunk, None, None]:
        yield from model.stream(prompt, **SAID)

    if way == "with":
        with model.stream(prompt, **SAID):
            under_way(model)
    elif way == "close":
        stream = model.stream(prompt, **SAID)
        under_way(model)
        stream.close()
    elif way == "drop":
        stream = model.stream(prompt, **SAID)
        under_way(model)
        del stream
        gc.collect()
    elif len(prompt) < 100:  # a generator that waits for its first chunk cannot be closed
        generator = chunks()
        next(generator)
        generator.close()
    freed(model)


def test_breaking_off_an_iteration(model: af.Session) -> None:
    for _ in model.stream(PROMPTS["writing"], **SAID):
        break
    gc.collect()
    freed(model)


@pytest.mark.parametrize("way", ["task", "timeout", "stream"])
def test_asyncio(model: af.Session, prompt: list[int], way: str) -> None:
    async def drain() -> None:
        async for _ in model.astream(prompt, **SAID):
            pass

    async def main() -> None:
        if way == "timeout":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(model.agenerate(prompt, **SAID), 0.3)
        else:
            work: Callable[[], Any] = drain if way == "stream" else lambda: model.agenerate(prompt, **SAID)
            task = asyncio.create_task(work())
            while not model.stats().kv_blocks_used:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.to_thread(freed, model)

    asyncio.run(main())


def test_time_that_is_over(model: af.Session, prompt: list[int]) -> None:
    with pytest.raises(af.RequestTimeout):
        model.generate(prompt, **SAID, timeout=0.3)
    freed(model)
    assert len(model.generate(PROMPTS["writing"], **{**SAID, "max_tokens": 3}).tokens) == 3
