// What stands between the blocks of a layer: what a block adds to the residual stream, with a norm of its
// own where the family has one, and the norm before the next block (Zhang and Sennrich, arXiv 1910.07467).
//
// A block of threads takes one row, which it keeps in shared memory. The grid is [rows].

#include "device.cuh"

// One sum and norm. Keep in step with `Norm` in the launching code.
struct Norm {
    // The residual stream, f32 [rows, hidden], which is changed where something is added.
    float* residual;
    // What is added [rows, hidden], or null.
    const void* added;
    // The weight [hidden] of the norm on what is added, or null.
    const float* post;
    // The weight [hidden] of the norm of the sum, or null: no norm.
    const float* weight;
    // The sum's norm [rows, hidden].
    void* out;
    // A multiple of 4.
    uint32_t hidden;
    float eps;
    // The factor on what is added.
    float scale;
};
static_assert(sizeof(Norm) == 56, "the launching code has the same");

template <typename A> DEVICE void norm(const Norm& p) {
    SHARED(shared);
    float* const row = reinterpret_cast<float*>(shared);
    float* const room = row + p.hidden;
    const size_t first = size_t(blockIdx.x) * p.hidden;
    float* const residual = p.residual + first;
    // a thread looks at the same places in every pass
    const unsigned begin = 4 * threadIdx.x, step = 4 * blockDim.x;
    float x[4], y[4];

    float factor = p.scale;
    if (p.added != nullptr && p.post != nullptr) {
        float squares = 0;
        for (unsigned i = begin; i < p.hidden; i += step) {
            load(x, static_cast<const A*>(p.added) + first + i);
            store(row + i, x);
            UNROLL for (int j = 0; j < 4; ++j) squares += x[j] * x[j];
        }
        factor *= 1 / sqrtf(block_sum(squares, room) / float(p.hidden) + p.eps);
    }
    float squares = 0;
    for (unsigned i = begin; i < p.hidden; i += step) {
        load(x, residual + i);
        if (p.added != nullptr) {
            if (p.post == nullptr) {
                load(y, static_cast<const A*>(p.added) + first + i);
                UNROLL for (int j = 0; j < 4; ++j) x[j] += y[j] * factor;
            } else {
                float w[4];
                load(y, row + i);
                load(w, p.post + i);
                UNROLL for (int j = 0; j < 4; ++j) x[j] += y[j] * factor * w[j];
            }
            store(residual + i, x);
        }
        store(row + i, x);
        UNROLL for (int j = 0; j < 4; ++j) squares += x[j] * x[j];
    }
    if (p.weight == nullptr) return;
    const float inverse = 1 / sqrtf(block_sum(squares, room) / float(p.hidden) + p.eps);
    for (unsigned i = begin; i < p.hidden; i += step) {
        load(x, row + i);
        load(y, p.weight + i);
        UNROLL for (int j = 0; j < 4; ++j) x[j] *= inverse * y[j];
        store(static_cast<A*>(p.out) + first + i, x);
    }
}

#define NORM(A) \
    KERNEL(256) norm_##A(Norm p) { norm<A>(p); }
NORM(float)
NORM(f16)
NORM(bf16)
