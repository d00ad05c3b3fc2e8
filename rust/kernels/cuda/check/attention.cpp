// Prefill, decode and join against softmax attention in float64.

#include "check.h"

#include "../decode.cu"
#include "../prefill.cu"

namespace {

struct Part {
    unsigned start, num_rows;
    // The rows from the first on that see each other in both directions, if any.
    unsigned two_way_first = 0, two_way_end = 0;
};

struct Case {
    unsigned heads, kv_heads, window;
    float softcap;
    bool has_sinks;
    // Tokens of a split.
    unsigned split;
    std::vector<Part> parts;
};

template <typename T> using Kernel = void (*)(Attention);

// Runs a case through both ways that take its rows and compares with the definition.
template <typename T, typename O, int D>
void run(const Case& c, Kernel<T> prefill, Kernel<T> decode, Kernel<T> join, Random& random) {
    ++num_cases;
    emulator::is_backwards = num_cases % 2 == 0;
    const unsigned sharing = c.heads / c.kv_heads;
    std::vector<Sequence> sequences;
    std::vector<uint32_t> tables, ends, tiles, splits, rows;
    unsigned num_rows = 0, num_blocks = 1, partials = 0;
    for (const Part& part : c.parts) {
        const unsigned end = part.start + part.num_rows;
        const unsigned first = c.window > 0 && part.start + 1 > c.window ? part.start + 1 - c.window : 0;
        Sequence s = {num_rows, part.num_rows, part.start, unsigned(tables.size()), partials, 0};
        for (unsigned b = 0; b * BLOCK_LEN < end; ++b) tables.push_back(b < first / BLOCK_LEN ? 0xffffffffu : num_blocks++);
        for (unsigned r = 0; r < part.num_rows; ++r) {
            const bool is_two_way = r >= part.two_way_first && r < part.two_way_end;
            ends.push_back(part.start + (is_two_way ? part.two_way_end : r + 1));
        }
        const unsigned id = sequences.size();
        const bool is_short = part.num_rows * sharing <= WARP_ROWS;
        if (is_short) {
            for (unsigned at = first / c.split * c.split; at < end; at += c.split) {
                const uint32_t from = higher(at, first / BLOCK_LEN * BLOCK_LEN), to = lower(at + c.split, end);
                splits.insert(splits.end(), {id, from, to, s.num_splits++});
            }
            for (unsigned r = 0; r < part.num_rows; ++r) rows.insert(rows.end(), {id, r});
            partials += s.num_splits * part.num_rows;
        } else {
            for (unsigned r = 0; r < part.num_rows; r += TILE_ROWS / sharing) tiles.insert(tiles.end(), {id, r});
        }
        num_rows += part.num_rows;
        sequences.push_back(s);
    }
    // blocks in no order
    std::vector<uint32_t> order(num_blocks);
    for (unsigned i = 0; i < num_blocks; ++i) order[i] = i;
    for (unsigned i = num_blocks - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
    for (uint32_t& block : tables)
        if (block != 0xffffffffu) block = order[block];

    Guarded<T> q(size_t(num_rows) * c.heads * D);
    Guarded<T> keys(size_t(num_blocks) * BLOCK_LEN * c.kv_heads * D), values(keys.len);
    // what no token was written to stays NaN: it may not be read
    for (size_t i = 0; i < q.len; ++i) q[i] = from_float<T>(random.normal());
    for (unsigned i = 0; i < sequences.size(); ++i)
        for (unsigned t = 0; t < c.parts[i].start + c.parts[i].num_rows; ++t) {
            const uint32_t block = tables[sequences[i].table + t / BLOCK_LEN];
            if (block == 0xffffffffu) continue;
            for (unsigned j = 0; j < c.kv_heads * D; ++j) {
                const size_t at = (size_t(block) * BLOCK_LEN + t % BLOCK_LEN) * c.kv_heads * D + j;
                keys[at] = from_float<T>(random.normal() * 2);
                values[at] = from_float<T>(random.normal());
            }
        }
    std::vector<float> sinks(c.heads);
    for (float& s : sinks) s = random.normal() * 3;
    Guarded<O> out(q.len);
    Guarded<float> partial_values(size_t(partials) * c.heads * D), partial_sums(size_t(partials) * c.heads * 2);
    Guarded<uint32_t> table_words(tables), end_words(ends), tile_words(tiles), split_words(splits), row_words(rows);
    Guarded<Sequence> sequence_words(sequences);
    Guarded<float> sink_words(sinks);
    Attention p = {q.data, keys.data, values.data, out.data, c.has_sinks ? sink_words.data : nullptr, table_words.data, sequence_words.data,
                   end_words.data, tile_words.data, partial_values.data, partial_sums.data, 1 / std::sqrt(float(D)), c.softcap,
                   c.window, c.heads, c.kv_heads, D};
    if (!tiles.empty()) emulator::launch({unsigned(tiles.size() / 2), c.kv_heads, 1}, 128, PREFILL_BYTES<D>, [&] { prefill(p); });
    if (!splits.empty()) {
        p.work = split_words.data;
        emulator::launch({unsigned(splits.size() / 4), c.kv_heads, 1}, 128, DECODE_BYTES<D>, [&] { decode(p); });
        const bool is_split = std::any_of(sequences.begin(), sequences.end(), [](const Sequence& s) { return s.num_splits > 1; });
        p.work = row_words.data;
        if (is_split) emulator::launch({unsigned(rows.size() / 2), c.heads, 1}, 128, 0, [&] { join(p); });
    }

    for (unsigned i = 0; i < sequences.size(); ++i)
        for (unsigned r = 0; r < c.parts[i].num_rows; ++r)
            for (unsigned h = 0; h < c.heads; ++h) {
                const unsigned index = c.parts[i].start + r, row = sequences[i].first_row + r;
                const unsigned begin = c.window > 0 && index + 1 > c.window ? index + 1 - c.window : 0;
                const T* const query = q.data + (size_t(row) * c.heads + h) * D;
                const auto vector = [&](Guarded<T>& pool, unsigned t) {
                    const uint32_t block = tables[sequences[i].table + t / BLOCK_LEN];
                    return pool.data + ((size_t(block) * BLOCK_LEN + t % BLOCK_LEN) * c.kv_heads + h / sharing) * D;
                };
                std::vector<double> weights;
                double highest = c.has_sinks ? sinks[h] : -HUGE_VAL;
                for (unsigned t = begin; t < ends[row]; ++t) {
                    double score = 0;
                    for (int d = 0; d < D; ++d) score += double(to_float(query[d])) * to_float(vector(keys, t)[d]);
                    score /= std::sqrt(double(D));
                    if (c.softcap > 0) score = c.softcap * std::tanh(score / c.softcap);
                    weights.push_back(score);
                    highest = std::max(highest, score);
                }
                double sum = c.has_sinks ? std::exp(sinks[h] - highest) : 0;
                for (double& w : weights) sum += w = std::exp(w - highest);
                for (int d = 0; d < D; ++d) {
                    double wanted = 0, size = 0;
                    for (unsigned t = begin; t < ends[row]; ++t) {
                        const double part = weights[t - begin] / sum * to_float(vector(values, t)[d]);
                        wanted += part;
                        size += std::fabs(part);
                    }
                    // weights are rounded to T before they meet the values, and the outcome to O
                    const double bound = (ROUNDING<T> + 4e-5) * size + ROUNDING<O> * std::fabs(wanted) + 1e-7;
                    const std::string name = "attention " + std::to_string(D) + " case " + std::to_string(num_cases) + " sequence " +
                                             std::to_string(i) + " row " + std::to_string(r) + " head " + std::to_string(h);
                    expect(name, to_float(out[(size_t(row) * c.heads + h) * D + d]), wanted, bound);
                }
            }
}

#define RUN(T, O, D) run<T, O, D>(c, prefill_##T##_##O##_##D, decode_##T##_##O##_##D, join_##O, random)
#define RUN_WIDTHS(T, O) RUN(T, O, 64), RUN(T, O, 96), RUN(T, O, 128), RUN(T, O, 256)

} // namespace

void check_attention() {
    Random random{11};
    const std::vector<Case> everywhere = {
        // rows of all kinds in one step: prompts, a chunk behind a cached part, single tokens, guesses
        {4, 2, 0, 0, false, 64, {{0, 70}, {45, 33}, {99, 1}, {130, 4}, {0, 1}, {31, 1}}},
        // a window whose first blocks were given back, soft caps, sinks, a group of one
        {2, 2, 37, 3, true, 64, {{70, 65}, {150, 1}, {0, 20}, {97, 3}}},
        // both directions
        {6, 2, 0, 0, true, 96, {{10, 50, 5, 45}, {20, 5, 1, 4}}},
    };
    for (const Case& c : everywhere) {
        RUN_WIDTHS(f16, f16);
        RUN_WIDTHS(bf16, float);
        RUN(f16, float, 64);
        RUN(bf16, bf16, 128);
    }
    // groups that no tile is a multiple of, and rows that end at the edges of strips and splits
    for (unsigned i = 0; i < 24; ++i) {
        const unsigned kv_heads = 1 + random.below(2), sharing = 1 + random.below(9);
        Case c = {kv_heads * sharing, kv_heads, random.below(3) ? 0 : 1 + random.below(130), random.below(3) ? 0.f : 2.f,
                  random.below(2) == 0, 32 * (1 + random.below(4)), {}};
        for (unsigned j = 0, n = 1 + random.below(3); j < n; ++j) {
            const unsigned edges[] = {0, 31, 32, 63, 64, 65, 127, 128, random.below(200)};
            const unsigned lengths[] = {1, 1, 2, 31, 64, 1 + random.below(70)};
            Part part = {edges[random.below(9)], lengths[random.below(6)]};
            if (random.below(3) == 0) {
                part.two_way_first = random.below(part.num_rows);
                part.two_way_end = part.two_way_first + 1 + random.below(part.num_rows - part.two_way_first);
            }
            c.parts.push_back(part);
        }
        if (i % 2 == 0) RUN(f16, float, 64);
        else RUN(bf16, bf16, 64);
    }
}
