"""OpenAI's requests and responses, as plain data: what a batch file's lines hold.

A field that is not honoured is refused by its name, so that nobody believes it acts.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alloyforge.errors import (
    AlloyForgeError,
    InvalidRequestError,
    OutOfMemoryError,
    QueueFullError,
    RequestTimeout,
    invalid,
)
from alloyforge.results import ChatCompletion, Completion, Logprob

if TYPE_CHECKING:
    from alloyforge.session import Session

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"

_SAME = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "n",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "ignore_eos",
    "priority",
    "timeout",
)
"""Fields that the sampling parameters name alike."""
_PASSED_OVER = ("model", "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key")
"""Fields that change no answer."""


async def answer(session: Session, url: str, body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The response to a request.

    Raises:
        InvalidRequestError: a field is wrong or not supported; others as `Session.chat`.
    """
    if not isinstance(body, Mapping):
        raise invalid("body", "must be an object")
    fields = {name: value for name, value in body.items() if value is not None}
    for name in _PASSED_OVER:
        fields.pop(name, None)
    if fields.pop("stream", False):
        raise invalid("stream", "is not supported here")
    if url == CHAT:
        return await _chat(session, fields, model)
    if url == TEXT:
        return await _text(session, fields, model)
    raise invalid("url", f"{url!r} is not supported: {CHAT} or {TEXT}")


def error_of(error: BaseException) -> tuple[int, dict[str, Any]]:
    """The status and the body that tell of a request's failure."""
    status, kind = 500, "server_error"
    if isinstance(error, (InvalidRequestError, TypeError)):
        status, kind = 400, "invalid_request_error"
    elif isinstance(error, QueueFullError):
        status = 429
    elif isinstance(error, RequestTimeout):
        status = 408
    elif isinstance(error, OutOfMemoryError):
        status = 503
    text = str(error) if isinstance(error, AlloyForgeError) else f"{type(error).__name__}: {error}"
    about = {"message": text, "type": kind, "param": getattr(error, "name", None), "code": None}
    return status, {"error": about}


async def _chat(session: Session, fields: dict[str, Any], model: str) -> dict[str, Any]:
    messages = fields.pop("messages", None)
    tools, tool_choice = fields.pop("tools", None), fields.pop("tool_choice", "auto")
    top = fields.pop("top_logprobs", None)
    sampling = _sampling(fields)
    logprobs = fields.pop("logprobs", False)
    if not isinstance(logprobs, bool):
        raise invalid("logprobs", "must be true or false")
    if top is not None and not logprobs:
        raise invalid("top_logprobs", "needs logprobs")
    if logprobs:
        sampling["logprobs"] = top or 0
    _refuse_rest(fields)
    # What the messages are is checked by the session.
    given: Any = messages if messages is not None else []
    completion = await session.achat(given, tools=tools, tool_choice=tool_choice, **sampling)
    choices = []
    for i, choice in enumerate(completion.choices):
        if not isinstance(choice, ChatCompletion):
            continue
        message = choice.message
        if choice.tool_calls and not choice.text:
            message["content"] = None
        choices.append(
            {
                "index": i,
                "message": message,
                "logprobs": _chat_logprobs(session, choice),
                "finish_reason": choice.finish_reason,
            }
        )
    return _response("chatcmpl", "chat.completion", model, choices, completion)


async def _text(session: Session, fields: dict[str, Any], model: str) -> dict[str, Any]:
    prompt = fields.pop("prompt", None)
    if not isinstance(prompt, (str, list)):
        raise invalid("prompt", "must be text or a list of token ids")
    sampling = _sampling(fields)
    logprobs = fields.pop("logprobs", None)
    if logprobs is not None:
        sampling["logprobs"] = logprobs
    echo = fields.pop("echo", False)
    if echo:
        raise invalid("echo", "is not supported")
    _refuse_rest(fields)
    completion = await session.agenerate(prompt, **sampling)
    choices = [
        {
            "index": i,
            "text": choice.text,
            "logprobs": _text_logprobs(session, choice),
            "finish_reason": choice.finish_reason,
        }
        for i, choice in enumerate(completion.choices)
    ]
    return _response("cmpl", "text_completion", model, choices, completion)


def _sampling(fields: dict[str, Any]) -> dict[str, Any]:
    """The sampling parameters among `fields`, taken out of them."""
    sampling = {name: fields.pop(name) for name in _SAME if name in fields}
    if "max_completion_tokens" in fields:
        sampling["max_tokens"] = fields.pop("max_completion_tokens")
    if "logit_bias" in fields:
        biases = fields.pop("logit_bias")
        try:
            # JSON has no numbers for keys.
            sampling["logit_bias"] = {int(token): float(bias) for token, bias in biases.items()}
        except (AttributeError, TypeError, ValueError):
            raise invalid("logit_bias", "must be an object from token ids to numbers") from None
    if "response_format" in fields:
        _take_format(fields, sampling)
    return sampling


def _take_format(fields: dict[str, Any], sampling: dict[str, Any]) -> None:
    """The form that an answer is asked to keep to."""
    asked = fields.pop("response_format")
    kind = asked.get("type") if isinstance(asked, Mapping) else None
    if kind == "json_schema":
        named = asked.get("json_schema")
        schema = named.get("schema") if isinstance(named, Mapping) else None
        if not isinstance(schema, Mapping):
            raise invalid("response_format.json_schema.schema", "must be an object")
        sampling["schema"] = schema
    elif kind == "json_object":
        sampling["schema"] = {"type": "object"}
    elif kind != "text":
        raise invalid("response_format.type", f"{kind!r} is none of 'text', 'json_object', 'json_schema'")


def _refuse_rest(fields: Mapping[str, Any]) -> None:
    for name in fields:
        raise invalid(name, "is not supported")


def _response(
    prefix: str, kind: str, model: str, choices: list[dict[str, Any]], completion: Completion
) -> dict[str, Any]:
    usage = completion.usage
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        },
    }


def _token(session: Session, logprob: Logprob) -> dict[str, Any]:
    text = session.detokenize([logprob.token])
    return {"token": text, "logprob": logprob.logprob, "bytes": list(text.encode())}


def _chat_logprobs(session: Session, completion: Completion) -> dict[str, Any] | None:
    if completion.logprobs is None:
        return None
    tokens = [
        {**_token(session, p), "top_logprobs": [_token(session, t) for t in p.top]}
        for p in completion.logprobs
    ]
    return {"content": tokens}


def _text_logprobs(session: Session, completion: Completion) -> dict[str, Any] | None:
    if completion.logprobs is None:
        return None
    texts = [session.detokenize([p.token]) for p in completion.logprobs]
    offsets = [sum(map(len, texts[:i])) for i in range(len(texts))]
    return {
        "tokens": texts,
        "token_logprobs": [p.logprob for p in completion.logprobs],
        "top_logprobs": [
            {session.detokenize([t.token]): t.logprob for t in p.top} for p in completion.logprobs
        ],
        "text_offset": offsets,
    }


def dumps(value: Any) -> str:
    """JSON in one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
