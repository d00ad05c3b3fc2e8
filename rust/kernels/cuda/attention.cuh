// What the attention kernels share: how a step is described to them, and softmax's pieces.
#pragma once

#include "device.cuh"

// Tokens of a block of the KV cache.
constexpr unsigned BLOCK_LEN = 32;
// Packed rows of a tile of queries, and of a warp's part of it.
constexpr unsigned TILE_ROWS = 64, WARP_ROWS = 16;

// One sequence of the step, in one group of layers.
struct Sequence {
    // Its first row in the batch, and how many.
    uint32_t first_row, num_rows;
    // The index of its first row.
    uint32_t start;
    // Where its block table begins in `tables`.
    uint32_t table;
    // Its first partial result, in units of all heads of a row, and how many splits it has.
    uint32_t first_partial, num_splits;
};
static_assert(sizeof(Sequence) == 24, "the launching code has the same");

// The attention of one layer. Keep in step with `Attention` in the launching code.
struct Attention {
    // Queries, of shape [rows, heads, head_dim].
    const void* queries;
    // Keys and values, of shape [blocks, BLOCK_LEN, kv_heads, head_dim].
    const void* keys;
    const void* values;
    // Of shape [rows, heads, head_dim].
    void* out;
    // One more score a head, without a value, or null.
    const float* sinks;
    // The block tables of all sequences, one after the other.
    const uint32_t* tables;
    const Sequence* sequences;
    // For each row, one past the last token that it sees.
    const uint32_t* ends;
    // What each block of threads does.
    const uint32_t* work;
    // Of splits: sums of values [partials, head_dim]; the maximum and the sum of weights [partials, 2].
    float* partial_values;
    float* partial_sums;
    float scale;
    // Scores become cap tanh(score / cap); 0: they stay.
    float softcap;
    // Tokens that a row sees, itself included; 0: all before it.
    uint32_t window;
    uint32_t heads, kv_heads;
    // For the pass over splits, which is not made for each width.
    uint32_t head_dim;
};
static_assert(sizeof(Attention) == 112, "the launching code has the same");

// The tokens that a row sees.
struct Seen {
    unsigned begin, end;
};

DEVICE Seen seen(const Attention& p, const Sequence& s, unsigned row) {
    const unsigned index = s.start + row;
    const bool is_cut = p.window > 0 && index + 1 > p.window;
    return {is_cut ? index + 1 - p.window : 0, p.ends[s.first_row + row]};
}

// Scores times log2(e), so that softmax is in powers of 2.
DEVICE float scaled(const Attention& p, float score) {
    if (p.softcap == 0) return score * (p.scale * LOG2_E);
    const float x = score * (p.scale / p.softcap);
    // tanh(x) = 1 - 2 / (e^2x + 1)
    const float tanh = 1 - 2 / (exp2_fast(x * (2 * LOG2_E)) + 1);
    return tanh * (p.softcap * LOG2_E);
}

// Where the vector of token `index` stands in a pool of vectors of `D` numbers.
template <typename T, int D>
DEVICE const T* token(const Attention& p, const void* pool, const Sequence& s, unsigned kv_head, unsigned index) {
    const size_t slot = size_t(p.tables[s.table + index / BLOCK_LEN]) * BLOCK_LEN + index % BLOCK_LEN;
    return static_cast<const T*>(pool) + (slot * p.kv_heads + kv_head) * D;
}

// One warp's running softmax over 16 packed rows: lane `i` holds of rows i / 4 and i / 4 + 8 the columns
// 2 (i % 4) and the next of each eight, as a matrix product leaves them.
template <int D> struct Running {
    float values[D / 8][4];
    // The highest score, in powers of 2, and this lane's share of the sum of weights.
    float highest[2], sum[2];

    DEVICE void begin() {
        UNROLL for (int i = 0; i < D / 8; ++i)
            UNROLL for (int j = 0; j < 4; ++j) values[i][j] = 0;
        UNROLL for (int r = 0; r < 2; ++r) {
            highest[r] = -INFINITE;
            sum[r] = 0;
        }
    }

    // Takes in the scores of `N` tokens from `first` on, which become weights. `rows` are the tokens that
    // the lane's two rows see.
    template <int N>
    DEVICE void weigh(const Attention& p, float (&scores)[N / 8][4], unsigned first, const Seen (&rows)[2], bool is_masked) {
        const unsigned column = 2 * (threadIdx.x % 4);
        float highest_now[2] = {highest[0], highest[1]};
        UNROLL for (int i = 0; i < N / 8; ++i)
            UNROLL for (int j = 0; j < 4; ++j) {
                float score = scaled(p, scores[i][j]);
                if (is_masked) {
                    const unsigned index = first + 8 * i + column + j % 2;
                    if (index < rows[j / 2].begin || index >= rows[j / 2].end) score = -INFINITE;
                }
                scores[i][j] = score;
                highest_now[j / 2] = higher(highest_now[j / 2], score);
            }
        float from[2];
        UNROLL for (int r = 0; r < 2; ++r) {
            highest_now[r] = higher(highest_now[r], exchange(highest_now[r], 1));
            highest_now[r] = higher(highest_now[r], exchange(highest_now[r], 2));
            // a row that has seen nothing yet has no highest to measure from
            from[r] = highest_now[r] == -INFINITE ? 0 : highest_now[r];
            const float factor = exp2_fast(highest[r] - from[r]);
            highest[r] = highest_now[r];
            sum[r] *= factor;
            UNROLL for (int i = 0; i < D / 8; ++i) {
                values[i][2 * r] *= factor;
                values[i][2 * r + 1] *= factor;
            }
        }
        UNROLL for (int i = 0; i < N / 8; ++i)
            UNROLL for (int j = 0; j < 4; ++j) {
                scores[i][j] = exp2_fast(scores[i][j] - from[j / 2]);
                sum[j / 2] += scores[i][j];
            }
    }

    // The scores of a warp's rows against `N` keys [N, D + 8] in shared memory.
    template <typename T, int N, typename Queries>
    static DEVICE void score(float (&scores)[N / 8][4], const Queries& queries, const T* keys) {
        const unsigned lane = threadIdx.x % WARP;
        UNROLL for (int i = 0; i < N / 8; ++i)
            UNROLL for (int j = 0; j < 4; ++j) scores[i][j] = 0;
        UNROLL for (int k = 0; k < D / 16; ++k) {
            uint32_t q[4];
            queries.get(q, k);
            UNROLL for (int i = 0; i < N / 16; ++i) {
                uint32_t b[4];
                load_matrices(b, keys + (16 * i + lane / 16 * 8 + lane % 8) * (D + 8) + 16 * k + lane / 8 % 2 * 8);
                multiply<T>(scores[2 * i], q, b[0], b[1]);
                multiply<T>(scores[2 * i + 1], q, b[2], b[3]);
            }
        }
    }

    // Adds weights times `N` values [N, D + 8] in shared memory.
    template <typename T, int N> DEVICE void add(const float (&weights)[N / 8][4], const T* rows) {
        const unsigned lane = threadIdx.x % WARP;
        UNROLL for (int k = 0; k < N / 16; ++k) {
            const uint32_t a[4] = {
                pack<T>(weights[2 * k][0], weights[2 * k][1]),
                pack<T>(weights[2 * k][2], weights[2 * k][3]),
                pack<T>(weights[2 * k + 1][0], weights[2 * k + 1][1]),
                pack<T>(weights[2 * k + 1][2], weights[2 * k + 1][3]),
            };
            UNROLL for (int i = 0; i < D / 16; ++i) {
                uint32_t b[4];
                load_matrices_transposed(b, rows + (16 * k + lane / 8 % 2 * 8 + lane % 8) * (D + 8) + 16 * i + lane / 16 * 8);
                multiply<T>(values[2 * i], a, b[0], b[1]);
                multiply<T>(values[2 * i + 1], a, b[2], b[3]);
            }
        }
    }

    // Makes `sum` that of the whole row in each of its four lanes.
    DEVICE void finish() {
        UNROLL for (int r = 0; r < 2; ++r) {
            sum[r] += exchange(sum[r], 1);
            sum[r] += exchange(sum[r], 2);
        }
    }
};

// A warp's 16 rows of queries, [16, D + 8] in shared memory, in the fragments of a product. Up to 128
// numbers they are held in registers; wider ones are read at each use, which leaves room for the values.
template <typename T, int D, bool IS_HELD = (D <= 128)> struct Queries {
    uint32_t held[D / 16][4];

    DEVICE explicit Queries(const T* rows) {
        const unsigned lane = threadIdx.x % WARP;
        UNROLL for (int k = 0; k < D / 16; ++k)
            load_matrices(held[k], rows + lane % 16 * (D + 8) + 16 * k + lane / 16 * 8);
    }
    DEVICE void get(uint32_t (&q)[4], int k) const {
        UNROLL for (int i = 0; i < 4; ++i) q[i] = held[k][i];
    }
};
template <typename T, int D> struct Queries<T, D, false> {
    const T* row;

    DEVICE explicit Queries(const T* rows) {
        const unsigned lane = threadIdx.x % WARP;
        row = rows + lane % 16 * (D + 8) + lane / 16 * 8;
    }
    DEVICE void get(uint32_t (&q)[4], int k) const { load_matrices(q, row + 16 * k); }
};

// How much a sum of weights and its values change where the sink of `head` comes in.
struct Sunk {
    float factor, sum;
};
DEVICE Sunk sink(const Attention& p, unsigned head, float highest, float sum) {
    if (p.sinks == nullptr) return {1, sum};
    const float score = p.sinks[head] * LOG2_E;
    const float all = higher(highest, score);
    const float factor = exp2_fast(highest - all);
    return {factor, sum * factor + exp2_fast(score - all)};
}
