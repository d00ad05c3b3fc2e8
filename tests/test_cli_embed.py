"""`alloyforge embed`: texts, pictures and pairs, as JSON lines and as an array."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from tests.conftest import REFERENCE
from tests.test_cli import run
from tests.test_vision import case_of, media_of


def test_texts(tmp_path: pathlib.Path) -> None:
    case, want = case_of("roberta")
    done = run("embed", REFERENCE / "roberta", *case["texts"])
    assert (done.returncode, done.stderr) == (0, "")
    rows = np.array([json.loads(line) for line in done.stdout.splitlines()])
    wanted = want["sentence_embedding"]
    np.testing.assert_allclose(rows, wanted / np.linalg.norm(wanted, axis=-1, keepdims=True), atol=5e-4)
    assert run("embed", REFERENCE / "roberta", stdin="\n".join(case["texts"])).stdout == done.stdout
    out = tmp_path / "rows.npy"
    assert run("embed", REFERENCE / "roberta", *case["texts"], "-o", out).stdout == ""
    np.testing.assert_allclose(np.load(out), rows, atol=1e-6)


def test_pictures() -> None:
    case, want = case_of("clip")
    images = media_of("clip", case)["images"]
    options = [text for image in images for text in ("--image", image)]
    done = run("embed", REFERENCE / "clip", *options, "--no-normalize")
    rows = np.array([json.loads(line) for line in done.stdout.splitlines()])
    assert rows.shape == want["image_embeds"].shape
    np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1, atol=1e-5)


def test_pairs() -> None:
    case, want = case_of("bert_reranker")
    done = run("embed", REFERENCE / "bert_reranker", *case["texts"], "--query", case["query"])
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["index"] for row in rows] == np.argsort(-want["scores"]).tolist()
    assert [row["document"] for row in rows] == [case["texts"][row["index"]] for row in rows]


@pytest.mark.parametrize(
    "arguments",
    [["a text", "--image", "a.png"], ["a text", "--query", "a", "-o", "rows.npy"], []],
    ids=["both", "an array of scores", "nothing"],
)
def test_failures(arguments: list[str]) -> None:
    done = run("embed", REFERENCE / "bert", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
