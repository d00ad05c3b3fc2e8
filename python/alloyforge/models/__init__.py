"""Finding a model: a path, a Hugging Face id, or a name in the catalogue."""

from __future__ import annotations

from alloyforge.models.find import find_model

__all__ = ["find_model"]
