// The kernels on one host thread: what ptx.cuh and CUDA give them, so that a C++ compiler makes a program of moe.cu which checks
// their indices, barriers and copies without a device. Threads of a block are fibers that give way at barriers and at what a warp
// does together; blocks run one after another.
//
// Asynchronous copies happen either at once or as late as the kernel allows (when it waits for them), by `emulator.late`: a wait
// that is missing shows in the second, a stage that is overwritten too early in the first.
#ifndef MOE_EMULATE_H
#define MOE_EMULATE_H

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define MOE_DYNAMIC_SHARED(name) unsigned char* name = emulator.shared.data()

struct Three {
    int x = 0, y = 0, z = 0;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static Three threadIdx, blockIdx, blockDim, gridDim;

struct Copy {
    void* to;
    const void* from;
};

struct Lane {
    const void *row, *other;
    float (*sums)[4];
    unsigned a[4], b[2];
    float c[4];
    unsigned out[4], value;
};

// Products of a warpgroup, as one of its warps sees them: its rows of a, all of b; where its lanes' sums are.
struct GroupProduct {
    const void *a, *b;
    float (*sums[32])[4];
};

struct Warp {
    std::vector<GroupProduct> open;
    int arrived = 0;
    unsigned turn = 0;
    Lane lanes[32];
};

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> groups;
    // Copies arrived that products of warpgroups do not see yet.
    bool unseen = false;
    bool ended = false;
};

struct Emulator {
    bool late = true;
    std::vector<unsigned char> shared;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    ucontext_t home;
    std::function<void()> kernel;
    int now = 0, live = 0, arrived = 0;
    unsigned turn = 0;

    void give_way() { swapcontext(&fibers[now].context, &home); }
    // All that live have arrived: on.
    void release() {
        if (live > 0 && arrived == live) {
            arrived = 0;
            turn++;
        }
    }
    void barrier() {
        unsigned mine = turn;
        arrived++;
        release();
        while (turn == mine) give_way();
    }
    Lane& lane() { return warps[now / 32].lanes[now % 32]; }
    // What a warp does together: the last that arrives does it for all.
    void together(void (*all)(Warp&)) {
        Warp& w = warps[now / 32];
        unsigned mine = w.turn;
        if (++w.arrived == 32) {
            all(w);
            w.arrived = 0;
            w.turn++;
        }
        while (w.turn == mine) give_way();
    }
    static void enter();
    void launch(int grid, int block, size_t bytes, std::function<void()> body) {
        if (block % 32 != 0) {
            fprintf(stderr, "blocks are whole warps\n");
            exit(2);
        }
        kernel = body;
        gridDim.x = grid;
        blockDim.x = block;
        for (int b = 0; b < grid; b++) {
            blockIdx.x = b;
            // What the last block left in shared memory is nobody's.
            shared.assign(bytes, 0xcd);
            warps.assign((block + 31) / 32, Warp());
            if ((int)fibers.size() < block) fibers.resize(block);
            live = block;
            arrived = 0;
            for (int i = 0; i < block; i++) {
                Fiber& f = fibers[i];
                const size_t size = 256 << 10;
                if (!f.stack) f.stack.reset(new char[size]);
                f.ended = f.unseen = false;
                getcontext(&f.context);
                f.context.uc_stack.ss_sp = f.stack.get();
                f.context.uc_stack.ss_size = size;
                f.context.uc_link = &home;
                makecontext(&f.context, (void (*)())enter, 0);
            }
            long turns = 0;
            while (live > 0) {
                for (int i = 0; i < block; i++) {
                    if (fibers[i].ended) continue;
                    now = i;
                    threadIdx.x = i;
                    swapcontext(&home, &fibers[i].context);
                }
                if (++turns > 100000000) {
                    fprintf(stderr, "a block does not end\n");
                    exit(2);
                }
            }
        }
    }
};

static Emulator emulator;

void Emulator::enter() {
    emulator.kernel();
    Fiber& f = emulator.fibers[emulator.now];
    if (!f.open.empty() || !f.groups.empty()) {
        // Copies that nobody waited for would come after the block's end.
        for (auto& g : f.groups)
            if (!g.empty()) {
                fprintf(stderr, "a thread ended before its copies\n");
                exit(2);
            }
        f.groups.clear();
    }
    f.ended = true;
    emulator.live--;
    emulator.release();
}

inline void __syncthreads() { emulator.barrier(); }
inline void __syncwarp() {
    emulator.together([](Warp&) {});
}
inline void __threadfence() {}
inline int atomicAdd(int* at, int value) {
    int old = *at;
    *at += value;
    return old;
}
template <typename T> inline T __shfl_xor_sync(unsigned, T value, int mask) {
    Lane& own = emulator.lane();
    static_assert(sizeof(T) == 4, "32 bits");
    memcpy(&own.value, &value, 4);
    own.a[0] = mask;
    emulator.together([](Warp& w) {
        for (int i = 0; i < 32; i++) w.lanes[i].out[0] = w.lanes[i ^ w.lanes[i].a[0]].value;
    });
    T out;
    memcpy(&out, &own.out[0], 4);
    return out;
}
inline unsigned __ballot_sync(unsigned, bool vote) {
    Lane& own = emulator.lane();
    own.value = vote;
    emulator.together([](Warp& w) {
        unsigned all = 0;
        for (int i = 0; i < 32; i++) all |= w.lanes[i].value << i;
        for (int i = 0; i < 32; i++) w.lanes[i].out[0] = all;
    });
    return own.out[0];
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

inline float from_bits(unsigned x) {
    float f;
    memcpy(&f, &x, 4);
    return f;
}
inline unsigned to_bits(float f) {
    unsigned x;
    memcpy(&x, &f, 4);
    return x;
}
inline float exponential(float x) { return std::exp(x); }

inline void copy_now(const Copy& c) {
    if (((uintptr_t)c.to | (uintptr_t)c.from) % 16 != 0) {
        fprintf(stderr, "a copy of 16 bytes is not aligned\n");
        exit(2);
    }
    unsigned char* shared = emulator.shared.data();
    if (c.to < shared || (unsigned char*)c.to + 16 > shared + emulator.shared.size()) {
        fprintf(stderr, "a copy leaves shared memory\n");
        exit(2);
    }
    if (c.from) memcpy(c.to, c.from, 16);
    else memset(c.to, 0, 16);
}
inline void copy16(void* to, const void* from, bool some) {
    Copy c = {to, some ? from : nullptr};
    if (emulator.late) emulator.fibers[emulator.now].open.push_back(c);
    else copy_now(c);
}
inline void copy_commit() {
    Fiber& f = emulator.fibers[emulator.now];
    f.groups.push_back(std::move(f.open));
    f.open.clear();
}
template <int N> inline void copy_wait() {
    Fiber& f = emulator.fibers[emulator.now];
    while ((int)f.groups.size() > N) {
        f.unseen |= !f.groups.front().empty();
        for (const Copy& c : f.groups.front()) copy_now(c);
        f.groups.pop_front();
    }
}

inline void load_matrices(unsigned (&r)[4], const void* row) {
    Lane& own = emulator.lane();
    own.row = row;
    emulator.together([](Warp& w) {
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 4; i++) w.lanes[l].out[i] = ((const unsigned*)w.lanes[8 * i + l / 4].row)[l % 4];
    });
    for (int i = 0; i < 4; i++) r[i] = own.out[i];
}

inline float half_of(unsigned x, int high) { return from_bits(high ? x & 0xffff0000u : x << 16); }

inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    Lane& own = emulator.lane();
    for (int i = 0; i < 4; i++) {
        own.a[i] = a[i];
        own.c[i] = c[i];
    }
    own.b[0] = b0;
    own.b[1] = b1;
    emulator.together([](Warp& w) {
        float a[16][16], b[16][8];
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 4; i++)
                for (int h = 0; h < 2; h++) {
                    a[l / 4 + 8 * (i % 2)][2 * (l % 4) + h + 8 * (i / 2)] = half_of(w.lanes[l].a[i], h);
                    if (i < 2) b[2 * (l % 4) + h + 8 * i][l / 4] = half_of(w.lanes[l].b[i], h);
                }
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 4; i++) {
                int row = l / 4 + 8 * (i / 2), column = 2 * (l % 4) + i % 2;
                for (int k = 0; k < 16; k++) w.lanes[l].c[i] += a[row][k] * b[k][column];
            }
    });
    for (int i = 0; i < 4; i++) c[i] = own.c[i];
}

#define MOE_GROUPS 1
inline void copies_to_groups() { emulator.fibers[emulator.now].unseen = false; }
inline void group_begin() {}
// Element (row, k) of 16 columns that a descriptor names: rows of 128 bytes, eights of them 1,024 apart, pieces of 16 bytes exchanged by
// the row within the eight, which the hardware takes from the address.
inline float described(const void* from, int row, int k) {
    size_t at = (const unsigned char*)from - emulator.shared.data() + row / 8 * 1024 + row % 8 * 128 + 2 * k;
    at ^= (at >> 7 & 7) << 4;
    return from_bits((unsigned)*(const unsigned short*)(emulator.shared.data() + at) << 16);
}
inline void group_do(int warp, const GroupProduct& g) {
    for (int l = 0; l < 32; l++)
        for (int n = 0; n < 16; n++)
            for (int i = 0; i < 4; i++) {
                int row = 16 * (warp % 4) + l / 4 + 8 * (i / 2), column = 8 * n + 2 * (l % 4) + i % 2;
                for (int k = 0; k < 16; k++) g.sums[l][n][i] += described(g.a, row, k) * described(g.b, column, k);
            }
}
// At once, or when it is waited for: the same two extremes as for copies.
inline void group_multiply(float (&c)[16][4], const void* a, const void* b) {
    for (Fiber& f : emulator.fibers)
        if (f.unseen) {
            fprintf(stderr, "products of a warpgroup read what they may not see yet\n");
            exit(2);
        }
    Lane& own = emulator.lane();
    own.row = a;
    own.other = b;
    own.sums = c;
    emulator.together([](Warp& w) {
        GroupProduct g = {w.lanes[0].row, w.lanes[0].other, {}};
        for (int l = 0; l < 32; l++) g.sums[l] = w.lanes[l].sums;
        if (emulator.late) w.open.push_back(g);
        else group_do(emulator.now / 32, g);
    });
}
template <int M> inline void group_wait(float (&)[M][16][4]) {
    emulator.together([](Warp& w) {
        for (const GroupProduct& g : w.open) group_do(emulator.now / 32, g);
        w.open.clear();
    });
}

// The nearest BF16, the even one among equals.
inline unsigned short bf16_of(float f) {
    unsigned x = to_bits(f);
    if (f != f) return (unsigned short)(x >> 16 | 0x40);
    return (unsigned short)((x + 0x7fff + (x >> 16 & 1)) >> 16);
}
inline unsigned pack(float low, float high) { return bf16_of(low) | (unsigned)bf16_of(high) << 16; }
inline unsigned scale_up(unsigned x) {
    const float by = from_bits(0x7b800000u);
    return to_bits(half_of(x, 0) * by) >> 16 | (to_bits(half_of(x, 1) * by) & 0xffff0000u);
}
inline unsigned select_bytes(unsigned a, unsigned b, unsigned which) {
    uint64_t all = (uint64_t)b << 32 | a;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) out |= (unsigned)(all >> (8 * (which >> (4 * i) & 7)) & 0xff) << (8 * i);
    return out;
}

#define MOE_LAUNCH(kernel, grid, block, bytes, ...) emulator.launch(grid, block, bytes, [&]() { kernel(__VA_ARGS__); })

#endif
