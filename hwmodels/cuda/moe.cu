// The reference MoE layer on NVIDIA devices from sm_80 on; the specification is in hwmodels/src/kernel/mod.rs.
//
//   moe_gate      logits, top-k, softmax (where the caller has no routing)
//   moe_count     rows of each expert                                     } a stable counting sort of
//   moe_scan      first row and first tiles of each expert, splits of K   } (token, place) pairs by expert,
//   moe_permute   token of each row, row of each place                    } shared experts behind the routed
//   moe_up_*      h = silu(x W1 gate) * (x W1 up), rows gathered by token
//   moe_down_*    y = h W2
//   moe_combine   weighted sum of every token's rows
//
// Both products are one persistent kernel each: blocks walk over the tiles of all experts, whose number only the device knows. An
// expert with at most 16 rows takes tiles 16 rows high, which do little but stream weights; where tiles are fewer than blocks, K
// is split, and the last block of a tile adds the parts in order, so that results are the same bits every time. Copies of
// several steps of K are on their way (cp.async) while one is multiplied (ldmatrix, mma.sync in BF16 with sums in FP32). On sm_90a
// moe_*_wgmma multiply the tall tiles of BF16 weights by warpgroups, straight from shared memory.
// FP8 weights are E4M3 with a scale a row; they are widened to BF16 in registers on every device.
//
// H and I are multiples of 8, with FP8 of 16; pointers are aligned to 16 bytes.
#include "ptx.cuh"
#include "route.cuh"
#include "product.cuh"
#include "stream.cuh"
