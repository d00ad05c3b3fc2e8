"""What a GPU gives, as shares of what it can: run where there is one, with the built wheel and PyTorch.

    python benches/gpu.py [--device cuda] [--model some.gguf]

It writes random checkpoints of real shapes (Llama 8B and Qwen3 0.6B in bf16; the 8B in Q4_K and Q8_0), so it
needs no network, and no Rust. Each part runs in a process of its own with a time of its own, and fails
alone; the whole ends within eight minutes. First it checks: the text reference cases of tests/data, whose
heads are too narrow for our own attention, then short models of every width of head that has a kernel, of
experts and of blocks, each beside the CPU in f32. At the end one table: each figure beside its ceiling, which
is measured in the same run (a large copy, a large bf16 product), and beside transformers where that is there.

`--device cpu --tiny` runs all of it on small shapes, to see that the script itself works.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

REFERENCE = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "reference"
BATCHES = (1, 8, 32, 64)
# Seconds for each part; together with the writing of checkpoints they stay below eight minutes.
BUDGETS = {
    "ceilings": 30,
    "cases": 50,
    "kernels": 60,
    "same-text": 30,
    "qwen3-0.6b bf16": 60,
    "llama-8b bf16": 110,
    "llama-8b q8_0": 55,
    "llama-8b q4_k": 55,
}
TOTAL = 465


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model's sizes."""

    family: str
    layers: int
    hidden: int
    ff: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    window: int = 0
    # Experts of each layer, of which a token takes two; 0: one MLP for all.
    experts: int = 0

    def matrices(self) -> Iterator[tuple[str, str, int, int]]:
        """Every matrix: its name in a Hugging Face folder and in a GGUF, rows and columns."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield "model.embed_tokens.weight", "token_embd.weight", self.vocab, self.hidden
        for i in range(self.layers):
            hf, gguf = f"model.layers.{i}.", f"blk.{i}."
            yield hf + "self_attn.q_proj.weight", gguf + "attn_q.weight", q, self.hidden
            yield hf + "self_attn.k_proj.weight", gguf + "attn_k.weight", kv, self.hidden
            yield hf + "self_attn.v_proj.weight", gguf + "attn_v.weight", kv, self.hidden
            yield hf + "self_attn.o_proj.weight", gguf + "attn_output.weight", self.hidden, q
            if self.experts:
                yield hf + "mlp.gate.weight", gguf + "ffn_gate_inp.weight", self.experts, self.hidden
            for mlp in [f"mlp.experts.{e}." for e in range(self.experts)] or ["mlp."]:
                yield hf + mlp + "gate_proj.weight", gguf + "ffn_gate.weight", self.ff, self.hidden
                yield hf + mlp + "up_proj.weight", gguf + "ffn_up.weight", self.ff, self.hidden
                yield hf + mlp + "down_proj.weight", gguf + "ffn_down.weight", self.hidden, self.ff
        if not self.tied:
            yield "lm_head.weight", "output.weight", self.vocab, self.hidden

    def vectors(self) -> Iterator[tuple[str, str, int]]:
        """Every norm's weight, likewise."""
        for i in range(self.layers):
            hf, gguf = f"model.layers.{i}.", f"blk.{i}."
            yield hf + "input_layernorm.weight", gguf + "attn_norm.weight", self.hidden
            yield hf + "post_attention_layernorm.weight", gguf + "ffn_norm.weight", self.hidden
            if self.family.startswith("qwen3"):
                yield hf + "self_attn.q_norm.weight", gguf + "attn_q_norm.weight", self.head_dim
                yield hf + "self_attn.k_norm.weight", gguf + "attn_k_norm.weight", self.head_dim
        yield "model.norm.weight", "output_norm.weight", self.hidden

    def parameters_read(self) -> int:
        """Numbers of the matrices that a step multiplies by: all but an embedding that is no head."""
        all_of_them = sum(rows * cols for _, _, rows, cols in self.matrices())
        return all_of_them if self.tied else all_of_them - self.vocab * self.hidden

    def kv_bytes(self) -> int:
        """Bytes that one token takes in a two-byte cache."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim


SHAPES = {
    "llama-8b": Shape("llama", 32, 4096, 14336, 32, 8, 128, 128256, False),
    "qwen3-0.6b": Shape("qwen3", 28, 1024, 3072, 16, 8, 128, 151936, True),
}
TINY = {
    "llama-8b": Shape("llama", 2, 256, 512, 4, 2, 64, 1024, False),
    "qwen3-0.6b": Shape("qwen3", 2, 128, 256, 4, 2, 64, 1024, True),
}


class Pool:
    """Random numbers, made once and handed out in slices."""

    def __init__(self, numbers: np.ndarray[Any, Any]) -> None:
        self.numbers, self.at = numbers, 0

    def write(self, file: Any, count: int) -> None:
        """Writes `count` entries, going round."""
        while count > 0:
            take = min(count, len(self.numbers) - self.at)
            file.write(self.numbers[self.at : self.at + take].tobytes())
            self.at = (self.at + take) % len(self.numbers)
            count -= take


def bf16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The upper halves of float32 numbers."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}


def write_folder(shape: Shape, folder: pathlib.Path, size: float = 0.02) -> None:
    """Writes `shape` as Hugging Face does, in bf16, with weights of about `size`."""
    folder.mkdir()
    # prompts are given as tokens, so that the smallest tokenizer is enough
    vocab = {f"<{i}>": i for i in range(16)}
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[shape.family]],
        "model_type": shape.family,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ff,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if shape.family == "mistral":
        config["sliding_window"] = shape.window or None
    if shape.experts:
        config |= {"num_experts": shape.experts, "num_experts_per_tok": 2, "moe_intermediate_size": shape.ff}
        config |= {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
    (folder / "config.json").write_text(json.dumps(config))
    parts = [(hf, [rows, cols]) for hf, _, rows, cols in shape.matrices()]
    parts += [(hf, [size]) for hf, _, size in shape.vectors()]
    # transformers refuses a file that does not say whose it is
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, dims in parts:
        end = at + 2 * int(np.prod(dims))
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(7)
    pool = Pool(bf16(rng.standard_normal(1 << 22) * size))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, dims in parts:
            if len(dims) == 1:
                file.write(bf16(np.ones(dims[0])).tobytes())
            else:
                pool.write(file, int(np.prod(dims)))


# How a GGUF calls a block type, with its numbers and bytes.
BLOCKS = {"q8_0": (8, 32, 34), "q4_k": (12, 256, 144)}


def random_blocks(kind: str, count: int) -> np.ndarray[Any, Any]:
    """Blocks of random codes whose scales give numbers of about 0.02."""
    _, _, size = BLOCKS[kind]
    rng = np.random.default_rng(8)
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    scale = {"q8_0": 0.02 / 74, "q4_k": 0.02 / 120}[kind]
    blocks[:, :2] = np.full((count, 1), scale, np.float16).view(np.uint8)
    if kind == "q4_k":
        # the lowest is taken off: half of the range, so that numbers lie about nought
        blocks[:, 2:4] = np.full((count, 1), scale * 7.5, np.float16).view(np.uint8)
    return blocks


def write_gguf(shape: Shape, kind: str, path: pathlib.Path) -> None:
    """Writes `shape` as a GGUF, its matrices in blocks of `kind`."""
    number, per_block, block_bytes = BLOCKS[kind]

    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    def u32(value: int) -> bytes:
        return struct.pack("<II", 4, value)

    def f32(value: float) -> bytes:
        return struct.pack("<If", 6, value)

    def texts(values: list[str]) -> bytes:
        return struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))

    family, plain = shape.family, struct.pack("<i", 1)
    tokens = [f"<{i}>" for i in range(shape.vocab)]
    pairs = {
        "general.architecture": struct.pack("<I", 8) + text(family),
        f"{family}.block_count": u32(shape.layers),
        f"{family}.context_length": u32(8192),
        f"{family}.embedding_length": u32(shape.hidden),
        f"{family}.feed_forward_length": u32(shape.ff),
        f"{family}.attention.head_count": u32(shape.heads),
        f"{family}.attention.head_count_kv": u32(shape.kv_heads),
        f"{family}.attention.key_length": u32(shape.head_dim),
        f"{family}.attention.value_length": u32(shape.head_dim),
        f"{family}.attention.layer_norm_rms_epsilon": f32(1e-5),
        f"{family}.rope.freq_base": f32(500000.0),
        f"{family}.vocab_size": u32(shape.vocab),
        "tokenizer.ggml.model": struct.pack("<I", 8) + text("gpt2"),
        "tokenizer.ggml.pre": struct.pack("<I", 8) + text("llama-bpe"),
        "tokenizer.ggml.tokens": texts(tokens),
        "tokenizer.ggml.token_type": struct.pack("<IIQ", 9, 5, shape.vocab) + plain * shape.vocab,
        "tokenizer.ggml.merges": texts([]),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
    }
    parts: list[tuple[str, list[int], int, int]] = []
    for _, name, rows, cols in shape.matrices():
        parts.append((name, [cols, rows], number, rows * cols // per_block * block_bytes))
    for _, name, size in shape.vectors():
        parts.append((name, [size], 0, 4 * size))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(parts), len(pairs))
    head += b"".join(text(key) + value for key, value in pairs.items())
    at = 0
    for name, dims, kind_number, size in parts:
        head += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        head += struct.pack("<IQ", kind_number, at)
        at += (size + 31) // 32 * 32
    pool = Pool(random_blocks(kind, 1 << 15))
    with path.open("wb") as file:
        file.write(head + b"\0" * (-len(head) % 32))
        for _, dims, kind_number, size in parts:
            if kind_number == 0:
                file.write(np.ones(dims[0], np.float32).tobytes())
            else:
                pool.write(file, size // block_bytes)
            file.write(b"\0" * (-size % 32))


def prompts(count: int, length: int, vocab: int) -> list[list[int]]:
    """Prompts of random tokens, none of them special."""
    rng = np.random.default_rng(count * 10007 + length)
    return [row.tolist() for row in rng.integers(16, min(vocab, 1000), (count, length))]


def shortest(work: Callable[[], object], deadline: float, most: int = 3) -> float:
    """The least seconds that `work` takes, of a few runs, after one to warm up."""
    work()
    best = float("inf")
    for _ in range(most):
        begin = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begin)
        if time.perf_counter() > deadline:
            break
    return best


def report(name: str, **figures: object) -> None:
    """One line for the process that asked."""
    print("RESULT " + json.dumps({"name": name, **figures}), flush=True)


def measure_ceilings(device: str, tiny: bool) -> None:
    """The rates of a large copy and of a large bf16 product."""
    import torch

    def sync() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    size = 1 << (22 if tiny else 30)
    source, target = torch.ones(2, size, dtype=torch.uint8, device=device)
    side = 256 if tiny else 8192
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)

    def copy() -> None:
        for _ in range(10):
            target.copy_(source)
        sync()

    def product() -> None:
        for _ in range(10):
            torch.matmul(a, b)
        sync()

    deadline = time.perf_counter() + 10
    report("copy", rate=10 * 2 * size / shortest(copy, deadline))
    report("product", rate=10 * 2 * side**3 / shortest(product, deadline))
    if device != "cpu":
        report("gpu", product=torch.cuda.get_device_name(), free=torch.cuda.mem_get_info()[0])


def load_file(path: pathlib.Path) -> dict[str, Any]:
    """The tensors of a safetensors file, of the types that the reference cases have."""
    data = path.read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    types = {"F32": np.float32, "I64": np.int64, "I32": np.int32, "BOOL": np.bool_}
    tensors: dict[str, Any] = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            part = data[8 + size + begin : 8 + size + end]
            tensors[name] = np.frombuffer(part, types[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def check_cases(device: str) -> None:
    """The text reference cases on the device, against what transformers gave."""
    import alloyforge as af

    if not REFERENCE.is_dir():
        raise FileNotFoundError(f"the reference cases are not at {REFERENCE}")
    names = sorted(
        path.parent.name
        for path in REFERENCE.glob("*/case.json")
        if "greedy_ids" in json.loads(path.read_text()).get("expected", {})
        and not (path.parent / "media").exists()
    )
    for name in names:
        try:
            folder = REFERENCE / name
            inputs = load_file(folder / "inputs.safetensors")
            want = load_file(folder / "expected.safetensors")
            with af.Session(folder, device=device, dtype="f32", kv_dtype="f32", kv_memory=1 << 28) as session:
                ids = inputs["input_ids"][0].tolist()
                off = float(np.abs(session.logits(ids) - want["logits"][0]).max())
                tokens = session.generate(ids, temperature=0.0, max_tokens=16, ignore_eos=True).tokens
            is_right = off < 5e-3 and tokens == want["greedy_ids"][0].tolist()
            report("case", case=name, right=is_right, off=off)
        except Exception as error:  # a case that fails is a result
            report("case", case=name, right=False, fault=f"{type(error).__name__}: {error}")


def kernel_cases(tiny: bool) -> Iterator[tuple[str, Shape, dict[str, Any]]]:
    """Short models that go through each kernel of ours and of Candle's, with the options to open them."""
    for dim in (64,) if tiny else (64, 96, 128, 256):
        yield f"heads of {dim}", Shape("llama", 2, 256, 512, 4, 2, dim, 1024, False), {}
        yield f"heads of {dim}, normed", Shape("qwen3", 2, 256, 512, 8, 2, dim, 1024, True), {}
        yield f"heads of {dim}, window", Shape("mistral", 2, 256, 512, 4, 1, dim, 1024, False, window=100), {}
    plain = Shape("llama", 2, 512, 1024, 4, 2, 128, 1024, False)
    experts = Shape("qwen3_moe", 2, 256, 256, 4, 2, 64, 1024, False, experts=8)
    yield "f16", plain, {"dtype": "f16"}
    yield "experts", experts, {}
    for mix in ("q4_k_s",) if tiny else ("q8_0", "q4_0", "q4_k_s", "q5_k_s", "q6_k"):
        yield mix, plain, {"quantize": mix}
        yield f"experts, {mix}", experts, {"quantize": mix}


def check_kernels(device: str, tiny: bool, folder: pathlib.Path) -> None:
    """Logits and greedy tokens of short models on the device, beside the CPU's in f32.

    Numbers of two bytes leave about a hundredth of the logits' spread; a wrong kernel leaves all of it.
    """
    import alloyforge as af

    # long enough for decode to split it
    ids = prompts(1, 300, 1000)[0]
    sure: dict[str, Any] = {"device": "cpu", "backend": "candle", "kv_dtype": "f32"}
    for i, (name, shape, options) in enumerate(kernel_cases(tiny)):
        path = folder / f"kernels-{i}"
        try:
            write_folder(shape, path, 0.1)
            memory: dict[str, Any] = {"kv_memory": 1 << 28, "context_len": 1024, "prefix_cache": False}
            # blocks are made by the backend: the same on both sides
            with af.Session(path, device=device, backend="candle", **memory, **options) as session:
                found = session.logits(ids)
                tokens = session.generate(ids, temperature=0.0, max_tokens=24, ignore_eos=True).tokens
                # rows that decode side by side, behind prompts that end in the middle of blocks
                rows = [ids[: 40 * n + 1] for n in range(1, 6)]
                many = session.generate_batch(
                    rows, temperature=0.0, max_tokens=4, ignore_eos=True, progress=False
                )
            wanted = {"dtype": "f32", **options} if "quantize" in options else {"dtype": "f32"}
            with af.Session(path, **sure, **memory, **wanted) as session:
                want = session.logits(ids + tokens)
                firsts = [session.logits(row + answer.tokens) for row, answer in zip(rows, many, strict=True)]
            spread = float(want.std())
            by_row = np.sqrt(np.mean((found - want[: len(ids)]) ** 2, axis=1)) / spread
            # a close choice of experts may fall otherwise, which changes its whole row
            off = float(np.median(by_row) if shape.experts else by_row.max())

            def short(logits: np.ndarray[Any, Any], chosen: list[int], spread: float) -> float:
                """How far below the highest logit the chosen tokens lie at the most."""
                rows = logits[-len(chosen) - 1 : -1]
                return float((rows.max(axis=1) - rows[np.arange(len(chosen)), chosen]).max()) / spread

            missed = [short(want, tokens, spread)]
            missed += [short(f, a.tokens, spread) for f, a in zip(firsts, many, strict=True)]
            under = float(np.median(missed) if shape.experts else max(missed))
            report("kernel", case=name, right=off < 0.15 and under < 0.3, off=off, under=under)
        except Exception as error:  # a case that fails is a result
            report("kernel", case=name, right=False, fault=f"{type(error).__name__}: {error}")
        finally:
            shutil.rmtree(path, ignore_errors=True)


def check_same_text(device: str, model: str | None, folder: pathlib.Path) -> None:
    """Greedy text of 64 tokens on the device and on the CPU."""
    import alloyforge as af

    path = model or str(folder)
    prompt: str | list[int] = "Why is the sky blue?" if model else prompts(1, 24, 300)[0]
    answers = []
    for where in ("cpu", device):
        with af.Session(path, device=where, kv_memory=1 << 28) as session:
            options: dict[str, Any] = {"temperature": 0.0, "max_tokens": 64, "ignore_eos": True}
            answers.append(session.generate(prompt, **options).tokens)
    same = next((i for i, (a, b) in enumerate(zip(*answers, strict=True)) if a != b), len(answers[0]))
    report("same-text", model=model or "random weights, f32", tokens=len(answers[0]), same=same)


def measure_session(
    name: str, shape: Shape, path: pathlib.Path, device: str, tiny: bool, seconds: float
) -> None:
    """Prefill and decode of a model, each as seconds a step."""
    import alloyforge as af

    begin = time.perf_counter()
    options: dict[str, Any] = {"device": device, "prefix_cache": False, "max_batch": 64}
    room = 64 * 300 * shape.kv_bytes() + 4500 * shape.kv_bytes()
    session = af.Session(path, context_len=4608, kv_memory=room, backend="candle", **options)
    report("load", model=name, seconds=time.perf_counter() - begin)
    deadline = begin + seconds
    # the embedding's rows are looked up, not read, unless it is the head too
    looked_up = 0 if shape.tied else shape.vocab * shape.hidden
    held = session.info.memory.weights
    weight_bytes = held * shape.parameters_read() // (shape.parameters_read() + looked_up)
    greedy: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}
    engine = {
        "prefill": lambda ids: session.generate(ids, max_tokens=1, **greedy),
        "decode": lambda rows, n: session.generate_batch(rows, max_tokens=n, progress=False, **greedy),
    }
    measure(name, "alloyforge", shape, weight_bytes, engine, tiny, deadline)
    session.close()


def measure_transformers(
    name: str, shape: Shape, path: pathlib.Path, device: str, tiny: bool, seconds: float
) -> None:
    """The same of transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    except TypeError:  # before transformers 4.56 it has another name
        model = AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.bfloat16)
    model = model.to(device).eval()
    deadline = time.perf_counter() + seconds

    def generate(rows: list[list[int]], n: int) -> None:
        ids = torch.tensor(rows, device=device)
        with torch.inference_mode():
            options = {"max_new_tokens": n, "min_new_tokens": n, "do_sample": False, "pad_token_id": 0}
            model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        if device != "cpu":
            torch.cuda.synchronize()

    engine = {"prefill": lambda ids: generate([ids], 1), "decode": generate}
    measure(name, "transformers", shape, 2 * shape.parameters_read(), engine, tiny, deadline)


def measure(
    name: str, who: str, shape: Shape, weight_bytes: int, engine: dict[str, Any], tiny: bool, deadline: float
) -> None:
    """Times an engine; what is left when the time is over is left out."""
    lengths, steps, prompt_len = ((64, 128), 4, 16) if tiny else ((512, 4096), 64, 128)
    for length in lengths:
        if time.perf_counter() > deadline:
            report("late", model=name, engine=who, what=f"prefill {length}")
            continue
        ids = prompts(1, length, shape.vocab)[0]
        seconds = shortest(functools.partial(engine["prefill"], ids), deadline)
        # products, and half of a square of scores for each head, twice
        work = 2 * shape.parameters_read() * length
        work -= 2 * shape.vocab * shape.hidden * (length - 1)
        work += 2 * shape.layers * shape.heads * shape.head_dim * length * length
        report("prefill", model=name, engine=who, tokens=length, seconds=seconds, work=work)
    for batch in BATCHES[: 2 if tiny else None]:
        if time.perf_counter() > deadline:
            report("late", model=name, engine=who, what=f"decode {batch}")
            continue
        rows = prompts(batch, prompt_len, shape.vocab)
        short, long = (
            shortest(functools.partial(engine["decode"], rows, n), deadline, 2) for n in (2, 2 + steps)
        )
        read = weight_bytes + batch * (prompt_len + steps // 2) * shape.kv_bytes()
        report("decode", model=name, engine=who, batch=batch, seconds=(long - short) / steps, bytes=read)


def run_part(part: str, arguments: argparse.Namespace) -> None:
    """One part, in this process."""
    shapes = TINY if arguments.tiny else SHAPES
    device, folder = arguments.device, pathlib.Path(arguments.folder)
    if part == "ceilings":
        measure_ceilings(device, arguments.tiny)
    elif part == "cases":
        check_cases(device)
    elif part == "kernels":
        check_kernels(device, arguments.tiny, folder)
    elif part == "same-text":
        check_same_text(device, arguments.model, REFERENCE / "llama")
    else:
        model, kind = part.split(" ")
        shape, seconds = shapes[model], BUDGETS[part]
        path = folder / (model if kind == "bf16" else f"{model}-{kind}.gguf")
        begin = time.perf_counter()
        if kind == "bf16":
            write_folder(shape, path)
        else:
            write_gguf(shape, kind, path)
        report("written", model=part, seconds=time.perf_counter() - begin)
        measure_session(part, shape, path, device, arguments.tiny, seconds * 0.4)
        if kind == "bf16":
            try:
                measure_transformers(part, shape, path, device, arguments.tiny, seconds * 0.2)
            except Exception as error:  # a peer that cannot run is none of our faults
                report("fault", part=f"{part}, transformers", fault=f"{type(error).__name__}: {error}")


def percent(share: float) -> str:
    """A share, for the table."""
    return f"{100 * share:5.1f} %"


def show(results: list[dict[str, Any]]) -> None:
    """The table."""

    def find(name: str) -> list[dict[str, Any]]:
        return [r for r in results if r["name"] == name]

    rates = {name: next((r["rate"] for r in find(name)), None) for name in ("copy", "product")}
    print("\n| what | engine | figure | share of its ceiling |\n| --- | --- | ---: | ---: |")
    for r in find("gpu"):
        print(f"| {r['product']} | | {r['free'] / 2**30:.1f} GiB free | |")
    if rates["copy"]:
        print(f"| large copy | torch | {rates['copy'] / 1e9:,.0f} GB/s | ceiling |")
    if rates["product"]:
        print(f"| large bf16 product | torch | {rates['product'] / 1e12:,.1f} TFLOP/s | ceiling |")
    cases = find("case")
    print(f"| text reference cases | alloyforge | {sum(r['right'] for r in cases)} of {len(cases)} right | |")
    for r in cases:
        if not r["right"]:
            fault = r.get("fault") or f"off by {r['off']:.2g}"
            print(f"| case {r['case']} | alloyforge | {fault} | |")
    kernels = find("kernel")
    if kernels:
        right = f"{sum(r['right'] for r in kernels)} of {len(kernels)} right"
        print(f"| short models beside the CPU in f32 | alloyforge | {right} | |")
    for r in kernels:
        if not r["right"]:
            fault = r.get("fault") or f"off by {r['off']:.2g}, tokens below the highest by {r['under']:.2g}"
            print(f"| short model, {r['case']} | alloyforge | {fault} | |")
    for r in find("same-text"):
        what = f"greedy text as the CPU's, {r['model']}"
        print(f"| {what} | alloyforge | {r['same']} of {r['tokens']} tokens | |")
    for r in find("load"):
        print(f"| {r['model']}, load | alloyforge | {r['seconds']:.1f} s | |")
    for r in find("prefill"):
        share = percent(r["work"] / r["seconds"] / rates["product"]) if rates["product"] else ""
        what = f"{r['model']}, prefill {r['tokens']:,}"
        print(f"| {what} | {r['engine']} | {r['tokens'] / r['seconds']:,.0f} tok/s | {share} |")
    for r in find("decode"):
        share = percent(r["bytes"] / r["seconds"] / rates["copy"]) if rates["copy"] else ""
        what = f"{r['model']}, decode, batch {r['batch']}"
        print(f"| {what} | {r['engine']} | {r['batch'] / r['seconds']:,.0f} tok/s | {share} |")
    for r in find("late"):
        print(f"| {r['model']}, {r['what']} | {r['engine']} | no time left | |")
    for r in find("fault"):
        print(f"| {r['part']} | | failed: {r['fault']} | |")


def main() -> int:
    """All parts, each in a process of its own."""
    shown = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shown)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", help="a GGUF for the comparison of the device's text with the CPU's")
    parser.add_argument("--tiny", action="store_true", help="small shapes")
    parser.add_argument("--parts", nargs="*", choices=list(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--folder", help="where checkpoints are written; a temporary folder otherwise")
    parser.add_argument("--part", choices=list(BUDGETS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        try:
            run_part(arguments.part, arguments)
        except Exception as error:  # the others go on
            traceback.print_exc()
            report("fault", part=arguments.part, fault=f"{type(error).__name__}: {error}")
            return 1
        return 0
    begin, results, failed = time.monotonic(), [], 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for part in arguments.parts:
            left = min(BUDGETS[part], TOTAL - (time.monotonic() - begin))
            command = [sys.executable, __file__, "--part", part, "--folder", folder]
            command += (
                ["--device", arguments.device]
                + ["--tiny"] * arguments.tiny
                + (["--model", arguments.model] if arguments.model else [])
            )
            print(f"{part}: up to {left:.0f} s", file=sys.stderr, flush=True)
            try:
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=max(left, 1))
                output, code = done.stdout, done.returncode
            except subprocess.TimeoutExpired as late:
                output = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
                code = 0
                results.append({"name": "fault", "part": part, "fault": f"not over after {left:.0f} s"})
                failed += 1
            lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
            results += [json.loads(line.removeprefix("RESULT ")) for line in lines]
            if code < 0:
                results.append({"name": "fault", "part": part, "fault": f"ended by signal {-code}"})
            failed += code != 0
            for path in pathlib.Path(folder).iterdir():
                if part.startswith(("llama", "qwen")):
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
    show(results)
    return 1 if failed or not all(r["right"] for r in results if r["name"] in ("case", "kernel")) else 0


if __name__ == "__main__":
    sys.exit(main())
