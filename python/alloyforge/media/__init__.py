"""Pictures, videos and sounds that a caller hands over."""

from __future__ import annotations

from alloyforge.media.video import Video

__all__ = ["Video"]
