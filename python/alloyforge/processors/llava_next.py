"""LLaVA-NeXT: the picture small, and in tiles of the resolution that wastes least."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from alloyforge.processors.common import (
    BICUBIC,
    CLIP_MEAN,
    CLIP_STD,
    Item,
    Normaliser,
    Settings,
    centre_crop,
    no_video,
    resized,
    shortest_edge_size,
)

if TYPE_CHECKING:
    from PIL import Image

    from alloyforge.media.video import Frames

_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


class LlavaNext:
    """Resizes into one of the resolutions, pads it and cuts it into tiles.

    Args:
        settings: What the native session gives, with the `side` of a tile in patches.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        given = Settings(settings)
        self._side = int(settings["side"])
        size = given.size("size", {"shortest_edge": 336})
        edge = size.get("shortest_edge", 336)
        self._small = (size.get("height", edge), size.get("width", edge))
        self._size = size
        crop = given.size("crop_size", {"height": edge, "width": edge})
        self._tile = crop.get("height", edge)
        self._pinpoints = given.get("image_grid_pinpoints") or _PINPOINTS
        self._resample = int(given.number("resample", BICUBIC))
        self._normalise = Normaliser(given, CLIP_MEAN, CLIP_STD)

    def image(self, image: Image.Image) -> Item:
        """Gives `pixel_values` of shape `(1 + tiles, 3, edge, edge)`, the small picture first."""
        width, height = image.size
        best_height, best_width = self._best(height, width)
        scale_w, scale_h = best_width / width, best_height / height
        if scale_w < scale_h:
            new_width, new_height = best_width, min(math.ceil(height * scale_w), best_height)
        else:
            new_height, new_width = best_height, min(math.ceil(width * scale_h), best_width)
        large = resized(image, new_height, new_width, self._resample)
        left, top = (best_width - new_width) // 2, (best_height - new_height) // 2
        # Black beyond the edges.
        large = large.crop((-left, -top, best_width - left, best_height - top))
        edge = self._tile
        tiles = [
            large.crop((x, y, x + edge, y + edge))
            for y in range(0, best_height, edge)
            for x in range(0, best_width, edge)
        ]
        small = resized(image, *self._small, self._resample)
        pixels = np.stack([self._finish(tile) for tile in [small, *tiles]])
        down, across = best_height // edge, best_width // edge
        return {
            "kind": "image",
            "tensors": {"pixel_values": pixels},
            "facts": {
                "tiles": [float(down), float(across)],
                "padding": self._padding(height, width, down * self._side, across * self._side),
            },
        }

    def _finish(self, tile: Image.Image) -> Any:
        if "shortest_edge" in self._size:
            tile = resized(tile, *shortest_edge_size(tile, self._size["shortest_edge"]), self._resample)
        else:
            tile = resized(tile, *self._small, self._resample)
        return self._normalise(centre_crop(tile, self._tile, self._tile))

    def _best(self, height: int, width: int) -> tuple[int, int]:
        best, most, least = (self._tile, self._tile), 0, math.inf
        for h, w in self._pinpoints:
            scale = min(w / width, h / height)
            effective = min(int(width * scale) * int(height * scale), width * height)
            wasted = h * w - effective
            if effective > most or (effective == most and wasted < least):
                best, most, least = (h, w), effective, wasted
        return best

    def _padding(self, height: int, width: int, lines: int, columns: int) -> list[float]:
        """Lines above and columns to the left, in patches, that hold nothing of the picture."""
        if width / height > columns / lines:
            own = int(round(height * (columns / width), 7))
            return [float((lines - own) // 2), 0.0]
        own = int(round(width * (lines / height), 7))
        return [0.0, float((columns - own) // 2)]

    def video(self, frames: Frames) -> Item:  # noqa: ARG002 - the interface's
        """Raises `InvalidRequestError`."""
        raise no_video()
