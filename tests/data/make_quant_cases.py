#!/usr/bin/env python3
"""Write quant/dequantize.txt and quant/quantize.txt: what ggml makes of bytes and numbers that a test can
make again.

usage: make_quant_cases.py [--ggml PATH/libggml-base.so]

The answers of dequantize.txt are those of the `gguf` package (pip install gguf numpy), which is ggml's own
reference in numpy; those of quantize.txt are of its quantisers, and for the K types, which it cannot
write, of ggml's quantize_row_*_ref in the shared library given by --ggml. Without it those lines are kept
as they are.

A line is: type, count of blocks, FNV-1a of all answers' bytes, and the first 8 (dequantize: numbers as
hexadecimal bits; quantize: bytes). Inputs come from splitmix64 with the type's number as its seed; bytes
take 8 from each draw, numbers see `floats`.
"""

import argparse
import ctypes
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

HERE = pathlib.Path(__file__).parent / "quant"
MASK = (1 << 64) - 1

# The upper bytes of half-precision scales, whose bit 6 is cleared: no infinity, no NaN.
SCALES = {
    T.F16: [1],
    T.Q4_0: [1],
    T.Q4_1: [1, 3],
    T.Q5_0: [1],
    T.Q5_1: [1, 3],
    T.Q8_0: [1],
    T.Q2_K: [81, 83],
    T.Q3_K: [109],
    T.Q4_K: [1, 3],
    T.Q5_K: [1, 3],
    T.Q6_K: [209],
    T.IQ2_XXS: [1],
    T.IQ2_XS: [1],
    T.IQ2_S: [1],
    T.IQ3_XXS: [1],
    T.IQ3_S: [1],
    T.IQ1_S: [1],
    T.IQ1_M: [55],
    T.IQ4_NL: [1],
    T.IQ4_XS: [1],
    T.TQ1_0: [53],
    T.TQ2_0: [65],
    T.MXFP4: [],
    T.BF16: [1],
}
NUM_BLOCKS = 512
K_TYPES = {T.Q2_K: "q2_K", T.Q3_K: "q3_K", T.Q4_K: "q4_K", T.Q5_K: "q5_K", T.Q6_K: "q6_K"}
QUANTIZABLE = [T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.TQ1_0, T.TQ2_0, T.MXFP4]


def splitmix64(seed, count):
    out, state = [], seed
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out.append(z ^ (z >> 31))
    return np.array(out, dtype="<u8")


def fnv1a(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & MASK
    return h


def packed(ty):
    size = gguf.GGML_QUANT_SIZES[ty][1]
    data = splitmix64(int(ty), -(-NUM_BLOCKS * size // 8)).view(np.uint8)[: NUM_BLOCKS * size].copy()
    blocks = data.reshape(NUM_BLOCKS, size)
    for at in SCALES[ty]:
        blocks[:, at] &= 0xBF
    return blocks


def floats(ty, count):
    """Near normal: the sum of a draw's four 16-bit quarters, centred; the block's number sets its size."""
    quarters = splitmix64(int(ty) + 1000, count).view("<u2").reshape(count, 4).astype(np.int64)
    centred = (quarters.sum(1) - 2 * 65535).astype(np.float32)
    scale = np.float32(2.0) ** (-17 - (np.arange(count) // 256 % 8)).astype(np.float32)
    return centred * scale


def dequantize_lines():
    for ty in SCALES:
        out = gguf.quants.dequantize(packed(ty).reshape(-1), ty).astype("<f4").reshape(-1)
        first = " ".join(f"{x:08x}" for x in out[:8].view("<u4"))
        yield f"{ty.name.lower()} {NUM_BLOCKS} {fnv1a(out.tobytes()):016x} {first}"


def quantize_lines(library, old):
    for ty in QUANTIZABLE:
        x = floats(ty, 8 * 256)
        yield line(ty, x, gguf.quants.quantize(x, ty).tobytes())
    for ty, name in K_TYPES.items():
        if library is None:
            yield old[ty.name.lower()]
            continue
        x = floats(ty, 8 * 256)
        block, size = gguf.GGML_QUANT_SIZES[ty]
        out = np.zeros(len(x) // block * size, dtype=np.uint8)
        call = getattr(library, f"quantize_row_{name}_ref")
        call.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        call(x.ctypes.data, out.ctypes.data, len(x))
        yield line(ty, x, out.tobytes())


def line(ty, x, data):
    blocks = len(x) // gguf.GGML_QUANT_SIZES[ty][0]
    return f"{ty.name.lower()} {blocks} {fnv1a(data):016x} {' '.join(f'{b:02x}' for b in data[:8])}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ggml", type=ctypes.CDLL)
    a = p.parse_args()
    HERE.mkdir(exist_ok=True)
    (HERE / "dequantize.txt").write_text("\n".join(dequantize_lines()) + "\n")
    path = HERE / "quantize.txt"
    old = {l.split()[0]: l for l in path.read_text().splitlines()} if path.exists() else {}
    path.write_text("\n".join(quantize_lines(a.ggml, old)) + "\n")


if __name__ == "__main__":
    main()
