"""Many prompts at once, and files of them."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import select
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

import alloyforge as af

COMMAND = str(pathlib.Path(sys.executable).with_name("alloyforge"))
PROMPT = list(range(10, 30))
NOISE: dict[str, Any] = {"temperature": 1.0, "seed": 1, "ignore_eos": True, "max_tokens": 12}


def test_progress_is_told(shared: af.Session) -> None:
    told: list[tuple[int, int]] = []
    prompts = [PROMPT[: 3 + i] for i in range(6)]
    answers = shared.generate_batch(prompts, progress=lambda done, total: told.append((done, total)), **NOISE)
    assert told == [(i, 6) for i in range(1, 7)]
    assert [a.tokens for a in answers] == [shared.generate(p, **NOISE).tokens for p in prompts]
    assert shared.generate_batch([], progress=lambda *_: told.append((0, 0)), **NOISE) == []
    assert len(told) == 6


def test_a_progress_that_raises_ends_the_batch(session: af.Session) -> None:
    def stop(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        session.generate_batch([PROMPT] * 40, progress=stop, **{**NOISE, "max_tokens": 200})
    end = time.monotonic() + 5
    while (stats := session.stats()).running or stats.waiting or stats.kv_blocks_used:
        assert time.monotonic() < end, stats
        time.sleep(0.005)


def line(i: int, **body: Any) -> dict[str, Any]:
    given = {"model": "MODEL", "prompt": f"Number {i}", "max_tokens": 8, "seed": i, "ignore_eos": True}
    return {"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions", "body": {**given, **body}}


def write(path: pathlib.Path, lines: list[dict[str, Any]], model: pathlib.Path) -> pathlib.Path:
    path.write_text("".join(json.dumps(x).replace('"MODEL"', json.dumps(str(model))) + "\n" for x in lines))
    return path


def batch(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, "batch", *map(str, arguments), "--threads", "1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    responses = [json.loads(x) for x in path.read_text().splitlines()]
    found = {r["custom_id"]: r["response"] for r in responses}
    assert len(found) == len(responses), "a line was repeated"
    return found


def test_a_file_of_requests(tiny_path: pathlib.Path, tmp_path: pathlib.Path, shared: af.Session) -> None:
    lines = [line(i) for i in range(5)]
    lines += [
        line(5, temperature=-1),
        line(6, best_of=3),
        {**line(7), "url": "/v1/moderations"},
        line(8, logprobs=2, n=2),
        {**line(9), "body": 7},
        line(10, prompt=None),
    ]
    source, out = write(tmp_path / "in.jsonl", lines, tiny_path), tmp_path / "out.jsonl"
    done = batch(source, out)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = read(out)
    assert len(found) == 11
    for i in range(5):
        want = shared.generate(f"Number {i}", max_tokens=8, seed=i, ignore_eos=True)
        body = found[f"r{i}"]["body"]
        assert found[f"r{i}"]["status_code"] == 200
        assert body["object"] == "text_completion"
        assert body["choices"][0]["text"] == want.text
        assert body["usage"]["completion_tokens"] == 8
    refused = {"r5": "temperature", "r6": "best_of", "r7": "url", "r9": "body", "r10": "prompt"}
    for name, parameter in refused.items():
        assert found[name]["status_code"] == 400
        assert found[name]["body"]["error"]["param"] == parameter
    both = found["r8"]["body"]["choices"]
    assert [c["index"] for c in both] == [0, 1]
    assert len(both[1]["logprobs"]["tokens"]) == 8
    # A second run finds everything done.
    before = out.read_bytes()
    assert batch(source, out).returncode == 0
    assert out.read_bytes() == before


def test_killed_it_goes_on(tiny_path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    lines = [line(i, max_tokens=60) for i in range(150)]
    source, out = write(tmp_path / "in.jsonl", lines, tiny_path), tmp_path / "out.jsonl"
    kills = 0
    while True:
        process = subprocess.Popen([COMMAND, "batch", source, out, "--threads", "1"])
        size = out.stat().st_size if out.exists() else 0
        while process.poll() is None and kills < 3:
            if out.exists() and out.stat().st_size > size:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.001)
        if process.wait() == 0:
            break
        if kills == 2:
            # As if the kill had come in the middle of a line.
            os.truncate(out, out.stat().st_size - 7)
    assert kills == 3
    found = read(out)
    assert set(found) == {f"r{i}" for i in range(150)}
    assert all(r["status_code"] == 200 for r in found.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}\n", "custom_id"),
        ('{"custom_id": "a"}\n{"custom_id": "a"}\n', "that of line 1 too"),
        ("nonsense\n", "is no JSON"),
        ('{"custom_id": "a", "body": {}}\n', "say --model"),
    ],
)
def test_files_that_are_refused(tmp_path: pathlib.Path, text: str, said: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(text)
    done = batch(source, tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert said in done.stderr


def test_somebody_elses_output_is_left_alone(tiny_path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source, out = write(tmp_path / "in.jsonl", [line(0)], tiny_path), tmp_path / "notes.txt"
    out.write_text("my notes\nof today")
    done = batch(source, out)
    assert done.returncode == 2
    assert "is left as it is" in done.stderr
    assert out.read_text() == "my notes\nof today"


def test_a_bar_on_a_terminal(tiny_path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    lines = [line(i, max_tokens=60) for i in range(60)]
    source = write(tmp_path / "in.jsonl", lines, tiny_path)
    main, terminal = pty.openpty()
    command = [COMMAND, "batch", str(source), str(tmp_path / "out.jsonl"), "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    shown = b""
    while process.poll() is None or select.select([main], [], [], 0)[0]:
        if select.select([main], [], [], 0.05)[0]:
            try:
                shown += os.read(main, 65536)
            except OSError:
                break
    os.close(main)
    said, _ = process.communicate()
    assert said == b""
    assert process.returncode == 0
    assert b"answering [" in shown
    assert b"of 60" in shown
