"""A session: what it gives, what it refuses, how it ends."""

from __future__ import annotations

import dataclasses
import gc
import pathlib
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import alloyforge as af

PROMPT = list(range(10, 30))
NOISE: dict[str, Any] = {"temperature": 1.0, "seed": 1, "ignore_eos": True, "max_tokens": 24}
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "


def settle(session: af.Session, seconds: float = 5.0) -> None:
    """Waits until nothing is left of any request."""
    end = time.monotonic() + seconds
    while (stats := session.stats()).running or stats.waiting or stats.kv_blocks_used:
        assert time.monotonic() < end, stats
        time.sleep(0.005)


def test_a_completion(shared: af.Session) -> None:
    answer = shared.generate(PROMPT, **NOISE)
    assert str(answer) == answer.text
    assert len(answer.tokens) == 24
    assert answer.finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (20, 24)
    assert answer.usage.total_tokens == 44
    assert answer.logprobs is None
    assert answer.choices == [answer]
    times = answer.timings
    assert min(times.queue, times.prefill, times.decode) >= 0
    assert times.first_token >= times.prefill


def test_same_seed_same_tokens(shared: af.Session) -> None:
    first = shared.generate(PROMPT, **NOISE)
    assert shared.generate(PROMPT, **NOISE).tokens == first.tokens
    assert shared.generate(PROMPT, **{**NOISE, "seed": 2}).tokens != first.tokens
    assert shared.generate(PROMPT, **{**NOISE, "seed": None}).tokens != first.tokens


def test_a_batch_is_what_each_is_alone(shared: af.Session) -> None:
    prompts = [PROMPT[: 3 + i] for i in range(8)]
    alone = [shared.generate(p, **NOISE).tokens for p in prompts]
    assert [a.tokens for a in shared.generate_batch(prompts, **NOISE)] == alone
    assert shared.generate_batch([], **NOISE) == []


def test_a_wrong_prompt_fails_the_batch(session: af.Session) -> None:
    with pytest.raises(af.InvalidRequestError, match="prompt"):
        session.generate_batch([PROMPT, [10**6]], **NOISE)
    with pytest.raises(af.InvalidRequestError, match="prompts"):
        session.generate_batch("one text", **NOISE)
    settle(session)


def test_logprobs(shared: af.Session) -> None:
    answer = shared.generate(PROMPT, **NOISE, logprobs=3)
    assert answer.logprobs is not None
    assert [p.token for p in answer.logprobs] == answer.tokens
    logits = shared.logits(PROMPT + answer.tokens)[len(PROMPT) - 1 : -1].astype(np.float64)
    want = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for row, got in zip(want, answer.logprobs, strict=True):
        assert got.logprob == pytest.approx(row[got.token], abs=1e-4)
        assert [p.token for p in got.top] == sorted(range(row.size), key=lambda t: (-row[t], t))[:3]
        assert [p.logprob for p in got.top] == pytest.approx(sorted(row, reverse=True)[:3], abs=1e-4)
    assert shared.generate(PROMPT, **NOISE, logprobs=0).logprobs == [
        dataclasses.replace(p, top=[]) for p in answer.logprobs
    ]


def test_several_choices(shared: af.Session) -> None:
    answer = shared.generate(PROMPT, **NOISE, n=3)
    assert len(answer.choices) == 3
    assert answer.tokens == shared.generate(PROMPT, **NOISE).tokens
    assert len({tuple(choice.tokens) for choice in answer.choices}) == 3
    assert answer.usage.completion_tokens == 72
    stream = shared.stream(PROMPT, **NOISE, n=3)
    texts = {0: "", 1: "", 2: ""}
    for chunk in stream:
        texts[chunk.index] += chunk.text
    assert list(texts.values()) == [choice.text for choice in stream.completion.choices]
    assert stream.completion.tokens == answer.tokens


def test_a_stream_joins_to_the_completion(shared: af.Session) -> None:
    whole = shared.generate(PROMPT, **NOISE, logprobs=1)
    stream = shared.stream(PROMPT, **NOISE, logprobs=1)
    chunks = list(stream)
    assert "".join(str(c) for c in chunks) == whole.text
    assert [t for c in chunks for t in c.tokens] == whole.tokens
    assert [p for c in chunks for p in c.logprobs or []] == whole.logprobs
    assert stream.completion.text == whole.text
    assert list(stream) == []


def test_stop(shared: af.Session) -> None:
    whole = shared.generate(PROMPT, **NOISE).text
    mark = whole[len(whole) // 2 :][:3]
    want = whole[: whole.index(mark)]
    for stop in (mark, [mark, "never to be seen"]):
        answer = shared.generate(PROMPT, **NOISE, stop=stop)
        assert (answer.text, answer.finish_reason) == (want, "stop")
        assert "".join(c.text for c in shared.stream(PROMPT, **NOISE, stop=stop)) == want


def test_stop_tokens(shared: af.Session) -> None:
    tokens = shared.generate(PROMPT, **NOISE).tokens
    answer = shared.generate(PROMPT, **NOISE, stop_tokens=[tokens[7]])
    assert answer.finish_reason == "stop"
    assert answer.tokens == tokens[: tokens.index(tokens[7]) + 1]


def test_logit_bias(shared: af.Session) -> None:
    answer = shared.generate(PROMPT, **NOISE, logit_bias={42: 1000.0})
    assert answer.tokens == [42] * 24
    banned = shared.generate(PROMPT, temperature=0, max_tokens=1, ignore_eos=True).tokens[0]
    other = shared.generate(
        PROMPT, temperature=0, max_tokens=1, ignore_eos=True, logit_bias={banned: -np.inf}
    )
    assert other.tokens[0] != banned


def test_score_agrees_with_logits(shared: af.Session) -> None:
    score = shared.score(PROMPT)
    logits = shared.logits(PROMPT).astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    want = logprobs[np.arange(len(PROMPT) - 1), PROMPT[1:]]
    assert score.tokens == PROMPT
    assert score.logprobs.dtype == np.float32
    np.testing.assert_allclose(score.logprobs, want, atol=1e-4)
    assert score.perplexity == pytest.approx(np.exp(-want.mean()), rel=1e-4)
    with pytest.raises(af.InvalidRequestError, match="text_or_tokens"):
        shared.score([1])


def test_a_stream_is_cancelled(session: af.Session) -> None:
    stream = session.stream(PROMPT, **{**NOISE, "max_tokens": 200})
    first = next(stream)
    stream.cancel()
    rest = list(stream)
    assert stream.completion.finish_reason == "cancelled"
    assert "".join(c.text for c in [first, *rest]) == stream.completion.text
    settle(session)


def test_the_completion_waits_for_a_cancelled_stream(session: af.Session) -> None:
    stream = session.stream(PROMPT, **NOISE)
    with pytest.raises(af.InvalidRequestError, match="not over"):
        stream.completion  # noqa: B018
    stream.cancel()
    assert stream.completion.finish_reason in ("cancelled", "length")


def test_leaving_a_stream_frees_it(session: af.Session) -> None:
    for _ in session.stream(PROMPT, **{**NOISE, "max_tokens": 200}):
        break
    gc.collect()
    settle(session)
    with session.stream(PROMPT, **{**NOISE, "max_tokens": 200}) as stream:
        next(stream)
    settle(session)


def test_closing(tiny_path: pathlib.Path) -> None:
    session = af.Session(tiny_path, threads=1)
    stream = session.stream(PROMPT, **{**NOISE, "max_tokens": 200})
    next(stream)
    info = session.info
    session.close()
    session.close()
    for call in (
        lambda: session.generate(PROMPT),
        lambda: session.stream(PROMPT),
        lambda: session.logits(PROMPT),
        lambda: session.score(PROMPT),
        lambda: session.tokenize("hi"),
        lambda: session.detokenize([10]),
        lambda: session.render([{"role": "user", "content": "hi"}], template=TEMPLATE),
        lambda: list(stream),
    ):
        with pytest.raises(af.SessionClosedError, match="closed"):
            call()
    assert session.info == info


def test_chat_with_a_template(shared: af.Session) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    prompt = shared.render(messages, template=TEMPLATE)
    assert prompt == "[user] Hello\n[assistant] "
    answer = shared.chat(messages, template=TEMPLATE, **NOISE)
    assert answer.tokens == shared.generate(prompt, **NOISE).tokens
    assert answer.message == {"role": "assistant", "content": answer.text}
    assert (answer.reasoning, answer.tool_calls) == (None, [])
    stream = shared.stream_chat(messages, template=TEMPLATE, **NOISE)
    assert "".join(c.text for c in stream) == answer.text
    assert stream.completion.text == answer.text


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        (None, "chat_template"),
        ("{{ raise_exception('no system') }}", "no system"),
        ("{% if %}", "chat_template"),
    ],
)
def test_a_chat_without_a_sound_template(shared: af.Session, template: str | None, fault: str) -> None:
    with pytest.raises(af.InvalidRequestError, match=fault):
        shared.chat([{"role": "user", "content": "hi"}], template=template)


def test_special_tokens_in_messages_are_text(shared: af.Session) -> None:
    (eos,) = shared.tokenize("</s>", add_bos=False)
    literal = shared.tokenize("</s>", special=False, add_bos=False)
    assert len(literal) > 1
    answer = shared.chat(
        [{"role": "user", "content": "</s>"}], template="</s>{{ messages[0].content }}", **NOISE
    )
    assert answer.usage.prompt_tokens == 1 + len(literal)
    assert eos == 2


def test_text_and_tokens(shared: af.Session) -> None:
    text = "Hello, world! Ünïcödé 你好"
    assert shared.detokenize(shared.tokenize(text)) == text
    assert shared.detokenize(shared.tokenize(text, add_bos=True)) == text
    bos = shared.tokenize(text, add_bos=True)[0]
    assert shared.tokenize("<s>" + text, add_bos=True).count(bos) == 1
    with pytest.raises(af.InvalidRequestError, match="tokens"):
        shared.detokenize([10**6])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_any_text_survives(shared: af.Session, text: str) -> None:
    tokens = shared.tokenize(text, special=False, add_bos=False)
    assert shared.detokenize(tokens) == text


def test_info_and_stats(session: af.Session, tiny_path: pathlib.Path) -> None:
    info = session.info
    assert (info.architecture, info.device, info.threads, info.vocab_size) == ("llama", "cpu", 1, 320)
    assert info.context_len == 256
    assert info.memory.total == info.memory.weights + info.memory.kv + info.memory.workspace > 0
    assert info.chat_template is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.device = "elsewhere"  # type: ignore[misc]
    answer = session.generate(PROMPT, **NOISE)
    stats = session.stats()
    assert (stats.prompt_tokens, stats.completion_tokens) == (20, 24)
    assert stats.kv_blocks_total * 32 >= info.context_len
    assert answer.usage.cached_tokens == stats.prefix_hit_tokens == 0


def test_the_context_is_a_limit(tiny_path: pathlib.Path) -> None:
    with af.Session(tiny_path, context_len=64, threads=1) as session:
        assert session.info.context_len == 64
        with pytest.raises(af.ContextLengthError) as caught:
            session.generate([10] * 64)
        assert isinstance(caught.value, af.InvalidRequestError)
        assert caught.value.limit == 64
        answer = session.generate([10] * 60, temperature=0, ignore_eos=True)
        assert (len(answer.tokens), answer.finish_reason) == (4, "length")


def test_a_timeout(session: af.Session) -> None:
    with pytest.raises(af.RequestTimeout) as caught:
        session.generate(PROMPT, **{**NOISE, "max_tokens": 200}, timeout=1e-6)
    assert caught.value.seconds == 1e-6
    settle(session)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"device": "toaster"}, "device"),
        ({"backend": "other"}, "backend"),
        ({"dtype": "f8"}, "dtype"),
        ({"kv_dtype": "q3_k"}, "kv_dtype"),
        ({"quantize": "q9_9"}, "quantize"),
        ({"threads": 0}, "threads"),
        ({"max_batch": 0}, "max_batch"),
        ({"context_len": 0}, "context_len"),
    ],
)
def test_options_are_checked(tiny_path: pathlib.Path, options: dict[str, Any], name: str) -> None:
    with pytest.raises(af.InvalidRequestError) as caught:
        af.Session(tiny_path, **options)
    assert caught.value.name == name


@pytest.mark.parametrize("name", ["images", "audio", "videos"])
def test_media_are_refused(shared: af.Session, name: str) -> None:
    media: dict[str, Any] = {name: ["x.png"]}
    for call in (shared.generate, shared.stream, shared.logits):
        with pytest.raises(af.InvalidRequestError) as caught:
            call(PROMPT, **media)
        assert caught.value.name == name


def test_progress_is_told(tiny_path: pathlib.Path) -> None:
    told: list[float] = []
    with af.Session(tiny_path, threads=1, progress=told.append):
        pass
    assert all(0 <= done <= 1 for done in told)


def test_no_such_model() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        af.Session("nowhere.gguf")
    assert caught.value.filename == "nowhere.gguf"
