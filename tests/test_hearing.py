"""Text models that hear, against what transformers gives, from files to tokens."""

from __future__ import annotations

import base64
import json
import pathlib
import re
import shutil
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file

import alloyforge as af
from tests.conftest import REFERENCE
from tests.support import gguf

GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 16, "ignore_eos": True}
TOLERANCE = 5e-3
CLIPS = [str(path) for path in sorted((REFERENCE / "qwen2_audio" / "media").glob("*.wav"))]
LAYERS = {
    "self_attn_layer_norm": "ln1",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "final_layer_norm": "ln2",
    "fc1": "ffn_up",
    "fc2": "ffn_down",
}
HEADS = {
    "conv1": "a.conv1d.1",
    "conv2": "a.conv1d.2",
    "embed_positions": "a.position_embd",
    "layer_norm": "a.post_ln",
    "linear": "mm.a.fc",
    "linear_1": "mm.a.mlp.1",
    "linear_2": "mm.a.mlp.2",
    "ln_pre": "mm.a.norm_pre",
    "ln_mid": "mm.a.norm_mid",
}


def prompt_of(name: str) -> str:
    if name == "ultravox":
        return (REFERENCE / name / "prompt.txt").read_text()
    return str(json.loads((REFERENCE / name / "case.json").read_text())["prompt"])


def expected(name: str) -> tuple[npt.NDArray[Any], list[int]]:
    found = load_file(REFERENCE / name / "expected.safetensors")
    if name == "ultravox":
        return found["logits_mid"], found["greedy_mid"].tolist()
    return found["logits"][0], found["greedy_ids"][0].tolist()


def copied(name: str, tmp_path: pathlib.Path, **changes: object) -> pathlib.Path:
    """The checkpoint with other settings."""
    folder = shutil.copytree(REFERENCE / name, tmp_path / name)
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def open_folder(folder: pathlib.Path, **options: Any) -> af.Session:
    return af.Session(folder, device="cpu", dtype="f32", kv_dtype="f32", **options)


def holds(session: af.Session, prompt: str, logits: npt.NDArray[Any], tokens: list[int]) -> None:
    found = session.logits(prompt, audio=CLIPS)
    np.testing.assert_allclose(found, logits, rtol=0, atol=TOLERANCE)
    assert session.generate(prompt, audio=CLIPS, **GREEDY).tokens == tokens


@pytest.mark.parametrize("config", ["v4", "v5"])
@pytest.mark.parametrize("backend", ["native", "candle"])
def test_qwen2_audio(backend: str, config: str, tmp_path: pathlib.Path) -> None:
    folder = REFERENCE / "qwen2_audio"
    if config == "v4":
        folder = shutil.copytree(folder, tmp_path / "v4")
        shutil.copy(folder / "config.v4.json", folder / "config.json")
    logits, tokens = expected("qwen2_audio")
    prompt = prompt_of("qwen2_audio")
    with open_folder(folder, backend=backend) as session:
        holds(session, prompt, logits, tokens)
        # from the blocks that were kept, and in company
        again = session.generate(prompt, audio=CLIPS, **GREEDY)
        assert again.tokens == tokens
        assert again.usage.cached_tokens >= 32
        assert session.generate(prompt, audio=CLIPS, **GREEDY, n=2).choices[0].tokens == tokens
        # the clips turned around stand behind the same placeholders, and are other clips
        text = session.generate(prompt, audio=CLIPS[::-1], **GREEDY)
        assert text.usage.cached_tokens < 32
        turned = session.logits(prompt, audio=CLIPS[::-1])
        assert np.abs(turned - logits).max() > 0.1


@pytest.mark.parametrize("backend", ["native", "candle"])
@pytest.mark.parametrize("place", ["mid", "post"])
def test_ultravox(place: str, backend: str, tmp_path: pathlib.Path) -> None:
    found = load_file(REFERENCE / "ultravox" / "expected.safetensors")
    folder = copied("ultravox", tmp_path, projector_ln_mid=place == "mid")
    with open_folder(folder, backend=backend) as session:
        prompt = prompt_of("ultravox")
        holds(session, prompt, found[f"logits_{place}"], found[f"greedy_{place}"].tolist())


def test_chats_with_sounds() -> None:
    with open_folder(REFERENCE / "qwen2_audio") as session:
        data = pathlib.Path(CLIPS[1]).read_bytes()
        inline = {"data": base64.b64encode(data).decode(), "format": "wav"}
        parts: list[dict[str, Any]] = [
            {"type": "audio", "audio": CLIPS[0]},
            {"type": "input_audio", "input_audio": inline},
            {"type": "text", "text": "green speech fox picture bank"},
        ]
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": "fox"},
            {"role": "user", "content": parts},
        ]
        answer = session.chat(messages, **GREEDY)
        prompt = "<|im_start|>system\nfox<|im_end|>\n" + prompt_of("qwen2_audio")
        want = session.generate(prompt, audio=CLIPS, **GREEDY)
        assert answer.tokens == want.tokens
        assert answer.usage.prompt_tokens == want.usage.prompt_tokens
        # samples with their rate are one sound
        samples = af.load_audio(CLIPS[0])
        parts[0]["audio"] = (samples, 16_000)
        assert session.chat(messages, **GREEDY).tokens == want.tokens


def test_conversations_keep_sounds(tmp_path: pathlib.Path) -> None:
    """What was said is kept with the conversation, whatever becomes of its file."""
    with open_folder(REFERENCE / "qwen2_audio") as session:
        path = shutil.copy(CLIPS[0], tmp_path / "said.wav")
        samples = af.load_audio(CLIPS[1])
        turns: list[Any] = [
            {"role": "user", "content": [{"type": "audio", "audio": path}]},
            {"role": "user", "content": [{"type": "audio", "audio": (samples, 16_000)}]},
        ]
        talk = session.conversation("fox")
        talk.send(turns[0], **GREEDY)
        pathlib.Path(path).write_bytes(b"something else")
        told = talk.messages
        want = talk.send(turns[1], **GREEDY)
        assert want.usage.cached_tokens >= 32
        shutil.copy(CLIPS[0], path)
        system = {"role": "system", "content": "fox"}
        answer = {"role": "assistant", "content": told[-1]["content"]}
        assert session.chat([system, turns[0], answer, turns[1]], **GREEDY).tokens == want.tokens
        talk.save(tmp_path / "talk")
        other = session.conversation()
        other.restore(tmp_path / "talk")
        assert other.messages == talk.messages


def test_a_template_without_media_gets_the_placeholder() -> None:
    template = "{% for m in messages %}{{ m['content'] | trim }}{% endfor %}{# is string #}"
    with open_folder(REFERENCE / "ultravox") as session:
        parts = [{"type": "text", "text": "green"}, {"type": "audio", "audio": CLIPS[0]}]
        answer = session.chat([{"role": "user", "content": parts}], template=template, **GREEDY)
        want = session.generate("green\n<|audio|>", audio=CLIPS[0], **GREEDY)
        assert answer.tokens == want.tokens


def test_sounds_that_do_not_fit() -> None:
    with open_folder(REFERENCE / "qwen2_audio") as session:
        prompt = prompt_of("qwen2_audio")
        with pytest.raises(af.InvalidRequestError, match="audio"):
            session.generate(prompt, audio=CLIPS[:1])
        with pytest.raises(af.InvalidRequestError, match="images"):
            session.generate(prompt, images="x.png")
        short = (np.zeros(100, np.float32), 16_000)
        with pytest.raises(af.MediaError, match="too short"):
            session.generate(prompt, audio=[CLIPS[0], short])
        for inline in (
            {"data": "no base64!", "format": "wav"},
            {"format": "wav"},
            "x",
            {"data": "", "format": 1},
        ):
            part = {"type": "input_audio", "input_audio": inline}
            with pytest.raises(af.InvalidRequestError, match="input_audio"):
                session.chat([{"role": "user", "content": [part]}])


def test_what_is_longer_than_a_window_is_heard_in_pieces() -> None:
    """The second piece of a long sound is the rows of that piece alone, and the first one's are unchanged."""
    with open_folder(REFERENCE / "qwen2_audio") as session:
        noise = np.random.default_rng(0).normal(0, 0.1, 3 * 16_000).astype(np.float32)
        whole = session.logits("<|AUDIO|>", audio=(noise, 16_000))
        first = session.logits("<|AUDIO|>", audio=(noise[:32_000], 16_000))
        # markers before and behind: 50 rows of the first two seconds, 25 of the third
        assert (len(whole), len(first)) == (77, 52)
        np.testing.assert_allclose(whole[:51], first[:51], rtol=0, atol=1e-4)


def projector(name: str) -> tuple[dict[str, object], dict[str, npt.NDArray[Any]]]:
    """The halves that hear as llama.cpp's converter writes them."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    for key, value in load_file(REFERENCE / name / "model.safetensors").items():
        if not key.startswith(("audio_tower.", "multi_modal_projector.")):
            continue
        stem, suffix = key.split(".", 1)[1].rsplit(".", 1)
        layer = re.fullmatch(r"layers\.(\d+)\.(.*)", stem)
        new = f"a.blk.{layer[1]}.{LAYERS[layer[2]]}" if layer else HEADS.get(stem)
        if new is not None:
            is_conv_bias = stem.startswith("conv") and suffix == "bias"
            tensors[f"{new}.{suffix}"] = value[:, None] if is_conv_bias else value
    sizes = {
        "num_mel_bins": 40,
        "embedding_length": 64,
        "feed_forward_length": 80,
        "block_count": 2,
        "projection_dim": 64,
        "attention.head_count": 4,
        "attention.layer_norm_epsilon": 1e-5,
        "projector.stack_factor": 4,
    }
    kind = {"qwen2_audio": "qwen2a", "ultravox": "ultravox"}[name]
    head = {"general.architecture": "clip", "clip.has_audio_encoder": True, "clip.projector_type": kind}
    return {**head, **{f"clip.audio.{key}": value for key, value in sizes.items()}}, tensors


@pytest.mark.parametrize("name", ["qwen2_audio", "ultravox"])
def test_projectors(name: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mmproj.gguf"
    gguf.write(path, *projector(name))
    with open_folder(REFERENCE / name, projector=path) as session:
        holds(session, prompt_of(name), *expected(name))


def test_files_that_do_not_fit(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mmproj.gguf"
    metadata, tensors = projector("ultravox")
    cases: list[tuple[dict[str, object], type[Exception], str]] = [
        ({"clip.projector_type": "resampler"}, af.UnsupportedModelError, "resampler"),
        ({"clip.audio.block_count": 1 << 30}, af.ModelFormatError, "block_count"),
        ({"clip.audio.block_count": 3}, af.ModelFormatError, "layers.2"),
        ({"clip.audio.projector.stack_factor": 3}, af.ModelFormatError, "norm_pre|mlp.1"),
        ({"clip.audio.attention.layer_norm_epsilon": 1e-3}, af.UnsupportedModelError, "epsilon"),
    ]
    for changes, error, words in cases:
        gguf.write(path, {**metadata, **changes}, tensors)
        with pytest.raises(error, match=words):
            open_folder(REFERENCE / "ultravox", projector=path)
    settings: list[tuple[dict[str, object], type[Exception], str]] = [
        ({"projector_act": "gelu"}, af.UnsupportedModelError, "projector_act"),
        ({"audio_latency_block_size": 100}, af.UnsupportedModelError, "audio_latency_block_size"),
        ({"stack_factor": 0}, af.ModelFormatError, "stack_factor"),
        ({"audio_config": None}, af.ModelFormatError, "audio_config"),
        ({"audio_config": {"encoder_layers": 1 << 20}}, af.ModelFormatError, "encoder_layers"),
    ]
    for i, (change, error, words) in enumerate(settings):
        folder = copied("ultravox", tmp_path / str(i), **change)
        with pytest.raises(error, match=words):
            open_folder(folder)
