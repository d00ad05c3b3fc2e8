"""Sessions on asyncio: the same answers, no thread a request, cancellation."""

from __future__ import annotations

import asyncio
import gc
import os
import pathlib
import threading
from typing import Any

import pytest

import alloyforge as af
from tests.test_session import NOISE, PROMPT, TEMPLATE, settle

LONG: dict[str, Any] = {**NOISE, "max_tokens": 200}


def test_the_same_answers(session: af.Session) -> None:
    prompts = [PROMPT[: 3 + i] for i in range(12)]
    want = [session.generate(p, **NOISE).tokens for p in prompts]

    async def main() -> list[af.Completion]:
        return await asyncio.gather(*(session.agenerate(p, **NOISE) for p in prompts))

    assert [a.tokens for a in asyncio.run(main())] == want
    # another loop, the same session
    assert [a.tokens for a in asyncio.run(main())] == want
    settle(session)


def test_a_thousand_that_wait(tiny_path: pathlib.Path) -> None:
    """They take no thread, and memory for little more than their tokens."""
    # so long that most wait still when the last has come
    long = {**NOISE, "max_tokens": 100}
    with af.Session(tiny_path, threads=1, max_batch=2) as session:
        session.generate(PROMPT, **NOISE)
        threads, memory = num_threads(), resident()

        async def main() -> tuple[int, int, int]:
            tasks = [asyncio.create_task(session.agenerate(PROMPT * 5, **long)) for _ in range(1000)]
            await asyncio.sleep(0)
            waiting, during = session.stats().waiting, num_threads()
            grown = resident() - memory
            answers = await asyncio.gather(*tasks)
            assert all(a.tokens == answers[0].tokens for a in answers)
            return waiting, during, grown

        waiting, during, grown = asyncio.run(main())
        assert waiting > 800
        assert during == threads
        assert grown < 50_000_000
        settle(session)


def num_threads() -> int:
    """Threads of this process, the core's own among them where the system tells."""
    tasks = pathlib.Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()


def resident() -> int:
    """Bytes that this process holds; 0 where the system does not tell."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def test_a_stream(session: af.Session) -> None:
    want = session.generate(PROMPT, **NOISE)

    async def main() -> tuple[list[af.Chunk], af.Completion]:
        stream = session.astream(PROMPT, **NOISE)
        with pytest.raises(af.InvalidRequestError, match="not over"):
            stream.completion  # noqa: B018
        return [chunk async for chunk in stream], stream.completion

    chunks, completion = asyncio.run(main())
    assert "".join(c.text for c in chunks) == completion.text == want.text


def test_chat(session: af.Session) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    want = session.chat(messages, template=TEMPLATE, **NOISE)

    async def main() -> tuple[af.ChatCompletion, str, af.ChatCompletion]:
        answer = await session.achat(messages, template=TEMPLATE, **NOISE)
        stream = session.astream_chat(messages, template=TEMPLATE, **NOISE)
        text = "".join([chunk.text async for chunk in stream])
        return answer, text, stream.completion

    answer, text, completion = asyncio.run(main())
    assert answer.text == text == completion.text == want.text


def test_a_cancelled_task_cancels_its_request(session: af.Session) -> None:
    async def main() -> None:
        async def drain() -> None:
            async for _ in session.astream(PROMPT, **LONG):
                pass

        for work in (lambda: session.agenerate(PROMPT, **LONG), drain):
            # a machine that does other things may let it be over before it can be cancelled
            for _ in range(20):
                task: asyncio.Task[Any] = asyncio.create_task(work())
                await asyncio.sleep(0)
                if task.done():
                    continue
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                break
            else:
                pytest.fail("no task was cancelled")

    asyncio.run(main())
    settle(session)


def test_leaving_a_stream_frees_it(session: af.Session) -> None:
    async def main() -> None:
        async for _ in session.astream(PROMPT, **LONG):
            break
        gc.collect()
        async with session.astream(PROMPT, **LONG) as stream:
            await anext(stream)
        settle(session)

    asyncio.run(main())


def test_cancel_ends_the_iteration(session: af.Session) -> None:
    async def main() -> str:
        stream = session.astream(PROMPT, **LONG)
        async for _ in stream:
            stream.cancel()
        return stream.completion.finish_reason

    assert asyncio.run(main()) == "cancelled"


def test_errors_arrive(session: af.Session) -> None:
    async def main() -> None:
        with pytest.raises(af.InvalidRequestError, match="top_p"):
            await session.agenerate(PROMPT, top_p=2)
        with pytest.raises(af.RequestTimeout):
            await session.agenerate(PROMPT, **LONG, timeout=1e-6)
        with pytest.raises(af.InvalidRequestError, match="images"):
            await session.agenerate(PROMPT, images=["x.png"])
        task = asyncio.create_task(session.agenerate(PROMPT, **LONG))
        await asyncio.sleep(0)  # it is under way, and not over
        session.close()
        with pytest.raises(af.SessionClosedError):
            await task

    asyncio.run(main())
