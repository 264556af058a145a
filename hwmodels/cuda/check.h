// The kernels beside plain loops in double, on shapes and routings that are drawn. The same cases on a device and emulated.
#ifndef MOE_CHECK_H
#define MOE_CHECK_H

#include <algorithm>
#include <cmath>
#include <cstdint>

// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Random {
    uint64_t state;
    explicit Random(uint64_t seed) : state(seed) {}
    uint64_t next() {
        uint64_t x = state += 0x9e3779b97f4a7c15ull;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
        return x ^ (x >> 31);
    }
    // From low to high, both included.
    int whole(int low, int high) { return low + (int)(next() % (uint64_t)(high - low + 1)); }
    // From -1 to 1.
    double real() { return (double)(next() >> 11) / (double)(1ull << 52) - 1.0; }
};

inline float wide(bf16 x) {
    unsigned bits = (unsigned)x << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
inline bf16 narrow(float f) {
    unsigned x;
    memcpy(&x, &f, 4);
    return (bf16)((x + 0x7fff + (x >> 16 & 1)) >> 16);
}
// E4M3 (OCP 8-bit floating point specification 1.0).
inline double wide8(unsigned char x) {
    int e = x >> 3 & 15, m = x & 7;
    double v = e ? std::ldexp(1.0 + m / 8.0, e - 7) : std::ldexp(m / 8.0, -6);
    return x & 128 ? -v : v;
}

struct Shape {
    int tokens, top_k, hidden, routed, shared, inner, shared_inner, idle, blocks, fp8;
    // How unevenly experts are chosen: 0 evenly.
    int skew;
};

inline Shape shape_of(Random& r, bool small) {
    Shape s;
    s.fp8 = r.whole(0, 1);
    int step = s.fp8 ? 16 : 8;
    s.hidden = step * r.whole(1, small ? 18 : 80);
    s.inner = step * r.whole(1, small ? 12 : 60);
    s.shared_inner = step * r.whole(1, small ? 12 : 60);
    s.routed = r.whole(1, small ? 12 : 64);
    s.top_k = r.whole(1, std::min(s.routed, 8));
    s.shared = r.whole(0, 2);
    s.idle = r.whole(0, s.routed - s.top_k);
    // Few tokens, and now and then more than a tile of 128 rows.
    s.tokens = r.whole(0, 3) ? r.whole(1, small ? 30 : 100) : r.whole(100, small ? 150 : 600);
    // Deep products of few tokens, whose K is split.
    if (r.whole(0, 2) == 0) {
        s.tokens = r.whole(1, 6);
        s.hidden = step * r.whole(512 / step, (small ? 800 : 4096) / step);
        s.inner = step * r.whole(1, (small ? 700 : 2048) / step);
        s.routed = r.whole(s.top_k, s.top_k + 2);
        s.idle = r.whole(0, s.routed - s.top_k);
        s.shared = small ? 0 : s.shared;
        // The host multiplies as well.
        if (small) s.tokens = r.whole(1, 2);
    }
    s.skew = r.whole(0, 2);
    s.blocks = r.whole(1, small ? 24 : 264);
    return s;
}

struct Weights {
    std::vector<unsigned char> bytes;
    std::vector<float> scales;
    int columns;
    bool fp8;
    Weights(Random& r, int rows, int columns, bool fp8) : columns(columns), fp8(fp8) {
        bytes.resize((size_t)rows * columns * (fp8 ? 1 : 2));
        double size = 1.0 / std::sqrt((double)columns);
        if (fp8) {
            for (auto& b : bytes) {
                b = (unsigned char)r.next();
                // Neither what is no number, nor the largest, beside which all others are nothing.
                if ((b & 0x7f) >= 0x78) b &= 0xbf;
            }
            for (int i = 0; i < rows; i++) scales.push_back((float)(size * (0.02 + 0.01 * (i % 5))));
        } else {
            for (size_t i = 0; i < (size_t)rows * columns; i++) ((bf16*)bytes.data())[i] = narrow((float)(size * r.real()));
        }
    }
    double at(int row, int column) const {
        size_t i = (size_t)row * columns + column;
        return fp8 ? wide8(bytes[i]) * scales[row] : wide(((const bf16*)bytes.data())[i]);
    }
};

// Largest error over the root mean square of its row of outputs and the output itself. The loops round h and y to BF16 as the specification has it.
inline double moe_case(const Shape& s, uint64_t seed, bool wgmma, bool* same_twice) {
    Random r(seed);
    int all = s.routed + s.shared, widest = std::max(s.inner, s.shared ? s.shared_inner : 0);
    std::vector<bf16> x((size_t)s.tokens * s.hidden);
    for (auto& v : x) v = narrow((float)r.real());
    std::vector<bf16> experts((size_t)s.tokens * s.top_k);
    std::vector<float> weights(experts.size());
    int open = s.routed - s.idle;
    for (int t = 0; t < s.tokens; t++) {
        int first = r.whole(0, open - 1);
        for (int i = 0; i < s.skew; i++) first = std::min(first, r.whole(0, open - 1));
        for (int j = 0; j < s.top_k; j++) {
            experts[t * s.top_k + j] = r.whole(0, 9) ? (bf16)((first + j) % open) : (bf16)MOE_MISSING;
            weights[t * s.top_k + j] = (float)(0.6 + 0.5 * r.real());
        }
    }
    std::vector<Weights> first, second;
    std::vector<int> inner;
    for (int e = 0; e < all; e++) {
        inner.push_back(e < s.routed ? s.inner : s.shared_inner);
        first.emplace_back(r, 2 * inner[e], s.hidden, s.fp8);
        second.emplace_back(r, s.hidden, inner[e], s.fp8);
    }
    MoeLayer layer(s.tokens, s.top_k, s.hidden, s.routed, s.shared, widest, s.blocks, s.fp8);
    layer.wgmma = wgmma;
    std::vector<address> pointers[4];
    for (int e = 0; e < all; e++) {
        pointers[0].push_back(layer.given(first[e].bytes));
        pointers[1].push_back(layer.given(second[e].bytes));
        pointers[2].push_back(s.fp8 ? layer.given(first[e].scales) : 0);
        pointers[3].push_back(s.fp8 ? layer.given(second[e].scales) : 0);
    }
    layer.p.x = layer.given(x);
    layer.p.experts = layer.given(experts);
    layer.p.weights = layer.given(weights);
    layer.p.first = layer.given(pointers[0]);
    layer.p.second = layer.given(pointers[1]);
    layer.p.first_scales = layer.given(pointers[2]);
    layer.p.second_scales = layer.given(pointers[3]);
    layer.p.inner = layer.given(inner);
    std::vector<float> out((size_t)s.tokens * s.hidden, NAN), again(out);
    layer.run();
    to_host(out.data(), (void*)layer.p.out, out.size() * 4);
    // What the first run left must not be what the second one gives.
    device_zero((void*)layer.p.h, (size_t)s.tokens * (s.top_k + s.shared) * widest * 2);
    device_zero((void*)layer.p.y, (size_t)s.tokens * (s.top_k + s.shared) * s.hidden * 2);
    layer.run();
    to_host(again.data(), (void*)layer.p.out, again.size() * 4);
    *same_twice = memcmp(out.data(), again.data(), out.size() * 4) == 0;
    double worst = 0;
    std::vector<double> h(widest), sum(s.hidden), y(s.hidden);
    for (int t = 0; t < s.tokens; t++) {
        std::fill(sum.begin(), sum.end(), 0.0);
        for (int j = 0; j < s.top_k + s.shared; j++) {
            int e = j < s.top_k ? experts[t * s.top_k + j] : s.routed + j - s.top_k;
            double w = j < s.top_k ? weights[t * s.top_k + j] : 1.0;
            if (e == (int)MOE_MISSING) continue;
            for (int i = 0; i < inner[e]; i++) {
                double gate = 0, up = 0;
                for (int k = 0; k < s.hidden; k++) {
                    double v = wide(x[(size_t)t * s.hidden + k]);
                    gate += first[e].at(i, k) * v;
                    up += first[e].at(inner[e] + i, k) * v;
                }
                h[i] = wide(narrow((float)(gate / (1 + std::exp(-gate)) * up)));
            }
            for (int c = 0; c < s.hidden; c++) {
                double v = 0;
                for (int i = 0; i < inner[e]; i++) v += second[e].at(c, i) * h[i];
                sum[c] += w * wide(narrow((float)v));
            }
        }
        double square = 0;
        for (double v : sum) square += v * v;
        double size = std::sqrt(square / s.hidden) + 1e-30;
        for (int c = 0; c < s.hidden; c++) {
            double off = std::fabs(out[(size_t)t * s.hidden + c] - sum[c]) / (size + std::fabs(sum[c]));
            // What is no number is not within anything.
            if (!(off <= worst)) worst = off == off ? off : INFINITY;
        }
    }
    return worst;
}

// The gate beside plain loops: experts must be the same but for near ties, weights within 1e-3.
inline bool gate_case(uint64_t seed) {
    Random r(seed);
    int tokens = r.whole(1, 9), hidden = 2 * r.whole(1, 60), n = r.whole(1, 70), k = r.whole(1, std::min(n, 8)), normal = r.whole(0, 1);
    std::vector<bf16> x((size_t)tokens * hidden), experts((size_t)tokens * k);
    std::vector<float> gate((size_t)n * hidden), weights((size_t)tokens * k);
    for (auto& v : x) v = narrow((float)r.real());
    for (auto& v : gate) v = (float)r.real();
    // Two experts with the same logit: the lower number goes first.
    if (n > 1) std::copy(gate.begin(), gate.begin() + hidden, gate.end() - hidden);
    void* d[4] = {device_new(x.size() * 2), device_new(gate.size() * 4), device_new(experts.size() * 2), device_new(weights.size() * 4)};
    to_device(d[0], x.data(), x.size() * 2);
    to_device(d[1], gate.data(), gate.size() * 4);
    MOE_LAUNCH(moe_gate, tokens, 128, (size_t)(hidden + 2 * n) * 4, (const bf16*)d[0], (const float*)d[1], (bf16*)d[2], (float*)d[3], hidden, n, k, normal);
    to_host(experts.data(), d[2], experts.size() * 2);
    to_host(weights.data(), d[3], weights.size() * 4);
    for (void* b : d) device_delete(b);
    bool good = true;
    for (int t = 0; t < tokens; t++) {
        std::vector<double> logit(n);
        double all = 0, most = -1e300;
        for (int e = 0; e < n; e++) {
            for (int c = 0; c < hidden; c++) logit[e] += (double)gate[(size_t)e * hidden + c] * wide(x[(size_t)t * hidden + c]);
            most = std::max(most, logit[e]);
        }
        std::vector<int> order(n);
        for (int e = 0; e < n; e++) {
            order[e] = e;
            all += std::exp(logit[e] - most);
        }
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logit[a] > logit[b]; });
        double chosen = 0;
        for (int j = 0; j < k; j++) chosen += std::exp(logit[order[j]] - most);
        for (int j = 0; j < k; j++) {
            int e = experts[t * k + j];
            double wanted = std::exp(logit[order[j]] - most) / (normal ? chosen : all);
            good = good && e < n && std::fabs(logit[e] - logit[order[j]]) < 1e-4 && std::fabs(weights[t * k + j] / wanted - 1) < 1e-3;
            // Equal bits of logits: the order is fixed.
            if (n > 1 && order[j] == 0 && j + 1 < k && order[j + 1] == n - 1) good = good && e == 0 && experts[t * k + j + 1] == n - 1;
        }
    }
    return good;
}

// As in hwmodels/src/kernel/mod.rs.
#define MOE_TOLERANCE 0.02

// Runs `count` cases; the number that failed.
inline int moe_cases(int count, uint64_t seed, bool small) {
    int failed = 0, together = 0;
    double worst = 0;
    bool knows = MoeLayer::knows_groups();
    for (int i = 0; i < count; i++) {
        Random r(seed + i);
        Shape s = shape_of(r, small);
#ifdef MOE_EMULATE
        emulator.late = i % 2 == 0;
#endif
        bool same = false;
        double off = moe_case(s, seed + i, false, &same);
        if (knows && !s.fp8) {
            bool again = false;
            double group = moe_case(s, seed + i, true, &again);
            if (group > MOE_TOLERANCE || !again) printf("case %d: by warpgroups off by %.3g\n", i, group);
            off = std::max(off, group);
            same = same && again;
            together++;
        }
        bool gate = gate_case(seed + i);
        worst = std::max(worst, off);
        if (off > MOE_TOLERANCE || !same || !gate) {
            failed++;
            printf("case %d: off by %.3g of the row%s%s: tokens %d top-%d hidden %d experts %d+%d inner %d/%d idle %d blocks %d %s\n", i, off,
                   same ? "" : ", NOT THE SAME TWICE", gate ? "" : ", GATE", s.tokens, s.top_k, s.hidden, s.routed, s.shared, s.inner,
                   s.shared_inner, s.idle, s.blocks, s.fp8 ? "fp8" : "bf16");
        }
    }
    printf("%d shapes and routings, %d failed; the worst output is off by %.2g of its row (%.2g allowed); %d of them by warpgroups as well\n",
           count, failed, worst, MOE_TOLERANCE, together);
    return failed;
}

#endif
