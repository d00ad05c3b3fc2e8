"""One session, many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import alloyforge as af
from tests.test_session import NOISE, settle


def test_threads_share_a_session(session: af.Session) -> None:
    prompts = [list(range(10 + i, 20 + 2 * i)) for i in range(16)]
    alone = [session.generate(p, **NOISE).tokens for p in prompts]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda p: session.generate(p, **NOISE).tokens, prompts * 3))
    assert together == alone * 3
    settle(session)


def test_a_stream_is_cancelled_from_another_thread(session: af.Session) -> None:
    stream = session.stream([10, 11, 12], **{**NOISE, "max_tokens": 250 - 3})
    chunks: list[str] = []
    thread = threading.Thread(target=lambda: chunks.extend(c.text for c in stream))
    thread.start()
    stream.cancel()
    thread.join(10)
    assert not thread.is_alive()
    assert "".join(chunks) == stream.completion.text


def test_the_interpreter_is_free_while_the_core_works(session: af.Session) -> None:
    done = threading.Event()
    turns = 0

    def work() -> None:
        session.generate_batch([[10, 11, 12]] * 16, **{**NOISE, "max_tokens": 200})
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        turns += 1
        done.wait(0.001)
    thread.join()
    assert turns > 3


def test_closing_ends_the_others(session: af.Session) -> None:
    failures: list[BaseException] = []
    started = threading.Barrier(5)

    def work() -> None:
        started.wait()
        try:
            while True:
                session.generate([10, 11, 12], **NOISE)
        except af.AlloyForgeError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    session.close()
    for thread in threads:
        thread.join(10)
    assert [type(error) for error in failures] == [af.SessionClosedError] * 4
