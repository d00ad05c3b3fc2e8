#!/usr/bin/env python3
"""Measure encoders beside onnxruntime's CPU provider, in turn on the same weights.

usage: encoders.py export FOLDER            writes checkpoints and ONNX files (needs torch and transformers)
       encoders.py run FOLDER [--threads N] [--repeat 3] [--only NAME]

`export` makes a ViT-B/16 for 224 pixels and a SigLIP-so400m/14 for 384 of random weights, and takes MiniLM
from `--minilm PATH`, a folder of real ones. `run` needs onnxruntime and AlloyForge in one environment, or
AlloyForge's `python/` on the path of the other's. Every figure is the median of turns, and the share is
that of the processor's best f32 products, which is measured in the same minutes by numpy.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

REFERENCE = pathlib.Path(__file__).parent.parent / "tests" / "data" / "reference"
SENTENCES = 1000
WORDS = [
    "the",
    "a",
    "one",
    "river",
    "of",
    "light",
    "and",
    "shade",
    "runs",
    "over",
    "stones",
    "while",
    "children",
    "read",
    "old",
    "maps",
    "in",
    "cold",
    "rooms",
    "where",
    "machines",
    "count",
    "what",
    "nobody",
    "wanted",
    "to",
    "know",
    "about",
    "weather",
    "trade",
    "music",
    "bread",
]


def sentences() -> list[str]:
    """Texts of 5 to 40 words."""
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(5, 41))) for _ in range(SENTENCES)]


def export(folder: pathlib.Path, minilm: pathlib.Path | None) -> None:
    """Writes the models, each as a checkpoint and as ONNX with dynamic sizes where they vary."""
    import torch
    import transformers as tf

    torch.manual_seed(0)

    class Pictures(torch.nn.Module):  # type: ignore[misc] # torch has no types here
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            return self.model(pixel_values=pixel_values).pooler_output

    class Siglip(Pictures):
        def forward(self, pixel_values: Any) -> Any:
            return self.model.vision_model(pixel_values=pixel_values).pooler_output

    vit = tf.ViTModel(tf.ViTConfig(), add_pooling_layer=False)
    so400m = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    }
    small = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "vocab_size": 64,
    }
    siglip = tf.SiglipModel(tf.SiglipConfig(vision_config=so400m, text_config=small))

    class Class(torch.nn.Module):  # type: ignore[misc] # torch has no types here
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            return self.model(pixel_values=pixel_values).last_hidden_state[:, 0]

    made: list[tuple[str, Any, Any, int]] = [
        ("vit-b16-224", vit, Class(vit), 224),
        ("siglip-so400m-384", siglip, Siglip(siglip), 384),
    ]
    for name, model, wrapped, size in made:
        where = folder / name
        model.eval().save_pretrained(where)
        kind = "vit" if name.startswith("vit") else "siglip"
        resample = {"vit": 2, "siglip": 3}[kind]
        settings = {
            "size": {"height": size, "width": size},
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "resample": resample,
            "rescale_factor": 1 / 255,
        }
        (where / "preprocessor_config.json").write_text(json.dumps(settings))
        # its text tower wants one; no text is read
        shutil.copy(REFERENCE / "siglip" / "tokenizer.json", where)
        torch.onnx.export(
            wrapped.eval(),
            (torch.zeros(1, 3, size, size),),
            str(where / "model.onnx"),
            input_names=["pixel_values"],
            dynamo=False,
        )
    if minilm is not None:
        bert = tf.BertModel.from_pretrained(minilm, add_pooling_layer=False).eval()
        heads = bert.config.num_attention_heads

        class Text(torch.nn.Module):  # type: ignore[misc] # torch has no types here
            """BERT written out, so that no size is traced as a constant."""

            def __init__(self) -> None:
                super().__init__()
                self.bert = bert

            def forward(self, input_ids: Any, attention_mask: Any) -> Any:
                segments = torch.zeros_like(input_ids)
                x = self.bert.embeddings(input_ids=input_ids, token_type_ids=segments)
                hidden = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -1e9
                batch, length, width = x.shape
                for layer in self.bert.encoder.layer:
                    own = layer.attention.self
                    parts = [
                        part(x).view(batch, length, heads, width // heads).transpose(1, 2)
                        for part in (own.query, own.key, own.value)
                    ]
                    scores = parts[0] @ parts[1].transpose(2, 3) / (width // heads) ** 0.5
                    seen = (torch.softmax(scores + hidden, -1) @ parts[2]).transpose(1, 2)
                    x = layer.attention.output(seen.reshape(batch, length, width), x)
                    x = layer.output(layer.intermediate(x), x)
                return x

        axes = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
        ids = torch.ones(2, 8, dtype=torch.long)
        (folder / "minilm").mkdir(exist_ok=True)
        torch.onnx.export(
            Text(),
            (ids, ids),
            str(folder / "minilm" / "model.onnx"),
            input_names=list(axes),
            dynamic_axes=axes,
            dynamo=False,
        )
        (folder / "minilm" / "path").write_text(str(minilm))


def onnx(path: pathlib.Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def peak(threads: int) -> float:
    """The best f32 product of numpy's BLAS, in GFLOP/s: a stand-in for the processor's peak."""
    del threads
    a = np.random.default_rng(0).standard_normal((1024, 1024), np.float32)
    best = 0.0
    for _ in range(8):
        begin = time.perf_counter()
        a @ a
        best = max(best, 2 * 1024**3 / (time.perf_counter() - begin) / 1e9)
    return best


def turns(repeat: int, *works: Callable[[], object]) -> list[float]:
    """The median seconds of each, taken in turn."""
    times: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(repeat):
        for taken, work in zip(times, works, strict=True):
            # until the other's threads have given up waiting for work
            time.sleep(0.3)
            begin = time.perf_counter()
            work()
            taken.append(time.perf_counter() - begin)
    return [statistics.median(taken) for taken in times]


def pictures(folder: pathlib.Path, size: int, threads: int, repeat: int) -> tuple[list[float], float]:
    import alloyforge as af

    image = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    peer = onnx(folder / "model.onnx", threads)
    pixels = ((image.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
    with af.Session(folder, threads=threads) as session:
        # of unit length, as SigLIP's are by its own account
        theirs = peer.run(None, {"pixel_values": pixels})[0]
        theirs = theirs / np.linalg.norm(theirs, axis=-1, keepdims=True)
        worst = float(np.abs(session.embed_images([image]) - theirs).max())
        taken = turns(
            repeat, lambda: session.embed_images([image]), lambda: peer.run(None, {"pixel_values": pixels})
        )
    return taken, worst


def minilm(folder: pathlib.Path, threads: int, repeat: int) -> tuple[list[float], float]:
    import alloyforge as af

    texts = sentences()
    peer = onnx(folder / "model.onnx", threads)
    with af.Session((folder / "path").read_text(), threads=threads) as session:
        tokens = [session.tokenize(text) for text in texts]

        def theirs() -> Any:
            out = np.zeros((len(tokens), 384), np.float32)
            order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
            # sorted by length and padded to the longest of 32, as sentence-transformers does
            for first in range(0, len(order), 32):
                group = order[first : first + 32]
                longest = max(len(tokens[i]) for i in group)
                ids = np.zeros((len(group), longest), np.int64)
                mask = np.zeros_like(ids)
                for row, i in enumerate(group):
                    ids[row, : len(tokens[i])] = tokens[i]
                    mask[row, : len(tokens[i])] = 1
                states = peer.run(None, {"input_ids": ids, "attention_mask": mask})[0]
                mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
                out[group] = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
            return out

        worst = float(np.abs(session.embed(texts) - theirs()).max())
        taken = turns(repeat, lambda: session.embed(texts), theirs)
    return taken, worst


def flops(name: str) -> float:
    """Operations of the products of one run."""
    if name == "minilm":
        return 0.0
    rows, width, ff, layers = {
        "vit-b16-224": (197, 768, 3072, 12),
        "siglip-so400m-384": (729, 1152, 4304, 27),
    }[name]
    return layers * rows * (2 * (4 * width * width + 2 * width * ff) + 4 * rows * width)


def run(folder: pathlib.Path, threads: int, repeat: int, only: str | None) -> None:
    print(f"| encoder, {threads} threads | AlloyForge | onnxruntime | ratio | largest difference | GFLOP/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, size in [("vit-b16-224", 224), ("siglip-so400m-384", 384), ("minilm", 0)]:
        if (only and only != name) or not (folder / name).is_dir():
            continue
        measured = (
            minilm(folder / name, threads, repeat)
            if not size
            else pictures(folder / name, size, threads, repeat)
        )
        (ours, theirs), worst = measured
        speed = f"{flops(name) / ours / 1e9:.0f}" if size else ""
        print(
            f"| {name} | {ours:.3f} s | {theirs:.3f} s | {theirs / ours:.2f} | {worst:.1e} | {speed} |",
            flush=True,
        )
    print(f"\nnumpy's f32 product: {peak(threads):.0f} GFLOP/s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    writes = commands.add_parser("export")
    writes.add_argument("folder", type=pathlib.Path)
    writes.add_argument("--minilm", type=pathlib.Path)
    runs = commands.add_parser("run")
    runs.add_argument("folder", type=pathlib.Path)
    runs.add_argument("--threads", type=int, default=2)
    runs.add_argument("--repeat", type=int, default=3)
    runs.add_argument("--only")
    arguments = parser.parse_args()
    if arguments.command == "export":
        arguments.folder.mkdir(parents=True, exist_ok=True)
        export(arguments.folder, arguments.minilm)
    else:
        run(arguments.folder, arguments.threads, arguments.repeat, arguments.only)


if __name__ == "__main__":
    main()
