// Checks the kernels without a device: c++ -std=c++17 -O2 -DMOE_EMULATE -o emulate emulate.cpp; ./emulate [CASES] [SEED].
#include "moe.cu"
#include "layer.h"
#include "check.h"

#include <cstddef>

// hwmodels/src/cuda/params.rs asserts the same.
static_assert(sizeof(MoeParams) == 184 && offsetof(MoeParams, inner) == 56 && offsetof(MoeParams, done) == 144 && offsetof(MoeParams, tokens) == 152 && offsetof(MoeParams, fp8) == 180, "layout");

int main(int argc, char** argv) {
    int count = argc > 1 ? atoi(argv[1]) : 200;
    uint64_t seed = argc > 2 ? strtoull(argv[2], 0, 10) : 1;
    return moe_cases(count, seed, true) == 0 ? 0 : 1;
}
