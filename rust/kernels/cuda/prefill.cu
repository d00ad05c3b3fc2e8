// Attention of many rows, on tensor cores (Dao, "FlashAttention-2", arXiv 2307.08691).
//
// A block of four warps takes a tile of 64 packed rows of one sequence and one key head: the query heads
// that share the key head stand side by side, row after row, so that keys and values are read once for
// all of them. It goes over the tokens that the tile sees in strips, of which the next one is on its way
// while one is computed with.
//
// work: for each block (x), the sequence and the first row of its tile, of 64 / (heads / kv_heads) rows.
// The grid is [tiles, kv_heads].

#include "attention.cuh"

// Tokens of a strip.
template <int D> constexpr int STRIP = D <= 128 ? 64 : 32;

// Shared memory of a block, in bytes: two strips of keys and of values; wide queries beside them, others
// pass through the first strip.
template <int D> constexpr size_t PREFILL_BYTES = 2 * (D + 8) * (4 * STRIP<D> + (D <= 128 ? 0 : TILE_ROWS));

// Starts to copy the tokens of strip `t` of a pool into `to`; those outside of `all` become zeros, for a
// weight of nought times what an old token left there might not be a number.
template <typename T, int D>
DEVICE void fetch(const Attention& p, const void* pool, const Sequence& s, T* to, unsigned t, Seen all) {
    constexpr unsigned PARTS = D / 8;
    for (unsigned i = threadIdx.x; i < STRIP<D> * PARTS; i += blockDim.x) {
        const unsigned place = i / PARTS, part = i % PARTS, index = t * STRIP<D> + place;
        const bool is_there = index >= all.begin && index < all.end;
        const T* from = is_there ? token<T, D>(p, pool, s, blockIdx.y, index) + 8 * part : static_cast<const T*>(pool);
        copy_16(to + place * (D + 8) + 8 * part, from, is_there);
    }
}

template <typename T, typename O, int D> DEVICE void prefill(const Attention& p) {
    constexpr int N = STRIP<D>;
    constexpr int ROW = D + 8;
    SHARED(shared);
    T* const keys = reinterpret_cast<T*>(shared);
    T* const values = keys + 2 * N * ROW;
    T* const staged = D <= 128 ? keys : values + 2 * N * ROW;
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const unsigned sharing = p.heads / p.kv_heads;
    const Sequence s = p.sequences[p.work[2 * blockIdx.x]];
    const unsigned first = p.work[2 * blockIdx.x + 1];
    const unsigned num_rows = lower(TILE_ROWS / sharing, s.num_rows - first);
    const unsigned num_packed = num_rows * sharing;

    // where a packed row's vector stands in queries and output
    const auto place = [&](unsigned packed) {
        const unsigned row = s.first_row + first + packed / sharing;
        return (size_t(row) * p.heads + blockIdx.y * sharing + packed % sharing) * D;
    };
    const T* const queries = static_cast<const T*>(p.queries);
    for (unsigned i = threadIdx.x; i < TILE_ROWS * (D / 8); i += blockDim.x) {
        const unsigned packed = i / (D / 8), part = i % (D / 8);
        const bool is_there = packed < num_packed;
        copy_16(staged + packed * ROW + 8 * part, is_there ? queries + place(packed) + 8 * part : queries, is_there);
    }
    copy_commit();
    copy_wait<0>();
    sync_block();
    const Queries<T, D> q(staged + warp * WARP_ROWS * ROW);
    // what was staged makes room for keys
    sync_block();

    // the tokens that any row of the tile sees
    Seen all = {seen(p, s, first).begin, 0};
    for (unsigned row = lane; row < num_rows; row += WARP) all.end = higher(all.end, seen(p, s, first + row).end);
    UNROLL for (int bits = 16; bits > 0; bits /= 2) all.end = higher(all.end, exchange(all.end, bits));
    // those that this lane's two rows see, and those that all of the warp's rows do
    Seen rows[2];
    Seen common = {0, all.end};
    UNROLL for (int r = 0; r < 2; ++r) {
        const unsigned packed = warp * WARP_ROWS + lane / 4 + 8 * r;
        rows[r] = packed < num_packed ? seen(p, s, first + packed / sharing) : all;
        common.begin = higher(common.begin, rows[r].begin);
        common.end = lower(common.end, rows[r].end);
    }
    UNROLL for (int bits = 16; bits > 2; bits /= 2) {
        common.begin = higher(common.begin, exchange(common.begin, bits));
        common.end = lower(common.end, exchange(common.end, bits));
    }

    Running<D> running;
    running.begin();
    const unsigned first_strip = all.begin / N, end_strip = (all.end + N - 1) / N;
    fetch<T, D>(p, p.keys, s, keys, first_strip, all);
    fetch<T, D>(p, p.values, s, values, first_strip, all);
    copy_commit();
    for (unsigned t = first_strip; t < end_strip; ++t) {
        const unsigned stage = (t - first_strip) % 2;
        if (t + 1 < end_strip) {
            fetch<T, D>(p, p.keys, s, keys + (1 - stage) * N * ROW, t + 1, all);
            fetch<T, D>(p, p.values, s, values + (1 - stage) * N * ROW, t + 1, all);
        }
        copy_commit();
        copy_wait<1>();
        sync_block();
        float scores[N / 8][4];
        Running<D>::template score<T, N>(scores, q, keys + stage * N * ROW);
        const bool is_masked = t * N < common.begin || (t + 1) * N > common.end;
        running.template weigh<N>(p, scores, t * N, rows, is_masked);
        running.template add<T, N>(scores, values + stage * N * ROW);
        sync_block();
    }

    running.finish();
    UNROLL for (int r = 0; r < 2; ++r) {
        const unsigned packed = warp * WARP_ROWS + lane / 4 + 8 * r;
        if (packed >= num_packed) continue;
        const Sunk sunk = sink(p, blockIdx.y * sharing + packed % sharing, running.highest[r], running.sum[r]);
        const float factor = sunk.factor / sunk.sum;
        O* const out = static_cast<O*>(p.out) + place(packed) + 2 * (lane % 4);
        UNROLL for (int i = 0; i < D / 8; ++i) {
            const float pair[2] = {running.values[i][2 * r] * factor, running.values[i][2 * r + 1] * factor};
            store<2>(out + 8 * i, pair);
        }
    }
}

#define PREFILL_NAMED(T, O, D) \
    KERNEL(128) prefill_##T##_##O##_##D(Attention p) { prefill<T, O, D>(p); }
#define PREFILL(T, O, D) PREFILL_NAMED(T, O, D)
#define PREFILL_TYPES(D) PREFILL(f16, f16, D) PREFILL(f16, float, D) PREFILL(bf16, bf16, D) PREFILL(bf16, float, D)
// One width a module: a driver compiles all of a module before the first launch.
#ifdef HEAD_DIM
PREFILL_TYPES(HEAD_DIM)
#else
PREFILL_TYPES(64) PREFILL_TYPES(96) PREFILL_TYPES(128) PREFILL_TYPES(256)
#endif
