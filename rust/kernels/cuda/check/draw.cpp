// Draws against their definition, and against what the host's sampler gave (draws.txt, which that
// sampler's own test holds it to).

#include "check.h"

#include "../draw.cu"

namespace {

struct Asked {
    unsigned row;
    float temperature;
    double number;
};

std::vector<uint32_t> run(const std::vector<float>& logits, unsigned vocab, const std::vector<Asked>& draws) {
    ++num_cases;
    emulator::is_backwards = num_cases % 2 == 0;
    const unsigned num = draws.size(), stretches = (vocab + STRETCH - 1) / STRETCH;
    Guarded<float> values(logits), temperatures(num), highest(num * stretches);
    Guarded<uint32_t> rows(num), tokens(num), places(num * stretches);
    Guarded<double> numbers(num), sums(num * stretches);
    for (unsigned i = 0; i < num; ++i) {
        rows[i] = draws[i].row;
        temperatures[i] = draws[i].temperature;
        numbers[i] = draws[i].number;
    }
    const Draw p = {values.data, rows.data, temperatures.data, numbers.data, tokens.data, highest.data, places.data, sums.data, vocab, stretches};
    constexpr size_t BYTES = STRETCH * sizeof(float) + 4096;
    emulator::launch({stretches, num, 1}, STRETCH, BYTES, [&] { draw_highest(p); });
    emulator::launch({stretches, num, 1}, STRETCH, BYTES, [&] { draw_weigh(p); });
    emulator::launch({1, num, 1}, STRETCH, BYTES, [&] { draw_choose(p); });
    return {tokens.data, tokens.data + num};
}

void expect_token(const char* what, uint32_t found, uint32_t wanted) { expect(what, found, wanted, 0); }

} // namespace

void check_draw() {
    Random random{16};
    for (const unsigned vocab : {1u, 17u, 1000u, 1024u, 3000u}) {
        std::vector<float> logits(3 * vocab);
        for (float& l : logits) l = random.normal() * 4;
        // two of the highest
        for (unsigned r = 0; r < 3; ++r) logits[r * vocab + random.below(vocab)] = logits[r * vocab + random.below(vocab)] = 20;
        std::vector<Asked> draws;
        for (unsigned i = 0; i < 12; ++i) draws.push_back({i % 3, i % 4 == 0 ? 0 : 0.5f + i, (random.bits() + 0.5) / 0x1p31});
        const auto tokens = run(logits, vocab, draws);
        for (unsigned i = 0; i < draws.size(); ++i) {
            const float* const row = logits.data() + draws[i].row * vocab;
            const uint32_t first = std::max_element(row, row + vocab) - row;
            if (draws[i].temperature == 0) {
                expect_token("greedy", tokens[i], first);
                continue;
            }
            double total = 0, before = 0;
            for (unsigned t = 0; t < vocab; ++t) total += std::exp((double(row[t]) - row[first]) / draws[i].temperature);
            for (unsigned t = 0; t < tokens[i] && t < vocab; ++t) before += std::exp((double(row[t]) - row[first]) / draws[i].temperature);
            const double share = tokens[i] < vocab ? std::exp((double(row[tokens[i]]) - row[first]) / draws[i].temperature) : -1;
            // the number falls into the token's share of the weights
            expect("draw", draws[i].number, (before + share / 2) / total, (share / 2) / total + 1e-6);
        }
    }
    const float none = -INFINITE, nan = __builtin_nanf("");
    expect_token("not a number", run({1, nan, 2}, 3, {{0, 1, 0.5}})[0], NOT_NUMBERS);
    expect_token("not a number, greedy", run({1, 2, nan}, 3, {{0, 0, 0}})[0], NOT_NUMBERS);
    expect_token("no token", run({none, none}, 2, {{0, 1, 0.5}})[0], NO_TOKEN);
    expect_token("no token, greedy", run({none, none}, 2, {{0, 0, 0}})[0], NO_TOKEN);
    expect_token("infinite", run({1, INFINITE, 2, INFINITE}, 4, {{0, 1, 0.75}})[0], 3);
    expect_token("nearly no temperature", run({1, 3, 2}, 3, {{0, 1e-45f, 0.9}})[0], 1);

    FILE* const file = std::fopen((directory + "/draws.txt").c_str(), "r");
    if (!file) {
        expect("draws.txt", 0, 1, 0);
        return;
    }
    unsigned vocab, seed, token, num = 0;
    unsigned long long number;
    float temperature;
    while (std::fscanf(file, "%u %u %f %llu %u", &vocab, &seed, &temperature, &number, &token) == 5) {
        std::vector<float> logits(vocab);
        for (unsigned t = 0; t < vocab; ++t) {
            uint32_t h = (t + seed * 7919) * 2654435761u;
            h ^= h >> 15;
            h *= 2246822519u;
            h ^= h >> 13;
            logits[t] = float(h & 0xffff) / 4096 - 8;
        }
        expect_token("as the sampler", run(logits, vocab, {{0, temperature, double(number) * 0x1p-53}})[0], token);
        ++num;
    }
    std::fclose(file);
    expect("draws in draws.txt", num >= 40, 1, 0);
}
