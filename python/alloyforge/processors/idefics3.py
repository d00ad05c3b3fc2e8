"""Idefics3 and SmolVLM: the picture in tiles, and as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from alloyforge.processors.common import HALF, LANCZOS, Item, Normaliser, Settings, resized

if TYPE_CHECKING:
    from PIL import Image

    from alloyforge.media.video import Frames

_MAX_EDGE = 4096


class Idefics3:
    """Resizes to whole tiles and cuts them.

    Args:
        settings: What the native session gives.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        given = Settings(settings)
        self._edge = given.size("size", {"longest_edge": 4 * 364}).get("longest_edge", 4 * 364)
        self._tile = given.size("max_image_size", {"longest_edge": 364}).get("longest_edge", 364)
        self._splits = given.flag("do_image_splitting", True)
        self._resample = int(given.number("resample", LANCZOS))
        self._normalise = Normaliser(given, HALF, HALF)
        videos = Settings(settings, "video_processor", ("video_preprocessor_config.json",))
        sampling = videos.get("video_sampling") or given.get("video_sampling") or {}
        self._frames = int(videos.get("num_frames") or sampling.get("max_frames", 64))
        self._fps = float(videos.get("fps") or sampling.get("fps", 1))

    def image(self, image: Image.Image) -> Item:
        """Gives `pixel_values` of shape `(tiles + 1, 3, edge, edge)`, the whole picture last."""
        tiles, down, across = self._cut(image)
        return {
            "kind": "image",
            "tensors": {"pixel_values": np.stack([self._normalise(tile) for tile in tiles])},
            "facts": {"tiles": [float(down), float(across)]},
        }

    def _cut(self, image: Image.Image) -> tuple[list[Image.Image], int, int]:
        edge = self._tile
        height, width = self._longest_edge(image)
        image = resized(image, height, width, self._resample)
        whole = resized(image, edge, edge, self._resample)
        if not self._splits:
            return [whole], 0, 0
        ratio = width / height
        if width >= height:
            width = math.ceil(width / edge) * edge
            height = math.ceil(int(width / ratio) / edge) * edge
        else:
            height = math.ceil(height / edge) * edge
            width = math.ceil(int(height * ratio) / edge) * edge
        image = resized(image, height, width, self._resample)
        if height <= edge and width <= edge:
            return [image], 0, 0
        down, across = height // edge, width // edge
        tiles = [
            image.crop((left, top, left + edge, top + edge))
            for top in range(0, height, edge)
            for left in range(0, width, edge)
        ]
        return [*tiles, resized(image, edge, edge, self._resample)], down, across

    def _longest_edge(self, image: Image.Image) -> tuple[int, int]:
        width, height = image.size
        ratio = width / height
        if width >= height:
            width = self._edge
            height = int(width / ratio)
            height += height % 2
        else:
            height = self._edge
            width = int(height * ratio)
            width += width % 2
        height, width = max(height, 1), max(width, 1)
        if width >= height and width > _MAX_EDGE:
            height, width = max(int(_MAX_EDGE / ratio), 1), _MAX_EDGE
        elif height > width and height > _MAX_EDGE:
            height, width = _MAX_EDGE, max(int(_MAX_EDGE * ratio), 1)
        return height, width

    def video(self, frames: Frames) -> Item:
        """Gives the frames as tiles, the `times` of each and the `duration`, in seconds."""
        chosen = frames.spread(min(self._frames, max(1, round(frames.duration * self._fps))))
        tiles = [self._normalise(resized(f, self._tile, self._tile, self._resample)) for f in chosen.images]
        return {
            "kind": "video",
            "tensors": {"pixel_values": np.stack(tiles)},
            "facts": {"times": chosen.times, "duration": [frames.duration]},
        }
