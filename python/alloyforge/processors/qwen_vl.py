"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: whole merged patches, two frames deep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from alloyforge.errors import media_error
from alloyforge.processors.common import (
    BICUBIC,
    CLIP_MEAN,
    CLIP_STD,
    HALF,
    Item,
    Normaliser,
    Settings,
    resized,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

    from alloyforge.media.video import Frames

_VIDEO_FILES = ("video_preprocessor_config.json",)


def smart_resize(height: int, width: int, factor: int, least: float, most: float) -> tuple[int, int]:
    """Height and width as multiples of `factor` with `least` to `most` pixels.

    Half a step is rounded to even, as Python does.

    Raises:
        MediaError: one edge is more than 200 times the other.
    """
    if max(height, width) / min(height, width) > 200:
        raise media_error("image", f"of {width} x {height} pixels is too narrow")
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > most:
        beta = math.sqrt(height * width / most)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif new_height * new_width < least:
        beta = math.sqrt(least / (height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_height, new_width


def smart_video_size(
    num_frames: int, height: int, width: int, factor: int, depth: int, least: float, most: float
) -> tuple[int, int]:
    """As `smart_resize`, where `least` and `most` bound the pixels of all frames together."""
    if min(height, width) < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    if max(height, width) / min(height, width) > 200:
        raise media_error("video", f"of {width} x {height} pixels is too narrow")
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    steps = round(num_frames / depth) * depth
    if steps * new_height * new_width > most:
        beta = math.sqrt(num_frames * height * width / most)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif steps * new_height * new_width < least:
        beta = math.sqrt(least / (num_frames * height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_height, new_width


class QwenVl:
    """Smart resize, patches square by square.

    Args:
        settings: What the native session gives, with the encoder's sizes.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._patch = int(settings["patch_size"])
        self._depth = int(settings["temporal_patch_size"])
        self._merge = int(settings["merge_size"])
        self._has_timestamps = bool(settings["has_timestamps"])
        mean, std = (HALF, HALF) if self._has_timestamps else (CLIP_MEAN, CLIP_STD)
        given = Settings(settings)
        self._least, self._most = self._limits(given, 56 * 56, 28 * 28 * 1280)
        self._resample = int(given.number("resample", BICUBIC))
        self._normalise = Normaliser(given, mean, std)
        own = Settings(settings, "video_processor", _VIDEO_FILES)
        files = settings.get("files") or {}
        combined = files.get("processor_config.json") or {}
        self._has_video_file = _VIDEO_FILES[0] in files or "video_processor" in combined
        videos = own if self._has_video_file else given
        self._video_least, self._video_most = self._limits(videos, 128 * 28 * 28, 28 * 28 * 768)
        self._fps = float(videos.get("fps") or 2)
        self._min_frames = int(videos.get("min_frames") or 4)
        self._max_frames = int(videos.get("max_frames") or 768)

    @staticmethod
    def _limits(given: Settings, least: int, most: int) -> tuple[float, float]:
        size = given.get("size") or {}
        return (
            float(given.get("min_pixels") or size.get("shortest_edge") or least),
            float(given.get("max_pixels") or size.get("longest_edge") or most),
        )

    @property
    def _factor(self) -> int:
        return self._patch * self._merge

    def image(self, image: Image.Image) -> Item:
        """Gives `patches` of shape `(n, 3 * frames * patch * patch)` and their `grid`."""
        size = smart_resize(image.size[1], image.size[0], self._factor, self._least, self._most)
        pixels = self._normalise(resized(image, *size, self._resample))
        patches, grid = self._patches(np.broadcast_to(pixels, (self._depth, *pixels.shape)))
        return {"kind": "image", "tensors": {"patches": patches}, "facts": {"grid": grid}}

    def video(self, frames: Frames) -> Item:
        """Gives patches likewise, the `seconds` of a step of the grid and, for Qwen3-VL, `times`."""
        if frames.is_file:
            wanted = int(frames.duration * self._fps)
            wanted = min(max(wanted, self._min_frames), self._max_frames, frames.count)
            if not self._has_timestamps:
                wanted = max(self._depth, wanted // self._depth * self._depth)
            chosen = frames.spread(wanted)
        else:
            chosen = frames.spread(min(frames.count, self._max_frames))
        images, times = chosen.images, list(chosen.times)
        width, height = images[0].size
        size = self._video_size(len(images), height, width)
        pixels = [self._normalise(resized(image, *size, self._resample)) for image in images]
        while len(pixels) % self._depth:
            pixels.append(pixels[-1])
            times.append(times[-1])
        patches, grid = self._patches(np.stack(pixels))
        rate = len(images) / frames.duration if frames.is_file and frames.duration > 0 else frames.fps
        steps = [times[i : i + self._depth] for i in range(0, len(times), self._depth)]
        return {
            "kind": "video",
            "tensors": {"patches": patches},
            "facts": {
                "grid": grid,
                "seconds": [self._depth / rate],
                # A step stands for the middle of its frames.
                "times": [(step[0] + step[-1]) / 2 for step in steps],
            },
        }

    def _video_size(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        least, most = self._video_least, self._video_most
        if not self._has_timestamps:
            return smart_resize(height, width, self._factor, least, most)
        if self._has_video_file:
            return smart_video_size(num_frames, height, width, self._factor, self._depth, least, most)
        # Without settings for videos, as Qwen's own code shares a picture's pixels among the frames.
        share = max(min(most, most / num_frames * self._depth), int(least * 1.05))
        return smart_resize(height, width, self._factor, least, share)

    def _patches(self, pixels: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], list[float]]:
        """Patches of `(frames, 3, height, width)`: square by square, each channel, frame, line by line."""
        frames, channels, height, width = pixels.shape
        p, m, d = self._patch, self._merge, self._depth
        t, h, w = frames // d, height // p, width // p
        cut = pixels.reshape(t, d, channels, h // m, m, p, w // m, m, p)
        rows = cut.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, channels * d * p * p)
        return np.ascontiguousarray(rows, dtype=np.float32), [float(t), float(h), float(w)]
