//! The reference MoE layer: one specification, written more than once.
//!
//! * [`reference`]: plain loops in f64, obviously correct; what the others are tested against.
//! * [`cpu`]: fast on the host's processors: grouped by expert, threaded, over the crate `gemm`;
//! * `hwmodels/cuda/moe.cu`: on NVIDIA devices ([`crate::cuda`]).
//!
//! # The layer
//!
//! Tokens `x` are `T x H`, row major. Each token has `k` places: an expert's number, or [`MISSING`], and a weight; a
//! routing trace holds just these, and a gate makes them:
//!
//! 1. *gate*: `logit[t, e] = sum_h x[t, h] g[e, h]`; the `k` largest of a token, the lower number first among equals;
//!    their weights are the softmax over all experts, and are divided by their sum where [`Gate::renormalise`] says so;
//! 2. *permutation*: (token, place) pairs are sorted by expert with a counting sort, stable, so that an expert's rows
//!    are in the order of their tokens ([`route::Sorted`]); missing places have no row, an expert may have none;
//! 3. *experts*: for each row `r` of expert `e` with token `t`: `a = W1[e] x[t]` (`2 I` long: first the `I` of the gate
//!    matrix, then the `I` of the up matrix), `h[i] = silu(a[i]) a[I + i]`, `silu(z) = z / (1 + exp(-z))`,
//!    `y[r] = W2[e] h` (`H` long);
//! 4. *shared experts* have every token, with weight 1, and a width of their own;
//! 5. *combine*: `out[t] = sum over the token's rows of weight y[r]`, places in order, shared experts last.
//!
//! # Numbers
//!
//! Weights are FP32, BF16, INT8 or FP8 (E4M3, without infinities, largest value 448); the 8-bit ones have an f32 scale
//! a row of the matrix, `w = value scale`. The reference widens each weight exactly and computes in f64. The CPU kernel
//! takes x and h in f32 and accumulates in f32. The CUDA kernel takes x in BF16, widens FP8 to BF16 (whatever the
//! device), rounds h and y to BF16, and accumulates in f32.
//!
//! # Tolerances
//!
//! An output may be off by [`Tolerance`]: a part of the norm of its row's terms. For f32 the error of a sum of n terms
//! is at most about `n 2^-24` of the sum of magnitudes and mostly `sqrt(n) 2^-24`; with h and y rounded to BF16 a term
//! is off by up to `2^-8` of itself twice. The CUDA kernel's reference is given x as BF16.

pub mod cpu;
pub mod number;
pub mod reference;
pub mod route;

#[cfg(test)]
mod tests;

pub use crate::kernel::route::{Gate, Selections, Sorted};

/// A place of a token without an expert: what routing traces write.
pub const MISSING: u16 = u16::MAX;

/// A matrix of weights, row major.
#[derive(Clone, Copy, Debug)]
pub enum Matrix<'a> {
    /// 32-bit floating point.
    F32(&'a [f32]),
    /// The upper halves of 32-bit floating point.
    Bf16(&'a [u16]),
    /// 8-bit integers.
    Int8 {
        /// The values.
        values: &'a [i8],
        /// A scale a row.
        scales: &'a [f32],
    },
    /// 8-bit floating point, E4M3.
    Fp8 {
        /// The values.
        values: &'a [u8],
        /// A scale a row.
        scales: &'a [f32],
    },
}

impl Matrix<'_> {
    /// Elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::Bf16(v) => v.len(),
            Self::Int8 { values, .. } => values.len(),
            Self::Fp8 { values, .. } => values.len(),
        }
    }
    /// Bytes of a weight.
    pub fn weight_bytes(&self) -> usize {
        match self {
            Self::F32(_) => 4,
            Self::Bf16(_) => 2,
            Self::Int8 { .. } | Self::Fp8 { .. } => 1,
        }
    }
    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The element of a row and column of a matrix with `columns` columns, exactly.
    pub fn at(&self, row: usize, column: usize, columns: usize) -> f64 {
        let i = row * columns + column;
        match self {
            Self::F32(v) => f64::from(v[i]),
            Self::Bf16(v) => f64::from(number::from_bf16(v[i])),
            Self::Int8 { values, scales } => f64::from(values[i]) * f64::from(scales[row]),
            Self::Fp8 { values, scales } => f64::from(number::from_e4m3(values[i])) * f64::from(scales[row]),
        }
    }
}

/// One expert.
#[derive(Clone, Copy, Debug)]
pub struct Expert<'a> {
    /// Its inner width `I`.
    pub intermediate: usize,
    /// `2 I x H`: the gate matrix, then the up matrix.
    pub first: Matrix<'a>,
    /// `H x I`.
    pub second: Matrix<'a>,
}

impl Expert<'_> {
    /// Panics if the matrices have not the sizes that the widths ask for: a mistake of the caller.
    pub fn check(&self, hidden: usize) {
        assert_eq!(self.first.len(), 2 * self.intermediate * hidden, "first matrix");
        assert_eq!(self.second.len(), hidden * self.intermediate, "second matrix");
    }
}

/// A layer's experts.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// Model width `H`.
    pub hidden: usize,
    /// Routed experts.
    pub experts: &'a [Expert<'a>],
    /// Shared experts.
    pub shared: &'a [Expert<'a>],
}

/// How far an output may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Of the root mean square of the row of outputs, and of the output itself, together.
    pub of_row: f64,
    /// Absolute, for rows of zeros.
    pub absolute: f64,
}

/// Of [`cpu`] beside [`reference`].
pub const CPU_TOLERANCE: Tolerance = Tolerance { of_row: 2e-5, absolute: 1e-30 };
/// Of the CUDA kernel beside [`reference`], which is given x as BF16.
pub const CUDA_TOLERANCE: Tolerance = Tolerance { of_row: 2e-2, absolute: 1e-30 };

impl Tolerance {
    /// The largest error of any output over what is allowed; at most 1 is within.
    pub fn worst(&self, hidden: usize, wanted: &[f64], found: &[f32]) -> f64 {
        assert_eq!(wanted.len(), found.len(), "outputs");
        let row = |(wanted, found): (&[f64], &[f32])| {
            let mean = wanted.iter().map(|w| w * w).sum::<f64>() / hidden as f64;
            let off = |(w, f): (&f64, &f32)| {
                let allowed = self.of_row * (mean.sqrt() + w.abs()) + self.absolute;
                let off = (w - f64::from(*f)).abs() / allowed;
                // What is no number is beyond any tolerance.
                if off.is_nan() { f64::INFINITY } else { off }
            };
            wanted.iter().zip(found).map(off).fold(0.0, f64::max)
        };
        wanted.chunks(hidden).zip(found.chunks(hidden)).map(row).fold(0.0, f64::max)
    }
}
