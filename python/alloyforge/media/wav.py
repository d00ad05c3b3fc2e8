"""RIFF WAVE, read without further packages."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from alloyforge.errors import media_error

if TYPE_CHECKING:
    import numpy.typing as npt

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE


def is_wav(data: bytes) -> bool:
    """Whether `data` begins as a WAVE file."""
    return data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE"


def decode_wav(data: bytes, item: str, max_samples: int) -> tuple[npt.NDArray[np.float32], int]:
    """The mean of all channels, from -1 to 1, and the samples a second.

    What the header says of lengths is not believed: what is there is read.

    Raises:
        MediaError: it is damaged, of a kind that is not known, or longer than `max_samples`.
    """
    layout: tuple[int, int, int, int] | None = None
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        at += 8
        if kind == b"fmt ":
            layout = _layout(data[at : at + size], item)
        elif kind == b"data":
            if layout is None:
                raise media_error(item, "is a WAV that has its sound before its format")
            # A stream's writer leaves the size at its largest.
            return _samples(memoryview(data)[at : at + size], layout, item, max_samples), layout[2]
        at += size + size % 2
    raise media_error(item, "is a WAV without sound")


def to_wav(samples: npt.NDArray[np.float32]) -> bytes:
    """Mono samples at 16 kHz as a file of the same numbers."""
    data = samples.astype("<f4").tobytes()
    layout = struct.pack("<HHIIHH", _FLOAT, 1, 16_000, 64_000, 4, 32)
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(layout)) + layout
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _layout(chunk: bytes, item: str) -> tuple[int, int, int, int]:
    """The kind of numbers, channels, rate and bits."""
    if len(chunk) < 16:
        raise media_error(item, "is a WAV with a damaged format")
    kind, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE and len(chunk) >= 26:
        kind = struct.unpack_from("<H", chunk, 24)[0]
    widths = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64), _ALAW: (8,), _MULAW: (8,)}
    if bits not in widths.get(kind, ()):
        raise media_error(item, f"is a WAV of kind {kind} with {bits} bits, which is not known")
    if channels == 0 or rate == 0 or block != channels * bits // 8:
        raise media_error(item, f"is a WAV with {channels} channels of {bits} bits at {rate} Hz")
    return kind, channels, rate, bits


def _samples(
    body: memoryview, layout: tuple[int, int, int, int], item: str, max_samples: int
) -> npt.NDArray[np.float32]:
    kind, channels, _, bits = layout
    width = bits // 8
    frames = len(body) // (width * channels)
    if frames > max_samples:
        raise media_error(item, f"has more than {max_samples} samples")
    values: npt.NDArray[np.floating[Any]]
    raw = np.frombuffer(body[: frames * width * channels], dtype=np.uint8)
    if kind == _FLOAT:
        values = raw.view(f"<f{width}").astype(np.float32)
    elif kind == _ALAW:
        values = _alaw()[raw]
    elif kind == _MULAW:
        values = _mulaw()[raw]
    elif bits == 8:
        values = (raw.astype(np.float32) - 128) / 128
    elif bits == 24:
        wide = np.zeros((len(raw) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = raw.reshape(-1, 3)
        values = (wide.reshape(-1).view("<i4") / 2.0**31).astype(np.float32)
    else:
        values = (raw.view(f"<i{width}") / 2.0 ** (bits - 1)).astype(np.float32)
    if channels > 1:
        values = values.reshape(frames, channels).mean(axis=1, dtype=np.float64)
    return values.astype(np.float32)


def _alaw() -> npt.NDArray[np.float32]:
    """ITU-T G.711's A-law, by its code."""
    code = np.arange(256) ^ 0x55
    step, low = (code >> 4) & 7, code & 15
    size = np.where(step == 0, (low << 4) + 8, ((low << 4) + 0x108) << np.maximum(step - 1, 0))
    return (np.where(code & 0x80, size, -size) / 32768).astype(np.float32)


def _mulaw() -> npt.NDArray[np.float32]:
    """ITU-T G.711's mu-law, by its code."""
    code = ~np.arange(256) & 0xFF
    size = ((((code & 15) << 3) + 0x84) << ((code >> 4) & 7)) - 0x84
    return (np.where(code & 0x80, -size, size) / 32768).astype(np.float32)
