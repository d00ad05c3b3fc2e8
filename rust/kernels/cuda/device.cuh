// What the kernels ask of the device, in one place: number types, warp and block primitives, asynchronous
// copies, matrix products.
//
// A key decision: the kernels name no intrinsic themselves. Compiled by nvcc these functions are PTX
// instructions; compiled by a plain C++ compiler they are what the PTX documentation says of those
// instructions, on fibers (check/emulator.h). So every kernel can be held against its naive reference on
// a machine without a GPU.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define DEVICE __device__ __forceinline__
// A kernel of at most `threads` threads a block; `extern "C"` so that it is found by its name.
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
// The block's memory, of as many bytes as the launch says, as `name`.
#define SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#define UNROLL _Pragma("unroll")

using f16 = __half;
using bf16 = __nv_bfloat16;

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(f16 x) { return __half2float(x); }
DEVICE float to_float(bf16 x) { return __bfloat162float(x); }

template <typename T> DEVICE T from_float(float x);
template <> DEVICE float from_float<float>(float x) { return x; }
template <> DEVICE f16 from_float<f16>(float x) { return __float2half_rn(x); }
template <> DEVICE bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }
// The value of the lane whose number differs in the bits of `bits`.
DEVICE float exchange(float x, int bits) { return __shfl_xor_sync(0xffffffffu, x, bits); }
DEVICE unsigned exchange(unsigned x, int bits) { return __shfl_xor_sync(0xffffffffu, x, bits); }

// 2^x, to about two units in the last place; 0 for minus infinity.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// Products and sums that no compiler may join into one rounding.
DEVICE float mul_exact(float a, float b) { return __fmul_rn(a, b); }
DEVICE float add_exact(float a, float b) { return __fadd_rn(a, b); }
DEVICE double mul_exact(double a, double b) { return __dmul_rn(a, b); }

DEVICE uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Starts to copy 16 bytes from global to shared memory, or to fill them with zeros.
DEVICE void copy_16(void* shared, const void* global, bool is_there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(is_there ? 16 : 0)
                 : "memory");
}
// Ends a group of this thread's copies.
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most the last `N` groups of this thread are under way.
template <int N> DEVICE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Four 8 by 8 matrices of two-byte numbers; lane `i` brings the address of row `i % 8` of matrix `i / 8`.
DEVICE void load_matrices(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// Likewise, each matrix transposed.
DEVICE void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// d += a b, with a of 16 by 16 and b of 16 by 8 numbers of type T in the fragments of mma.m16n8k16.
template <typename T> DEVICE void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <>
DEVICE void multiply<f16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
DEVICE void multiply<bf16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else

#include "check/emulator.h"

#endif

constexpr unsigned WARP = 32;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float INFINITE = __builtin_huge_valf();

template <typename T> DEVICE T lower(T a, T b) { return b < a ? b : a; }
template <typename T> DEVICE T higher(T a, T b) { return a < b ? b : a; }

// Two numbers in one word, the first in the low half.
template <typename T> DEVICE uint32_t pack(float low, float high) {
    const T pair[2] = {from_float<T>(low), from_float<T>(high)};
    uint32_t word;
    __builtin_memcpy(&word, pair, sizeof word);
    return word;
}

// `N` neighbours that are read or written by one instruction.
template <typename T, int N> struct alignas(sizeof(T) * N) Pack {
    T at[N];
};

// Reads `N` neighbours, at an address that is a multiple of their size.
template <int N, typename T> DEVICE void load(float (&out)[N], const T* from) {
    const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
    UNROLL for (int i = 0; i < N; ++i) out[i] = to_float(pack.at[i]);
}
// Writes `N` neighbours, likewise.
template <int N, typename T> DEVICE void store(T* to, const float (&values)[N]) {
    Pack<T, N> pack;
    UNROLL for (int i = 0; i < N; ++i) pack.at[i] = from_float<T>(values[i]);
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// The sum over the warp, in every lane; always in the same order.
DEVICE float warp_sum(float x) {
    UNROLL for (int bits = 16; bits > 0; bits /= 2) x += exchange(x, bits);
    return x;
}

// The sum over the block, in every thread; `room` is shared memory for one number a warp. Always in the
// same order.
DEVICE float block_sum(float x, float* room) {
    x = warp_sum(x);
    sync_block();
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = x;
    sync_block();
    float sum = 0;
    for (unsigned i = 0; i < blockDim.x / WARP; ++i) sum += room[i];
    return sum;
}
