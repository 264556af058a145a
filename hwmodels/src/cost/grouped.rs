//! The experts of one device: two grouped GEMMs.

use super::gemm::{output_bits, rounding};
use super::{Cost, Engine, Family, elementwise};

/// Experts of one shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupedMlp {
    /// Model width.
    pub hidden: u64,
    /// Width inside an expert (the part on this device, if experts are split).
    pub intermediate: u64,
    /// Rank of the two factors that stand for each matrix; 0: whole matrices.
    pub rank: u64,
    /// Weight matrices of an expert: 3 with a gated activation (gate, up, down), 2 without.
    pub matrices: u64,
    /// Bits per weight, scales included.
    pub weight_bits: f64,
    /// Bits per activation.
    pub activation_bits: f64,
    /// Experts of this device that a token with any selects, in the mean; calibrated kernels choose tiles by tokens.
    pub choices: f64,
    /// Tokens that come to the device, and their selections of whatever expert, where all tokens come to every device:
    /// calibrated kernels choose tiles by them, and some passes move them all. Zeros where only tokens for the device's
    /// experts come.
    pub everywhere: [f64; 2],
}

/// What a list of experts asks for: sums over tokens and over experts that have any.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Tokens.
    rows: f64,
    /// Experts with tokens.
    active: f64,
    /// Tokens x width of their expert.
    row_width: f64,
    /// Widths of experts with tokens.
    active_width: f64,
}

/// `tokens[e]` tokens for expert `e` of this device.
///
/// Two kernels: gate and up with the activation fused into the end, then down. Weights of experts that have tokens are
/// read once, of the others not at all. Activations: tokens in and the fused product out in `activation_bits`, that
/// product in again, the result out in at least 16 bits. Without any token nothing is launched.
///
/// Where the engine has a calibrated kernel, its form gives the time.
///
/// Factorised matrices take four kernels: hidden to the ranks of gate and up, those to the product, the product to a
/// rank, that to the result. What is between two factors goes out and in as activations.
pub fn grouped_mlp(engine: &Engine, mlp: &GroupedMlp, tokens: &[u32]) -> Cost {
    let (mut rows, mut active) = (0u64, 0u64);
    for &t in tokens {
        rows += u64::from(t);
        active += u64::from(t > 0);
    }
    if rows == 0 {
        return Cost::default();
    }
    let (rows, active) = (rows as f64, active as f64);
    if mlp.rank > 0 {
        let width = mlp.intermediate as f64;
        return factored(engine, mlp, &Load { rows, active, row_width: rows * width, active_width: active * width });
    }
    let (hidden, intermediate) = (mlp.hidden as f64, mlp.intermediate as f64);
    let (matrix, input) = (hidden * intermediate, mlp.activation_bits);
    if let Some(kernel) = &engine.kernels.experts {
        let flop = 2.0 * rows * mlp.matrices as f64 * matrix;
        let traffic = (hidden + 2.0 * intermediate) * input + hidden * output_bits(input);
        let bytes = (active * mlp.matrices as f64 * matrix * mlp.weight_bits + rows * traffic) / 8.0;
        let layer = kernel.cost(mlp, tokens, flop as u64, bytes as u64);
        if !kernel.activation_apart() {
            return layer;
        }
        // What the first GEMM leaves comes in, the product goes out as the second takes it.
        let passed = rows * intermediate * (mlp.matrices.saturating_sub(1) as f64 * output_bits(input) + input) / 8.0;
        let activation = Cost { bytes: 0, ..elementwise(engine, passed) };
        return layer.then(activation);
    }
    let width = intermediate;
    whole(engine, mlp, &Load { rows, active, row_width: rows * width, active_width: active * width })
}

/// The same for experts of different widths: (tokens, width) of each; `mlp.intermediate` is not used.
pub fn grouped_mlp_sized(engine: &Engine, mlp: &GroupedMlp, experts: impl Iterator<Item = (u32, u64)>) -> Cost {
    let mut load = Load::default();
    for (tokens, width) in experts.filter(|(tokens, _)| *tokens > 0) {
        let (tokens, width) = (f64::from(tokens), width as f64);
        load.rows += tokens;
        load.active += 1.0;
        load.row_width += tokens * width;
        load.active_width += width;
    }
    if load.rows == 0.0 {
        return Cost::default();
    }
    if mlp.rank > 0 { factored(engine, mlp, &load) } else { whole(engine, mlp, &load) }
}

/// Gate and up, then down.
fn whole(engine: &Engine, mlp: &GroupedMlp, load: &Load) -> Cost {
    let hidden = mlp.hidden as f64;
    let input = engine.input_bits(mlp.weight_bits, mlp.activation_bits);
    let bits = mlp.weight_bits.max(input);
    let kernel = |matrices: f64, activation_bits: f64| {
        let bytes = (matrices * hidden * load.active_width * mlp.weight_bits + activation_bits) / 8.0;
        engine.kernel(Family::Grouped, bits, 2.0 * matrices * hidden * load.row_width, bytes)
    };
    // The activation at the end of the first kernel rounds what it leaves.
    let up = kernel(mlp.matrices.saturating_sub(1) as f64, (load.rows * hidden + load.row_width) * input);
    let down = kernel(1.0, load.row_width * input + load.rows * hidden * output_bits(mlp.activation_bits));
    rounding(engine, load.rows * hidden, mlp.activation_bits, input).then(up).then(down)
}

/// Each matrix as two factors.
fn factored(engine: &Engine, mlp: &GroupedMlp, load: &Load) -> Cost {
    let (hidden, rank) = (mlp.hidden as f64, mlp.rank as f64);
    let input = engine.input_bits(mlp.weight_bits, mlp.activation_bits);
    let bits = mlp.weight_bits.max(input);
    let up = mlp.matrices.saturating_sub(1) as f64;
    let kernel = |row_products: f64, weights: f64, activation_bits: f64| {
        let bytes = (weights * mlp.weight_bits + activation_bits) / 8.0;
        engine.kernel(Family::Grouped, bits, 2.0 * row_products, bytes)
    };
    let (ranks, products) = (load.rows * rank, load.row_width);
    rounding(engine, load.rows * hidden, mlp.activation_bits, input)
        .then(kernel(up * ranks * hidden, up * load.active * rank * hidden, (load.rows * hidden + up * ranks) * input))
        .then(kernel(up * rank * products, up * rank * load.active_width, (up * ranks + products) * input))
        .then(kernel(rank * products, rank * load.active_width, (products + ranks) * input))
        .then(kernel(
            ranks * hidden,
            load.active * rank * hidden,
            ranks * input + load.rows * hidden * output_bits(mlp.activation_bits),
        ))
}
