// Biases, norms on heads, turns and the way into the cache, in float64.

#include "check.h"

#include "../rope.cu"

namespace {

struct Case {
    unsigned rows, heads, kv_heads, head_dim, dim;
    bool is_interleaved, has_bias, has_norm;
};

template <typename A, typename T> void run(const Case& c, void (*kernel)(Rope), Random& random) {
    ++num_cases;
    emulator::is_backwards = num_cases % 2 == 0;
    const unsigned D = c.head_dim, half = c.dim / 2, num_angles = 9, num_slots = 2 * c.rows + 3;
    const auto numbers = [&](auto& of) {
        for (size_t i = 0; i < of.len; ++i) of[i] = from_float<std::remove_reference_t<decltype(of[0])>>(random.normal());
    };
    // q, k and v side by side, as one product leaves them
    const unsigned stride = (c.heads + 2 * c.kv_heads) * D;
    Guarded<A> product(size_t(c.rows) * stride);
    Guarded<float> q_bias(c.heads * D), k_bias(c.kv_heads * D), v_bias(c.kv_heads * D), q_norm(D), k_norm(D), cos(num_angles * half), sin(cos.len);
    numbers(product), numbers(q_bias), numbers(k_bias), numbers(v_bias), numbers(q_norm), numbers(k_norm), numbers(cos), numbers(sin);
    Guarded<uint32_t> angles(c.rows), slots(c.rows);
    for (unsigned i = 0; i < c.rows; ++i) {
        angles[i] = random.below(num_angles);
        slots[i] = (2 * i + 3) % num_slots;
    }
    Guarded<T> queries(size_t(c.rows) * c.heads * D), keys(size_t(num_slots) * c.kv_heads * D), values(keys.len);
    const float eps = 1e-3f;
    const auto given = [](bool is_there, Guarded<float>& of) { return is_there ? of.data : nullptr; };
    const Rope p = {product.data, product.data + c.heads * D, product.data + (c.heads + c.kv_heads) * D, queries.data, keys.data, values.data,
                    given(c.has_bias, q_bias), given(c.has_bias, k_bias), given(c.has_bias, v_bias), given(c.has_norm, q_norm), given(c.has_norm, k_norm),
                    cos.data, sin.data, c.dim > 0 ? angles.data : nullptr, slots.data, stride, stride, stride, c.heads, c.kv_heads, D, c.dim, c.is_interleaved, eps};
    emulator::launch({c.rows, (c.heads + 2 * c.kv_heads + 3) / 4, 1}, 128, 0, [&] { kernel(p); });

    const auto check = [&](const char* what, unsigned row, unsigned head, const A* from, const float* bias, const float* norm, bool turns, const T* found) {
        std::vector<double> x(D);
        double squares = 0;
        for (unsigned d = 0; d < D; ++d) {
            x[d] = to_float(from[head * D + d]) + (bias ? double(bias[head * D + d]) : 0);
            squares += x[d] * x[d];
        }
        if (norm)
            for (unsigned d = 0; d < D; ++d) x[d] *= norm[d] / std::sqrt(squares / D + eps);
        std::vector<double> turned = x;
        for (unsigned i = 0; turns && i < half; ++i) {
            const unsigned a = c.is_interleaved ? 2 * i : i, b = c.is_interleaved ? 2 * i + 1 : i + half;
            const double co = cos[angles[row] * half + i], si = sin[angles[row] * half + i];
            turned[a] = x[a] * co - x[b] * si;
            turned[b] = x[b] * co + x[a] * si;
        }
        for (unsigned d = 0; d < D; ++d) {
            const std::string name = std::string(what) + " case " + std::to_string(num_cases) + " row " + std::to_string(row) + " at " + std::to_string(d);
            expect(name, to_float(found[head * D + d]), turned[d], ROUNDING<T> * std::fabs(turned[d]) + 2e-6);
        }
    };
    for (unsigned row = 0; row < c.rows; ++row) {
        const A* const from = product.data + size_t(row) * stride;
        for (unsigned h = 0; h < c.heads; ++h) check("query", row, h, from, p.q_bias, p.q_norm, c.dim > 0, queries.data + size_t(row) * c.heads * D);
        for (unsigned h = 0; h < c.kv_heads; ++h) {
            check("key", row, h, from + c.heads * D, p.k_bias, p.k_norm, c.dim > 0, keys.data + size_t(slots[row]) * c.kv_heads * D);
            check("value", row, h, from + (c.heads + c.kv_heads) * D, p.v_bias, nullptr, false, values.data + size_t(slots[row]) * c.kv_heads * D);
        }
    }
}

} // namespace

void check_rope() {
    Random random{12};
    const std::vector<Case> cases = {
        {3, 4, 2, 64, 64, false, false, false},  {2, 3, 1, 128, 128, false, false, true}, {5, 2, 2, 64, 64, true, true, false},
        {2, 2, 1, 96, 96, false, false, false},  {3, 2, 1, 256, 64, false, true, true},   {1, 7, 1, 80, 32, true, false, true},
        {4, 2, 1, 256, 256, false, false, true}, {2, 4, 4, 64, 0, false, false, false},   {2, 4, 2, 16, 16, false, true, true},
    };
    for (const Case& c : cases) {
        run<float, f16>(c, rope_float_f16, random);
        run<bf16, bf16>(c, rope_bf16_bf16, random);
        run<f16, bf16>(c, rope_f16_bf16, random);
    }
}
