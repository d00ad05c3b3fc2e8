"""Videos: frames in memory, or a file that PyAV decodes."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alloyforge.errors import MissingDependencyError, invalid, media_error
from alloyforge.media.containers import container
from alloyforge.media.images import MAX_BYTES, MAX_PIXELS, pillow

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

MAX_FRAMES = 4096
"""Frames beyond which a video is refused, before it is decoded."""


@dataclass(frozen=True, eq=False)
class Video:
    """Frames in memory.

    Args:
        frames: uint8 of shape `(n, height, width, 3)`, RGB.
        fps: Frames a second.

    Raises:
        InvalidRequestError: frames of another shape or type, or an `fps` that is not positive.
    """

    frames: npt.NDArray[np.uint8]
    fps: float = 1.0

    def __post_init__(self) -> None:
        shape = getattr(self.frames, "shape", None)
        if shape is None or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise invalid("frames", f"must have the shape (n, height, width, 3), found {shape}")
        if self.frames.dtype != "uint8":
            raise invalid("frames", f"must be uint8, found {self.frames.dtype}")
        if not 0 < self.fps < float("inf"):
            raise invalid("fps", f"must be positive, found {self.fps}")


@dataclass(frozen=True, eq=False)
class Chosen:
    """Frames that a processor takes, each with its time in seconds."""

    images: list[Image.Image]
    times: list[float]


class Frames:
    """A video's frames, of which a processor chooses.

    Args:
        count: How many there are.
        fps: Frames a second.
        is_file: Whether they come from a file, of which every family samples in its own way; frames in
            memory are taken as they are.
        source: The frames, or the file's bytes.
    """

    def __init__(
        self, count: int, fps: float, *, is_file: bool, source: npt.NDArray[np.uint8] | bytes
    ) -> None:
        self.count = count
        self.fps = fps
        self.is_file = is_file
        self._source = source

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.count / self.fps

    def spread(self, num_frames: int) -> Chosen:
        """`num_frames` frames, spread evenly from the first to the last.

        Raises:
            MediaError: the file is damaged.
        """
        num_frames = max(1, min(num_frames, self.count))
        # Half is rounded to even, as numpy does.
        indices = np.linspace(0, self.count - 1, num_frames).round().astype(int).tolist()
        if isinstance(self._source, bytes):
            images = _decode(self._source, indices)
        else:
            images = [pillow().fromarray(np.ascontiguousarray(self._source[i])) for i in indices]
        return Chosen(images, [i / self.fps for i in indices])


def read_video(source: object, item: str = "video") -> Frames:
    """The frames of `source`: a path, bytes or a `Video`.

    Raises:
        FileNotFoundError: there is no such file.
        MediaError: a format that is not read, a damaged file, too many or too large frames.
        MissingDependencyError: Pillow, or for a file PyAV, is not installed.
    """
    pillow()
    if isinstance(source, Video):
        count, height, width = source.frames.shape[:3]
        _check(count, height, width, item)
        return Frames(count, source.fps, is_file=False, source=source.frames)
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            source = file.read(MAX_BYTES + 1)
    if not isinstance(source, (bytes, bytearray, memoryview)):
        raise media_error(
            item, f"must be a path, bytes or an alloyforge.Video, found {type(source).__name__}"
        )
    data = bytes(source)
    if len(data) > MAX_BYTES:
        raise media_error(item, f"is larger than {MAX_BYTES >> 20} MiB")
    count, fps = _measure(data, item)
    return Frames(count, fps, is_file=True, source=data)


def _check(count: int, height: int, width: int, item: str) -> None:
    if count > MAX_FRAMES:
        raise media_error(item, f"has {count} frames, more than {MAX_FRAMES}")
    if height * width > MAX_PIXELS:
        raise media_error(item, f"has frames of {width} x {height} pixels, more than {MAX_PIXELS}")


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        message = "video files need PyAV: pip install 'alloyforge[media]'"
        raise MissingDependencyError(message) from error
    return av


def _open(av: Any, data: bytes, item: str) -> Any:
    kind = container(data)
    if kind is None:
        raise media_error(
            item, "is no video of a kind that is read: MP4, WebM, Matroska, AVI, GIF, Ogg, FLV, MPEG"
        )
    try:
        opened = av.open(io.BytesIO(data), mode="r", format=kind, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise media_error(item, "is no video, or damaged") from error
    if not opened.streams.video:
        opened.close()
        raise media_error(item, "has no pictures")
    return opened


def _measure(data: bytes, item: str) -> tuple[int, float]:
    """How many frames there are, and how many a second, without decoding any."""
    av = _av()
    with _open(av, data, item) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate else 0.0
        if not 0 < fps < 1000:
            raise media_error(item, "does not say how many frames a second it has")
        _check(stream.frames, stream.height or 1, stream.width or 1, item)
        count = stream.frames
        if count < 1:
            # The header does not say: packets are counted.
            try:
                for packet in container.demux(stream):
                    count += packet.size > 0
                    _check(count, 1, 1, item)
            except av.error.FFmpegError as error:
                raise media_error(item, "is damaged") from error
        if count < 1:
            raise media_error(item, "has no frames")
        return count, fps


def _decode(data: bytes, indices: list[int], item: str = "video") -> list[Image.Image]:
    """The frames numbered `indices`, ascending; the last one there is for those behind the end."""
    av = _av()
    images: list[Image.Image] = []
    with _open(av, data, item) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        last = None
        try:
            for number, frame in enumerate(container.decode(stream)):
                _check(1, frame.height, frame.width, item)
                last = frame
                while len(images) < len(indices) and indices[len(images)] == number:
                    images.append(frame.to_image())
                if len(images) == len(indices):
                    break
        except av.error.FFmpegError as error:
            raise media_error(item, "is damaged") from error
        if last is None:
            raise media_error(item, "has no frames")
        images += [last.to_image()] * (len(indices) - len(images))
    return images
