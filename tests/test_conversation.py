"""Conversations: each turn is what `chat` gives for the whole, found sooner."""

from __future__ import annotations

import asyncio
import gc
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

import alloyforge as af

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
SYSTEM = "Answer in rhymes, whatever is asked, and never say why; " * 2
NOISE: dict[str, Any] = {"temperature": 1.0, "seed": 4, "ignore_eos": True, "max_tokens": 20}


@pytest.fixture(params=[True, False], ids=["cached", "uncached"])
def any_session(tiny_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[af.Session]:
    """A session with the prefix cache, and one without, where conversations keep their own."""
    with af.Session(tiny_path, threads=1, prefix_cache=request.param) as session:
        yield session


def say(session: af.Session, messages: list[dict[str, Any]]) -> af.ChatCompletion:
    return session.chat(messages, template=TEMPLATE, **NOISE)


def test_turns_are_chats(any_session: af.Session) -> None:
    chat = any_session.conversation(SYSTEM, template=TEMPLATE)
    messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}]
    assert chat.messages == messages
    for turn, text in enumerate(["What is rain?", "And snow?", "And hail?"]):
        messages.append({"role": "user", "content": text})
        answer = chat.send(text, **NOISE)
        assert answer.tokens == say(any_session, messages).tokens
        if turn:
            assert answer.usage.cached_tokens >= 64
        messages.append(answer.message)
        assert chat.messages == messages
    assert any_session.stats().kv_blocks_used == 0
    assert "7 messages" in repr(chat)


def test_streams(session: af.Session) -> None:
    chat, twin = (session.conversation(template=TEMPLATE) for _ in range(2))
    want = twin.send("Hello", **NOISE)
    with chat.stream("Hello", **NOISE) as stream:
        assert "".join(c.text for c in stream) == want.text
    assert stream.completion.tokens == want.tokens
    assert chat.messages == twin.messages


def test_asyncio(session: af.Session) -> None:
    async def run() -> None:
        chat, twin = (session.conversation(template=TEMPLATE) for _ in range(2))
        answer = await chat.asend("Hello", **NOISE)
        assert answer.tokens == twin.send("Hello", **NOISE).tokens
        text = ""
        async for chunk in chat.astream("Again", **NOISE):
            text += chunk.text
        assert text == twin.send("Again", **NOISE).text
        assert chat.messages == twin.messages
        long = {**NOISE, "max_tokens": 400}
        task = asyncio.create_task(chat.asend("Long", **long))
        # It has been submitted by then, and nothing has been heard of it.
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert chat.messages == twin.messages
        await chat.asend("Go on", **NOISE)

    asyncio.run(run())


def test_one_turn_at_a_time(session: af.Session) -> None:
    chat = session.conversation(template=TEMPLATE)
    stream = chat.stream("Hello", **{**NOISE, "max_tokens": 400})
    next(stream)
    with pytest.raises(af.InvalidRequestError, match="under way"):
        chat.send("Me too", **NOISE)
    stream.cancel()
    partial = stream.completion
    assert partial.finish_reason == "cancelled"
    assert chat.messages == [{"role": "user", "content": "Hello"}, partial.message]
    # A stream that is dropped leaves no trace.
    stream = chat.stream("And?", **{**NOISE, "max_tokens": 400})
    next(stream)
    del stream
    gc.collect()
    assert len(chat.messages) == 2
    chat.send("Hm", **NOISE)
    assert len(chat.messages) == 4


def test_what_fails_leaves_it_as_it_was(session: af.Session) -> None:
    chat = session.conversation(template=TEMPLATE)
    chat.send("Hello", **NOISE)
    before = chat.messages
    with pytest.raises(af.InvalidRequestError, match="top_p"):
        chat.send("Hm", top_p=7)
    with pytest.raises(af.ContextLengthError):
        chat.send("word " * 5000, **NOISE)
    with pytest.raises(af.InvalidRequestError, match="content"):
        chat.send([], **NOISE)
    with pytest.raises(af.InvalidRequestError, match="role"):
        chat.send({"content": "x"}, **NOISE)
    assert chat.messages == before
    chat.messages.append({"role": "user", "content": "a copy is changed, not the chat"})
    assert chat.messages == before
    chat.send([{"role": "tool", "content": "7"}, {"role": "user", "content": "So?"}], **NOISE)
    assert [m["role"] for m in chat.messages] == ["user", "assistant", "tool", "user", "assistant"]


def test_forks_go_their_own_way(any_session: af.Session) -> None:
    chat = any_session.conversation(SYSTEM, template=TEMPLATE)
    chat.send("Which way?", **NOISE)
    fork = chat.fork()
    assert fork.messages == chat.messages
    left, right = chat.send("Left", **NOISE), fork.send("Right", **NOISE)
    assert min(left.usage.cached_tokens, right.usage.cached_tokens) >= 64
    assert chat.messages[:-2] == fork.messages[:-2]
    assert chat.messages[-2:] != fork.messages[-2:]
    assert right.tokens == say(any_session, fork.messages[:-1]).tokens
    chat.close()
    assert fork.send("On", **NOISE).usage.cached_tokens >= 64
    with fork:
        pass


def test_saved_and_restored(tiny_path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "chat"
    with af.Session(tiny_path, threads=1) as session:
        chat = session.conversation(SYSTEM, template=TEMPLATE)
        chat.send("Once upon a time", **NOISE)
        chat.save(path)
        want = chat.send("And then?", **NOISE)
    with af.Session(tiny_path, threads=2) as session:
        chat = session.conversation(template=TEMPLATE)
        chat.restore(path)
        assert chat.messages[0]["content"] == SYSTEM
        got = chat.send("And then?", **NOISE)
        assert got.tokens == want.tokens
        assert got.usage.cached_tokens == want.usage.cached_tokens >= 64


def test_files_that_are_refused(tiny_path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "chat"
    with af.Session(tiny_path, threads=1) as session:
        chat = session.conversation(SYSTEM, template=TEMPLATE)
        chat.send("Hello", **NOISE)
        chat.save(path)
        whole = path.read_bytes()
        for damaged in (b"", whole[:-1], whole[:100], whole.replace(b"Hello", b"Jello"), b"x" * 1000):
            path.write_bytes(damaged)
            with pytest.raises(af.ModelFormatError, match=path.name):
                chat.restore(path)
        with pytest.raises(FileNotFoundError):
            chat.restore(tmp_path / "nothing")
        with pytest.raises(OSError, match="folder"):
            chat.save(tmp_path / "no" / "folder" / "chat")
        assert len(chat.messages) == 3
        path.write_bytes(whole)
        chat.restore(path)
    for other in ({"kv_dtype": "f32"}, {"quantize": "q8_0"}):
        with af.Session(tiny_path, threads=1, **other) as session:  # type: ignore[arg-type]
            chat = session.conversation(template=TEMPLATE)
            with pytest.raises(af.InvalidRequestError, match="another model"):
                chat.restore(path)
    with (
        af.Session(tiny_path.parent / "qwen3", threads=1) as session,
        pytest.raises(af.InvalidRequestError, match="another model"),
    ):
        session.conversation(template=TEMPLATE).restore(path)


def test_without_a_template(shared: af.Session) -> None:
    with pytest.raises(af.InvalidRequestError, match="template"):
        shared.conversation()


def test_a_real_one(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with af.Session(smollm2, context_len=1024) as session:
        chat = session.conversation("You are brief.")
        first = chat.send("Name a colour.", temperature=0, max_tokens=16)
        chat.save(tmp_path / "chat")
        second = chat.send("Another one.", temperature=0, max_tokens=16)
        assert second.usage.cached_tokens >= first.usage.prompt_tokens // 32 * 32
        again = session.conversation()
        again.restore(tmp_path / "chat")
        assert again.send("Another one.", temperature=0, max_tokens=16).text == second.text
        assert json.dumps(again.messages) == json.dumps(chat.messages)
