"""Projectors as llama.cpp's converter writes them, made of reference checkpoints.

The names and keys are those of `gguf-py/gguf/tensor_mapping.py` and of the classes of `MmprojModel`; what
transformers gives for the same weights is what must come out.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file

import alloyforge as af
from tests.conftest import REFERENCE
from tests.support import gguf
from tests.test_vision import GREEDY, case_of, media_of, session_of

Tensors = dict[str, npt.NDArray[Any]]

CLIP = [
    (r".*embeddings\.patch_embedding\.(.*)", r"v.patch_embd.\1"),
    (r".*embeddings\.class_embedding", r"v.class_embd"),
    (r".*embeddings\.position_embedding\.(.*)", r"v.position_embd.\1"),
    (r".*pre_layrnorm\.(.*)", r"v.pre_ln.\1"),
    (r".*post_layernorm\.(.*)", r"v.post_ln.\1"),
    (r".*encoder\.layers\.(\d+)\.layer_norm(\d)\.(.*)", r"v.blk.\1.ln\2.\3"),
    (r".*encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(.*)", r"v.blk.\1.attn_\2.\3"),
    (r".*encoder\.layers\.(\d+)\.self_attn\.out_proj\.(.*)", r"v.blk.\1.attn_out.\2"),
    (r".*encoder\.layers\.(\d+)\.mlp\.fc1\.(.*)", r"v.blk.\1.ffn_up.\2"),
    (r".*encoder\.layers\.(\d+)\.mlp\.fc2\.(.*)", r"v.blk.\1.ffn_down.\2"),
    (r"multi_modal_projector\.linear_1\.(.*)", r"mm.0.\1"),
    (r"multi_modal_projector\.linear_2\.(.*)", r"mm.2.\1"),
    (r"model\.connector\.modality_projection\.proj\.(.*)", r"mm.model.fc.\1"),
    (r"multi_modal_projector\.mm_input_projection_weight", r"mm.input_projection.weight"),
    (r"multi_modal_projector\.mm_soft_emb_norm\.(.*)", r"mm.soft_emb_norm.\1"),
]
PIXTRAL = [
    (r"vision_tower\.patch_conv\.(.*)", r"v.patch_embd.\1"),
    (r"vision_tower\.ln_pre\.(.*)", r"v.pre_ln.\1"),
    (r".*layers\.(\d+)\.attention_norm\.(.*)", r"v.blk.\1.ln1.\2"),
    (r".*layers\.(\d+)\.ffn_norm\.(.*)", r"v.blk.\1.ln2.\2"),
    (r".*layers\.(\d+)\.attention\.([qkv])_proj\.(.*)", r"v.blk.\1.attn_\2.\3"),
    (r".*layers\.(\d+)\.attention\.o_proj\.(.*)", r"v.blk.\1.attn_out.\2"),
    (r".*layers\.(\d+)\.feed_forward\.(gate|up|down)_proj\.(.*)", r"v.blk.\1.ffn_\2.\3"),
    (r"multi_modal_projector\.linear_(\d)\.(.*)", r"mm.\1.\2"),
    (r"multi_modal_projector\.norm\.(.*)", r"mm.input_norm.\1"),
    (r"multi_modal_projector\.patch_merger\.merging_layer\.(.*)", r"mm.patch_merger.\1"),
]
QWEN = [
    (r".*visual\.patch_embed\.proj\.(.*)", r"v.patch_embd.\1"),
    (r".*visual\.pos_embed\.(.*)", r"v.position_embd.\1"),
    (r".*visual\.blocks\.(\d+)\.norm(\d)\.(.*)", r"v.blk.\1.ln\2.\3"),
    (r".*visual\.blocks\.(\d+)\.attn\.qkv\.(.*)", r"v.blk.\1.attn_qkv.\2"),
    (r".*visual\.blocks\.(\d+)\.attn\.proj\.(.*)", r"v.blk.\1.attn_out.\2"),
    (r".*visual\.blocks\.(\d+)\.mlp\.(gate|up|down)_proj\.(.*)", r"v.blk.\1.ffn_\2.\3"),
    (r".*visual\.blocks\.(\d+)\.mlp\.linear_fc1\.(.*)", r"v.blk.\1.ffn_up.\2"),
    (r".*visual\.blocks\.(\d+)\.mlp\.linear_fc2\.(.*)", r"v.blk.\1.ffn_down.\2"),
    (r".*visual\.merger\.(?:ln_q|norm)\.(.*)", r"v.post_ln.\1"),
    (r".*visual\.merger\.(?:mlp\.0|linear_fc1)\.(.*)", r"mm.0.\1"),
    (r".*visual\.merger\.(?:mlp\.2|linear_fc2)\.(.*)", r"mm.2.\1"),
    (r".*visual\.deepstack_merger_list\.(\d+)\.norm\.(.*)", r"v.deepstack.\1.norm.\2"),
    (r".*visual\.deepstack_merger_list\.(\d+)\.linear_fc(\d)\.(.*)", r"v.deepstack.\1.fc\2.\3"),
]


def renamed(name: str, table: list[tuple[str, str]]) -> Tensors:
    tensors: Tensors = {}
    for old, tensor in load_file(REFERENCE / name / "model.safetensors").items():
        for pattern, new in table:
            if re.fullmatch(pattern, old):
                tensors[re.sub(pattern, new, old)] = tensor
                break
    assert tensors
    return tensors


def keys(name: str, kind: str, **more: object) -> dict[str, object]:
    config = json.loads((REFERENCE / name / "config.json").read_text())
    own = json.loads((REFERENCE / name / "preprocessor_config.json").read_text())
    vision, text = config["vision_config"], config["text_config"]
    vector = {
        "image_mean": [float(x) for x in own["image_mean"]],
        "image_std": [float(x) for x in own["image_std"]],
        "image_size": vision.get("image_size", 0) or 40,
        "patch_size": vision["patch_size"],
        "embedding_length": vision["hidden_size"],
        "feed_forward_length": vision["intermediate_size"],
        "block_count": vision.get("num_hidden_layers") or vision["depth"],
        "attention.head_count": vision.get("num_attention_heads") or vision["num_heads"],
        "attention.layer_norm_epsilon": float(vision.get("layer_norm_eps", 1e-6)),
        "projection_dim": text["hidden_size"],
        **more,
    }
    head = {"general.architecture": "clip", "clip.has_vision_encoder": True, "clip.projector_type": kind}
    return {**head, **{f"clip.vision.{key}": value for key, value in vector.items()}}


def two_frames(tensors: Tensors) -> None:
    """A patch's frames apart, as the converter stores them."""
    both = tensors.pop("v.patch_embd.weight")
    tensors["v.patch_embd.weight"], tensors["v.patch_embd.weight.1"] = both[:, :, 0], both[:, :, 1]


def llava() -> tuple[dict[str, object], Tensors]:
    tensors = renamed("llava", CLIP)
    # features are taken before the last norm, which the converter leaves out
    return keys("llava", "mlp"), {k: v for k, v in tensors.items() if not k.startswith("v.post_ln")}


def idefics3() -> tuple[dict[str, object], Tensors]:
    sizes = {"projector.scale_factor": 2, "preproc_image_size": 96}
    return {**keys("idefics3", "idefics3", **sizes), "clip.use_gelu": True}, renamed("idefics3", CLIP)


def gemma3() -> tuple[dict[str, object], Tensors]:
    tensors = renamed("gemma3", CLIP)
    tensors["mm.soft_emb_norm.weight"] = tensors["mm.soft_emb_norm.weight"] + 1
    return {**keys("gemma3", "gemma3", **{"projector.scale_factor": 2}), "clip.use_gelu": True}, tensors


def mistral3() -> tuple[dict[str, object], Tensors]:
    tensors = renamed("mistral3", PIXTRAL)
    for name in [n for n in tensors if re.fullmatch(r"v\.blk\.\d+\.attn_[qk]\.weight", n)]:
        # neighbours turn together, where the checkpoint has halves
        rows, columns = tensors[name].shape
        heads = tensors[name].reshape(3, 2, rows // 6, columns)
        tensors[name] = heads.swapaxes(1, 2).reshape(rows, columns)
    sizes: dict[str, object] = {"spatial_merge_size": 2, "image_size": 80}
    sizes["attention.layer_norm_epsilon"] = 1e-5
    return {**keys("mistral3", "pixtral", **sizes), "clip.use_gelu": True}, tensors


def qwen2_5() -> tuple[dict[str, object], Tensors]:
    tensors = renamed("qwen2_5_vl_image", QWEN)
    two_frames(tensors)
    sizes = {"n_wa_pattern": 2, "window_size": 32, "image_min_pixels": 1024, "image_max_pixels": 4096}
    return {**keys("qwen2_5_vl_image", "qwen2.5vl_merger", **sizes), "clip.use_silu": True}, tensors


def qwen3() -> tuple[dict[str, object], Tensors]:
    tensors = renamed("qwen3_vl", QWEN)
    two_frames(tensors)
    sizes: dict[str, object] = {"is_deepstack_layers": [True, True], "spatial_merge_size": 2}
    sizes |= {"image_min_pixels": 1024, "image_max_pixels": 4096}
    return {**keys("qwen3_vl", "qwen3vl_merger", **sizes), "clip.use_gelu": True}, tensors


# where the converter's file says less than the checkpoint (GELU's form), what that moves
CASES: dict[str, tuple[Callable[[], tuple[dict[str, object], Tensors]], float]] = {
    "llava": (llava, 5e-3),
    "idefics3": (idefics3, 5e-3),
    "gemma3": (gemma3, 5e-3),
    "mistral3": (mistral3, 5e-2),
    "qwen2_5_vl_image": (qwen2_5, 5e-3),
    "qwen3_vl": (qwen3, 5e-3),
}


@pytest.mark.parametrize("name", CASES)
def test_projectors(name: str, tmp_path: pathlib.Path) -> None:
    make, tolerance = CASES[name]
    case, want = case_of(name)
    path = tmp_path / "mmproj.gguf"
    gguf.write(path, *make())
    with session_of(REFERENCE / name, projector=path) as session:
        media = media_of(name, case)
        found = session.logits(case["prompt"], **media)
        np.testing.assert_allclose(found, want["logits"][0], rtol=0, atol=tolerance)
        if tolerance < 1e-2:
            assert (
                session.generate(case["prompt"], **media, **GREEDY).tokens == want["greedy_ids"][0].tolist()
            )


def test_projectors_that_do_not_fit(tmp_path: pathlib.Path) -> None:
    metadata, tensors = idefics3()
    path = tmp_path / "mmproj.gguf"
    cases: list[tuple[dict[str, object], Tensors, type[Exception], str]] = [
        ({**metadata, "clip.projector_type": "resampler"}, tensors, af.UnsupportedModelError, "resampler"),
        ({**metadata, "general.architecture": "llama"}, tensors, af.UnsupportedModelError, "architecture"),
        ({**metadata, "clip.vision.projection_dim": 96}, tensors, af.ModelFormatError, "projection_dim"),
        ({**metadata, "clip.vision.block_count": 3}, tensors, af.ModelFormatError, "blk.2"),
        ({**metadata, "clip.vision.block_count": 1 << 30}, tensors, af.ModelFormatError, "block_count"),
        ({**metadata, "clip.vision.patch_size": 0}, tensors, af.ModelFormatError, "patch_size"),
        (
            metadata,
            {k: v for k, v in tensors.items() if k != "mm.model.fc.weight"},
            af.ModelFormatError,
            "missing",
        ),
    ]
    for keys_of, given, error, words in cases:
        gguf.write(path, keys_of, given)
        with pytest.raises(error, match=words):
            session_of(REFERENCE / "idefics3", projector=path)
