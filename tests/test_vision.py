"""Encoders and vision-language models against what transformers gives, from files to tokens."""

from __future__ import annotations

import asyncio
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from safetensors.numpy import load_file

import alloyforge as af
from tests.conftest import REFERENCE

SEEING = [
    "gemma3",
    "idefics3",
    "llava",
    "mistral3",
    "qwen2_5_vl_image",
    "qwen2_5_vl_video",
    "qwen3_vl",
    "smolvlm",
]
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 16, "ignore_eos": True}
TEXT_TOLERANCE, MEDIA_TOLERANCE = 5e-4, 5e-3


def folder_of(name: str, config: str, tmp_path: pathlib.Path) -> pathlib.Path:
    folder = REFERENCE / name
    if config == "v4":
        folder = shutil.copytree(folder, tmp_path / name)
        shutil.copy(folder / "config.v4.json", folder / "config.json")
    return folder


def case_of(name: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    case = json.loads((REFERENCE / name / "case.json").read_text())
    return case, load_file(REFERENCE / name / "expected.safetensors")


def media_of(name: str, case: dict[str, Any]) -> dict[str, Any]:
    media: dict[str, Any] = {}
    for path in sorted((REFERENCE / name / "media").iterdir()):
        if path.suffix == ".png":
            media.setdefault("images", []).append(str(path))
        else:
            media.setdefault("videos", []).append(af.Video(np.load(path), fps=case["fps"]))
    return media


def session_of(folder: pathlib.Path, **options: Any) -> af.Session:
    return af.Session(folder, device="cpu", dtype="f32", kv_dtype="f32", **options)


def close(ours: npt.NDArray[Any], want: npt.NDArray[Any], tolerance: float) -> None:
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("config", ["v4", "v5"])
@pytest.mark.parametrize("backend", ["native", "candle"])
@pytest.mark.parametrize("name", SEEING)
def test_models_that_see(name: str, backend: str, config: str, tmp_path: pathlib.Path) -> None:
    case, want = case_of(name)
    media = media_of(name, case)
    with session_of(folder_of(name, config, tmp_path), backend=backend) as session:
        close(session.logits(case["prompt"], **media), want["logits"][0], MEDIA_TOLERANCE)
        tokens = want["greedy_ids"][0].tolist()
        assert session.generate(case["prompt"], **media, **GREEDY).tokens == tokens
        # from the blocks that were kept, and in company
        again = session.generate(case["prompt"], **media, **GREEDY)
        assert again.tokens == tokens
        assert again.usage.cached_tokens >= 32
        assert session.generate(case["prompt"], **media, **GREEDY, n=2).choices[0].tokens == tokens


@pytest.mark.parametrize("config", ["v4", "v5"])
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_towers_of_texts_and_pictures(name: str, config: str, tmp_path: pathlib.Path) -> None:
    case, want = case_of(name)
    images = media_of(name, case)["images"]
    with session_of(folder_of(name, config, tmp_path)) as session:
        close(session.embed(case["texts"], normalize=False), want["text_embeds"], TEXT_TOLERANCE)
        close(session.embed_images(images, normalize=False), want["image_embeds"], MEDIA_TOLERANCE)
        # alone as in company
        close(session.embed(case["texts"][1]), want["text_embeds"][1:2], TEXT_TOLERANCE)
        logits = want["logits_per_image"]
        if name == "clip":
            share = np.exp(logits - logits.max(-1, keepdims=True))
            share /= share.sum(-1, keepdims=True)
        else:
            share = 1 / (1 + np.exp(-logits))
        for found, row in zip(session.classify(images, labels=case["texts"]), share, strict=True):
            assert found == sorted(found, key=lambda label: -label.score)
            by_label = {label.label: label.score for label in found}
            np.testing.assert_allclose([by_label[t] for t in case["texts"]], row, atol=MEDIA_TOLERANCE)
        with pytest.raises(af.InvalidRequestError, match="labels"):
            session.classify(images)
        with pytest.raises(af.InvalidRequestError, match="decoder"):
            session.generate("a text")


@pytest.mark.parametrize("config", ["v4", "v5"])
def test_bert(config: str, tmp_path: pathlib.Path) -> None:
    case, want = case_of("bert")
    with session_of(folder_of("bert", config, tmp_path)) as session:
        close(session.embed(case["texts"], normalize=False), want["sentence_embedding"], TEXT_TOLERANCE)
        assert session.info.architecture == "bert"
        assert session.info.parameters > 0.9 * case["parameters"]
        with pytest.raises(af.InvalidRequestError, match="images"):
            session.embed_images(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("config", ["v4", "v5"])
def test_vit(config: str, tmp_path: pathlib.Path) -> None:
    case, want = case_of("vit")
    share = np.exp(want["logits"] - want["logits"].max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    names = json.loads((REFERENCE / "vit" / "config.json").read_text())["id2label"]
    with session_of(folder_of("vit", config, tmp_path)) as session:
        (found,) = session.classify(media_of("vit", case)["images"])
        by_label = {label.label: label.score for label in found}
        ours = [by_label[names[str(i)]] for i in range(len(names))]
        np.testing.assert_allclose(ours, share[0], atol=MEDIA_TOLERANCE)


@pytest.mark.parametrize("config", ["v4", "v5"])
def test_dinov2(config: str, tmp_path: pathlib.Path) -> None:
    case, want = case_of("dinov2")
    images = media_of("dinov2", case)["images"]
    with session_of(folder_of("dinov2", config, tmp_path)) as session:
        close(session.embed_images(images, normalize=False), want["pooler_output"], MEDIA_TOLERANCE)
        unit = session.embed_images(images)
        np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1, atol=1e-6)


@pytest.fixture(scope="module")
def seeing() -> Any:
    with session_of(REFERENCE / "llava", threads=1) as session:
        yield session


def test_a_picture_in_every_form(seeing: af.Session) -> None:
    case, want = case_of("llava")
    paths = media_of("llava", case)["images"]
    images = [Image.open(path) for path in paths]
    forms: list[list[Any]] = [
        [pathlib.Path(path) for path in paths],
        [pathlib.Path(path).read_bytes() for path in paths],
        images,
        [np.asarray(image.convert("RGB")) for image in images],
    ]
    for form in forms:
        close(seeing.logits(case["prompt"], images=form), want["logits"][0], MEDIA_TOLERANCE)


def test_another_picture_is_another_answer(seeing: af.Session) -> None:
    case, _ = case_of("llava")
    paths = media_of("llava", case)["images"]
    first = seeing.logits(case["prompt"], images=paths)
    other = seeing.logits(case["prompt"], images=[paths[0], paths[0]])
    assert np.abs(first - other).max() > 0.1
    # what stands before the second picture has not seen it
    second = case["prompt"].index("<image>", case["prompt"].index("<image>") + 1)
    before = len(seeing.tokenize(case["prompt"][:second])) - 1 + 36
    np.testing.assert_allclose(first[: before - 1], other[: before - 1], atol=1e-5)


def test_counts_that_do_not_match(seeing: af.Session) -> None:
    case, _ = case_of("llava")
    paths = media_of("llava", case)["images"]
    for prompt, images in [(case["prompt"], paths[:1]), ("no place", paths[:1]), ("<image>", paths)]:
        with pytest.raises(af.InvalidRequestError, match="images"):
            seeing.generate(prompt, images=images)
    with pytest.raises(af.InvalidRequestError, match="videos"):
        seeing.generate("<image>", videos=af.Video(np.zeros((2, 8, 8, 3), np.uint8)))


CHAT = (
    "{% for m in messages %}{{ m.role }}: {% for p in m.content %}"
    "{{ '<image>' if p.type == 'image' else p.text }}{% endfor %}{% endfor %}"
)


def test_pictures_in_chats(seeing: af.Session) -> None:
    case, _ = case_of("llava")
    path = media_of("llava", case)["images"][0]
    parts = [{"type": "image", "image": path}, {"type": "text", "text": "what is <image> here?"}]
    messages = [{"role": "user", "content": parts}]
    assert seeing.render(messages, template=CHAT) == "user: <image>what is <image> here?"
    answer = seeing.chat(messages, template=CHAT, **GREEDY)
    # what the user wrote is text: one picture fills one place
    literal = len(seeing.tokenize("what is <image> here?", special=False))
    assert answer.usage.prompt_tokens == len(seeing.tokenize("user: ")) + 36 + literal
    # an OpenAI client's form is the same
    encoded = (
        "data:image/png;base64," + __import__("base64").b64encode(pathlib.Path(path).read_bytes()).decode()
    )
    parts[0] = {"type": "image_url", "image_url": {"url": encoded}}
    assert seeing.chat(messages, template=CHAT, **GREEDY).tokens == answer.tokens
    with seeing.stream_chat(messages, template=CHAT, **GREEDY) as stream:
        assert "".join(chunk.text for chunk in stream) == answer.text


def test_pictures_on_asyncio(seeing: af.Session) -> None:
    case, want = case_of("llava")
    paths = media_of("llava", case)["images"]

    async def ask() -> list[int]:
        whole = await seeing.agenerate(case["prompt"], images=paths, **GREEDY)
        async for _ in seeing.astream(case["prompt"], images=paths, **GREEDY):
            pass
        return whole.tokens

    assert asyncio.run(ask()) == want["greedy_ids"][0].tolist()
