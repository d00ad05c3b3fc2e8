// Sums and norms of the residual stream in float64.

#include "check.h"

#include "../norm.cu"

namespace {

template <typename A> void run(unsigned hidden, bool is_added, bool has_post, bool has_weight, void (*kernel)(Norm), Random& random) {
    ++num_cases;
    emulator::is_backwards = num_cases % 2 == 0;
    const unsigned rows = 3;
    const float scale = has_post ? 1.0f : 0.75f, eps = 1e-5f;
    Guarded<float> residual(size_t(rows) * hidden), post(hidden), weight(hidden);
    Guarded<A> added(residual.len), out(residual.len);
    for (size_t i = 0; i < residual.len; ++i) {
        residual[i] = random.normal() * 5;
        added[i] = from_float<A>(random.normal());
    }
    for (unsigned i = 0; i < hidden; ++i) {
        post[i] = random.normal();
        weight[i] = random.normal();
    }
    std::vector<double> sums(residual.len);
    for (unsigned r = 0; r < rows; ++r) {
        double squares = 0;
        for (unsigned i = 0; i < hidden; ++i) squares += std::pow(to_float(added[r * hidden + i]), 2);
        for (unsigned i = 0; i < hidden; ++i) {
            const size_t at = r * hidden + i;
            const double factor = has_post ? post[i] / std::sqrt(squares / hidden + eps) : 1;
            sums[at] = residual[at] + (is_added ? to_float(added[at]) * factor * scale : 0);
        }
    }
    const Norm p = {residual.data, is_added ? added.data : nullptr, has_post ? post.data : nullptr, has_weight ? weight.data : nullptr, out.data, hidden, eps, scale};
    emulator::launch({rows, 1, 1}, 256, (hidden + 8) * sizeof(float), [&] { kernel(p); });
    for (unsigned r = 0; r < rows; ++r) {
        double squares = 0;
        for (unsigned i = 0; i < hidden; ++i) squares += sums[r * hidden + i] * sums[r * hidden + i];
        for (unsigned i = 0; i < hidden; ++i) {
            const size_t at = r * hidden + i;
            const std::string name = "norm case " + std::to_string(num_cases) + " at " + std::to_string(at);
            expect(name + ", sum", residual[at], sums[at], 3e-6 * (1 + std::fabs(sums[at])));
            if (!has_weight) continue;
            const double wanted = sums[at] * weight[i] / std::sqrt(squares / hidden + eps);
            expect(name, to_float(out[at]), wanted, ROUNDING<A> * std::fabs(wanted) + 4e-6);
        }
    }
}

} // namespace

void check_norm() {
    Random random{13};
    for (const unsigned hidden : {4u, 64u, 576u, 1024u, 1028u, 4096u})
        for (unsigned bits = 0; bits < 8; ++bits) {
            run<float>(hidden, bits & 1, bits & 2, bits & 4, norm_float, random);
            if (bits == 7) run<f16>(hidden, true, true, true, norm_f16, random);
            if (bits == 5) run<bf16>(hidden, true, false, true, norm_bf16, random);
        }
}
