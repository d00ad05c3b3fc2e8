// The device on the host: one fiber a thread, and each primitive as the PTX documentation defines it.
//
// What would go unseen on hardware is made to show. A copy that is under way leaves NaN where it goes
// until it is waited for. Blocks run forwards and backwards (`order`), so that a missing barrier changes
// the result. Threads that wait at different barriers end the program, as does an address that a copy or
// a matrix load may not have.
#pragma once

#include <csetjmp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>

#define DEVICE inline
#define KERNEL(threads) inline void
#define SHARED(name) unsigned char* const name = emulator::shared
#define UNROLL

struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};

inline float from_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline uint32_t to_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return from_bits(uint32_t(x.bits) << 16); }
inline float to_float(f16 x) {
    const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
    if (exponent == 31) return from_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) return from_bits(sign | to_bits(std::ldexp(float(mantissa), -24)));
    return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

template <typename T> T from_float(float x);
template <> inline float from_float<float>(float x) { return x; }
// Both round to the nearest, to the even one of two.
template <> inline bf16 from_float<bf16>(float x) {
    const uint32_t bits = to_bits(x);
    if (x != x) return {0x7fff};
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <> inline f16 from_float<f16>(float x) {
    const uint16_t sign = to_bits(x) >> 16 & 0x8000;
    const float size = std::fabs(x);
    if (x != x) return {0x7fff};
    if (size >= 65520.0f) return {uint16_t(sign | 0x7c00)};
    if (size < 0x1p-14f) return {uint16_t(sign | uint16_t(std::nearbyint(std::ldexp(size, 24))))};
    const uint32_t bits = to_bits(size);
    return {uint16_t(sign | (((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10)))};
}

struct Index {
    unsigned x, y, z;
};
inline Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "block %u,%u thread %u: %s\n", blockIdx.x, blockIdx.y, threadIdx.x, what);
    std::exit(2);
}

struct Copy {
    void* to;
    const void* from;
    bool is_there;
};

// Threads that meet.
struct Barrier {
    unsigned arrived = 0, turn = 0;
};

struct Slot {
    float numbers[12];
    uint32_t words[4];
    const void* address;
};

// A warp's exchange: two sets, so that a lane that is ahead does not overwrite what others still read.
struct Warp {
    Barrier barrier;
    Slot slots[2][32];
};

struct Fiber {
    ucontext_t start;
    jmp_buf resume;
    bool has_begun, is_done;
    unsigned exchanges;
    std::vector<std::vector<Copy>> groups;
    std::vector<Copy> open;
};

constexpr size_t STACK = 256 << 10;

inline unsigned char* shared;
inline std::vector<Fiber> fibers;
inline std::vector<Warp> warps;
inline Barrier block;
inline jmp_buf scheduler;
inline unsigned current;
inline unsigned long progress;
inline bool is_backwards;
inline const std::function<void()>* body;

inline void yield() {
    if (!_setjmp(fibers[current].resume)) _longjmp(scheduler, 1);
}

inline void meet(Barrier& barrier, unsigned count) {
    const unsigned turn = barrier.turn;
    if (++barrier.arrived == count) {
        barrier.arrived = 0;
        ++barrier.turn;
        ++progress;
        return;
    }
    while (barrier.turn == turn) yield();
}

inline void enter() {
    (*body)();
    fibers[current].is_done = true;
    ++progress;
    _longjmp(scheduler, 1);
}

// Runs one block to its end.
inline void run_block(unsigned threads, unsigned char* stacks) {
    fibers.assign(threads, Fiber{});
    warps.assign((threads + 31) / 32, Warp{});
    block = Barrier{};
    static volatile unsigned place, left;
    static volatile unsigned long before;
    for (unsigned i = 0; i < threads; ++i) {
        Fiber& fiber = fibers[i];
        getcontext(&fiber.start);
        fiber.start.uc_stack.ss_sp = stacks + i * STACK;
        fiber.start.uc_stack.ss_size = STACK;
        fiber.start.uc_link = nullptr;
        makecontext(&fiber.start, enter, 0);
    }
    do {
        left = 0;
        before = progress;
        for (place = 0; place < threads; place = place + 1) {
            current = is_backwards ? threads - 1 - place : place;
            if (fibers[current].is_done) continue;
            left = left + 1;
            threadIdx = {current, 0, 0};
            if (_setjmp(scheduler)) continue;
            if (fibers[current].has_begun) _longjmp(fibers[current].resume, 1);
            fibers[current].has_begun = true;
            setcontext(&fibers[current].start);
        }
        if (left > 0 && progress == before) fail("threads wait for each other");
    } while (left > 0);
}

// A launch of `kernel`, block after block.
inline void launch(Index grid, unsigned threads, size_t shared_bytes, const std::function<void()>& kernel) {
    if (threads % 32 != 0) fail("a launch of parts of warps");
    // what lies behind the block's memory cannot be touched
    const size_t page = 4096, pages = (shared_bytes + page - 1) / page * page;
    auto* const room = static_cast<unsigned char*>(mmap(nullptr, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(room + pages, page, PROT_NONE);
    shared = room + pages - (shared_bytes + 127) / 128 * 128;
    auto* const stacks = static_cast<unsigned char*>(mmap(nullptr, threads * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    body = &kernel;
    gridDim = grid;
    blockDim = {threads, 1, 1};
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = {x, y, z};
                std::memset(room, 0xff, pages);
                run_block(threads, stacks);
            }
    munmap(room, pages + page);
    munmap(stacks, threads * STACK);
}

// Brings what each lane of a warp has before all of them: the slots of the exchange.
template <typename Write> const Slot* share(Write write) {
    Warp& warp = warps[current / 32];
    Slot* const slots = warp.slots[fibers[current].exchanges++ % 2];
    write(slots[current % 32]);
    meet(warp.barrier, 32);
    return slots;
}

inline const Slot* share_rows(const void* row) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("a matrix row that is not aligned");
    return share([&](Slot& slot) { slot.address = row; });
}

inline uint16_t matrix_at(const Slot* slots, unsigned matrix, unsigned row, unsigned column) {
    uint16_t bits;
    std::memcpy(&bits, static_cast<const char*>(slots[8 * matrix + row].address) + 2 * column, sizeof bits);
    return bits;
}

inline void perform(const Copy& copy) {
    if (copy.is_there) std::memcpy(copy.to, copy.from, 16);
    else std::memset(copy.to, 0, 16);
}

} // namespace emulator

inline void sync_block() { emulator::meet(emulator::block, blockDim.x); }
inline void sync_warp() { emulator::meet(emulator::warps[emulator::current / 32].barrier, 32); }

inline float exchange(float x, int bits) {
    const auto* slots = emulator::share([&](emulator::Slot& slot) { slot.numbers[0] = x; });
    return slots[(emulator::current % 32) ^ bits].numbers[0];
}
inline unsigned exchange(unsigned x, int bits) {
    const auto* slots = emulator::share([&](emulator::Slot& slot) { slot.words[0] = x; });
    return slots[(emulator::current % 32) ^ bits].words[0];
}

inline float exp2_fast(float x) { return std::exp2(x); }
inline float mul_exact(float a, float b) { return a * b; }
inline float add_exact(float a, float b) { return a + b; }
inline double mul_exact(double a, double b) { return a * b; }

inline void copy_16(void* shared, const void* global, bool is_there) {
    if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 || reinterpret_cast<uintptr_t>(global) % 16 != 0)
        emulator::fail("a copy that is not aligned");
    std::memset(shared, 0xff, 16);
    emulator::fibers[emulator::current].open.push_back({shared, global, is_there});
}
inline void copy_commit() {
    auto& fiber = emulator::fibers[emulator::current];
    fiber.groups.push_back(std::move(fiber.open));
    fiber.open.clear();
}
template <int N> void copy_wait() {
    auto& groups = emulator::fibers[emulator::current].groups;
    while (groups.size() > N) {
        for (const auto& copy : groups.front()) emulator::perform(copy);
        groups.erase(groups.begin());
    }
}

// Thread `i` gets row `i / 4`, columns `2 (i % 4)` and the next, of each matrix.
inline void load_matrices(uint32_t (&r)[4], const void* row) {
    const auto* slots = emulator::share_rows(row);
    const unsigned lane = emulator::current % 32;
    for (unsigned m = 0; m < 4; ++m) {
        const unsigned column = 2 * (lane % 4);
        r[m] = emulator::matrix_at(slots, m, lane / 4, column) | uint32_t(emulator::matrix_at(slots, m, lane / 4, column + 1)) << 16;
    }
    sync_warp();
}
// Of the transposed matrix: row `2 (i % 4)` and the next, column `i / 4`.
inline void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
    const auto* slots = emulator::share_rows(row);
    const unsigned lane = emulator::current % 32;
    for (unsigned m = 0; m < 4; ++m) {
        const unsigned first = 2 * (lane % 4);
        r[m] = emulator::matrix_at(slots, m, first, lane / 4) | uint32_t(emulator::matrix_at(slots, m, first + 1, lane / 4)) << 16;
    }
    sync_warp();
}

// mma.m16n8k16. Lane `i`, with g = i / 4 and t = i % 4, holds of a: rows g, g + 8 (registers 0, 1) at
// columns 2t, 2t + 1, and the same rows (2, 3) at columns 2t + 8, 2t + 9; of b: column g, rows 2t, 2t + 1
// (register 0) and 2t + 8, 2t + 9 (1); of d: row g (0, 1) and g + 8 (2, 3), columns 2t, 2t + 1.
template <typename T> void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const auto* slots = emulator::share([&](emulator::Slot& slot) {
        const uint32_t words[6] = {a[0], a[1], a[2], a[3], b0, b1};
        for (unsigned i = 0; i < 12; ++i) slot.numbers[i] = to_float(T{uint16_t(words[i / 2] >> 16 * (i % 2))});
    });
    const unsigned lane = emulator::current % 32;
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = lane / 4 + i / 2 * 8, column = 2 * (lane % 4) + i % 2;
        double sum = d[i];
        for (unsigned k = 0; k < 16; ++k) {
            const unsigned t = k % 8 / 2;
            const float x = slots[row % 8 * 4 + t].numbers[2 * (row / 8 + k / 8 * 2) + k % 2];
            const float y = slots[column * 4 + t].numbers[8 + 2 * (k / 8) + k % 2];
            sum += double(x) * double(y);
        }
        d[i] = float(sum);
    }
}
