// A router's choice: the experts with the highest logits of each row, of equal ones those with the lower
// index, and their weights.
//
// A warp takes one row; lane i has the experts i, i + 32 and so on. The grid is [rows / 4 rounded up].

#include "device.cuh"

// The most experts that the lanes have room for, and the most that a row chooses: one a lane.
constexpr unsigned MAX_EXPERTS = 512, MAX_CHOSEN = WARP;

// Keep in step with `Route` in the launching code.
struct Route {
    // [rows, experts].
    const float* logits;
    // [rows, chosen], the highest first.
    uint32_t* ids;
    float* weights;
    uint32_t rows, experts, chosen;
    // Whether weights are shares of all experts' and not of the chosen ones' alone.
    uint32_t is_share_of_all;
};
static_assert(sizeof(Route) == 40, "the launching code has the same");

// What experts are ordered by: what is no number stands with infinity, so that every row has an order.
DEVICE float rank(float logit) { return logit != logit ? INFINITE : logit; }

KERNEL(128) route(Route p) {
    const unsigned lane = threadIdx.x % WARP, row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row >= p.rows) return;
    const float* const logits = p.logits + size_t(row) * p.experts;
    float mine[MAX_EXPERTS / WARP];
    // one bit an expert of this lane that is still to be had
    unsigned left = 0;
    UNROLL for (unsigned i = 0; i < MAX_EXPERTS / WARP; ++i) {
        const unsigned expert = lane + WARP * i;
        if (expert >= p.experts) continue;
        mine[i] = logits[expert];
        left |= 1u << i;
    }
    float highest = 0, sum = 0, weight = 0;
    unsigned id = 0;
    for (unsigned n = 0; n < p.chosen; ++n) {
        float best = -INFINITE;
        unsigned place = 0xffffffffu;
        UNROLL for (unsigned i = 0; i < MAX_EXPERTS / WARP; ++i) {
            if (!(left >> i & 1)) continue;
            if (place != 0xffffffffu && !(rank(mine[i]) > best)) continue;
            best = rank(mine[i]);
            place = lane + WARP * i;
        }
        UNROLL for (int bits = 16; bits > 0; bits /= 2) {
            const float other = exchange(best, bits);
            const unsigned other_place = exchange(place, bits);
            if (other_place == 0xffffffffu) continue;
            if (place != 0xffffffffu && (other < best || (other == best && other_place > place))) continue;
            best = other;
            place = other_place;
        }
        if (place % WARP == lane) left &= ~(1u << place / WARP);
        const float logit = logits[place];
        if (n == 0) highest = logit;
        const float share = expf(logit - highest);
        sum += share;
        if (lane == n) {
            id = place;
            weight = share;
        }
    }
    if (p.is_share_of_all) {
        sum = 0;
        UNROLL for (unsigned i = 0; i < MAX_EXPERTS / WARP; ++i)
            if (lane + WARP * i < p.experts) sum += expf(mine[i] - highest);
        sum = warp_sum(sum);
    }
    if (lane >= p.chosen) return;
    p.ids[size_t(row) * p.chosen + lane] = id;
    p.weights[size_t(row) * p.chosen + lane] = weight / sum;
}
