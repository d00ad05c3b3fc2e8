// Attention of few rows over many tokens: a sequence's tokens are split between blocks, and a second
// pass joins the splits, always in the same order (Dao et al., "Flash-Decoding").
//
// A block of four warps takes one split of one sequence and one key head, for all query heads that share
// it: at most 16 packed rows, one tile of a tensor core. Each warp goes over pieces of 16 tokens of its
// own, with the next one on its way; at the end the four are joined.
//
// work of the first pass, for each block (x): the sequence, the first token of its split, which is a
// multiple of BLOCK_LEN, one past the last, and which split it is. The grid is [splits, kv_heads].
// work of the second, for each block (x): the sequence and one of its rows. The grid is [rows, heads].

#include "attention.cuh"

constexpr unsigned PIECE = 16;
constexpr unsigned WARPS = 4;

// A warp's own part of the shared memory: two pieces of keys and of values. What is left of it at the end
// takes the warp's sums: 16 rows of D floats, and two numbers a row.
template <int D> constexpr size_t WARP_BYTES = 2 * 2 * PIECE * (D + 8) * 2;
// Shared memory of a block, in bytes: the queries and the warps' parts.
template <int D> constexpr size_t DECODE_BYTES = WARP_ROWS * (D + 8) * 2 + WARPS * WARP_BYTES<D>;

// Starts to copy the piece of tokens from `first` on; those from `end` on become zeros.
template <typename T, int D>
DEVICE void fetch(const Attention& p, const void* pool, const Sequence& s, T* to, unsigned first, unsigned end) {
    constexpr unsigned PARTS = D / 8;
    for (unsigned i = threadIdx.x % WARP; i < PIECE * PARTS; i += WARP) {
        const unsigned place = i / PARTS, part = i % PARTS, index = first + place;
        const bool is_there = index < end;
        const T* from = is_there ? token<T, D>(p, pool, s, blockIdx.y, index) + 8 * part : static_cast<const T*>(pool);
        copy_16(to + place * (D + 8) + 8 * part, from, is_there);
    }
}

template <typename T, typename O, int D> DEVICE void decode(const Attention& p) {
    constexpr int ROW = D + 8;
    static_assert(WARP_BYTES<D> >= WARP_ROWS * (D + 2) * sizeof(float), "room for the warp's sums");
    SHARED(shared);
    T* const staged = reinterpret_cast<T*>(shared);
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    unsigned char* const mine = shared + WARP_ROWS * ROW * 2 + warp * WARP_BYTES<D>;
    T* const keys = reinterpret_cast<T*>(mine);
    T* const values = keys + 2 * PIECE * ROW;
    const unsigned sharing = p.heads / p.kv_heads;
    const uint32_t* const work = p.work + 4 * blockIdx.x;
    const Sequence s = p.sequences[work[0]];
    const unsigned begin = work[1], end = work[2], split = work[3];
    const unsigned num_packed = s.num_rows * sharing;

    const auto place = [&](unsigned packed) {
        return (size_t(s.first_row + packed / sharing) * p.heads + blockIdx.y * sharing + packed % sharing) * D;
    };
    const T* const queries = static_cast<const T*>(p.queries);
    for (unsigned i = threadIdx.x; i < WARP_ROWS * (D / 8); i += blockDim.x) {
        const unsigned packed = i / (D / 8), part = i % (D / 8);
        const bool is_there = packed < num_packed;
        copy_16(staged + packed * ROW + 8 * part, is_there ? queries + place(packed) + 8 * part : queries, is_there);
    }
    copy_commit();
    unsigned piece = begin + warp * PIECE;
    if (piece < end) {
        fetch<T, D>(p, p.keys, s, keys, piece, end);
        fetch<T, D>(p, p.values, s, values, piece, end);
    }
    copy_commit();
    copy_wait<1>();
    sync_block();
    const Queries<T, D> q(staged);

    Seen rows[2];
    UNROLL for (int r = 0; r < 2; ++r) {
        const unsigned packed = lane / 4 + 8 * r;
        rows[r] = packed < num_packed ? seen(p, s, packed / sharing) : Seen{begin, end};
    }
    Running<D> running;
    running.begin();
    for (unsigned stage = 0; piece < end; stage = 1 - stage) {
        const unsigned next = piece + WARPS * PIECE;
        if (next < end) {
            fetch<T, D>(p, p.keys, s, keys + (1 - stage) * PIECE * ROW, next, end);
            fetch<T, D>(p, p.values, s, values + (1 - stage) * PIECE * ROW, next, end);
        }
        copy_commit();
        copy_wait<1>();
        sync_warp();
        float scores[PIECE / 8][4];
        Running<D>::template score<T, PIECE>(scores, q, keys + stage * PIECE * ROW);
        running.template weigh<PIECE>(p, scores, piece, rows, true);
        running.template add<T, PIECE>(scores, values + stage * PIECE * ROW);
        sync_warp();
        piece = next;
    }
    running.finish();

    // each warp leaves its sums in its own part
    copy_wait<0>();
    sync_warp();
    float* const sums = reinterpret_cast<float*>(mine);
    UNROLL for (int r = 0; r < 2; ++r) {
        const unsigned packed = lane / 4 + 8 * r;
        UNROLL for (int i = 0; i < D / 8; ++i)
            UNROLL for (int j = 0; j < 2; ++j)
                sums[packed * D + 8 * i + 2 * (lane % 4) + j] = running.values[i][2 * r + j];
        if (lane % 4 == 0) {
            sums[WARP_ROWS * D + 2 * packed] = running.highest[r];
            sums[WARP_ROWS * D + 2 * packed + 1] = running.sum[r];
        }
    }
    sync_block();
    const auto left = [&](unsigned w, unsigned at) {
        return reinterpret_cast<const float*>(shared + WARP_ROWS * ROW * 2 + w * WARP_BYTES<D>)[at];
    };
    for (unsigned i = threadIdx.x; i < num_packed * D; i += blockDim.x) {
        const unsigned packed = i / D;
        float highest = -INFINITE;
        for (unsigned w = 0; w < WARPS; ++w) highest = higher(highest, left(w, WARP_ROWS * D + 2 * packed));
        // a row of a guess may see nothing of a split that the others see
        const float from = highest == -INFINITE ? 0 : highest;
        float sum = 0, value = 0;
        for (unsigned w = 0; w < WARPS; ++w) {
            const float factor = exp2_fast(left(w, WARP_ROWS * D + 2 * packed) - from);
            sum += factor * left(w, WARP_ROWS * D + 2 * packed + 1);
            value += factor * left(w, i);
        }
        if (s.num_splits == 1) {
            const Sunk sunk = sink(p, blockIdx.y * sharing + packed % sharing, highest, sum);
            static_cast<O*>(p.out)[place(packed) + i % D] = from_float<O>(value * (sunk.factor / sunk.sum));
            continue;
        }
        const size_t partial = size_t(s.first_partial + split * s.num_rows) * p.heads + blockIdx.y * num_packed + packed;
        p.partial_values[partial * D + i % D] = value;
        if (i % D == 0) {
            p.partial_sums[2 * partial] = highest;
            p.partial_sums[2 * partial + 1] = sum;
        }
    }
}

template <typename O> DEVICE void join(const Attention& p) {
    const unsigned head = blockIdx.y, sharing = p.heads / p.kv_heads;
    const Sequence s = p.sequences[p.work[2 * blockIdx.x]];
    // the first pass has finished those
    if (s.num_splits == 1) return;
    const unsigned row = p.work[2 * blockIdx.x + 1];
    const unsigned packed = row * sharing + head % sharing;
    const auto partial = [&](unsigned split) {
        return size_t(s.first_partial + split * s.num_rows) * p.heads + head / sharing * s.num_rows * sharing + packed;
    };
    float highest = -INFINITE;
    for (unsigned i = 0; i < s.num_splits; ++i) highest = higher(highest, p.partial_sums[2 * partial(i)]);
    float sum = 0;
    for (unsigned i = 0; i < s.num_splits; ++i)
        sum += exp2_fast(p.partial_sums[2 * partial(i)] - highest) * p.partial_sums[2 * partial(i) + 1];
    const Sunk sunk = sink(p, head, highest, sum);
    O* const out = static_cast<O*>(p.out) + (size_t(s.first_row + row) * p.heads + head) * p.head_dim;
    for (unsigned d = threadIdx.x; d < p.head_dim; d += blockDim.x) {
        float value = 0;
        for (unsigned i = 0; i < s.num_splits; ++i) {
            const float factor = exp2_fast(p.partial_sums[2 * partial(i)] - highest);
            value += factor * p.partial_values[partial(i) * p.head_dim + d];
        }
        out[d] = from_float<O>(value * (sunk.factor / sunk.sum));
    }
}

#define DECODE_NAMED(T, O, D) \
    KERNEL(128) decode_##T##_##O##_##D(Attention p) { decode<T, O, D>(p); }
#define DECODE(T, O, D) DECODE_NAMED(T, O, D)
#define DECODE_TYPES(D) DECODE(f16, f16, D) DECODE(f16, float, D) DECODE(bf16, bf16, D) DECODE(bf16, float, D)
// One width a module: a driver compiles all of a module before the first launch.
#ifdef HEAD_DIM
DECODE_TYPES(HEAD_DIM)
#else
DECODE_TYPES(64) DECODE_TYPES(96) DECODE_TYPES(128) DECODE_TYPES(256)
#endif

#define JOIN(O) \
    KERNEL(128) join_##O(Attention p) { join<O>(p); }
JOIN(f16)
JOIN(bf16)
JOIN(float)
