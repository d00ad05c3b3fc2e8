"""Writes reference checkpoints beside those in `reference/`: tiny random models with what transformers
gives for them.

Needs torch, transformers and Pillow, which the project's own tests do not:

    python tests/data/make_reference.py [NAME ...]

A case is a folder in the form that `reference/README.md` describes. Weights are at unit scale, so that a
missing bias, norm or scale shows. A seed whose greedy answer hangs by less than `MARGIN` is passed over.
"""

from __future__ import annotations

import copy
import importlib
import json
import pathlib
import shutil
import sys
from typing import Any

import numpy as np
import torch
import transformers as tf
from PIL import Image
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent / "reference"
MARGIN = 2e-3
SENTENCE = "one brown circle sentence colour speech frame blue green river across quick fox moves picture"
WORDS = SENTENCE.split()


def tokenizer(like: str, frame: list[str] | None = None, ends: int = 1) -> dict[str, Any]:
    """The tokenizer of case `like`, which puts `frame` around a text, and `ends` ends between two."""
    data: dict[str, Any] = json.loads((HERE / like / "tokenizer.json").read_text())
    if frame is None:
        return data
    ids = {token["content"]: token["id"] for token in data["added_tokens"]}
    begin, end = frame

    def special(name: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": type_id}}

    def text(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    second = 1 if ends == 1 else 0
    head = [special(begin, 0)] if begin else []
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*head, text("A", 0), special(end, 0)],
        "pair": [
            *head,
            text("A", 0),
            *[special(end, 0)] * ends,
            text("B", second),
            special(end, second),
        ],
        "special_tokens": {
            name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in {begin, end} - {""}
        },
    }
    return data


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights at unit scale: what goes in comes out about as large."""
    random = torch.Generator().manual_seed(seed)
    # Gemma's norms multiply by one more than their weight, and its head is the table of embeddings
    is_gemma = type(model).__name__.startswith("Gemma")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=random)
            if weight.ndim == 1:
                is_norm = name.endswith("weight") and "norm" in name.lower()
                from_zero = is_gemma and ("language_model" in name or "soft_emb" in name)
                weight.copy_(noise * 0.2 + (1.0 if is_norm and not from_zero else 0.0))
            elif "embed" in name and weight.ndim == 2 and "patch" not in name:
                weight.copy_(noise * (0.25 if is_gemma else 0.7))
            else:
                weight.copy_(noise * 1.2 / np.sqrt(weight[0].numel()))


def v4(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as transformers 4 writes it."""
    out = copy.deepcopy(config)
    if "dtype" in out:
        out["torch_dtype"] = out.pop("dtype")
    for part in [out, *[v for v in out.values() if isinstance(v, dict)]]:
        if rope := part.pop("rope_parameters", None):
            if "full_attention" in rope:
                # Gemma 3's two bases
                part["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
                rope = rope["full_attention"]
            if "rope_theta" in rope:
                part["rope_theta"] = rope.pop("rope_theta")
            if set(rope) - {"rope_type"}:
                part["rope_scaling"] = rope
    return out


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Smooth colours with some edges."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(x / random.uniform(4, 20) + y / random.uniform(4, 20) + random.uniform(0, 6)) for _ in "rgb"
    ]
    image = np.stack(waves, -1) * 90 + 128
    image[height // 4 : height // 2, width // 3 : width // 2] = random.uniform(0, 255, 3)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def write(
    name: str, model: Any, tokens: dict[str, Any], case: dict[str, Any], **tensors: Any
) -> pathlib.Path:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "model.safetensors").unlink()
    state = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    tied = getattr(model, "_tied_weights_keys", None) or {}
    if model.config.tie_word_embeddings:
        state = {k: v for k, v in state.items() if k not in tied and not k.endswith("lm_head.weight")}
    save_file(published(name, state), folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.v4.json").write_text(json.dumps(v4(config), indent=1, sort_keys=True) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps(tokens, indent=1, ensure_ascii=False))
    save_file(
        {k: torch.as_tensor(v).contiguous() for k, v in tensors.items()}, folder / "expected.safetensors"
    )
    case = {
        "name": name,
        "class": type(model).__name__,
        "transformers": tf.__version__,
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        **case,
    }
    (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")
    print(name, {k: case[k] for k in ("parameters", "seed", "greedy_margin") if k in case})
    return folder


def published(name: str, state: dict[str, Any]) -> dict[str, Any]:
    """The names under which such checkpoints are published, which are those of transformers 4."""

    def rename(key: str) -> str:
        if name == "llava_next":
            for new, old in [
                ("model.language_model.", "language_model.model."),
                ("lm_head.", "language_model.lm_head."),
                ("model.vision_tower.", "vision_tower."),
                ("model.multi_modal_projector.", "multi_modal_projector."),
                ("model.image_newline", "image_newline"),
            ]:
                if key.startswith(new):
                    key = old + key[len(new) :]
                    break
            if key.startswith("vision_tower.") and not key.startswith("vision_tower.vision_model."):
                key = "vision_tower.vision_model." + key.removeprefix("vision_tower.")
        if name == "qwen2_vl_image":
            key = key.replace("model.language_model.", "model.", 1).replace("model.visual.", "visual.", 1)
        if name == "gemma3_pan_and_scan":
            key = key.replace("model.language_model.", "language_model.model.", 1)
            key = key.replace("model.vision_tower.", "vision_tower.", 1)
            key = key.replace("model.multi_modal_projector.", "multi_modal_projector.", 1)
        return key

    return {rename(key): value for key, value in state.items()}


@torch.no_grad()
def greedy(model: Any, inputs: dict[str, Any], count: int = 16) -> tuple[Any, Any, float]:
    logits = model(**inputs).logits
    ids = model.generate(**inputs, max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0)
    new = ids[:, inputs["input_ids"].shape[1] :]
    out = model.generate(
        **inputs,
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    tops = [score.topk(2).values[0] for score in out.scores]
    return logits, new, float(min(top[0] - top[1] for top in tops))


def seeing(
    name: str,
    make: Any,
    processor: Any,
    tokens: dict[str, Any],
    prompt: str,
    pictures: list[Any],
    **options: Any,
) -> None:
    """A vision-language model with `pictures` in `prompt`."""
    for seed in range(50):
        model = make().eval()
        randomise(model, seed)
        given = {"text": prompt, "images": pictures, "return_tensors": "pt", "add_special_tokens": False}
        inputs = dict(processor(**given, **options))
        logits, ids, margin = greedy(model, inputs)
        if margin > MARGIN:
            break
    folder = write(
        name,
        model,
        tokens,
        {"seed": seed, "prompt": prompt, "greedy_margin": round(margin, 5)},
        logits=logits,
        greedy_ids=ids,
        **{k: v for k, v in inputs.items() if k in ("input_ids", "image_grid_thw", "image_sizes")},
    )
    (folder / "generation_config.json").unlink(missing_ok=True)
    processor.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(tokens, indent=1, ensure_ascii=False))
    (folder / "media").mkdir()
    for i, image in enumerate(pictures):
        image.save(folder / "media" / f"image{i}.png")


def pil(module: str, name: str) -> Any:
    """The processor of pictures that resizes with Pillow, as the models' own code does."""
    found = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    return getattr(found, f"{name}ImageProcessorPil")


def fast(tokens: dict[str, Any], **special: Any) -> Any:
    from tokenizers import Tokenizer

    inner = Tokenizer.from_str(json.dumps(tokens))
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        **special,
    )


TEXT = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 48,
    "image_size": 48,
    "patch_size": 8,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "layer_norm_eps": 1e-6,
}


def llava_next() -> None:
    pinpoints = [[48, 96], [96, 48], [96, 96], [144, 48]]
    config = tf.LlavaNextConfig(
        text_config={"model_type": "llama", **TEXT},
        vision_config=CLIP,
        image_token_index=4,
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )
    tokens = tokenizer("llava")
    images = pil("llava_next", "LlavaNext")(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}, image_grid_pinpoints=pinpoints
    )
    processor = tf.LlavaNextProcessor(
        images,
        fast(tokens, extra_special_tokens={"image_token": "<image>"}),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    prompt = "<s>USER: <image>\none brown circle <image> speech frame blue\nASSISTANT:"
    make = lambda: tf.LlavaNextForConditionalGeneration(copy.deepcopy(config))  # noqa: E731
    seeing("llava_next", make, processor, tokens, prompt, [picture(90, 61, 1), picture(37, 120, 2)])


def qwen2_vl_image() -> None:
    config = tf.Qwen2VLConfig(
        text_config={
            **TEXT,
            "max_position_embeddings": 256,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=8,
        video_token_id=9,
        vision_start_token_id=6,
        vision_end_token_id=7,
        tie_word_embeddings=False,
    )
    tokens = tokenizer("qwen2_5_vl_image")
    images = pil("qwen2_vl", "Qwen2VL")(
        patch_size=8, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 1024, "longest_edge": 4096}
    )
    special = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    processor = tf.Qwen2VLProcessor(
        images, fast(tokens, extra_special_tokens=special), Qwen2VLVideoProcessor(patch_size=8)
    )
    prompt = (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>quick fox<|vision_start|><|image_pad|>"
        "<|vision_end|>moves the picture<|im_end|>\n<|im_start|>assistant\n"
    )
    make = lambda: tf.Qwen2VLForConditionalGeneration(copy.deepcopy(config))  # noqa: E731
    seeing("qwen2_vl_image", make, processor, tokens, prompt, [picture(70, 50, 3), picture(33, 61, 4)])


def gemma3_pan_and_scan() -> None:
    config = tf.Gemma3Config(
        text_config={
            **TEXT,
            "head_dim": 16,
            "num_hidden_layers": 3,
            "sliding_window": 12,
            "query_pre_attn_scalar": 20,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
            },
        },
        vision_config={
            **CLIP,
            "model_type": "siglip_vision_model",
            "vision_use_head": False,
            "num_hidden_layers": 2,
        },
        boi_token_index=6,
        eoi_token_index=7,
        image_token_index=8,
        mm_tokens_per_image=9,
    )
    tokens = tokenizer("gemma3")
    # the processor asks for none unless it is told to
    scan: dict[str, Any] = {
        "do_pan_and_scan": True,
        "pan_and_scan_min_crop_size": 24,
        "pan_and_scan_max_num_crops": 4,
        "pan_and_scan_min_ratio_to_activate": 1.2,
    }
    images = pil("gemma3", "Gemma3")(
        size={"height": 48, "width": 48},
        **scan,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    special = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    processor = tf.Gemma3Processor(images, fast(tokens, extra_special_tokens=special), image_seq_length=9)
    prompt = (
        "<s><start_of_turn>user\ndescribe one<start_of_image>river across<start_of_image>sentence"
        "<end_of_turn>\n<start_of_turn>model\n"
    )
    make = lambda: tf.Gemma3ForConditionalGeneration(copy.deepcopy(config))  # noqa: E731
    seeing(
        "gemma3_pan_and_scan",
        make,
        processor,
        tokens,
        prompt,
        [picture(130, 50, 5), picture(60, 55, 6)],
        **scan,
    )


LONG = " ".join(WORDS * 24)
TEXTS = [" ".join(WORDS[:8]), " ".join(WORDS[5:9]), " ".join(WORDS[9:]), "fox"]
QUERY = "quick brown fox"
ENCODER = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@torch.no_grad()
def pooled(name: str, model: Any, tokens: dict[str, Any], seed: int, pooling: str) -> pathlib.Path:
    """A model whose rows are pooled, by `mean` or the `last` one; the other ways are there too."""
    ways: dict[str, list[Any]] = {"mean": [], "first": [], "last": []}
    texts = [*TEXTS, LONG] if model.config.max_position_embeddings > 1000 else TEXTS
    for text in texts:
        state = model(
            **fast(tokens)(text, return_tensors="pt", return_token_type_ids=False)
        ).last_hidden_state[0]
        ways["mean"].append(state.mean(0))
        ways["first"].append(state[0])
        ways["last"].append(state[-1])
    made = {f"{way}_embedding": torch.stack(rows) for way, rows in ways.items()}
    case = {"seed": seed, "texts": texts, "pooling": pooling}
    return write(name, model, tokens, case, sentence_embedding=made[f"{pooling}_embedding"].clone(), **made)


@torch.no_grad()
def scored(name: str, model: Any, tokens: dict[str, Any], seed: int) -> None:
    """A cross-encoder of one label."""
    made = fast(tokens)
    made.model_input_names = ["input_ids", "attention_mask", "token_type_ids"]
    scores = [
        model(
            **made(QUERY, text, return_tensors="pt", return_token_type_ids=model.config.type_vocab_size > 1)
        ).logits[0, 0]
        for text in TEXTS
    ]
    write(name, model, tokens, {"seed": seed, "query": QUERY, "texts": TEXTS}, scores=torch.stack(scores))


def roberta() -> None:
    config = tf.RobertaConfig(**ENCODER, max_position_embeddings=66, pad_token_id=0, type_vocab_size=1)
    model = tf.RobertaModel(config, add_pooling_layer=False).eval()
    randomise(model, 0)
    pooled("roberta", model, tokenizer("bert", ["<s>", "</s>"], 2), 0, "mean")


def xlm_roberta_reranker() -> None:
    config = tf.XLMRobertaConfig(
        **ENCODER, max_position_embeddings=66, pad_token_id=0, type_vocab_size=1, num_labels=1
    )
    model = tf.XLMRobertaForSequenceClassification(config).eval()
    randomise(model, 1)
    scored("xlm_roberta_reranker", model, tokenizer("bert", ["<s>", "</s>"], 2), 1)


def bert_reranker() -> None:
    config = tf.BertConfig(**ENCODER, max_position_embeddings=64, num_labels=1)
    model = tf.BertForSequenceClassification(config).eval()
    randomise(model, 2)
    scored("bert_reranker", model, tokenizer("bert", ["<s>", "</s>"], 1), 2)


def qwen3_embedding() -> None:
    config = tf.Qwen3Config(
        **{**TEXT, "max_position_embeddings": 4096},
        head_dim=24,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    model = tf.Qwen3Model(config).eval()
    randomise(model, 3)
    folder = pooled("qwen3_embedding", model, tokenizer("qwen3", ["", "</s>"]), 3, "last")
    for file in ("config.json", "config.v4.json"):
        config = json.loads((folder / file).read_text())
        config["architectures"] = ["Qwen3ForCausalLM"]
        (folder / file).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=1) + "\n")
    (folder / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": 64,
        "pooling_mode_lasttoken": True,
        "pooling_mode_mean_tokens": False,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=1) + "\n")


CASES = {
    f.__name__: f
    for f in [
        llava_next,
        qwen2_vl_image,
        gemma3_pan_and_scan,
        roberta,
        xlm_roberta_reranker,
        bert_reranker,
        qwen3_embedding,
    ]
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        CASES[name]()
