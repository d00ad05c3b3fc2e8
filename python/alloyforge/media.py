"""Media that a caller hands over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alloyforge.errors import invalid

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


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
