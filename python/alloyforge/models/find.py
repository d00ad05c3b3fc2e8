"""From what a user calls a model to a path on this machine."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable

from alloyforge.models import catalogue, hub

Progress = Callable[[str, int, int], None]
"""Told what is being fetched, and the bytes had and wanted; called often."""

DEFAULT_MODEL = "smollm2-135m"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[^/].*)?")
_FILE_SUFFIXES = (".gguf", ".safetensors", ".json", ".bin")


def find_model(model: str | os.PathLike[str], progress: Progress | None = None) -> pathlib.Path:
    """Gives the file or folder that `model` names, fetching it where need be.

    Args:
        model: A path; a name in the catalogue; or a Hugging Face id, `org/name`,
            `org/name:file.gguf` or `org/name:Q4_K_M`. A path that exists comes first.
        progress: Told how far a download is.

    Raises:
        FileNotFoundError: nothing of that name.
        MissingDependencyError: a Hugging Face id without the package `huggingface_hub`.
        DownloadError: the model could not be fetched.
    """
    name = os.fspath(model)
    if os.path.exists(name):
        return pathlib.Path(name)
    if isinstance(model, str) and not _looks_like_path(name):
        entry = catalogue.CATALOGUE.get(name)
        if entry is not None:
            return catalogue.fetch(entry, progress)
        if _HUB_ID.fullmatch(name):
            return hub.fetch(name, progress)
    known = ", ".join(sorted(catalogue.CATALOGUE))
    raise FileNotFoundError(2, f"no such file, and no model of that name (the catalogue has {known})", name)


def _looks_like_path(name: str) -> bool:
    """Whether a string that names nothing here can only have been meant as a path."""
    if ":" in name:
        return name.startswith(("/", ".", "~"))
    return name.startswith(("/", ".", "~")) or name.endswith(_FILE_SUFFIXES) or name.count("/") > 1
