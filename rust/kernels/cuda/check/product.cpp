// Products of few rows in float64.

#include "check.h"

#include "../product.cu"

namespace {

template <typename T, typename O> void run(unsigned rows, unsigned outputs, unsigned cols, unsigned stack, unsigned repeats, void (*kernel)(Product), Random& random) {
    ++num_cases;
    Guarded<T> x(size_t(rows / repeats) * cols), matrix(size_t(std::max(stack, 1u)) * outputs * cols);
    Guarded<O> out(size_t(rows) * outputs);
    Guarded<uint32_t> which(rows);
    for (size_t i = 0; i < x.len; ++i) x[i] = from_float<T>(random.normal());
    for (size_t i = 0; i < matrix.len; ++i) matrix[i] = from_float<T>(random.normal());
    for (unsigned i = 0; i < rows; ++i) which[i] = stack > 0 ? random.below(stack) : 0;
    const Product p = {x.data, matrix.data, out.data, stack > 0 ? which.data : nullptr, rows, outputs, cols, repeats};
    emulator::launch({(outputs + 7) / 8, stack > 0 ? rows : (rows + ROWS - 1) / ROWS, 1}, 128, 0, [&] { kernel(p); });
    for (unsigned r = 0; r < rows; ++r)
        for (unsigned o = 0; o < outputs; ++o) {
            double wanted = 0, size = 0;
            for (unsigned i = 0; i < cols; ++i) {
                const double part = double(to_float(x[size_t(r / repeats) * cols + i])) * to_float(matrix[(size_t(which[r]) * outputs + o) * cols + i]);
                wanted += part;
                size += std::fabs(part);
            }
            expect("product case " + std::to_string(num_cases), to_float(out[size_t(r) * outputs + o]), wanted, ROUNDING<O> * std::fabs(wanted) + 2e-6 * size);
        }
}

} // namespace

void check_product() {
    Random random{15};
    for (const unsigned outputs : {1u, 8u, 19u})
        for (const unsigned cols : {8u, 256u, 584u}) {
            run<f16, f16>(1, outputs, cols, 0, 1, product_f16_f16, random);
            run<bf16, float>(6, outputs, cols, 0, 1, product_bf16_float, random);
            run<f16, float>(6, outputs, cols, 5, 2, product_f16_float, random);
            run<bf16, bf16>(3, outputs, cols, 2, 1, product_bf16_bf16, random);
        }
}
