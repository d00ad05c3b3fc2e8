"""Pictures, videos and sounds that a caller hands over."""

from __future__ import annotations

from alloyforge.media.audio import Audio, load_audio
from alloyforge.media.video import Video

__all__ = ["Audio", "Video", "load_audio"]
