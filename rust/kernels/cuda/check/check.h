// What the checks share: numbers, memory with guards behind it, and the count of what went wrong.
#pragma once

#include "../device.cuh"

#include <algorithm>
#include <string>

// Numbers that depend on nothing but their order.
struct Random {
    uint64_t state;

    uint32_t bits() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return uint32_t(state >> 33);
    }
    // In [0, n).
    unsigned below(unsigned n) { return bits() % n; }
    // In [-1, 1).
    float number() { return float(bits()) / float(1u << 30) - 1; }
    // Nearly normal.
    float normal() { return (number() + number() + number() + number()) * 0.866f; }
};

// Memory whose end is the end of what may be touched, as near as its alignment allows. It begins as NaN.
template <typename T> struct Guarded {
    T* data;
    size_t len;

    explicit Guarded(size_t n) : len(n) {
        const size_t page = 4096, bytes = (n * sizeof(T) + 15) / 16 * 16, pages = (bytes + page - 1) / page * page;
        auto* const room = static_cast<unsigned char*>(mmap(nullptr, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        mprotect(room + pages, page, PROT_NONE);
        std::memset(room, 0xff, pages);
        data = reinterpret_cast<T*>(room + pages - bytes);
        base = room;
        taken = pages + page;
    }
    explicit Guarded(const std::vector<T>& values) : Guarded(values.size()) {
        std::copy(values.begin(), values.end(), data);
    }
    Guarded(const Guarded&) = delete;
    ~Guarded() { munmap(base, taken); }
    T& operator[](size_t i) { return data[i]; }

  private:
    void* base;
    size_t taken;
};

inline unsigned num_wrong = 0;
inline unsigned num_cases = 0;
// Where the checks are, for the files beside them.
inline std::string directory = ".";

// Notes a difference that is larger than it may be.
inline void expect(const std::string& name, double found, double wanted, double bound) {
    if (std::fabs(found - wanted) <= bound) return;
    if (++num_wrong <= 20) std::printf("%s: %.9g, not %.9g (within %.3g)\n", name.c_str(), found, wanted, bound);
}

// How much a number of type T may be off by rounding, as a share of it.
template <typename T> constexpr double ROUNDING = 0;
template <> inline constexpr double ROUNDING<float> = 0x1p-24;
template <> inline constexpr double ROUNDING<f16> = 0x1p-11;
template <> inline constexpr double ROUNDING<bf16> = 0x1p-8;

void check_attention();
void check_rope();
void check_norm();
void check_gate();
void check_product();
void check_route();
void check_draw();
