"""Media that a conversation keeps: what was handed over becomes part of the message, once and for all.

A path may lead elsewhere at the next turn and an array may be written to; a `data:` address stays what
it was, is JSON, and comes to the same pixels and so to the same blocks of the cache.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alloyforge.errors import invalid
from alloyforge.media.audio import load_audio
from alloyforge.media.images import pillow, read_file, read_image
from alloyforge.media.loader import LOCAL
from alloyforge.media.wav import to_wav

_ADDRESSES = {
    "image": "image_url",
    "video": "video_url",
    "audio": "audio_url",
    "image_url": "image_url",
    "video_url": "video_url",
    "audio_url": "audio_url",
}


def settled(message: Any, where: str) -> Any:
    """A copy of `message` whose pictures, videos and sounds are `data:` addresses.

    Frames handed over as an `alloyforge.Video` stay as they are: they have no file to be kept as.

    Raises:
        FileNotFoundError: there is no such file.
        MediaError: a picture, video or sound that cannot be read.
    """
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, Sequence) or isinstance(content, (str, bytes)):
        return message
    return {**message, "content": [_part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]}


def check_kept(messages: object) -> None:
    """Refuses messages of a file whose media are anything but `data:` addresses: no file asks for others.

    Raises:
        InvalidRequestError: there is such an address.
    """
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, list) else []:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind not in _ADDRESSES:
                continue
            address = part.get(kind)
            address = address.get("url") if isinstance(address, Mapping) else None
            if not isinstance(address, str) or address[:5].lower() != "data:":
                raise invalid("path", "holds media that are not in it")


def _part(part: Any, where: str) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in _ADDRESSES or part.get(kind) is None:
        return part
    item = part[kind]
    if kind.endswith("_url"):
        address = item.get("url") if isinstance(item, Mapping) else item
        if not isinstance(address, str) or address[:5].lower() == "data:":
            return part
        data = LOCAL.fetch(address, where)
    elif isinstance(item, (str, os.PathLike)):
        data = read_file(item, where)
    elif isinstance(item, (bytes, bytearray, memoryview)):
        data = bytes(item)
    elif kind == "image" and isinstance(item, (np.ndarray, pillow().Image)):
        # without loss, so that the pixels stay what they are
        file = io.BytesIO()
        read_image(item, where).save(file, "PNG", compress_level=1)
        data = file.getvalue()
    elif kind == "audio" and isinstance(item, tuple):
        data = to_wav(load_audio(item, item=where))
    else:
        return part
    name = _ADDRESSES[kind]
    text = base64.b64encode(data).decode("ascii")
    return {"type": name, name: {"url": f"data:application/octet-stream;base64,{text}"}}
