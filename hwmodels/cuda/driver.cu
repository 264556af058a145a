// Checks and times the kernels on a device, alone: nvcc -O3 -arch=native -o driver driver.cu -lcublas && ./driver --out measured.csv
//
// On sm_90 with -arch=sm_90a, for products of warpgroups.
//
//   --check-only N   N shapes and routings beside plain loops, nothing else (under compute-sanitizer: a few)
//   --out FILE       the times, in the columns of `moesim calibrate measure`
#include "moe.cu"
#include "layer.h"
#include "check.h"

#if __has_include(<cublas_v2.h>)
#define MOE_CUBLAS
#include <cublas_v2.h>
#endif
#include <ctime>
#include <string>

struct Times {
    double median, low, high;
    int repeats;
};

template <typename F> Times time_calls(F call, int repeats = 21, int warm = 3) {
    cudaEvent_t from, to;
    MOE_CHECK(cudaEventCreate(&from));
    MOE_CHECK(cudaEventCreate(&to));
    for (int i = 0; i < warm; i++) call();
    MOE_CHECK(cudaDeviceSynchronize());
    std::vector<double> t;
    for (int i = 0; i < repeats; i++) {
        MOE_CHECK(cudaEventRecord(from));
        call();
        MOE_CHECK(cudaEventRecord(to));
        MOE_CHECK(cudaEventSynchronize(to));
        float ms = 0;
        MOE_CHECK(cudaEventElapsedTime(&ms, from, to));
        t.push_back(ms * 1e-3);
    }
    std::sort(t.begin(), t.end());
    // Of 21 values the 6th from either end bound the median with 95 %.
    int out = repeats == 21 ? 5 : 0;
    return {t[repeats / 2], t[out], t[repeats - 1 - out], repeats};
}

struct Machine {
    cudaDeviceProp prop;
    int blocks, l2;
    bool wgmma = false;
    int driver = 0;
    double copy_rate = 0, cublas = 0;
    FILE* csv = 0;
    std::string date;
    size_t rotated = 0;

    void row(const char* what, const char* precision, const std::string& experts, const char* mnk, size_t bytes, const Times& t,
             const char* how = "") {
        if (!csv) return;
        // what, device, kernel_source, version, precision | tokens .. expert_tokens (8) | m, n, k | bytes | pass | times | machine
        std::string size = bytes ? std::to_string(bytes) : "";
        int clock = 0;
        cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, 0);
        fprintf(csv, "%s,%s,moesim_cuda,driver,%s,%s,%s,%s,1,%.4f,%.4f,%.4f,%d,0,0,%d,%.0f,%zu,nvcc %d sm_%d%d%s driver %d,%s\n", what, prop.name, precision,
                experts.c_str(), mnk, size.c_str(), t.median * 1e6, t.low * 1e6, t.high * 1e6, t.repeats, prop.multiProcessorCount,
                clock / 1e3, rotated, CUDART_VERSION, prop.major, prop.minor, how, driver, date.c_str());
        fflush(csv);
    }
};

// A layer of routed experts with `each` tokens for every one of `active`, or top-k of one token.
struct Bench {
    int tokens, top_k, hidden, inner, active, experts;
};

static void run_layer(Machine& m, const char* name, Bench b, int fp8, size_t pool_bytes, void* pool, bool many) {
    size_t one = (size_t)3 * b.hidden * b.inner * (fp8 ? 1 : 2), call = one * b.active;
    if (call > pool_bytes) {
        printf("%-28s %s: needs %.1f GB, left out\n", name, fp8 ? "fp8" : "bf16", call / 1e9);
        return;
    }
    size_t sets = std::max<size_t>(1, pool_bytes / call);
    std::vector<float> ones(std::max(2 * b.inner, b.hidden), 0.01f);
    // Every set has its own table of pointers, all have one of scales.
    MoeLayer layer(b.tokens, b.top_k, b.hidden, b.experts, 0, b.inner, m.blocks, fp8);
    address scales = layer.given(ones);
    std::vector<address> first_of, second_of;
    sets = std::min<size_t>(sets, 64);
    for (size_t s = 0; s < sets; s++) {
        std::vector<address> a, c;
        for (int e = 0; e < b.experts; e++) {
            size_t at = s * call + (size_t)(e % b.active) * one;
            a.push_back((address)pool + at);
            c.push_back((address)pool + at + one / 3 * 2);
        }
        first_of.push_back(layer.given(a));
        second_of.push_back(layer.given(c));
    }
    std::vector<address> same(b.experts, scales);
    layer.p.first_scales = layer.p.second_scales = layer.given(same);
    layer.p.inner = layer.given(std::vector<int>(b.experts, b.inner));
    address x = layer.buffer<bf16>((size_t)b.tokens * b.hidden);
    MOE_LAUNCH(moe_fill, 1024, 256, 0, (unsigned*)x, (size_t)b.tokens * b.hidden / 2, 7u);
    layer.p.x = x;
    // Pairs by expert, the p-th to token p mod T: no token has an expert twice.
    int pairs = b.tokens * b.top_k;
    std::vector<bf16> ids(pairs);
    for (int p = 0; p < pairs; p++) ids[p % b.tokens * b.top_k + p / b.tokens] = (bf16)((long long)p * b.active / pairs);
    layer.p.experts = layer.given(ids);
    layer.p.weights = layer.given(std::vector<float>(pairs, 1.0f / b.top_k));
    size_t turn = 0;
    double flop = 2.0 * pairs * 3.0 * b.hidden * b.inner, bytes = (double)call;
    Times best = {};
    bool together = false;
    // Products of warpgroups differ in tall tiles alone; the table has the better time, and says whose it is.
    for (int wgmma = 0; wgmma < (m.wgmma && !fp8 && pairs > MOE_FEW * b.active ? 2 : 1); wgmma++) {
        layer.wgmma = wgmma == 1;
        Times t = time_calls([&] {
            layer.p.first = first_of[turn % sets];
            layer.p.second = second_of[turn % sets];
            turn++;
            layer.run();
        });
        printf("%-28s %s: %9.1f us [%.1f, %.1f]", name, fp8 ? "fp8" : wgmma ? "bf16 wgmma" : "bf16", t.median * 1e6, t.low * 1e6, t.high * 1e6);
        if (many && m.cublas == 0) printf("  %.0f TFLOP/s\n", flop / t.median / 1e12);
        else if (many) printf("  %.0f TFLOP/s, %.0f %% of cuBLAS\n", flop / t.median / 1e12, 100 * flop / t.median / m.cublas);
        else
            printf("  weights at %.0f GB/s, %.0f %% of the copy rate; from %.1f times the L2\n", bytes / t.median / 1e9,
                   100 * bytes / t.median / m.copy_rate, (double)sets * call / m.l2);
        if (wgmma == 0 || t.median < best.median) {
            best = t;
            together = wgmma == 1;
        }
    }
    char text[256];
    int few = pairs / b.active, more = pairs % b.active;
    std::string counts;
    if (more) counts += std::to_string(more) + "x" + std::to_string(few + 1) + " ";
    counts += std::to_string(b.active - more) + "x" + std::to_string(few);
    if (b.experts > b.active) counts += " " + std::to_string(b.experts - b.active) + "x0";
    snprintf(text, sizeof text, "%d,%d,%d,%d,%d,%d,balanced,", b.tokens, b.hidden, b.inner, b.top_k, b.experts, b.active);
    m.rotated = sets * call;
    m.row("experts", fp8 ? "fp8_wo" : "bfloat16", text + counts, ",,", 0, best, together ? " wgmma" : "");
}

int main(int argc, char** argv) {
    int check_only = 0;
    const char* out = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--check-only")) check_only = atoi(argv[i + 1]);
        if (!strcmp(argv[i], "--out")) out = argv[i + 1];
    }
    Machine m;
    MOE_CHECK(cudaGetDeviceProperties(&m.prop, 0));
    for (auto kernel : {moe_up_bf16, moe_down_bf16, moe_up_fp8, moe_down_fp8, moe_up_wgmma, moe_down_wgmma})
        MOE_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, MOE_SHARED_BYTES));
    int per = 0;
    MOE_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per, moe_up_bf16, MOE_THREADS, MOE_SHARED_BYTES));
    m.blocks = m.prop.multiProcessorCount * std::max(per, 1);
    m.l2 = m.prop.l2CacheSize;
    m.wgmma = MoeLayer::knows_groups();
    MOE_CHECK(cudaDriverGetVersion(&m.driver));
    char day[16];
    time_t now = time(0);
    strftime(day, sizeof day, "%Y-%m-%d", gmtime(&now));
    m.date = day;
    printf("%s, sm_%d%d, driver %d, runtime %d, L2 %d MB, %d blocks a multiprocessor, %s\n", m.prop.name, m.prop.major, m.prop.minor, m.driver,
           CUDART_VERSION, m.l2 >> 20, per, day);
    if (m.prop.major == 9 && !m.wgmma) printf("compiled without wgmma, which this device has: nvcc -arch=sm_90a\n");
    int failed = moe_cases(check_only ? check_only : 200, 1, false);
    if (failed || check_only) return failed ? 1 : 0;
    if (out) {
        m.csv = fopen(out, "w");
        if (!m.csv) {
            fprintf(stderr, "%s cannot be written\n", out);
            return 1;
        }
        fprintf(m.csv,
                "what,device,kernel_source,version,precision,tokens,hidden_size,inter_size,topk,num_experts,active_experts,distribution,"
                "expert_tokens,m,n,k,bytes,pass,latency_us,low_us,high_us,repeats,outliers,others,threads,clock_mhz,rotated_bytes,code,date\n");
    }
    // Half of what is free, for weights.
    size_t free_bytes = 0, total = 0;
    MOE_CHECK(cudaMemGetInfo(&free_bytes, &total));
    size_t pool_bytes = free_bytes / 2 / 4096 * 4096;
    void* pool = device_new(pool_bytes);
    MOE_LAUNCH(moe_fill, 4096, 256, 0, (unsigned*)pool, pool_bytes / 4, 1u);
    m.rotated = pool_bytes;
    // The copy rate, bytes read and written: the better of the kernel and of cudaMemcpy.
    size_t copied = std::min<size_t>((size_t)1 << 30, pool_bytes / 4);
    size_t turn = 0, places = pool_bytes / (2 * copied);
    auto place = [&] { return (char*)pool + (turn++ % places) * 2 * copied; };
    Times kernel = time_calls([&] {
        char* at = place();
        MOE_LAUNCH(moe_copy, m.prop.multiProcessorCount * 8, 512, 0, (const uint4*)at, (uint4*)(at + copied), copied / 16);
    });
    Times library = time_calls([&] {
        char* at = place();
        MOE_CHECK(cudaMemcpyAsync(at + copied, at, copied, cudaMemcpyDeviceToDevice));
    });
    m.copy_rate = 2.0 * copied / std::min(kernel.median, library.median);
    printf("copy rate (read and written): kernel %.0f GB/s, cudaMemcpy %.0f GB/s\n", 2e-9 * copied / kernel.median, 2e-9 * copied / library.median);
    m.row("copy", "", ",,,,,,,", ",,", copied, kernel.median < library.median ? kernel : library);
    Times nothing = time_calls([&] { MOE_LAUNCH(moe_nothing, 1, 32, 0); });
    m.row("launch", "", ",,,,,,,", ",,", 0, nothing);
#ifdef MOE_CUBLAS
    {
        const int n = 8192;
        cublasHandle_t blas;
        if (cublasCreate(&blas) != CUBLAS_STATUS_SUCCESS) {
            fprintf(stderr, "cuBLAS does not start\n");
            return 1;
        }
        bf16 *a = (bf16*)pool, *b = a + (size_t)n * n, *c = b + (size_t)n * n;
        float one = 1, zero = 0;
        Times t = time_calls([&] {
            cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, n, n, n, &one, a, CUDA_R_16BF, n, b, CUDA_R_16BF, n, &zero, c, CUDA_R_16BF, n,
                         CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
        });
        cublasDestroy(blas);
        m.cublas = 2.0 * n * n * n / t.median;
        printf("cuBLAS BF16 8192^3: %.0f TFLOP/s\n", m.cublas / 1e12);
        m.row("library-gemm", "bfloat16", ",,,,,,,", "8192,8192,8192", 0, t);
        MOE_LAUNCH(moe_fill, 4096, 256, 0, (unsigned*)pool, pool_bytes / 4, 1u);
    }
#else
    printf("cuBLAS was not there when this was compiled: not compared with\n");
#endif
    struct {
        const char* name;
        int hidden, inner;
    } models[2] = {{"DeepSeek-V3", 7168, 2048}, {"Qwen3-30B-A3B", 2048, 768}};
    for (auto& model : models)
        for (int fp8 = 0; fp8 < 2; fp8++) {
            char name[64];
            for (int each : {1, 2, 4, 8, 16}) {
                // 64 experts with `each` tokens: as many tokens as give eight places a token.
                int tokens = std::max(64 * each / 8, each);
                snprintf(name, sizeof name, "%s 64 x %d", model.name, each);
                run_layer(m, name, {tokens, 8, model.hidden, model.inner, 64, 64}, fp8, pool_bytes, pool, false);
            }
            snprintf(name, sizeof name, "%s one token", model.name);
            run_layer(m, name, {1, 8, model.hidden, model.inner, 8, 64}, fp8, pool_bytes, pool, false);
            for (int each : {32, 64, 128, 256}) {
                snprintf(name, sizeof name, "%s 64 x %d", model.name, each);
                run_layer(m, name, {8 * each, 8, model.hidden, model.inner, 64, 64}, fp8, pool_bytes, pool, false);
            }
            snprintf(name, sizeof name, "%s 8 x 4096", model.name);
            run_layer(m, name, {4096, 8, model.hidden, model.inner, 8, 8}, fp8, pool_bytes, pool, true);
        }
    device_delete(pool);
    if (m.csv) fclose(m.csv);
    return 0;
}
