"""Sound, from whatever holds it to mono samples at 16 kHz.

WAV and FLAC are read here; everything else by PyAV, which the extra `media` brings.
"""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from alloyforge import _native
from alloyforge.errors import MediaError, MissingDependencyError, media_error
from alloyforge.media.containers import container
from alloyforge.media.loader import LOCAL, Loader
from alloyforge.media.wav import decode_wav, is_wav

if TYPE_CHECKING:
    import numpy.typing as npt

T = TypeVar("T")

SAMPLE_RATE = 16_000
"""What models hear, in samples a second."""

MAX_BYTES = 2 << 30
"""Most bytes of one file."""

MAX_SAMPLES = 1 << 29
"""Most samples of one sound, counted as they are decoded: three hours at 48 kHz."""

Audio = str | os.PathLike[str] | bytes | tuple[Any, int]
"""A path, a file's bytes, or samples with their rate: `(samples,)` or `(samples, channels)`, float from -1
to 1 or integers over their whole range."""


def load_audio(source: object, *, loader: Loader = LOCAL, item: str = "audio") -> npt.NDArray[np.float32]:
    """Mono samples at 16 kHz, float32.

    Args:
        source: A path, a file's bytes, an open binary file, or `(samples, rate)`.
        loader: What an address may lead to; files and hosts alike where nothing is said.
        item: What errors call it.

    Raises:
        FileNotFoundError: there is no such file.
        MediaError: it is empty, damaged, too long, or holds numbers that are not finite.
        MissingDependencyError: it is neither WAV nor FLAC, and PyAV is not installed.
    """
    if isinstance(source, tuple):
        samples, rate = _array(source, item)
    else:
        samples, rate = _decode(_bytes(source, loader, item), item)
    if samples.size == 0:
        raise media_error(item, "has no samples")
    if samples.size > MAX_SAMPLES:
        raise media_error(item, f"has more than {MAX_SAMPLES} samples")
    if not np.isfinite(samples).all():
        raise media_error(item, "has samples that are no finite numbers")
    if rate == SAMPLE_RATE:
        return np.ascontiguousarray(samples)
    return _named(item, lambda: _native.resample(np.ascontiguousarray(samples), rate, SAMPLE_RATE))


def _named(item: str, work: Callable[[], T]) -> T:
    """What `work` gives; the core, which knows one sound only, calls it `audio` in its errors."""
    try:
        return work()
    except MediaError as error:
        raise media_error(item, str(error).removeprefix(f"{error.item}: ")) from error


def _bytes(source: object, loader: Loader, item: str) -> bytes:
    """The bytes of a file, an address or an open file."""
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif isinstance(source, os.PathLike) or (isinstance(source, str) and os.path.exists(source)):
        if not loader.has_files:
            raise media_error(item, "has an address of a kind that is not allowed")
        data = _file(pathlib.Path(source), item)
    elif isinstance(source, str):
        if ":" not in source:
            raise FileNotFoundError(2, "no such file", source)
        data = loader.fetch(source, item)
    elif hasattr(source, "read"):
        data = source.read(MAX_BYTES + 1)
        if not isinstance(data, bytes):
            raise media_error(item, "must be opened in binary mode")
    else:
        raise media_error(item, f"must be a path, bytes or an array, found {type(source).__name__}")
    if not data:
        raise media_error(item, "is empty")
    if len(data) > MAX_BYTES:
        raise media_error(item, f"has more than {MAX_BYTES} bytes")
    return data


def _file(path: pathlib.Path, item: str) -> bytes:
    if path.is_dir():
        raise media_error(item, f"{path} is a folder")
    # Asked before it is read; a named pipe has no size and would wait for its writer.
    if path.exists() and not path.is_file():
        raise media_error(item, f"{path} is no regular file")
    if path.stat().st_size > MAX_BYTES:
        raise media_error(item, f"has more than {MAX_BYTES} bytes")
    return path.read_bytes()


def _decode(data: bytes, item: str) -> tuple[npt.NDArray[np.float32], int]:
    if is_wav(data):
        return decode_wav(data, item, MAX_SAMPLES)
    if data[:4] == b"fLaC" or (data[:3] == b"ID3" and b"fLaC" in data[: 1 << 20]):
        return _named(item, lambda: _native.decode_flac(data, MAX_SAMPLES))
    return _with_av(data, item)


def _array(source: tuple[Any, ...], item: str) -> tuple[npt.NDArray[np.float32], int]:
    if len(source) != 2:
        raise media_error(item, f"must be `(samples, rate)`, found {len(source)} things")
    samples, rate = np.asarray(source[0]), source[1]
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or not 1000 <= rate <= 768_000:
        raise media_error(item, f"has {rate!r} samples a second")
    if samples.ndim not in (1, 2):
        raise media_error(
            item, f"must have the shape (samples,) or (samples, channels), found {samples.shape}"
        )
    if samples.ndim == 2 and not 1 <= samples.shape[1] <= 64:
        raise media_error(item, f"must have the shape (samples, channels), found {samples.shape}")
    if np.issubdtype(samples.dtype, np.signedinteger):
        values = samples / float(1 << (8 * samples.dtype.itemsize - 1))
    elif np.issubdtype(samples.dtype, np.floating):
        values = samples
    else:
        raise media_error(item, f"must be float or signed integers, found {samples.dtype}")
    if values.ndim == 2:
        values = values.mean(axis=1, dtype=np.float64)
    return np.ascontiguousarray(values, dtype=np.float32), int(rate)


def _with_av(data: bytes, item: str) -> tuple[npt.NDArray[np.float32], int]:
    """The formats that FFmpeg reads without opening anything else.

    The decoder gives the channels as they are, and the mean is taken here: FFmpeg's own mix to one channel
    is louder by the root of two.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            f"{item}: is neither WAV nor FLAC; other formats need `pip install alloyforge[media]`"
        ) from error
    kind = container(data, is_sound=True)
    if kind is None:
        raise media_error(
            item,
            "is no sound of a kind that is read: WAV, FLAC, MP3, AAC, MP4, Ogg, WebM, Matroska, AIFF, CAF, "
            "AU, AMR, WMA, AVI, FLV, MPEG",
        )
    parts: list[npt.NDArray[np.float32]] = []
    total, rate = 0, 0
    try:
        with av.open(io.BytesIO(data), mode="r", format=kind, metadata_errors="ignore") as opened:
            stream = next(iter(opened.streams.audio), None)
            if stream is None:
                raise media_error(item, "has no sound in it")
            turner = av.AudioResampler(format="fltp")
            for frame in opened.decode(stream):
                for turned in turner.resample(frame):
                    values = turned.to_ndarray().astype(np.float32, copy=False)
                    rate = rate or int(turned.sample_rate)
                    if int(turned.sample_rate) != rate:
                        raise media_error(item, "changes its rate on the way")
                    total += values.shape[1]
                    if total > MAX_SAMPLES:
                        raise media_error(item, f"has more than {MAX_SAMPLES} samples")
                    parts.append(values.mean(axis=0, dtype=np.float64).astype(np.float32))
    except (av.FFmpegError, ValueError, EOFError) as error:
        raise media_error(item, f"cannot be decoded: {error}") from error
    if not parts:
        raise media_error(item, "has no samples")
    return np.concatenate(parts), rate
