"""Processors: pictures, videos and sounds to the numbers that a family's encoder takes.

One file a family; each follows the processor configuration that stands beside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alloyforge.processors import clip, gemma3, idefics3, llava_next, pixtral, qwen_vl
from alloyforge.processors.common import Item, Processor
from alloyforge.processors.sound import Sound

_FAMILIES: dict[str, Callable[[Mapping[str, Any]], Processor]] = {
    "clip": clip.Clip,
    "gemma3": gemma3.Gemma3,
    "idefics3": idefics3.Idefics3,
    "llava_next": llava_next.LlavaNext,
    "pixtral": pixtral.Pixtral,
    "qwen_vl": qwen_vl.QwenVl,
}

__all__ = ["Item", "Processor", "Sound", "make_processor"]


def make_processor(settings: Mapping[str, Any] | None) -> Processor | Sound | None:
    """The processor that `settings`, as the native session gives them, describe; `None` without any."""
    if settings is None:
        return None
    if settings.get("family") == "sound":
        return Sound()
    family = _FAMILIES.get(str(settings.get("family")))
    return None if family is None else family(settings)
