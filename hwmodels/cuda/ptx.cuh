// What the kernels need of the machine, one instruction a function. With MOE_EMULATE, emulate.h has the same functions for one
// host thread, so that the index arithmetic of the kernels is tested where there is no device.
#ifndef MOE_PTX
#define MOE_PTX

#if defined(MOE_EMULATE)
#include "emulate.h"
#else

#define MOE_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

// Copies 16 bytes to shared memory without waiting; zeros if there is nothing to copy.
__device__ __forceinline__ void copy16(void* to, const void* from, bool some) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    int bytes = some ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(at), "l"(from), "r"(bytes));
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;\n"); }
// Waits until at most N groups are on their way.
template <int N> __device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_group %0;\n" ::"n"(N)); }

// Four 8 x 8 matrices of 16-bit elements: lane i names row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(unsigned (&r)[4], const void* row) {
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

// c += a b of 16 x 16 and 16 x 8 in BF16, sums in FP32.
__device__ __forceinline__ void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two FP32 to BF16, the first in the lower half.
__device__ __forceinline__ unsigned pack(float low, float high) {
    unsigned r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

// Both halves times 2^120, exactly: BF16 multiply and add with a zero.
__device__ __forceinline__ unsigned scale_up(unsigned x) {
    unsigned r;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;\n" : "=r"(r) : "r"(x), "r"(0x7b807b80u), "r"(0x80008000u));
    return r;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// Products of a warpgroup, which sm_90a alone has.
#define MOE_GROUPS 1

// What lies in shared memory for such products: rows of 128 bytes whose pieces are swizzled by swizzle128, from an address whose row
// is a multiple of eight. PTX ISA, "Matrix descriptor": address and the 1,024 bytes from eight rows to the next, in units of 16;
// 1 at bit 62: swizzled over 128 bytes. The other distance (bits 16 on) is not used with this swizzle.
__device__ __forceinline__ unsigned long long describe(const void* rows) {
    unsigned at = (unsigned)__cvta_generic_to_shared(rows);
    return (unsigned long long)((at & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

// What this thread's copies brought is there for products of warpgroups, after the next barrier.
__device__ __forceinline__ void copies_to_groups() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }
// Before the first product, and after sums were touched otherwise.
__device__ __forceinline__ void group_begin() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }

#define MOE_SUMS(i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
// c += a b of 64 x 16 and 16 x 128 in BF16 by the four warps, sums in FP32; a's rows and b's columns are rows of shared memory. Warp
// w has rows 16 w to 16 w + 15, as fragments of 16 x 8 like those of multiply_add. It goes on after this returns.
__device__ __forceinline__ void group_multiply(float (&c)[16][4], const void* a, const void* b) {
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, add, 1, 1, 0, 0;\n}\n"
                 : MOE_SUMS(0), MOE_SUMS(1), MOE_SUMS(2), MOE_SUMS(3), MOE_SUMS(4), MOE_SUMS(5), MOE_SUMS(6), MOE_SUMS(7),
                   MOE_SUMS(8), MOE_SUMS(9), MOE_SUMS(10), MOE_SUMS(11), MOE_SUMS(12), MOE_SUMS(13), MOE_SUMS(14), MOE_SUMS(15)
                 : "l"(describe(a)), "l"(describe(b)));
}
#undef MOE_SUMS

// Waits for all of them.
template <int M> __device__ __forceinline__ void group_wait(float (&c)[M][16][4]) {
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n" ::: "memory");
    // Nothing reads sums before this.
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < 16; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) asm volatile("" : "+f"(c[m][n][i])::"memory");
}
#else
#define MOE_GROUPS 0
#endif

__device__ __forceinline__ unsigned select_bytes(unsigned a, unsigned b, unsigned which) { return __byte_perm(a, b, which); }
__device__ __forceinline__ float exponential(float x) { return __expf(x); }
__device__ __forceinline__ float from_bits(unsigned x) { return __uint_as_float(x); }

#endif
#endif
