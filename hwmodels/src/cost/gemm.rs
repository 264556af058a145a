//! Dense GEMM, and the gate of a MoE layer.

use super::{Asked, Cost, Engine, Family, elementwise};

/// C (m x n) = A (m x k) B (k x n), A activations and B weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gemm {
    /// Rows of A: tokens.
    pub m: u64,
    /// Columns of B: output features.
    pub n: u64,
    /// Input features.
    pub k: u64,
    /// Bits per weight, scales included.
    pub weight_bits: f64,
    /// Bits per input activation.
    pub activation_bits: f64,
}

/// Bits per output activation: results leave in 16 bits even where the inputs are narrower (FP8 in, BF16 out).
pub(super) fn output_bits(activation_bits: f64) -> f64 {
    activation_bits.max(16.0)
}

/// Rounding `elements` inputs to narrower ones before a product: a kernel that reads and writes them. Nothing where
/// they stay as they are.
pub(super) fn rounding(engine: &Engine, elements: f64, from_bits: f64, to_bits: f64) -> Cost {
    let bytes = if to_bits < from_bits { elements * (from_bits + to_bits) / 8.0 } else { 0.0 };
    elementwise(engine, bytes)
}

/// 2 m n k operations; every operand moved once. Nothing to do (m = 0) costs nothing. Where inputs are rounded before
/// products, that is a kernel before this one, unless a calibrated kernel has it in its time.
pub fn gemm(engine: &Engine, g: Gemm) -> Cost {
    if g.m == 0 {
        return Cost::default();
    }
    let (m, n, k) = (g.m as f64, g.n as f64, g.k as f64);
    let input = engine.input_bits(g.weight_bits, g.activation_bits);
    let bits = n * k * g.weight_bits + m * k * input + m * n * output_bits(g.activation_bits);
    let (flop, bytes) = (2.0 * m * n * k, bits / 8.0);
    let own = engine.kernels.gemm(&g, flop, bytes);
    let product = own.unwrap_or_else(|| engine.kernel(Family::Dense, g.weight_bits.max(input), flop, bytes));
    engine.asked(Asked::Product(g), &product);
    match own {
        Some(product) => product,
        None => rounding(engine, m * k, g.activation_bits, input).then(product),
    }
}

/// The same as a grouped GEMM: each of the `m` rows takes one of several matrices of this shape, of which `matrices`
/// are read; a mean where it is not known which.
pub fn grouped_gemm(engine: &Engine, g: Gemm, matrices: f64) -> Cost {
    if g.m == 0 {
        return Cost::default();
    }
    let (m, n, k) = (g.m as f64, g.n as f64, g.k as f64);
    let input = engine.input_bits(g.weight_bits, g.activation_bits);
    let bits = matrices * n * k * g.weight_bits + m * k * input + m * n * output_bits(g.activation_bits);
    let product = engine.kernel(Family::Grouped, g.weight_bits.max(input), 2.0 * m * n * k, bits / 8.0);
    rounding(engine, m * k, g.activation_bits, input).then(product)
}

/// The gate of `tokens`: scores by a GEMM, then one pass over them (32 bits each) that selects the top k. A gate whose
/// weights are in 32 bits has a kernel before the product that widens inputs of 16.
pub fn gate(engine: &Engine, tokens: u64, hidden: u64, experts: u64, weight_bits: f64, activation_bits: f64) -> Cost {
    if tokens == 0 {
        return Cost::default();
    }
    let is_wide = weight_bits > 24.5 && activation_bits < weight_bits;
    let widened = if is_wide { tokens as f64 * hidden as f64 * (activation_bits + weight_bits) / 8.0 } else { 0.0 };
    let activation_bits = if is_wide { weight_bits } else { activation_bits };
    let scores = gemm(engine, Gemm { m: tokens, n: experts, k: hidden, weight_bits, activation_bits });
    elementwise(engine, widened).then(scores).then(elementwise(engine, tokens as f64 * experts as f64 * 4.0))
}
