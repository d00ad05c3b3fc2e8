"""Chat messages: OpenAI's dictionaries, checked and made what a template expects."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from alloyforge.errors import invalid
from alloyforge.media.loader import LOCAL

Message = Mapping[str, Any]
Tool = Mapping[str, Any]
ToolChoice = Literal["auto", "none", "required"] | Mapping[str, Any]
"""Whether tools are offered, and whether one is to be called."""

_KINDS = {
    "image_url": "image",
    "video_url": "video",
    "audio_url": "audio",
    "input_audio": "audio",
    "image": "image",
    "video": "video",
    "audio": "audio",
}


@dataclass
class Media:
    """The media in a chat's messages, in their order."""

    images: list[object] = field(default_factory=list)
    videos: list[object] = field(default_factory=list)
    audio: list[object] = field(default_factory=list)

    def lists(self) -> dict[str, list[object] | None]:
        """The lists by the parameters that they are given as; `None` for one without items."""
        return {
            "images": self.images or None,
            "videos": self.videos or None,
            "audio": self.audio or None,
        }


def checked_messages(messages: Sequence[Message], media: Media | None = None) -> list[dict[str, Any]]:
    """Copies of the messages as a template takes them; the media in them go into `media`.

    Text parts are joined with line ends unless media stand among them, and the arguments of earlier
    tool calls, which OpenAI sends as JSON text, are read.

    Raises:
        InvalidRequestError: a message of another shape, named by its place.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise invalid("messages", f"must be a list of messages, found {type(messages).__name__}")
    if not messages:
        raise invalid("messages", "must not be empty")
    return [_checked(message, f"messages[{i}]", media) for i, message in enumerate(messages)]


def checked_tools(tools: Sequence[Tool] | None, tool_choice: object) -> list[dict[str, Any]] | None:
    """Copies of the tools that a template is told of.

    Raises:
        InvalidRequestError: a tool of another shape.
    """
    if tools is None or tool_choice == "none":
        return None
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise invalid("tools", f"must be a list of tools, found {type(tools).__name__}")
    for i, tool in enumerate(tools):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise invalid(f"tools[{i}]", "must be a function with a name")
    return [dict(tool) for tool in tools] or None


def _checked(message: Message, where: str, media: Media | None) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise invalid(where, f"must be a dictionary, found {type(message).__name__}")
    if not isinstance(message.get("role"), str):
        raise invalid(f"{where}.role", "must be a string")
    out = dict(message)
    content = message.get("content")
    if isinstance(content, str) or content is None:
        out.setdefault("content", None)
    elif isinstance(content, Sequence) and not isinstance(content, bytes):
        parts = [_part(part, f"{where}.content[{i}]", media) for i, part in enumerate(content)]
        is_text = all(part["type"] == "text" for part in parts)
        out["content"] = "\n".join(part["text"] for part in parts) if is_text else parts
    else:
        raise invalid(f"{where}.content", f"must be text or a list of parts, found {type(content).__name__}")
    if message.get("tool_calls"):
        out["tool_calls"] = [
            _checked_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(message["tool_calls"])
        ]
    return out


def _part(part: object, where: str, media: Media | None) -> dict[str, str]:
    """A part as templates take it: a text, or the type of what stands there."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": str(part["text"])}
    if not isinstance(part, Mapping) or kind not in _KINDS or part.get(kind) is None:
        raise invalid(where, "must be a part with a known type, and its text")
    if media is None:
        raise invalid(where, "media have no place here")
    item = part[kind]
    if kind.endswith("_url"):
        address = item.get("url") if isinstance(item, Mapping) else item
        if not isinstance(address, str):
            raise invalid(where, "must have an address")
        item = LOCAL.fetch(address, where)
    elif kind == "input_audio":
        item = _inline(item, where)
    lists = {"image": media.images, "video": media.videos, "audio": media.audio}
    lists[_KINDS[kind]].append(item)
    return {"type": _KINDS[kind]}


def _inline(audio: object, where: str) -> bytes:
    """The bytes of OpenAI's `{"data": base64, "format": "wav"}`; what they are is seen from themselves."""
    data = audio.get("data") if isinstance(audio, Mapping) else None
    kind = audio.get("format") if isinstance(audio, Mapping) else None
    if not isinstance(data, str) or not (kind is None or isinstance(kind, str)):
        raise invalid(f"{where}.input_audio", "must have `data`, in base64, and a `format`")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{where}.input_audio.data", "is no base64") from error


def _checked_call(call: object, where: str) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise invalid(where, f"must be a dictionary, found {type(call).__name__}")
    out = dict(call)
    function = call.get("function")
    if isinstance(function, Mapping) and isinstance(function.get("arguments"), str):
        try:
            arguments = json.loads(function["arguments"] or "{}")
        except (ValueError, RecursionError) as error:
            raise invalid(f"{where}.function.arguments", f"must be JSON: {error}") from error
        out["function"] = {**function, "arguments": arguments}
    return out
