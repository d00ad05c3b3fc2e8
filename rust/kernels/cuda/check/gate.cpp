// Activations and rows of an embedding in float64.

#include "check.h"

#include "../gate.cu"

namespace {

double wanted_of(unsigned kind, double g, double u, double alpha, double limit) {
    switch (kind) {
    case 0: return g / (1 + std::exp(-g)) * u;
    case 1: return 0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * u;
    case 2: return 0.5 * g * (1 + std::erf(g / std::sqrt(2.0))) * u;
    default:
        g = std::min(g, limit);
        u = std::clamp(u, -limit, limit);
        return g / (1 + std::exp(-alpha * g)) * (u + 1);
    }
}

template <typename A> void run(unsigned rows, unsigned width, void (*kernel)(Gate), void (*embed)(Embed), Random& random) {
    for (unsigned kind = 0; kind < 4; ++kind) {
        ++num_cases;
        // both products side by side
        Guarded<A> product(size_t(rows) * 2 * width), out(size_t(rows) * width);
        for (size_t i = 0; i < product.len; ++i) product[i] = from_float<A>(random.normal() * 4);
        const Gate p = {product.data, product.data + width, out.data, 2 * width, width, kind, 1.702f, 7.0f};
        emulator::launch({rows, (width / 4 + 255) / 256, 1}, 256, 0, [&] { kernel(p); });
        for (unsigned r = 0; r < rows; ++r)
            for (unsigned i = 0; i < width; ++i) {
                const double g = to_float(product[r * 2 * width + i]), u = to_float(product[r * 2 * width + width + i]);
                const double wanted = wanted_of(kind, g, u, p.alpha, p.limit);
                expect("gate kind " + std::to_string(kind), to_float(out[r * width + i]), wanted, ROUNDING<A> * std::fabs(wanted) + 3e-6 * (1 + std::fabs(u)));
            }
    }
    ++num_cases;
    Guarded<A> table(size_t(11) * width);
    Guarded<uint32_t> ids(rows);
    Guarded<float> out(size_t(rows) * width);
    for (size_t i = 0; i < table.len; ++i) table[i] = from_float<A>(random.normal());
    for (unsigned i = 0; i < rows; ++i) ids[i] = random.below(11);
    const Embed p = {table.data, ids.data, out.data, width, 3.25f};
    emulator::launch({rows, (width / 4 + 255) / 256, 1}, 256, 0, [&] { embed(p); });
    for (size_t i = 0; i < out.len; ++i) expect("embed", out[i], 3.25f * to_float(table[ids[i / width] * width + i % width]), 1e-6);
}

} // namespace

void check_gate() {
    Random random{14};
    for (const unsigned width : {4u, 60u, 1536u}) {
        run<float>(2, width, gate_float, embed_float, random);
        run<f16>(3, width, gate_f16, embed_f16, random);
        run<bf16>(1, width, gate_bf16, embed_bf16, random);
    }
}
