"""Pixtral and Mistral 3: whole patches, in the picture's own shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alloyforge.errors import media_error
from alloyforge.processors.common import (
    BICUBIC,
    CLIP_MEAN,
    CLIP_STD,
    Item,
    Normaliser,
    Settings,
    no_video,
    resized,
)

if TYPE_CHECKING:
    from PIL import Image

    from alloyforge.media.video import Frames


class Pixtral:
    """Shrinks to the longest edge and rounds up to whole merged patches.

    Args:
        settings: What the native session gives, with the encoder's `patch_size` and `merge`.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        given = Settings(settings)
        self._patch = int(settings["patch_size"])
        size = given.size("size", {"longest_edge": 1024})
        edge = size.get("longest_edge", 1024)
        self._most = (size.get("height", edge), size.get("width", edge))
        # The processor's patch is one of merged patches where it is larger than the encoder's.
        unit = given.get("patch_size", self._patch)
        unit = unit if isinstance(unit, Mapping) else {"height": unit, "width": unit}
        least = self._patch * int(settings["merge"])
        self._unit = (max(int(unit["height"]), least), max(int(unit["width"]), least))
        self._resample = int(given.number("resample", BICUBIC))
        self._normalise = Normaliser(given, CLIP_MEAN, CLIP_STD)

    def image(self, image: Image.Image) -> Item:
        """Gives `pixel_values` of shape `(1, 3, height, width)` and the `grid` of patches."""
        width, height = image.size
        ratio = max(height / self._most[0], width / self._most[1])
        if ratio > 1:
            height, width = math.floor(height / ratio), math.floor(width / ratio)
        if height < 1 or width < 1:
            raise media_error("image", f"of {image.size[0]} x {image.size[1]} pixels is too narrow")
        height = math.ceil(height / self._unit[0]) * self._unit[0]
        width = math.ceil(width / self._unit[1]) * self._unit[1]
        pixels = self._normalise(resized(image, height, width, self._resample))
        grid = [1.0, float(height // self._patch), float(width // self._patch)]
        return {"kind": "image", "tensors": {"pixel_values": pixels[None]}, "facts": {"grid": grid}}

    def video(self, frames: Frames) -> Item:  # noqa: ARG002 - the interface's
        """Raises `InvalidRequestError`."""
        raise no_video()
