// Kernels that move bytes: limits to compare with.
#ifndef MOE_STREAM
#define MOE_STREAM

extern "C" __global__ void moe_nothing() {}

// Bytes in fours of 32 bits. The exclusive or is written only if it has a value that random data do not give.
extern "C" __global__ void moe_read(const uint4* from, unsigned* out, size_t count) {
    unsigned all = 0;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x) {
        uint4 v = from[i];
        all ^= v.x ^ v.y ^ v.z ^ v.w;
    }
    if (all == 0x12345678u) *out = all;
}

extern "C" __global__ void moe_write(uint4* to, size_t count, unsigned value) {
    uint4 v = {value, value, value, value};
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x) to[i] = v;
}

extern "C" __global__ void moe_copy(const uint4* from, uint4* to, size_t count) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x) to[i] = from[i];
}

// Numbers that weights and activations may be: BF16 from 2^-8 to 2^-7 of either sign; no byte is one that E4M3 has no number for.
extern "C" __global__ void moe_fill(unsigned* to, size_t count, unsigned seed) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x) {
        unsigned x = (unsigned)i * 2654435761u ^ seed ^ (unsigned)(i >> 32) * 40503u;
        x = (x ^ (x >> 16)) * 0x7feb352du;
        x = (x ^ (x >> 15)) * 0x846ca68bu;
        to[i] = ((x ^ (x >> 16)) & 0x803f803fu) | 0x3b803b80u;
    }
}

// Divides rows in BF16 by their root mean square: a block a row.
extern "C" __global__ void moe_norm(const bf16* x, bf16* out, int hidden) {
    __shared__ float parts[32];
    const unsigned* row = (const unsigned*)(x + (size_t)blockIdx.x * hidden);
    unsigned* to = (unsigned*)(out + (size_t)blockIdx.x * hidden);
    float sum = 0;
    for (int i = threadIdx.x; i < hidden / 2; i += blockDim.x) {
        float low = from_bits(row[i] << 16), high = from_bits(row[i] & 0xffff0000u);
        sum += low * low + high * high;
    }
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int w = 0; w < blockDim.x / 32; w++) sum += parts[w];
    float scale = rsqrtf(sum / hidden + 1e-6f);
    for (int i = threadIdx.x; i < hidden / 2; i += blockDim.x) {
        to[i] = pack(from_bits(row[i] << 16) * scale, from_bits(row[i] & 0xffff0000u) * scale);
    }
}

#endif
