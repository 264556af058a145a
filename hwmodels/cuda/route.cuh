// Gate with top-k, and the counting sort of places by expert.
#ifndef MOE_ROUTE
#define MOE_ROUTE

typedef unsigned short bf16;
typedef unsigned long long address;

#define MOE_MISSING 0xffffu
// Experts, shared ones included, at most: a thread each in the scan.
#define MOE_MOST_EXPERTS 1024
// Rows of an expert up to which its weights are streamed by tiles of so many rows.
#define MOE_FEW 16
#define MOE_MANY 128
// Columns of W1 (gate and up together) or of W2 a tile.
#define MOE_COLUMNS 128

// What all kernels of a layer share; device pointers are numbers, so that a host in any language can fill it in. A mirror of it is
// in hwmodels/src/cuda/params.rs.
struct MoeParams {
    // T x H in BF16.
    address x;
    // T x k: experts (16 bits) and weights (FP32).
    address experts;
    address weights;
    // For every expert: W1 (2 I x H), W2 (H x I), their scales by row (FP8) or 0, and I (32 bits).
    address first;
    address second;
    address first_scales;
    address second_scales;
    address inner;
    // Written by the sort: first row, first tile of the first and of the second product (E + S + 1 each, 32 bits); splits of K of
    // either product (2, 32 bits); the token of each row; the row of each place.
    address row_start;
    address up_start;
    address down_start;
    address splits;
    address row_token;
    address row_of;
    // Rows x widest I and rows x H in BF16.
    address h;
    address y;
    // T x H in FP32.
    address out;
    // Partial sums of split tiles, and how many of a tile's parts are done (zeros between calls).
    address partial;
    address done;
    int tokens;
    int top_k;
    int hidden;
    // Routed and shared experts.
    int routed;
    int shared;
    // Row length of h.
    int widest;
    // Blocks of the products, which persist.
    int blocks;
    // Whether weights are FP8.
    int fp8;
};

template <typename T> __device__ __forceinline__ T* at(address a) { return (T*)a; }

__device__ __forceinline__ float minus_infinity() { return from_bits(0xff800000u); }

// The tile height of an expert with so many rows.
__host__ __device__ inline int moe_height(int rows) { return rows <= MOE_FEW ? MOE_FEW : MOE_MANY; }
__host__ __device__ inline int moe_ceil(int a, int b) { return (a + b - 1) / b; }
// Into how many parts K is split: so that all blocks have something, if tiles are fewer; parts have at least 4 steps of 64.
__host__ __device__ inline int moe_splits(int tiles, int blocks, int depth) {
    int most = depth / 256;
    int wanted = tiles > 0 ? blocks / tiles : 1;
    int s = wanted < most ? wanted : most;
    return s < 1 ? 1 : (s > 8 ? 8 : s);
}

// Logits, the k largest, softmax: a block a token, blockDim.x a multiple of 32. Shared memory: H + 2 E floats.
// x: T x H BF16, gate: E x H FP32.
extern "C" __global__ void moe_gate(const bf16* x, const float* gate, bf16* experts, float* weights, int hidden, int n, int k,
                                    int renormalise) {
    MOE_DYNAMIC_SHARED(gate_memory);
    float* token = (float*)gate_memory;
    float* logits = token + hidden;
    float* parts = logits + n;
    int t = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    for (int i = threadIdx.x; i < hidden; i += blockDim.x) token[i] = from_bits((unsigned)x[(size_t)t * hidden + i] << 16);
    __syncthreads();
    for (int e = warp; e < n; e += warps) {
        float sum = 0;
        for (int i = lane; i < hidden; i += 32) sum += token[i] * gate[(size_t)e * hidden + i];
        for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
        if (lane == 0) logits[e] = sum;
    }
    __syncthreads();
    if (warp != 0) return;
    float most = minus_infinity();
    for (int e = lane; e < n; e += 32) most = fmaxf(most, logits[e]);
    for (int d = 16; d > 0; d /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, d));
    float all = 0;
    for (int e = lane; e < n; e += 32) {
        parts[e] = exponential(logits[e] - most);
        all += parts[e];
    }
    for (int d = 16; d > 0; d /= 2) all += __shfl_xor_sync(0xffffffffu, all, d);
    float chosen = 0;
    for (int j = 0; j < k; j++) {
        // The largest logit that is left, the lower number first among equals.
        float best = minus_infinity();
        int which = n;
        for (int e = lane; e < n; e += 32) {
            if (logits[e] > best) { best = logits[e]; which = e; }
        }
        for (int d = 16; d > 0; d /= 2) {
            float other = __shfl_xor_sync(0xffffffffu, best, d);
            int its = __shfl_xor_sync(0xffffffffu, which, d);
            if (other > best || (other == best && its < which)) { best = other; which = its; }
        }
        // Only a lane's own elements are read and changed by it.
        if (which < n && which % 32 == lane) logits[which] = minus_infinity();
        __syncwarp();
        float part = which < n ? parts[which] : 0.0f;
        chosen += part;
        if (lane == 0) {
            experts[(size_t)t * k + j] = which < n ? (bf16)which : (bf16)MOE_MISSING;
            weights[(size_t)t * k + j] = part;
        }
    }
    __syncwarp();
    float by = renormalise ? chosen : all;
    for (int j = lane; j < k; j += 32) weights[(size_t)t * k + j] /= by;
}

// Rows of each expert: a block an expert reads all places.
extern "C" __global__ void moe_count(MoeParams p) {
    __shared__ int sum;
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    int e = blockIdx.x, own = 0, places = p.tokens * p.top_k;
    const bf16* experts = at<bf16>(p.experts);
    for (int i = threadIdx.x; i < places; i += blockDim.x) own += experts[i] == e;
    for (int d = 16; d > 0; d /= 2) own += __shfl_xor_sync(0xffffffffu, own, d);
    if (threadIdx.x % 32 == 0) atomicAdd(&sum, own);
    __syncthreads();
    if (threadIdx.x == 0) at<int>(p.row_start)[e] = sum;
}

// Sums of rows and tiles before each expert: one block of MOE_MOST_EXPERTS threads.
extern "C" __global__ void moe_scan(MoeParams p) {
    __shared__ int sums[3][MOE_MOST_EXPERTS];
    int e = threadIdx.x, all = p.routed + p.shared;
    int rows = 0, mine[3] = {0, 0, 0};
    if (e < all) {
        rows = e < p.routed ? at<int>(p.row_start)[e] : p.tokens;
        int tiles = rows > 0 ? moe_ceil(rows, moe_height(rows)) : 0;
        mine[0] = rows;
        mine[1] = tiles * moe_ceil(2 * at<int>(p.inner)[e], MOE_COLUMNS);
        mine[2] = tiles * moe_ceil(p.hidden, MOE_COLUMNS);
    }
    for (int i = 0; i < 3; i++) sums[i][e] = mine[i];
    __syncthreads();
    for (int d = 1; d < MOE_MOST_EXPERTS; d *= 2) {
        int add[3];
        for (int i = 0; i < 3; i++) add[i] = e >= d ? sums[i][e - d] : 0;
        __syncthreads();
        for (int i = 0; i < 3; i++) sums[i][e] += add[i];
        __syncthreads();
    }
    address to[3] = {p.row_start, p.up_start, p.down_start};
    if (e < all) {
        for (int i = 0; i < 3; i++) at<int>(to[i])[e + 1] = sums[i][e];
    }
    if (e == 0) {
        for (int i = 0; i < 3; i++) at<int>(to[i])[0] = 0;
        at<int>(p.splits)[0] = moe_splits(sums[1][all - 1], p.blocks, p.hidden);
        at<int>(p.splits)[1] = moe_splits(sums[2][all - 1], p.blocks, p.widest);
    }
}

// Rows in the order of places, so that the sort is stable: a block an expert; blockDim.x is a multiple of 32, at most 1024.
extern "C" __global__ void moe_permute(MoeParams p) {
    __shared__ int before[33];
    int e = blockIdx.x, places = p.tokens * p.top_k, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int next = at<int>(p.row_start)[e], warps = blockDim.x / 32;
    int* row_token = at<int>(p.row_token);
    if (e >= p.routed) {
        // A shared expert has every token.
        for (int t = threadIdx.x; t < p.tokens; t += blockDim.x) row_token[next + t] = t;
        return;
    }
    const bf16* experts = at<bf16>(p.experts);
    int* row_of = at<int>(p.row_of);
    for (int from = 0; from < places; from += blockDim.x) {
        int i = from + threadIdx.x;
        bool here = i < places && experts[i] == e;
        unsigned votes = __ballot_sync(0xffffffffu, here);
        if (lane == 0) before[warp + 1] = __popc(votes);
        __syncthreads();
        if (threadIdx.x == 0) {
            before[0] = 0;
            for (int w = 0; w < warps; w++) before[w + 1] += before[w];
        }
        __syncthreads();
        if (here) {
            int row = next + before[warp] + __popc(votes & ((1u << lane) - 1));
            row_token[row] = i / p.top_k;
            row_of[i] = row;
        }
        next += before[warps];
        __syncthreads();
    }
    // Missing places have no row: the first block says so.
    if (e == 0) {
        for (int i = threadIdx.x; i < places; i += blockDim.x) {
            if (experts[i] == MOE_MISSING) row_of[i] = -1;
        }
    }
}

// The weighted sum of a token's rows: a block a token; pairs of columns.
extern "C" __global__ void moe_combine(MoeParams p) {
    int t = blockIdx.x;
    const int* row_of = at<int>(p.row_of);
    const float* weights = at<float>(p.weights);
    const unsigned* y = at<unsigned>(p.y);
    int routed = at<int>(p.row_start)[p.routed], pairs = p.hidden / 2;
    for (int c = threadIdx.x; c < pairs; c += blockDim.x) {
        float low = 0, high = 0;
        for (int j = 0; j < p.top_k + p.shared; j++) {
            int place = t * p.top_k + j;
            int row = j < p.top_k ? row_of[place] : routed + (j - p.top_k) * p.tokens + t;
            float w = j < p.top_k ? weights[place] : 1.0f;
            if (row < 0) continue;
            unsigned both = y[(size_t)row * pairs + c];
            low += w * from_bits(both << 16);
            high += w * from_bits(both & 0xffff0000u);
        }
        float* out = at<float>(p.out) + (size_t)t * p.hidden + 2 * c;
        out[0] = low;
        out[1] = high;
    }
}

#endif
