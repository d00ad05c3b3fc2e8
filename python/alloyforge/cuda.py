"""Where pip put NVIDIA's libraries."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def library_folders() -> list[str]:
    """The folders of NVIDIA's packages that hold libraries, on every path that Python imports from.

    They are laid out as `nvidia/cu13/lib`, and PyTorch's as well as those of the extra `cuda` serve.
    """
    found = importlib.util.find_spec("nvidia")
    if found is None or found.submodule_search_locations is None:
        return []
    folders = (folder for root in found.submodule_search_locations for folder in Path(root).glob("*/lib"))
    return [str(folder) for folder in sorted(folders, reverse=True)]
