// A router's choice by a stable sort, and its weights in float64.

#include "check.h"

#include "../route.cu"

namespace {

void run(unsigned rows, unsigned experts, unsigned chosen, bool is_share_of_all, const std::vector<float>& values) {
    ++num_cases;
    emulator::is_backwards = num_cases % 2 == 0;
    Guarded<float> logits(values), weights(size_t(rows) * chosen);
    Guarded<uint32_t> ids(weights.len);
    const Route p = {logits.data, ids.data, weights.data, rows, experts, chosen, is_share_of_all};
    emulator::launch({(rows + 3) / 4, 1, 1}, 128, 0, [&] { route(p); });
    for (unsigned r = 0; r < rows; ++r) {
        const float* const row = values.data() + size_t(r) * experts;
        std::vector<uint32_t> order(experts);
        for (unsigned e = 0; e < experts; ++e) order[e] = e;
        const auto rank = [&](uint32_t e) { return std::isnan(row[e]) ? HUGE_VAL : double(row[e]); };
        std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return rank(a) > rank(b); });
        const double highest = row[order[0]];
        double sum = 0;
        for (unsigned e = 0; e < (is_share_of_all ? experts : chosen); ++e) sum += std::exp(row[order[e]] - highest);
        for (unsigned n = 0; n < chosen; ++n) {
            const std::string name = "route case " + std::to_string(num_cases) + " row " + std::to_string(r) + " choice " + std::to_string(n);
            expect(name + ", expert", ids[r * chosen + n], order[n], 0);
            if (std::isnan(sum)) continue;
            const double wanted = std::exp(row[order[n]] - highest) / sum;
            expect(name + ", weight", weights[r * chosen + n], wanted, 2e-6 * wanted + 1e-30);
        }
    }
}

} // namespace

void check_route() {
    Random random{17};
    for (const unsigned experts : {1u, 4u, 8u, 32u, 60u, 128u, 512u})
        for (const unsigned chosen : {1u, 2u, 4u, 8u, 32u}) {
            if (chosen > experts) continue;
            for (const bool is_share_of_all : {false, true}) {
                const unsigned rows = 1 + random.below(9);
                std::vector<float> logits(size_t(rows) * experts);
                // many of them equal
                for (float& logit : logits) logit = random.below(2) ? random.normal() * 3 : float(random.below(5));
                run(rows, experts, chosen, is_share_of_all, logits);
            }
        }
    const float none = -INFINITE, nan = __builtin_nanf("");
    run(1, 4, 3, false, {none, 1, none, none});
    run(2, 4, 4, true, {1, 2, nan, 3, nan, nan, nan, nan});
}
