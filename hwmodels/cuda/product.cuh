// The grouped products: persistent blocks walk over the tiles of all experts.
#ifndef MOE_PRODUCT
#define MOE_PRODUCT

// Elements of K a step: a row of 128 bytes in BF16, 64 in FP8.
#define MOE_STEP 64
#define MOE_THREADS 128
#define MOE_WARPS 4

// Shared memory of a block: three stages of the largest tiles. Two blocks of this fit a multiprocessor of sm_90 and sm_100, one that
// of sm_80.
#define MOE_SHARED_BYTES (3 * (MOE_MANY + MOE_COLUMNS) * MOE_STEP * 2)

// Where 16-byte piece c of a 128-byte row lies, so that eight rows' pieces are in eight different groups of banks.
__device__ __forceinline__ int swizzle128(int row, int c) { return row * 128 + ((c ^ (row & 7)) << 4); }
// The same of a 64-byte row.
__device__ __forceinline__ int swizzle64(int row, int c) { return row * 64 + ((c ^ ((row >> 1) & 3)) << 4); }

// One tile of one expert: HEIGHT rows, MOE_COLUMNS rows of weights, part `part` of `parts` of K.
struct MoeTile {
    int expert, row, column, rows, part, parts, id;
};

// The tile with a number: experts in order, then columns, then rows, so that neighbours share weights in L2.
__device__ __forceinline__ MoeTile moe_tile(const int* start, const int* row_start, int experts, int number, int parts) {
    MoeTile t;
    t.part = number % parts;
    t.parts = parts;
    t.id = number / parts;
    int low = 0, high = experts;
    // The last expert that starts at or before it; those without tiles start where the next one does.
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (start[middle] <= t.id) low = middle; else high = middle;
    }
    t.expert = low;
    int first = row_start[low];
    t.rows = row_start[low + 1] - first;
    int height = moe_height(t.rows), tall = moe_ceil(t.rows, height), inside = t.id - start[low];
    t.row = first + inside % tall * height;
    t.column = inside / tall;
    t.rows -= t.row - first;
    if (t.rows > height) t.rows = height;
    return t;
}

// Four E4M3 in a word to two words of BF16, in order. Sign and the seven others move to where BF16 has them; the exponent's
// bias is then 120 too small. 0x7f and 0xff, which are no numbers, become 480.
__device__ __forceinline__ void widen(unsigned x, unsigned& low, unsigned& high) {
    unsigned a = select_bytes(x, 0, 0x1404), b = select_bytes(x, 0, 0x3424);
    low = scale_up((a & 0x80008000u) | ((a & 0x7f007f00u) >> 4));
    high = scale_up((b & 0x80008000u) | ((b & 0x7f007f00u) >> 4));
}

// UP: rows are gathered from x by token, weights are W1, results are h; else rows are h's, weights W2, results y. GROUP: the four
// warps multiply together (wgmma).
template <int HEIGHT, bool UP, bool FP8, bool GROUP> struct MoeProduct {
    // Warps beside each other in rows and columns, and what one has: fragments of 16 rows and of 8 columns.
    static const int DOWN = GROUP ? 4 : HEIGHT == MOE_MANY ? 2 : 1, ACROSS = MOE_WARPS / DOWN;
    static const int M = HEIGHT / DOWN / 16, N = MOE_COLUMNS / ACROSS / 8;
    // Rows from a warp's fragment to its next.
    static const int NEXT = GROUP ? 64 : 16;
    static const int PIECES = HEIGHT * 8 / MOE_THREADS;
    // Bytes of a stage: rows of x or h, then rows of weights; as many stages as the memory holds, at most eight.
    static const int ROWS_BYTES = HEIGHT * MOE_STEP * 2, STAGE_BYTES = ROWS_BYTES + MOE_COLUMNS * MOE_STEP * (FP8 ? 1 : 2);
    static const int FIT = MOE_SHARED_BYTES / STAGE_BYTES, STAGES = FIT < 8 ? FIT : 8;

    const MoeParams& p;
    const MoeTile& t;
    unsigned char* shared;
    int depth, inner, lane, warp_row, warp_column;
    const unsigned char* source[PIECES];
    float sums[M][N][4];

    __device__ __forceinline__ MoeProduct(const MoeParams& p, const MoeTile& t, unsigned char* s) : p(p), t(t), shared(s) {
        inner = at<int>(p.inner)[t.expert];
        depth = UP ? p.hidden : inner;
        lane = threadIdx.x % 32;
        int warp = threadIdx.x / 32;
        warp_row = warp / ACROSS * (GROUP ? 16 : HEIGHT / DOWN);
        warp_column = warp % ACROSS * (MOE_COLUMNS / ACROSS);
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            int r = threadIdx.x / 8 + 16 * i;
            source[i] = 0;
            if (r < t.rows) {
                if (UP) source[i] = at<unsigned char>(p.x) + (size_t)at<int>(p.row_token)[t.row + r] * p.hidden * 2;
                else source[i] = at<unsigned char>(p.h) + (size_t)(t.row + r) * p.widest * 2;
            }
        }
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) sums[m][n][i] = 0;
    }

    // The row of the weight matrix that row `r` of the tile holds; -1 behind the last. Groups of eight alternate between gate and
    // up, so that a thread has both sums of a column.
    __device__ __forceinline__ int weight_row(int r) const {
        if (UP) {
            int c = t.column * (MOE_COLUMNS / 2) + r / 16 * 8 + r % 8;
            return c < inner ? c + (r / 8 % 2) * inner : -1;
        }
        int c = t.column * MOE_COLUMNS + r;
        return c < p.hidden ? c : -1;
    }

    // Starts the copies of a step into its stage.
    __device__ __forceinline__ void start(int step) {
        unsigned char* rows = shared + step % STAGES * STAGE_BYTES;
        unsigned char* weights = rows + ROWS_BYTES;
        int k = step * MOE_STEP;
        int c = threadIdx.x % 8;
        bool inside = k + 8 * c < depth;
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            int r = threadIdx.x / 8 + 16 * i;
            bool some = inside && source[i] != 0;
            copy16(rows + swizzle128(r, c), some ? source[i] + 2 * (k + 8 * c) : at<unsigned char>(p.x), some);
        }
        const unsigned char* w = (const unsigned char*)at<address>(UP ? p.first : p.second)[t.expert];
        if (FP8) {
            int c = threadIdx.x % 4;
            bool inside = k + 16 * c < depth;
#pragma unroll
            for (int i = 0; i < MOE_COLUMNS * 4 / MOE_THREADS; i++) {
                int r = threadIdx.x / 4 + 32 * i, row = weight_row(r);
                bool some = inside && row >= 0;
                copy16(weights + swizzle64(r, c), some ? w + (size_t)row * depth + k + 16 * c : w, some);
            }
        } else {
#pragma unroll
            for (int i = 0; i < MOE_COLUMNS * 8 / MOE_THREADS; i++) {
                int r = threadIdx.x / 8 + 16 * i, row = weight_row(r);
                bool some = inside && row >= 0;
                copy16(weights + swizzle128(r, c), some ? w + ((size_t)row * depth + k + 8 * c) * 2 : w, some);
            }
        }
    }

    // Multiplies a step that has arrived.
    __device__ __forceinline__ void multiply(int step) {
        const unsigned char* rows = shared + step % STAGES * STAGE_BYTES;
        const unsigned char* weights = rows + ROWS_BYTES;
#pragma unroll
        for (int k = 0; k < MOE_STEP / 16; k++) {
            unsigned a[M][4];
#pragma unroll
            for (int m = 0; m < M; m++) {
                int row = warp_row + NEXT * m;
                if (FP8) {
                    // K is permuted in the same way on both sides: lane q of four has elements 4 q to 4 q + 3 of sixteen, which
                    // are four bytes of the weights.
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        int r = row + lane / 4 + 8 * half, byte = 32 * k + lane % 4 * 8;
                        const unsigned* pair = (const unsigned*)(rows + swizzle128(r, byte / 16) + byte % 16);
                        a[m][half] = pair[0];
                        a[m][half + 2] = pair[1];
                    }
                } else {
                    load_matrices(a[m], rows + swizzle128(row + lane % 16, 2 * k + lane / 16));
                }
            }
#pragma unroll
            for (int n = 0; n < N; n += 2) {
                unsigned b[4];
                int column = warp_column + 8 * n;
                if (FP8) {
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        int r = column + 8 * half + lane / 4;
                        unsigned four = *(const unsigned*)(weights + swizzle64(r, k) + lane % 4 * 4);
                        widen(four, b[2 * half], b[2 * half + 1]);
                    }
                } else {
                    load_matrices(b, weights + swizzle128(column + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
                }
#pragma unroll
                for (int m = 0; m < M; m++) {
                    multiply_add(sums[m][n], a[m], b[0], b[1]);
                    multiply_add(sums[m][n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }

#if MOE_GROUPS
    // The same by all four warps; it goes on until group_wait.
    __device__ __forceinline__ void multiply_together(int step) {
        const unsigned char* rows = shared + step % STAGES * STAGE_BYTES;
        group_begin();
#pragma unroll
        for (int k = 0; k < MOE_STEP / 16; k++)
#pragma unroll
            for (int m = 0; m < M; m++) group_multiply(sums[m], rows + NEXT * 128 * m + 32 * k, rows + ROWS_BYTES + 32 * k);
    }
#endif

    // Sums over this part of K.
    __device__ __forceinline__ void run() {
        int steps = moe_ceil(depth, MOE_STEP);
        int from = (int)((long long)steps * t.part / t.parts), to = (int)((long long)steps * (t.part + 1) / t.parts);
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {
            if (from + s < to) start(from + s);
            copy_commit();
        }
        for (int s = from; s < to; s++) {
            copy_wait<STAGES - 2>();
#if MOE_GROUPS
            if constexpr (GROUP) copies_to_groups();
#endif
            // All threads' copies are there, and all are done with the stage that is filled next.
            __syncthreads();
#if MOE_GROUPS
            if constexpr (GROUP) multiply_together(s);
#endif
            if (s + STAGES - 1 < to) start(s + STAGES - 1);
            copy_commit();
#if MOE_GROUPS
            if constexpr (GROUP) group_wait(sums);
#endif
            if constexpr (!GROUP) multiply(s);
        }
        copy_wait<0>();
        __syncthreads();
    }

    // Adds up the parts of a split tile; true for the block that has all of them. The order is that of the parts, whoever is last.
    __device__ __forceinline__ bool gather() {
        if (t.parts == 1) return true;
        const int each = M * N * 4 * MOE_THREADS;
        float* mine = at<float>(p.partial) + ((size_t)t.id * t.parts + t.part) * each + threadIdx.x;
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) mine[((m * N + n) * 4 + i) * MOE_THREADS] = sums[m][n][i];
        __threadfence();
        __syncthreads();
        int* last = (int*)shared;
        if (threadIdx.x == 0) *last = atomicAdd(at<int>(p.done) + t.id, 1) == t.parts - 1;
        __syncthreads();
        bool all = *last != 0;
        __syncthreads();
        if (!all) return false;
        __threadfence();
        if (threadIdx.x == 0) at<int>(p.done)[t.id] = 0;
        const volatile float* parts = at<float>(p.partial) + (size_t)t.id * t.parts * each + threadIdx.x;
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float sum = 0;
                    for (int s = 0; s < t.parts; s++) sum += parts[(size_t)s * each + ((m * N + n) * 4 + i) * MOE_THREADS];
                    sums[m][n][i] = sum;
                }
        return true;
    }

    __device__ __forceinline__ void store() {
        const float* scales = FP8 ? (const float*)at<address>(UP ? p.first_scales : p.second_scales)[t.expert] : 0;
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int r = warp_row + NEXT * m + 8 * half + lane / 4;
                if (r >= t.rows) continue;
                if (UP) {
#pragma unroll
                    for (int n = 0; n < N; n += 2) {
                        int c = t.column * (MOE_COLUMNS / 2) + (warp_column + 8 * n) / 2 + lane % 4 * 2;
                        // I is even: both columns are inside or neither.
                        if (c >= inner) continue;
                        float h[2];
#pragma unroll
                        for (int i = 0; i < 2; i++) {
                            float gate = sums[m][n][2 * half + i], up = sums[m][n + 1][2 * half + i];
                            if (FP8) {
                                gate *= scales[c + i];
                                up *= scales[inner + c + i];
                            }
                            h[i] = gate / (1.0f + exponential(-gate)) * up;
                        }
                        *(unsigned*)(at<bf16>(p.h) + (size_t)(t.row + r) * p.widest + c) = pack(h[0], h[1]);
                    }
                } else {
#pragma unroll
                    for (int n = 0; n < N; n++) {
                        int c = t.column * MOE_COLUMNS + warp_column + 8 * n + lane % 4 * 2;
                        if (c >= p.hidden) continue;
                        float low = sums[m][n][2 * half], high = sums[m][n][2 * half + 1];
                        if (FP8) {
                            low *= scales[c];
                            high *= scales[c + 1];
                        }
                        *(unsigned*)(at<bf16>(p.y) + (size_t)(t.row + r) * p.hidden + c) = pack(low, high);
                    }
                }
            }
    }
};

template <int HEIGHT, bool UP, bool FP8, bool GROUP>
__device__ __forceinline__ void moe_run_tile(const MoeParams& p, const MoeTile& t, unsigned char* shared) {
    MoeProduct<HEIGHT, UP, FP8, GROUP> product(p, t, shared);
    product.run();
    if (product.gather()) product.store();
}

template <bool UP, bool FP8, bool GROUP = false> __device__ __forceinline__ void moe_walk(const MoeParams& p) {
    MOE_DYNAMIC_SHARED(tile_memory);
    const int* start = at<int>(UP ? p.up_start : p.down_start);
    int experts = p.routed + p.shared, parts = at<int>(p.splits)[UP ? 0 : 1];
    int tiles = start[experts] * parts;
    for (int number = blockIdx.x; number < tiles; number += gridDim.x) {
        MoeTile t = moe_tile(start, at<int>(p.row_start), experts, number, parts);
        if (moe_height(at<int>(p.row_start)[t.expert + 1] - at<int>(p.row_start)[t.expert]) == MOE_FEW) {
            moe_run_tile<MOE_FEW, UP, FP8, false>(p, t, tile_memory);
        } else {
            moe_run_tile<MOE_MANY, UP, FP8, GROUP>(p, t, tile_memory);
        }
    }
}

extern "C" __global__ void __launch_bounds__(MOE_THREADS) moe_up_bf16(MoeParams p) { moe_walk<true, false>(p); }
extern "C" __global__ void __launch_bounds__(MOE_THREADS) moe_down_bf16(MoeParams p) { moe_walk<false, false>(p); }
extern "C" __global__ void __launch_bounds__(MOE_THREADS) moe_up_fp8(MoeParams p) { moe_walk<true, true>(p); }
extern "C" __global__ void __launch_bounds__(MOE_THREADS) moe_down_fp8(MoeParams p) { moe_walk<false, true>(p); }

// With the products of warpgroups for tall tiles, where they were compiled in, of which moe_knows writes 1; else they do nothing.
#if MOE_GROUPS
extern "C" __global__ void __launch_bounds__(MOE_THREADS) moe_up_wgmma(MoeParams p) { moe_walk<true, false, true>(p); }
extern "C" __global__ void __launch_bounds__(MOE_THREADS) moe_down_wgmma(MoeParams p) { moe_walk<false, false, true>(p); }
#else
extern "C" __global__ void __launch_bounds__(MOE_THREADS) moe_up_wgmma(MoeParams) {}
extern "C" __global__ void __launch_bounds__(MOE_THREADS) moe_down_wgmma(MoeParams) {}
#endif
extern "C" __global__ void moe_knows(unsigned* out) { *out = MOE_GROUPS; }

#endif
