"""How much each type loses: our files and llama.cpp's, in our engine and in theirs.

usage: quantisation.py MODEL.f32.gguf [--types q8_0 q4_k_m ...] [--text FILE] [--tokens 1024] [--bos ID]

The exact answer is llama.cpp's on the f32 file, where nothing is rounded. Printed for each type: whether
the two files hold the same bytes, the mean KL divergence of the next-token distribution from the exact
one (teacher-forced, nats) for our file in our engine, our file in llama.cpp and its file in llama.cpp, the
share of equal best tokens, and for how many greedy tokens both engines write the same text from our file.

Needs alloyforge, and: pip install gguf; CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary
llama-cpp-python llama-cpp-python
"""

from __future__ import annotations

import argparse
import ctypes
import pathlib
import tempfile
from typing import Any

import gguf
import llama_cpp
import numpy as np
import numpy.typing as npt

import alloyforge as af

TYPES = ["q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_1", "q4_0"]
FILE_TYPES = {
    "q4_0": 2,
    "q4_1": 3,
    "q8_0": 7,
    "q5_0": 8,
    "q5_1": 9,
    "q4_k_s": 14,
    "q4_k_m": 15,
    "q5_k_s": 16,
    "q5_k_m": 17,
    "q6_k": 18,
}
GREEDY = 48
PROMPT = 64

Array = npt.NDArray[Any]


def write_theirs(source: str, target: str, kind: str) -> None:
    """llama.cpp's own file."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[kind]
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
        raise RuntimeError(f"llama.cpp did not write {kind}")


def same_tensors(left: str, right: str) -> bool:
    """Whether two files hold the same tensors, byte for byte."""
    files = [{t.name: t for t in gguf.GGUFReader(path).tensors} for path in (left, right)]
    if files[0].keys() != files[1].keys():
        return False
    pairs = [(tensor, files[1][name]) for name, tensor in files[0].items()]
    return all(a.tensor_type == b.tensor_type and np.array_equal(a.data, b.data) for a, b in pairs)


def in_ours(path: str, ids: list[int]) -> tuple[Array, list[int]]:
    """Log probabilities and greedy tokens of our engine."""
    with af.Session(path, kv_dtype="f32") as session:
        logits = session.logits(ids)
        greedy = session.generate(ids[:PROMPT], temperature=0, max_tokens=GREEDY, ignore_eos=True)
        return log_softmax(logits), greedy.tokens


def in_theirs(path: str, ids: list[int]) -> tuple[Array, list[int]]:
    """The same of llama.cpp."""
    model = llama_cpp.Llama(
        path, n_ctx=len(ids) + PROMPT, n_batch=512, logits_all=True, verbose=False, flash_attn=False
    )
    model.eval(ids)
    logits = np.array(model.scores[: len(ids)], dtype=np.float32)
    model.reset()
    model.eval(ids[:PROMPT])
    greedy = []
    for _ in range(GREEDY):
        greedy.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval(greedy[-1:])
    model.close()
    return log_softmax(logits), greedy


def log_softmax(logits: Array) -> Array:
    """Logarithms of probabilities."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def divergence(exact: Array, other: Array) -> float:
    """The mean KL divergence."""
    return float((np.exp(exact) * (exact - other)).sum(-1).mean())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--types", nargs="+", default=TYPES)
    parser.add_argument(
        "--text", default=str(pathlib.Path(__file__).parent.parent / "docs" / "architecture.md")
    )
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--bos", type=int, help="a token put first")
    a = parser.parse_args()
    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    text = pathlib.Path(a.text).read_text(encoding="utf-8")
    ids = ([a.bos] if a.bos is not None else []) + af.Tokenizer(a.model).encode(text, add_bos=False)
    ids = ids[: a.tokens]
    exact, _ = in_theirs(a.model, ids)
    print(f"{pathlib.Path(a.model).name}, {len(ids)} tokens")
    print(
        "| type | MB | same bytes | KL, ours | our file in llama.cpp | KL, llama.cpp | ratio | best tokens |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind in a.types:
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = f"{folder}/ours.gguf", f"{folder}/theirs.gguf"
            size = af.quantize_model(a.model, ours, type=kind).bytes / 1e6
            write_theirs(a.model, theirs, kind)
            same = same_tensors(ours, theirs)
            (p, greedy), (q, other) = in_ours(ours, ids), in_theirs(ours, ids)
            r = q if same else in_theirs(theirs, ids)[0]
        kl = [divergence(exact, x) for x in (p, q, r)]
        best = [float((exact.argmax(-1) == x.argmax(-1)).mean()) for x in (p, r)]
        equal = next(
            (i for i, pair in enumerate(zip(greedy, other, strict=True)) if len({*pair}) > 1), GREEDY
        )
        print(
            f"| {kind} | {size:.1f} | {'yes' if same else 'no'} | {kl[0]:.2e} | {kl[1]:.2e} | {kl[2]:.2e} "
            f"| {kl[0] / kl[2]:.2f} | {best[0]:.1%} and {best[1]:.1%}, greedy {equal} of {GREEDY} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
