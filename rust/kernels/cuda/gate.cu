// What stands between a gated MLP's two input products and its output product; and the rows of the
// embedding.
//
// A thread takes four neighbours. The grid is [rows, width / 4 / threads rounded up].

#include "device.cuh"

// Keep in step with `Gate` in the launching code.
struct Gate {
    // Rows of `stride` numbers.
    const void *gate, *up;
    // [rows, width].
    void* out;
    uint32_t stride;
    // A multiple of 4.
    uint32_t width;
    // 0: SiLU; 1: GELU, tanh; 2: GELU, error function; 3: clamped SwiGLU.
    uint32_t kind;
    float alpha, limit;
};
static_assert(sizeof(Gate) == 48, "the launching code has the same");

DEVICE float gated(const Gate& p, float gate, float up) {
    switch (p.kind) {
    case 0: return gate / (1 + expf(-gate)) * up;
    case 1: return 0.5f * gate * (1 + tanhf(0.7978845608028654f * gate * (1 + 0.044715f * gate * gate))) * up;
    case 2: return 0.5f * gate * erfcf(-0.7071067811865476f * gate) * up;
    default:
        gate = fminf(gate, p.limit);
        up = fminf(fmaxf(up, -p.limit), p.limit);
        return gate / (1 + expf(-p.alpha * gate)) * (up + 1);
    }
}

template <typename A> DEVICE void gate(const Gate& p) {
    const unsigned at = 4 * (blockIdx.y * blockDim.x + threadIdx.x);
    if (at >= p.width) return;
    float x[4], y[4];
    load(x, static_cast<const A*>(p.gate) + size_t(blockIdx.x) * p.stride + at);
    load(y, static_cast<const A*>(p.up) + size_t(blockIdx.x) * p.stride + at);
    UNROLL for (int i = 0; i < 4; ++i) x[i] = gated(p, x[i], y[i]);
    store(static_cast<A*>(p.out) + size_t(blockIdx.x) * p.width + at, x);
}

// Keep in step with `Embed` in the launching code.
struct Embed {
    // [vocabulary, width].
    const void* table;
    const uint32_t* ids;
    // f32 [rows, width].
    float* out;
    // A multiple of 4.
    uint32_t width;
    float scale;
};
static_assert(sizeof(Embed) == 32, "the launching code has the same");

template <typename T> DEVICE void embed(const Embed& p) {
    const unsigned at = 4 * (blockIdx.y * blockDim.x + threadIdx.x);
    if (at >= p.width) return;
    float x[4];
    load(x, static_cast<const T*>(p.table) + size_t(p.ids[blockIdx.x]) * p.width + at);
    UNROLL for (int i = 0; i < 4; ++i) x[i] *= p.scale;
    store(p.out + size_t(blockIdx.x) * p.width + at, x);
}

#define GATE(A) \
    KERNEL(256) gate_##A(Gate p) { gate<A>(p); } \
    KERNEL(256) embed_##A(Embed p) { embed<A>(p); }
GATE(float)
GATE(f16)
GATE(bf16)
