// Tokens from logits: the highest, the lowest id of equal ones; or, at a temperature, that into whose
// share of the weights a given number falls.
//
// A draw gives the same token as the host's sampler does from the same logits, to the bit: the same
// exponential, the same sums in the same order (rust/engine/src/sampling/{sampler,scan}.rs). Hence no
// product and sum may be joined here, and three passes: the highest logit of each stretch, the weights of
// each stretch, the token. The grid is [stretches, draws], of the last pass [1, draws].

#include "device.cuh"

// Tokens of a stretch, as many as there are threads; numbers that are summed side by side, and how many
// of those rows make one sum.
constexpr unsigned STRETCH = 1024, LANES = 16, ROUNDS = 16;

// What is told in place of a token: a logit was no number; none was above minus infinity.
constexpr uint32_t NOT_NUMBERS = 0xffffffffu, NO_TOKEN = 0xfffffffeu;

// Keep in step with `Draw` in the launching code.
struct Draw {
    // [rows, vocab].
    const float* logits;
    // For each draw, its row.
    const uint32_t* rows;
    // For each draw, the temperature; 0: the highest logit's token.
    const float* temperatures;
    // For each draw, a number in [0, 1).
    const double* numbers;
    uint32_t* tokens;
    // Of each draw and stretch: the highest logit (NaN where one is none), where it first stands, the
    // sum of weights.
    float* highest;
    uint32_t* places;
    double* sums;
    uint32_t vocab, num_stretches;
};
static_assert(sizeof(Draw) == 72, "the launching code has the same");

// e^x for x <= 0, as `scan::exp` computes it.
DEVICE float exp_exact(float x) {
    constexpr float ROUND = 12582912.0f;
    const float clamped = x < -87.0f ? -87.0f : x;
    const float shifted = add_exact(mul_exact(clamped, 1.44269504f), ROUND);
    const float n = add_exact(shifted, -ROUND);
    const float r = add_exact(add_exact(clamped, -mul_exact(n, 0.6933594f)), -mul_exact(n, -2.1219444e-4f));
    float p = 1.9875691e-4f;
    p = add_exact(mul_exact(p, r), 1.3981999e-3f);
    p = add_exact(mul_exact(p, r), 8.333452e-3f);
    p = add_exact(mul_exact(p, r), 4.1665796e-2f);
    p = add_exact(mul_exact(p, r), 1.6666665e-1f);
    p = add_exact(mul_exact(p, r), 0.5f);
    p = add_exact(add_exact(mul_exact(mul_exact(p, r), r), r), 1.0f);
    uint32_t bits, round;
    float power;
    __builtin_memcpy(&bits, &shifted, sizeof bits);
    __builtin_memcpy(&round, &ROUND, sizeof round);
    bits = (bits - round + 127) << 23;
    __builtin_memcpy(&power, &bits, sizeof power);
    return x < -87.0f ? 0 : mul_exact(p, power);
}

// The weight of a logit. Beside an infinite one nothing counts.
DEVICE float weight(float logit, float highest, float slope) {
    const float below = highest == INFINITE ? (logit == highest ? 0 : -INFINITE) : add_exact(logit, -highest);
    return exp_exact(mul_exact(below, slope));
}

DEVICE float slope(const Draw& p, unsigned draw) {
    return lower(1.0f / p.temperatures[draw], 3.40282347e+38f);
}

// The higher of two logits with its place, the first of equals; a NaN is above all.
DEVICE void rise(float& logit, unsigned& place, float other, unsigned other_place) {
    const bool is_nan = other != other, was_nan = logit != logit;
    if (is_nan ? !was_nan : !was_nan && (other > logit || (other == logit && other_place < place))) {
        logit = other;
        place = other_place;
    }
}

DEVICE void warp_highest(float& logit, unsigned& place) {
    UNROLL for (int bits = 16; bits > 0; bits /= 2) {
        const float other = exchange(logit, bits);
        const unsigned other_place = exchange(place, bits);
        rise(logit, place, other, other_place);
    }
}

// The highest logit of a row, from those of its stretches, in every thread.
DEVICE void row_highest(const Draw& p, unsigned draw, float& logit, unsigned& place) {
    logit = -INFINITE;
    place = 0xffffffffu;
    const size_t first = size_t(draw) * p.num_stretches;
    for (unsigned i = threadIdx.x % WARP; i < p.num_stretches; i += WARP) rise(logit, place, p.highest[first + i], p.places[first + i]);
    warp_highest(logit, place);
}

KERNEL(1024) draw_highest(Draw p) {
    SHARED(shared);
    float* const logits = reinterpret_cast<float*>(shared);
    unsigned* const places = reinterpret_cast<unsigned*>(logits + WARP);
    const unsigned at = blockIdx.x * STRETCH + threadIdx.x;
    float logit = at < p.vocab ? p.logits[size_t(p.rows[blockIdx.y]) * p.vocab + at] : -INFINITE;
    unsigned place = at < p.vocab ? at : 0xffffffffu;
    warp_highest(logit, place);
    if (threadIdx.x % WARP == 0) {
        logits[threadIdx.x / WARP] = logit;
        places[threadIdx.x / WARP] = place;
    }
    sync_block();
    if (threadIdx.x >= WARP) return;
    logit = logits[threadIdx.x];
    place = places[threadIdx.x];
    warp_highest(logit, place);
    if (threadIdx.x == 0) {
        p.highest[size_t(blockIdx.y) * p.num_stretches + blockIdx.x] = logit;
        p.places[size_t(blockIdx.y) * p.num_stretches + blockIdx.x] = place;
    }
}

KERNEL(1024) draw_weigh(Draw p) {
    if (p.temperatures[blockIdx.y] == 0) return;
    SHARED(shared);
    float* const weights = reinterpret_cast<float*>(shared);
    float highest;
    unsigned place;
    row_highest(p, blockIdx.y, highest, place);
    const unsigned first = blockIdx.x * STRETCH, num = lower(STRETCH, p.vocab - first);
    if (threadIdx.x < num) {
        const float logit = p.logits[size_t(p.rows[blockIdx.y]) * p.vocab + first + threadIdx.x];
        weights[threadIdx.x] = weight(logit, highest, slope(p, blockIdx.y));
    }
    sync_block();
    // whole rows of LANES numbers, ROUNDS of them to a sum a lane; the numbers behind them one by one
    const unsigned whole = num / LANES;
    float sum = 0;
    const unsigned round = threadIdx.x / LANES;
    for (unsigned i = round * ROUNDS; i < lower((round + 1) * ROUNDS, whole); ++i)
        sum = add_exact(sum, weights[i * LANES + threadIdx.x % LANES]);
    sync_block();
    float* const sums = weights + STRETCH;
    if (round < (whole + ROUNDS - 1) / ROUNDS) sums[threadIdx.x] = sum;
    sync_block();
    if (threadIdx.x != 0) return;
    double total = 0;
    for (unsigned i = 0; i < (whole + ROUNDS - 1) / ROUNDS; ++i) {
        double part = 0;
        for (unsigned j = 0; j < LANES; ++j) part += double(sums[i * LANES + j]);
        total += part;
    }
    double rest = 0;
    for (unsigned i = whole * LANES; i < num; ++i) rest += double(weights[i]);
    p.sums[size_t(blockIdx.y) * p.num_stretches + blockIdx.x] = total + rest;
}

KERNEL(1024) draw_choose(Draw p) {
    SHARED(shared);
    float* const weights = reinterpret_cast<float*>(shared);
    double* const state = reinterpret_cast<double*>(shared + STRETCH * sizeof(float));
    float highest;
    unsigned place;
    row_highest(p, blockIdx.y, highest, place);
    if (highest != highest || highest == -INFINITE || p.temperatures[blockIdx.y] == 0) {
        if (threadIdx.x == 0) p.tokens[blockIdx.y] = highest != highest ? NOT_NUMBERS : highest == -INFINITE ? NO_TOKEN : place;
        return;
    }
    if (threadIdx.x == 0) {
        const double* const sums = p.sums + size_t(blockIdx.y) * p.num_stretches;
        double total = 0;
        for (unsigned i = 0; i < p.num_stretches; ++i) total += sums[i];
        double left = mul_exact(p.numbers[blockIdx.y], total);
        unsigned chosen = 0;
        for (unsigned i = 0; i < p.num_stretches; ++i) {
            if (!(sums[i] > 0)) continue;
            chosen = i;
            if (left < sums[i]) break;
            left -= sums[i];
        }
        state[0] = left;
        state[1] = double(chosen);
    }
    sync_block();
    const unsigned first = unsigned(state[1]) * STRETCH, num = lower(STRETCH, p.vocab - first);
    if (threadIdx.x < num) {
        const float logit = p.logits[size_t(p.rows[blockIdx.y]) * p.vocab + first + threadIdx.x];
        weights[threadIdx.x] = weight(logit, highest, slope(p, blockIdx.y));
    }
    sync_block();
    if (threadIdx.x != 0) return;
    double left = state[0];
    uint32_t token = NO_TOKEN;
    for (unsigned i = 0; i < num; ++i) {
        const double share = double(weights[i]);
        if (!(share > 0)) continue;
        token = first + i;
        if (left < share) break;
        left -= share;
    }
    p.tokens[blockIdx.y] = token;
}
