"""The examples run, on small models."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image

from tests.conftest import REFERENCE
from tests.test_media import video_of

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
TEMPLATE = (
    "{% for m in messages %}{% for p in m.content %}{{ '<image>' if p.type == 'image' else "
    "'<|vision_start|><|video_pad|><|vision_end|>' if p.type == 'video' else p.text }}{% endfor %}"
    "{% endfor %}"
)


def run(example: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / example), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_describe_a_picture() -> None:
    picture = REFERENCE / "llava" / "media" / "image0.png"
    folder = REFERENCE / "llava"
    assert run("describe_picture.py", folder, picture, "--template", TEMPLATE, "--max-tokens", 8).strip()


def test_ask_about_a_video(tmp_path: pathlib.Path) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(video_of(25, (64, 64)))
    folder = REFERENCE / "qwen2_5_vl_video"
    options = ("--template", TEMPLATE, "--max-tokens", 4)
    first, second = run("ask_video.py", folder, video, "what moves?", *options).strip().split("\n[")[1:]
    assert first.startswith("0 of ")
    assert not second.startswith("0 of ")


def test_search_a_folder(tmp_path: pathlib.Path) -> None:
    for path in (REFERENCE / "clip" / "media").iterdir():
        shutil.copy(path, tmp_path)
    out = tmp_path / "found" / "result.png"
    out.parent.mkdir()
    text = run("search_pictures.py", REFERENCE / "clip", tmp_path, "a red square", "one river", "--out", out)
    lines = text.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["a red square", "one river"]
    assert len(lines) == 6
    with Image.open(out) as sheet:
        assert sheet.size == (256, 2 * 162)
        assert len(np.unique(np.asarray(sheet))) > 10
