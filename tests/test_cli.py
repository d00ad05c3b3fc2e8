"""The command line, as a user runs it."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from alloyforge import __version__
from alloyforge.cli.perplexity import windows
from alloyforge.progress import ProgressBar
from tests.support.interrupting import interruptible

COMMAND = str(pathlib.Path(sys.executable).with_name("alloyforge"))
FIELDS = {
    "metric",
    "tokens",
    "depth",
    "concurrency",
    "tokens_per_second",
    "runs",
    "threads",
    "model",
    "device",
}
FAST = ["--threads", "1", "--seed", "1", "--ignore-eos", "--max-tokens", "12"]


def run(*arguments: str | pathlib.Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [COMMAND, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)


def test_run(tiny_path: pathlib.Path) -> None:
    done = run("run", tiny_path, "The river", *FAST)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
    assert run("run", tiny_path, "-", *FAST, stdin="The river").stdout == done.stdout
    assert run("run", tiny_path, *FAST, stdin="The river").stdout == done.stdout
    stats = run("run", tiny_path, "The river", *FAST, "--stats")
    assert stats.stdout == done.stdout
    assert "answer 12 tokens" in stats.stderr
    assert "llama" in run("run", tiny_path, "The river", *FAST, "-v").stderr


def test_python_m(tiny_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alloyforge", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"alloyforge {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "usage: alloyforge"),
        (["serve", "x"], 2, "invalid choice: 'serve'"),
        (["run", "x.gguf", "hi"], 1, "alloyforge: x.gguf: no such file, and no model of that name"),
        (["run", "x.gguf", "hi", "--picture", "x.png"], 2, "unrecognized arguments"),
        (["run", "TINY", "hi", "--top-p", "7"], 2, "alloyforge: top_p: must be a number from 0 to 1, not 7"),
        (["run", "TINY", "hi", "--top-p", "most"], 2, "invalid float value"),
        (["run", "TINY", "hi", "--device", "toaster"], 2, "alloyforge: device: `toaster` is none of"),
        (["chat", "TINY", "--prompt", "hi"], 1, "has no chat template: use `alloyforge run`"),
        (["perplexity", "TINY", "nowhere.txt"], 1, "alloyforge: nowhere.txt: No such file or directory"),
        (["bench", "TINY", "--repeat", "0"], 2, "must be at least 1"),
        (["pull", "nothing-of-that-name"], 1, "the catalogue has gemma3-270m, silero-vad, smollm2-135m"),
        (["tokenize", "garbage.gguf", "hi"], 1, "garbage.gguf"),
    ],
)
def test_failures(
    tiny_path: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garbage.gguf").write_bytes(b"GGUF\x03\x00\x00\x00\xff\xff")
    done = run(*(str(tiny_path) if a == "TINY" else a for a in arguments))
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if status == 1:
        assert done.stderr.startswith("alloyforge: ")
        assert done.stderr.count("\n") == 1


def test_verbose_failures_have_a_traceback() -> None:
    assert "Traceback" in run("pull", "nothing", "-v").stderr


def test_inspect(tiny_path: pathlib.Path) -> None:
    text = run("inspect", tiny_path, "--tensors", "--metadata")
    assert text.returncode == 0
    assert "llama" in text.stdout
    assert "model.layers.0.self_attn.q_proj.weight  f32  [64, 64]" in text.stdout
    assert "hidden_size = 64" in text.stdout
    found = json.loads(run("inspect", tiny_path, "--json").stdout)
    assert found["model"]["parameters"] == 108864
    assert found["tensors"][0]["bytes"] > 0


def test_tokenize(tiny_path: pathlib.Path) -> None:
    ids = run("tokenize", tiny_path, "The river", "--no-add-bos")
    assert ids.returncode == 0
    tokens = [
        json.loads(line)
        for line in run("tokenize", tiny_path, "The river", "--no-add-bos", "--json").stdout.splitlines()
    ]
    assert [t["token"] for t in tokens] == list(map(int, ids.stdout.split()))
    assert "".join(t["text"] for t in tokens) == "The river"
    assert run("tokenize", tiny_path, "--no-add-bos", stdin="The river").stdout == ids.stdout


def test_bench(tiny_path: pathlib.Path) -> None:
    options = [
        "--prompt-tokens",
        "24",
        "--gen-tokens",
        "8",
        "--depth",
        "16",
        "--repeat",
        "2",
        "--concurrency",
        "2",
    ]
    done = run("bench", tiny_path, *options, "--threads", "1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["metric"], r["tokens"]) for r in rows] == [("prefill", 24), ("decode", 8)]
    for row in rows:
        assert set(row) == FIELDS
        assert (row["depth"], row["concurrency"], row["runs"], row["threads"]) == (16, 2, 2, 1)
        assert (row["model"], row["device"]) == (str(tiny_path), "cpu")
        speed = row["tokens_per_second"]
        assert 0 < speed["min"] <= speed["median"] <= speed["max"]
    assert run("bench", tiny_path, *options, "--threads", "1").stdout.startswith("prefill ")


def test_perplexity(tiny_path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The river and the lantern. " * 40)
    done = run("perplexity", tiny_path, text, "--json", "--window", "64", "--threads", "1")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["tokens"] > 100
    # random weights know nothing: about as bad as guessing among 320
    assert 100 < found["perplexity"] < 3000


@pytest.mark.parametrize(
    ("num_tokens", "window"), [(2, 2), (10, 4), (100, 16), (17, 16), (16, 16), (5, 64), (9, 3)]
)
def test_windows_score_every_token_once(num_tokens: int, window: int) -> None:
    seen: list[int] = []
    for start, end, own in windows(num_tokens, window):
        assert end - start <= window
        assert own > start
        seen += range(own, end)
    assert seen == list(range(1, num_tokens))


def test_devices() -> None:
    assert run("devices").stdout.startswith("cpu")
    rows = [json.loads(line) for line in run("devices", "--json").stdout.splitlines()]
    assert rows[0]["name"] == "cpu"


def test_pull_prints_the_path(tiny_path: pathlib.Path) -> None:
    assert run("pull", tiny_path).stdout == f"{tiny_path}\n"


def test_a_reader_that_leaves(tiny_path: pathlib.Path) -> None:
    process = subprocess.Popen(
        [COMMAND, "run", str(tiny_path), "hi", "--ignore-eos", "--max-tokens", "200", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


def test_ctrl_c(tiny_path: pathlib.Path) -> None:
    options = ["--temperature", "0", "--ignore-eos", "--prompt", "Tell me a story."]
    with interruptible([COMMAND, "chat", "smollm2-135m", *options]) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (1, "")
    assert time.monotonic() - start < 10


def test_a_conversation() -> None:
    options = ["--temperature", "0", "--max-tokens", "12", "--context-len", "512", "--system", "Be brief."]
    done = run("chat", "smollm2-135m", *options, stdin="Hello!\n\n/clear\nHello!\nAnd now?\n/exit\nnever\n")
    assert (done.returncode, done.stderr) == (0, "")
    first, second, *rest = done.stdout.splitlines()
    assert first == second
    assert rest
    assert run("chat", "--prompt", "Hello!", *options).stdout.splitlines()[0] == first


def test_a_bar_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressBar("x") as bar:
        bar.fraction(0.5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressBar("loading") as bar:
        bar.fraction(0.5)
        bar.bytes("fetching", 10_000_000, 20_000_000)
    shown = capsys.readouterr().err
    assert "loading [###############---------------]  50%" in shown
    assert shown.endswith("\r\x1b[K")
    with ProgressBar("short", patience=60) as bar:
        bar.fraction(0.5)
    assert capsys.readouterr().err == ""
