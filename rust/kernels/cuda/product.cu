// The product of few rows with a matrix of two-byte numbers, whose time is that of reading the matrix;
// also where each row has matrices of its own out of a stack, as a mixture of experts does.
//
// A block of four warps takes eight outputs, two a warp: a lane reads 16 bytes of each of the matrix's
// rows at a time, and the rows of x come from the cache. Sums are in float32 and in one order, whatever
// the number of rows. The grid is [outputs / 8 rounded up, pieces of up to ROWS rows].

#include "device.cuh"

// Rows of x that share one reading of the matrix.
constexpr unsigned ROWS = 4;
// Outputs of a warp.
constexpr unsigned OUTPUTS = 2;

// Keep in step with `Product` in the launching code.
struct Product {
    // [num_rows, cols].
    const void* x;
    // [outputs, cols], or a stack of such.
    const void* matrix;
    // [num_rows, outputs], of type O.
    void* out;
    // Which matrix of the stack each row takes, or null: all take the only one.
    const uint32_t* which;
    uint32_t num_rows, outputs;
    // A multiple of 8.
    uint32_t cols;
    // Results from one row of x: as many rows of results are made of each.
    uint32_t repeats;
};
static_assert(sizeof(Product) == 48, "the launching code has the same");

template <typename T, typename O> DEVICE void product(const Product& p) {
    const unsigned lane = threadIdx.x % WARP;
    const unsigned output = (blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP) * OUTPUTS;
    // with a matrix of its own, a row is alone
    const unsigned most = p.which == nullptr ? ROWS : 1;
    const unsigned first = blockIdx.y * most, num = lower(most, p.num_rows - first);
    if (output >= p.outputs) return;
    const size_t matrix = p.which == nullptr ? 0 : size_t(p.which[first]) * p.outputs * p.cols;
    const T* const w = static_cast<const T*>(p.matrix) + matrix + size_t(output) * p.cols;
    // the last output has no neighbour where their number is odd
    const size_t next = output + 1 < p.outputs ? p.cols : 0;
    const T* const x = static_cast<const T*>(p.x);

    float sums[OUTPUTS][ROWS] = {};
    for (unsigned at = 8 * lane; at < p.cols; at += 8 * WARP) {
        float weights[OUTPUTS][8];
        load(weights[0], w + at);
        load(weights[1], w + next + at);
        UNROLL for (unsigned r = 0; r < ROWS; ++r) {
            if (r >= num) continue;
            float numbers[8];
            load(numbers, x + size_t((first + r) / p.repeats) * p.cols + at);
            UNROLL for (unsigned o = 0; o < OUTPUTS; ++o)
                UNROLL for (int i = 0; i < 8; ++i) sums[o][r] += weights[o][i] * numbers[i];
        }
    }
    UNROLL for (unsigned o = 0; o < OUTPUTS; ++o)
        UNROLL for (unsigned r = 0; r < ROWS; ++r) {
            if (r >= num) continue;
            const float sum = warp_sum(sums[o][r]);
            if (lane == 0 && output + o < p.outputs)
                static_cast<O*>(p.out)[size_t(first + r) * p.outputs + output + o] = from_float<O>(sum);
        }
}

#define PRODUCT(T, O) \
    KERNEL(128) product_##T##_##O(Product p) { product<T, O>(p); }
PRODUCT(f16, f16)
PRODUCT(f16, float)
PRODUCT(bf16, bf16)
PRODUCT(bf16, float)
