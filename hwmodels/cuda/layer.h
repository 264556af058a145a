// A layer's buffers and its launches, on a device or emulated.
#ifndef MOE_LAYER_H
#define MOE_LAYER_H

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#ifdef MOE_EMULATE
inline void* device_new(size_t bytes) {
    void* p = 0;
    if (posix_memalign(&p, 256, bytes ? bytes : 256)) abort();
    memset(p, 0xee, bytes);
    return p;
}
inline void device_delete(void* p) { free(p); }
inline void to_device(void* to, const void* from, size_t bytes) { memcpy(to, from, bytes); }
inline void to_host(void* to, const void* from, size_t bytes) { memcpy(to, from, bytes); }
inline void device_zero(void* to, size_t bytes) { memset(to, 0, bytes); }
#else
#define MOE_CHECK(call)                                                                                         \
    do {                                                                                                        \
        cudaError_t e_ = (call);                                                                                \
        if (e_ != cudaSuccess) {                                                                                \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(e_));              \
            exit(1);                                                                                            \
        }                                                                                                       \
    } while (0)
inline void* device_new(size_t bytes) {
    void* p = 0;
    MOE_CHECK(cudaMalloc(&p, bytes ? bytes : 256));
    return p;
}
inline void device_delete(void* p) { MOE_CHECK(cudaFree(p)); }
inline void to_device(void* to, const void* from, size_t bytes) { MOE_CHECK(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice)); }
inline void to_host(void* to, const void* from, size_t bytes) { MOE_CHECK(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost)); }
inline void device_zero(void* to, size_t bytes) { MOE_CHECK(cudaMemset(to, 0, bytes)); }
#define MOE_LAUNCH(kernel, grid, block, bytes, ...)          \
    do {                                                     \
        kernel<<<grid, block, bytes, 0>>>(__VA_ARGS__);      \
        MOE_CHECK(cudaGetLastError());                       \
    } while (0)
#endif

// Threads of a block that sorts.
#define MOE_SORT_THREADS 256

// Owns what a layer needs beside x, selections and weights.
struct MoeLayer {
    MoeParams p;
    // Tall tiles of BF16 weights by products of warpgroups.
    bool wgmma = false;
    std::vector<void*> owned;

    template <typename T> address buffer(size_t count) {
        owned.push_back(device_new(count * sizeof(T)));
        return (address)owned.back();
    }
    template <typename T> address given(const std::vector<T>& v) {
        address a = buffer<T>(v.size());
        to_device((void*)a, v.data(), v.size() * sizeof(T));
        return a;
    }
    MoeLayer(int tokens, int top_k, int hidden, int routed, int shared, int widest, int blocks, int fp8) {
        memset(&p, 0, sizeof p);
        p.tokens = tokens;
        p.top_k = top_k;
        p.hidden = hidden;
        p.routed = routed;
        p.shared = shared;
        p.widest = widest;
        p.blocks = blocks;
        p.fp8 = fp8;
        int experts = routed + shared;
        size_t rows = (size_t)tokens * (top_k + shared);
        p.row_start = buffer<int>(experts + 1);
        p.up_start = buffer<int>(experts + 1);
        p.down_start = buffer<int>(experts + 1);
        p.splits = buffer<int>(2);
        p.row_token = buffer<int>(rows);
        p.row_of = buffer<int>((size_t)tokens * top_k);
        p.h = buffer<bf16>(rows * widest);
        p.y = buffer<bf16>(rows * hidden);
        p.out = buffer<float>((size_t)tokens * hidden);
        p.partial = buffer<float>((size_t)blocks * MOE_MANY * MOE_COLUMNS);
        p.done = buffer<int>(blocks);
        device_zero((void*)p.done, blocks * sizeof(int));
    }
    ~MoeLayer() {
        for (void* b : owned) device_delete(b);
    }
    MoeLayer(const MoeLayer&) = delete;

    // Whether products of warpgroups were compiled for this device.
    static bool knows_groups() {
        unsigned *out = (unsigned*)device_new(4), knows = 0;
        MOE_LAUNCH(moe_knows, 1, 32, 0, out);
        to_host(&knows, out, 4);
        device_delete(out);
        return knows == 1;
    }

    void sort() {
        MOE_LAUNCH(moe_count, p.routed, MOE_SORT_THREADS, 0, p);
        MOE_LAUNCH(moe_scan, 1, MOE_MOST_EXPERTS, 0, p);
        MOE_LAUNCH(moe_permute, p.routed + p.shared, MOE_SORT_THREADS, 0, p);
    }
    void up() {
        if (p.fp8) MOE_LAUNCH(moe_up_fp8, p.blocks, MOE_THREADS, MOE_SHARED_BYTES, p);
        else if (wgmma) MOE_LAUNCH(moe_up_wgmma, p.blocks, MOE_THREADS, MOE_SHARED_BYTES, p);
        else MOE_LAUNCH(moe_up_bf16, p.blocks, MOE_THREADS, MOE_SHARED_BYTES, p);
    }
    void down() {
        if (p.fp8) MOE_LAUNCH(moe_down_fp8, p.blocks, MOE_THREADS, MOE_SHARED_BYTES, p);
        else if (wgmma) MOE_LAUNCH(moe_down_wgmma, p.blocks, MOE_THREADS, MOE_SHARED_BYTES, p);
        else MOE_LAUNCH(moe_down_bf16, p.blocks, MOE_THREADS, MOE_SHARED_BYTES, p);
    }
    void combine() { MOE_LAUNCH(moe_combine, p.tokens, 256, 0, p); }
    void run() {
        sort();
        up();
        down();
        combine();
    }
};

#endif
