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
from tests.support import gguf

SEEING = [
    "gemma3",
    "gemma3_pan_and_scan",
    "idefics3",
    "llava",
    "llava_next",
    "mistral3",
    "qwen2_5_vl_image",
    "qwen2_5_vl_video",
    "qwen2_vl_image",
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


BACKENDS = pytest.mark.parametrize("backend", ["native", "candle"])


@BACKENDS
@pytest.mark.parametrize("config", ["v4", "v5"])
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_towers_of_texts_and_pictures(name: str, config: str, backend: str, tmp_path: pathlib.Path) -> None:
    case, want = case_of(name)
    images = media_of(name, case)["images"]
    with session_of(folder_of(name, config, tmp_path), backend=backend) as session:
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


@BACKENDS
@pytest.mark.parametrize("config", ["v4", "v5"])
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_bert(name: str, config: str, backend: str, tmp_path: pathlib.Path) -> None:
    case, want = case_of(name)
    with session_of(folder_of(name, config, tmp_path), backend=backend) as session:
        # the case of BERT has unit length already
        ours = session.embed(case["texts"], normalize=False)
        wanted = want["sentence_embedding"]
        close(ours, wanted / np.linalg.norm(wanted, axis=-1, keepdims=True), TEXT_TOLERANCE)
        many = session.embed(case["texts"] * 40)
        np.testing.assert_allclose(many[-len(ours) :], ours, atol=1e-6)
        assert session.info.architecture == name
        assert session.info.parameters > 0.9 * case["parameters"]
        with pytest.raises(af.InvalidRequestError, match="images"):
            session.embed_images(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("config", ["v4", "v5"])
def test_decoders_that_embed(config: str, tmp_path: pathlib.Path) -> None:
    case, want = case_of("qwen3_embedding")
    wanted = want["sentence_embedding"] / np.linalg.norm(want["sentence_embedding"], axis=-1, keepdims=True)
    for backend in ("native", "candle"):
        with session_of(folder_of("qwen3_embedding", config, tmp_path / backend), backend=backend) as session:
            close(session.embed(case["texts"]), wanted, TEXT_TOLERANCE)
            # alone, among many; the last one is longer than a step
            assert len(session.tokenize(case["texts"][-1])) > 1024
            close(session.embed(case["texts"][2]), wanted[2:3], TEXT_TOLERANCE)
            close(session.embed(case["texts"][:4] * 30)[-4:], wanted[:4], TEXT_TOLERANCE)
            with pytest.raises(af.InvalidRequestError, match="decoder"):
                session.generate("a text")
            assert session.info.context_len == 4096
            assert session.tokenize("one")[-1] == 2


def test_a_decoder_that_does_not_say_how_it_pools() -> None:
    with session_of(REFERENCE / "qwen3") as session:
        with pytest.raises(af.InvalidRequestError, match=r"modules\.json .* pooling_type"):
            session.embed("a text")
        with pytest.raises(af.InvalidRequestError, match="cross-encoder"):
            session.rerank("a text", ["another"])


POOLING = {1: "mean", 2: "first", 3: "last"}


@pytest.mark.parametrize("kind", POOLING)
def test_ways_of_pooling(kind: int, tmp_path: pathlib.Path) -> None:
    """As sentence-transformers' files say it, and as a GGUF file does."""
    case, want = case_of("qwen3_embedding")
    wanted = want[f"{POOLING[kind]}_embedding"]
    folder = shutil.copytree(REFERENCE / "qwen3_embedding", tmp_path / "folder")
    way = {"mean": "mean_tokens", "first": "cls_token", "last": "lasttoken"}[POOLING[kind]]
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{way}": True}))
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    path = tmp_path / "model.gguf"
    gguf.write(path, *qwen3_file(folder, kind))
    for model in (folder, path):
        with session_of(model) as session:
            close(session.embed(case["texts"], normalize=False), wanted, TEXT_TOLERANCE)


def qwen3_file(folder: pathlib.Path, pooling: int) -> tuple[dict[str, object], dict[str, npt.NDArray[Any]]]:
    """The checkpoint as llama.cpp's converter writes it."""
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    tokens = {**{i: text for text, i in tokenizer["model"]["vocab"].items()}, **special}
    texts = [tokens.get(i, f"[unused{i}]") for i in range(config["vocab_size"])]
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    metadata: dict[str, object] = {
        "general.architecture": "qwen3",
        "qwen3.block_count": config["num_hidden_layers"],
        "qwen3.context_length": config["max_position_embeddings"],
        "qwen3.embedding_length": config["hidden_size"],
        "qwen3.feed_forward_length": config["intermediate_size"],
        "qwen3.attention.head_count": config["num_attention_heads"],
        "qwen3.attention.head_count_kv": config["num_key_value_heads"],
        "qwen3.attention.key_length": config["head_dim"],
        "qwen3.attention.value_length": config["head_dim"],
        "qwen3.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "qwen3.rope.freq_base": 10000.0,
        "qwen3.pooling_type": pooling,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [3 if i in special else 1 for i in range(len(texts))],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": True,
    }
    names = [
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        *[(f"self_attn.{part}_proj", f"attn_{part}") for part in "qkv"],
        ("self_attn.o_proj", "attn_output"),
        *[(f"mlp.{part}_proj", f"ffn_{part}") for part in ("gate", "up", "down")],
    ]
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        renamed = name.replace("layers.", "blk.").replace("embed_tokens.", "token_embd.")
        for ours, theirs in names:
            renamed = renamed.replace(f".{ours}.", f".{theirs}.")
        tensors["output_norm.weight" if renamed == "norm.weight" else renamed] = tensor
    return metadata, tensors


@BACKENDS
@pytest.mark.parametrize("config", ["v4", "v5"])
@pytest.mark.parametrize("name", ["bert_reranker", "xlm_roberta_reranker"])
def test_rerankers(name: str, config: str, backend: str, tmp_path: pathlib.Path) -> None:
    case, want = case_of(name)
    scores = 1 / (1 + np.exp(-want["scores"].astype(np.float64)))
    folder = folder_of(name, config, tmp_path)
    with session_of(folder, backend=backend) as session:
        ranked = session.rerank(case["query"], case["texts"])
        assert [one.index for one in ranked] == np.argsort(-scores, kind="stable").tolist()
        assert [one.document for one in ranked] == [case["texts"][one.index] for one in ranked]
        np.testing.assert_allclose(
            [one.score for one in ranked], scores[[r.index for r in ranked]], atol=1e-4
        )
        assert session.rerank(case["query"], case["texts"], top_n=2) == ranked[:2]
        assert session.rerank(case["query"], []) == []
        # a document longer than the model takes is cut, a query is not
        assert len(session.rerank("fox", ["river " * 200])) == 1
        with pytest.raises(af.ContextLengthError):
            session.rerank("river " * 200, ["fox"])
        with pytest.raises(af.InvalidRequestError, match="rerank"):
            session.embed("a text")
        with pytest.raises(af.InvalidRequestError, match="top_n"):
            session.rerank("fox", ["fox"], top_n=0)


def test_scores_without_bounds(tmp_path: pathlib.Path) -> None:
    case, want = case_of("bert_reranker")
    folder = shutil.copytree(REFERENCE / "bert_reranker", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (folder / "config.json").write_text(json.dumps(config))
    with session_of(folder) as session:
        ranked = session.rerank(case["query"], case["texts"])
        np.testing.assert_allclose(
            [one.score for one in ranked], want["scores"][[r.index for r in ranked]], atol=TEXT_TOLERANCE
        )
    config["num_labels"] = 1
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.activation.Tanh"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(af.UnsupportedModelError, match="activation_fn"):
        session_of(folder)


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
