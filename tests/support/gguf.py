"""Writes small GGUF files, as the format's description has them: version 3, float32 tensors."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_ALIGNMENT = 32


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: object) -> tuple[int, bytes]:
    """The type's number and the bytes."""
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, _text(value)
    assert isinstance(value, list)
    items = [_value(item) for item in value]
    head = struct.pack("<IQ", items[0][0], len(items))
    return 9, head + b"".join(data for _, data in items)


def write(
    path: pathlib.Path, metadata: Mapping[str, object], tensors: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Writes `metadata` and `tensors`, each as float32 with its shape turned as the format wants it."""
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        kind, data = _value(value)
        out += _text(key) + struct.pack("<I", kind) + data
    offset, bodies = 0, []
    for name, tensor in tensors.items():
        body = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
        out += _text(name) + struct.pack("<I", tensor.ndim)
        out += struct.pack(f"<{tensor.ndim}Q", *reversed(tensor.shape)) + struct.pack("<IQ", 0, offset)
        body += b"\0" * (-len(body) % _ALIGNMENT)
        offset += len(body)
        bodies.append(body)
    out += b"\0" * (-len(out) % _ALIGNMENT)
    path.write_bytes(bytes(out) + b"".join(bodies))
