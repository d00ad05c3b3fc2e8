"""The user's cache of fetched models."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

_CHUNK = 1 << 20


def cache_dir() -> pathlib.Path:
    """The folder for everything fetched: `ALLOYFORGE_CACHE`, else as the XDG rules say."""
    if own := os.environ.get("ALLOYFORGE_CACHE"):
        return pathlib.Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return pathlib.Path(base) / "alloyforge" if base else pathlib.Path.home() / ".cache" / "alloyforge"


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Holds the lock file `path`, waiting for another process that has it.

    The system gives the lock back when a process ends, however it ends, so none is ever stale.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def is_sound(path: pathlib.Path, want: str) -> bool:
    """Whether `path` has the SHA-256 `want`.

    A file that was found sound and has not changed since, by size and time, is not read again: the
    note of that stands beside it.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    note = _note_of(path)
    seen = {"sha256": want, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    with contextlib.suppress(OSError, ValueError):
        if json.loads(note.read_text()) == seen:
            return True
    if sha256(path) != want:
        return False
    note_sound(path, want)
    return True


def note_sound(path: pathlib.Path, digest: str) -> None:
    """Writes down that `path` was found to have the SHA-256 `digest`."""
    stat = path.stat()
    seen = {"sha256": digest, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    part = path.with_name(f".{path.name}.{os.getpid()}.note")
    # The cache may belong to somebody else: then the next run reads the file again.
    with contextlib.suppress(OSError):
        part.write_text(json.dumps(seen))
        os.replace(part, _note_of(path))


def _note_of(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}.sound")
