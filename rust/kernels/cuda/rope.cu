// What stands between the products of q, k and v and attention: biases, the norm on each head, the turn
// of rotary embeddings (Su et al., arXiv 2104.09864); keys and values go into the cache.
//
// A warp takes one head's vector of one row. The grid is [rows, (heads + 2 kv_heads) / 4 rounded up].

#include "device.cuh"

// The widest head that the lanes have room for.
constexpr unsigned MAX_HEAD = 256;

// One layer's vectors. Keep in step with `Rope` in the launching code.
struct Rope {
    // Products, rows of `stride` numbers each.
    const void *q, *k, *v;
    // Queries [rows, heads, head_dim]; pools [slots, kv_heads, head_dim].
    void *queries, *keys, *values;
    // Of the width of the product, or null.
    const float *q_bias, *k_bias, *v_bias;
    // Weights [head_dim] of the norm on each head, or null.
    const float *q_norm, *k_norm;
    // Tables [angles, dim / 2], and the row of them that turns each row; null where nothing turns.
    const float *cos, *sin;
    const uint32_t* angles;
    // The slot of each row.
    const uint32_t* slots;
    uint32_t q_stride, k_stride, v_stride;
    uint32_t heads, kv_heads, head_dim;
    // The first `dim` numbers of a head turn: pairs half of them apart, or neighbours.
    uint32_t dim, is_interleaved;
    float eps;
};
static_assert(sizeof(Rope) == 160, "the launching code has the same");

template <typename A, typename T> DEVICE void rope(const Rope& p) {
    const unsigned row = blockIdx.x, lane = threadIdx.x % WARP;
    unsigned head = blockIdx.y * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (head >= p.heads + 2 * p.kv_heads) return;
    const A* from;
    T* to;
    const float *bias, *weight = nullptr;
    bool turns = p.angles != nullptr;
    if (head < p.heads) {
        from = static_cast<const A*>(p.q) + size_t(row) * p.q_stride;
        to = static_cast<T*>(p.queries) + size_t(row) * p.heads * p.head_dim;
        bias = p.q_bias;
        weight = p.q_norm;
    } else {
        const bool is_key = head < p.heads + p.kv_heads;
        const size_t slot = size_t(p.slots[row]) * p.kv_heads * p.head_dim;
        head -= is_key ? p.heads : p.heads + p.kv_heads;
        from = is_key ? static_cast<const A*>(p.k) + size_t(row) * p.k_stride : static_cast<const A*>(p.v) + size_t(row) * p.v_stride;
        to = static_cast<T*>(is_key ? p.keys : p.values) + slot;
        bias = is_key ? p.k_bias : p.v_bias;
        weight = is_key ? p.k_norm : nullptr;
        turns = turns && is_key;
    }
    from += head * p.head_dim;
    to += head * p.head_dim;
    const auto number = [&](unsigned at) { return to_float(from[at]) + (bias == nullptr ? 0 : bias[head * p.head_dim + at]); };

    // lanes hold pairs that turn together, and the numbers behind them
    const unsigned half = turns ? p.dim / 2 : 0;
    const unsigned step = p.is_interleaved ? 2 : 1, apart = p.is_interleaved ? 1 : half;
    float a[MAX_HEAD / 2 / WARP], b[MAX_HEAD / 2 / WARP], rest[MAX_HEAD / WARP];
    float squares = 0;
    UNROLL for (unsigned i = 0; i < MAX_HEAD / 2 / WARP; ++i) {
        const unsigned pair = lane + WARP * i;
        if (pair >= half) continue;
        a[i] = number(step * pair);
        b[i] = number(step * pair + apart);
        squares += a[i] * a[i] + b[i] * b[i];
    }
    UNROLL for (unsigned i = 0; i < MAX_HEAD / WARP; ++i) {
        const unsigned at = 2 * half + lane + WARP * i;
        if (at >= p.head_dim) continue;
        rest[i] = number(at);
        squares += rest[i] * rest[i];
    }
    const float inverse = weight == nullptr ? 1 : 1 / sqrtf(warp_sum(squares) / float(p.head_dim) + p.eps);
    const auto scale = [&](unsigned at) { return weight == nullptr ? 1 : inverse * weight[at]; };
    UNROLL for (unsigned i = 0; i < MAX_HEAD / 2 / WARP; ++i) {
        const unsigned pair = lane + WARP * i;
        if (pair >= half) continue;
        const float cos = p.cos[size_t(p.angles[row]) * half + pair], sin = p.sin[size_t(p.angles[row]) * half + pair];
        const float x = a[i] * scale(step * pair), y = b[i] * scale(step * pair + apart);
        to[step * pair] = from_float<T>(x * cos - y * sin);
        to[step * pair + apart] = from_float<T>(y * cos + x * sin);
    }
    UNROLL for (unsigned i = 0; i < MAX_HEAD / WARP; ++i) {
        const unsigned at = 2 * half + lane + WARP * i;
        if (at < p.head_dim) to[at] = from_float<T>(rest[i] * scale(at));
    }
}

#define ROPE(A, T) \
    KERNEL(128) rope_##A##_##T(Rope p) { rope<A, T>(p); }
ROPE(float, f16)
ROPE(float, bf16)
ROPE(f16, f16)
ROPE(f16, bf16)
ROPE(bf16, f16)
ROPE(bf16, bf16)
