"""CLIP, SigLIP, ViT, DINOv2 and LLaVA: one size, the middle, normalised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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


class Clip:
    """What `preprocessor_config.json` says, in its order: resize, crop, rescale, normalise.

    Args:
        settings: What the native session gives.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        given = Settings(settings)
        self._size = given.size("size", {"shortest_edge": 224}) if given.flag("do_resize", True) else {}
        self._crop = {}
        # What crops by default says so by its crop size.
        if given.flag("do_center_crop", given.get("crop_size") is not None):
            self._crop = given.size("crop_size", {"height": 224, "width": 224})
        self._resample = int(given.number("resample", BICUBIC))
        self._normalise = Normaliser(given, CLIP_MEAN, CLIP_STD)

    def image(self, image: Image.Image) -> Item:
        """Gives `pixel_values` of shape `(1, 3, height, width)`."""
        if "shortest_edge" in self._size:
            height, width = shortest_edge_size(image, self._size["shortest_edge"])
            image = resized(image, height, width, self._resample)
        elif self._size:
            image = resized(image, self._size["height"], self._size["width"], self._resample)
        if self._crop:
            edge = self._crop.get("shortest_edge", 0)
            image = centre_crop(image, self._crop.get("height", edge), self._crop.get("width", edge))
        return {"kind": "image", "tensors": {"pixel_values": self._normalise(image)[None]}, "facts": {}}

    def video(self, frames: Frames) -> Item:  # noqa: ARG002 - the interface's
        """Raises `InvalidRequestError`."""
        raise no_video()
