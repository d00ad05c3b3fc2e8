"""Models by their Hugging Face id, against a small local hub."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from alloyforge.errors import DownloadError
from alloyforge.models import hub
from tests.conftest import REFERENCE
from tests.support.hub import HubServer, serving

FOLDER = {
    "README.md": b"# a model",
    "config.json": b"{}",
    "generation_config.json": b"{ }",
    "tokenizer.json": b"{  }",
    "tokenizer_config.json": b"{   }",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same weights",
    "onnx/model.onnx": b"and again",
}
SHARDED = {
    "config.json": b"{}",
    "model.safetensors.index.json": b"{}",
    "model-00001-of-00002.safetensors": b"one",
    "model-00002-of-00002.safetensors": b"two",
    "consolidated.safetensors": b"both",
}
GGUFS = {
    "README.md": b"",
    "config.json": b"{}",
    "tiny.Q8_0.gguf": b"eight bits",
    "tiny.Q4_K_M.gguf": b"four bits",
    "tiny-F16.gguf": b"sixteen bits",
    "mmproj-tiny-f16.gguf": b"a projector",
}
SPLIT = {
    "big-Q4_0-00001-of-00002.gguf": b"one",
    "big-Q4_0-00002-of-00002.gguf": b"two",
}
REPOSITORIES = {"org/tiny": FOLDER, "org/sharded": SHARDED, "org/tiny-GGUF": GGUFS, "org/big": SPLIT}

# The client reads its settings when it is imported, so each case runs in a process of its own.
FETCH = """
import sys
from alloyforge.models import find_model
print(find_model(sys.argv[1]))
"""


@pytest.fixture
def server() -> Iterator[HubServer]:
    with serving(REPOSITORIES) as server:
        yield server


def fetch(name: str, endpoint: str, home: pathlib.Path, **extra: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **extra}
    return subprocess.run(
        [sys.executable, "-c", FETCH, name], env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("name", "entry", "fetched"),
    [
        (
            "org/tiny",
            None,
            [
                "config.json",
                "generation_config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json",
            ],
        ),
        ("org/tiny-GGUF", "tiny.Q4_K_M.gguf", ["tiny.Q4_K_M.gguf"]),
        ("org/tiny-GGUF:tiny-F16.gguf", "tiny-F16.gguf", ["tiny-F16.gguf"]),
        ("org/tiny-GGUF:q8_0", "tiny.Q8_0.gguf", ["tiny.Q8_0.gguf"]),
        ("org/big", "big-Q4_0-00001-of-00002.gguf", sorted(SPLIT)),
    ],
)
def test_what_is_fetched(
    server: HubServer, tmp_path: pathlib.Path, name: str, entry: str | None, fetched: list[str]
) -> None:
    done = fetch(name, server.endpoint, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    path = pathlib.Path(done.stdout.strip())
    assert server.fetched() == fetched
    assert (
        (path.is_dir() and (path / "config.json").read_bytes() == b"{}")
        if entry is None
        else path.name == entry
    )
    # what is in the hub's cache is not fetched again, and serves without the hub too
    again = fetch(name, server.endpoint, tmp_path)
    assert again.stdout == done.stdout
    assert server.fetched() == fetched
    offline = fetch(name, "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE="1")
    assert offline.stdout == done.stdout, offline.stderr


def test_a_session_by_its_id(tmp_path: pathlib.Path) -> None:
    files = {p.name: p.read_bytes() for p in (REFERENCE / "llama").iterdir() if p.name != "case.json"}
    code = (
        "import sys, alloyforge as af\n"
        "with af.Session(sys.argv[1], threads=1) as session:\n"
        "    answer = session.generate([10], max_tokens=3, ignore_eos=True)\n"
        "    print(session.info.architecture, len(answer.tokens))"
    )
    with serving({"org/llama": files}) as server:
        env = {
            **os.environ,
            "HF_ENDPOINT": server.endpoint,
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_XET": "1",
        }
        command = [sys.executable, "-c", code, "org/llama"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("llama 3\n", "")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (
            "org/none",
            "FileNotFoundError: [Errno 2] no such file, and no such repository on the hub: 'org/none'",
        ),
        (
            "org/tiny-GGUF:none.gguf",
            "FileNotFoundError: [Errno 2] no such file in the repository org/tiny-GGUF: 'none.gguf'",
        ),
    ],
)
def test_what_is_not_there(server: HubServer, tmp_path: pathlib.Path, name: str, fault: str) -> None:
    done = fetch(name, server.endpoint, tmp_path)
    assert done.stderr.splitlines()[-1] == fault


def test_a_hub_that_does_not_answer(tmp_path: pathlib.Path) -> None:
    done = fetch("org/tiny", "http://127.0.0.1:9", tmp_path)
    assert done.stderr.splitlines()[-1].startswith("alloyforge.errors.DownloadError: org/tiny: ")


def test_without_the_package(tmp_path: pathlib.Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError('not here')")
    done = fetch(
        "org/tiny",
        "http://127.0.0.1:9",
        tmp_path,
        PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("alloyforge.errors.MissingDependencyError: `org/tiny` is a Hugging Face id")
    assert "pip install 'alloyforge[hub]'" in last


INDEX = "model.safetensors.index.json"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
SETTINGS = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
DEEP = [f"Q4_K_M/x-Q4_K_M-0000{i}-of-00002.gguf" for i in (1, 2)]


@pytest.mark.parametrize(
    ("name", "files", "want"),
    [
        ("a/b", list(SHARDED), ["config.json", INDEX, *SHARDS]),
        ("a/b", list({**FOLDER, **GGUFS}), [*SETTINGS, "model.safetensors"]),
        ("a/b-GGUF", [*FOLDER, *GGUFS], ["tiny.Q4_K_M.gguf"]),
        ("a/b", ["x.gguf"], ["x.gguf"]),
        ("a/b", ["x-Q6_K.gguf", "x-Q2_K.gguf"], ["x-Q6_K.gguf"]),
        ("a/b", [DEEP[0], "x-Q8_0.gguf"], DEEP),
        ("a/b", ["config.json", "lone.safetensors"], ["config.json", "lone.safetensors"]),
    ],
)
def test_the_choice(name: str, files: list[str], want: list[str]) -> None:
    assert hub.choose(name, files) == want


@pytest.mark.parametrize("files", [{}, {"README.md": b""}, {"config.json": b"", "pytorch_model.bin": b""}])
def test_no_model_among_the_files(files: dict[str, bytes]) -> None:
    with pytest.raises(DownloadError, match="holds neither"):
        hub.choose("a/b", list(files))
