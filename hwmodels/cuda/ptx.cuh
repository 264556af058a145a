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

__device__ __forceinline__ unsigned select_bytes(unsigned a, unsigned b, unsigned which) { return __byte_perm(a, b, which); }
__device__ __forceinline__ float exponential(float x) { return __expf(x); }
__device__ __forceinline__ float from_bits(unsigned x) { return __uint_as_float(x); }

#endif
#endif
