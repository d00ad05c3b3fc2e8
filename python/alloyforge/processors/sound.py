"""Qwen2-Audio and Ultravox: samples as they are, of which the core computes the spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from alloyforge.processors.common import Item


class Sound:
    """Takes sounds, and nothing that is seen."""

    def audio(self, samples: npt.NDArray[np.float32]) -> Item:
        """Gives `samples`, mono at 16 kHz."""
        return {"kind": "audio", "tensors": {"samples": samples}, "facts": {}}
