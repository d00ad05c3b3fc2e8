"""Gemma 3: one size; long pictures also in parts, where the configuration asks for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from alloyforge.processors.common import BILINEAR, HALF, Item, Normaliser, Settings, no_video, resized

if TYPE_CHECKING:
    from PIL import Image

    from alloyforge.media.video import Frames


class Gemma3:
    """Pan and scan, resize, normalise.

    Args:
        settings: What the native session gives.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        given = Settings(settings)
        self._size = given.size("size", {"height": 224, "width": 224})
        self._resample = int(given.number("resample", BILINEAR))
        self._normalise = Normaliser(given, HALF, HALF)
        self._pans = given.flag("do_pan_and_scan", False)
        self._min_crop = given.count("pan_and_scan_min_crop_size", 256)
        self._max_crops = given.count("pan_and_scan_max_num_crops", 4)
        self._min_ratio = given.number("pan_and_scan_min_ratio_to_activate", 1.2)

    def image(self, image: Image.Image) -> Item:
        """Gives `pixel_values` of shape `(1 + crops, 3, height, width)`, the whole picture first."""
        crops = self._crops(image) if self._pans else []
        size = (self._size["height"], self._size["width"])
        tiles = [self._normalise(resized(tile, *size, self._resample)) for tile in [image, *crops]]
        return {
            "kind": "image",
            "tensors": {"pixel_values": np.stack(tiles)},
            "facts": {"crops": [float(len(crops))]},
        }

    def _crops(self, image: Image.Image) -> list[Image.Image]:
        width, height = image.size
        long, short = max(width, height), min(width, height)
        if long / short < self._min_ratio:
            return []
        # Half is rounded up.
        count = min(math.floor(long / self._min_crop), math.floor(long / short + 0.5))
        count = min(max(2, count), self._max_crops)
        across, down = (count, 1) if width >= height else (1, count)
        crop_width, crop_height = math.ceil(width / across), math.ceil(height / down)
        if min(crop_width, crop_height) < self._min_crop:
            return []
        return [
            image.crop((left, top, min(left + crop_width, width), min(top + crop_height, height)))
            for top in range(0, crop_height * down, crop_height)
            for left in range(0, crop_width * across, crop_width)
        ]

    def video(self, frames: Frames) -> Item:  # noqa: ARG002 - the interface's
        """Raises `InvalidRequestError`."""
        raise no_video()
