//! Forms: the time of a kernel as a function of its work, the device's peaks and a few constants that are fitted to
//! measurements ([`crate::calibrate`]).
//!
//! A form follows how such kernels work; its constants are efficiencies relative to the peaks, widths and fixed times,
//! so that a device without measurements can borrow another's. Times are f64 seconds.

mod attention;
mod collective;
mod custom_all_reduce;
mod expert_exchange;
mod fused_moe;
mod gemm;
mod stream;
mod streamed;

pub use attention::{AttentionClass, AttentionForm, AttentionHeads, AttentionKernel, AttentionRow, AttentionTime};
pub use collective::{CollectiveForm, CollectiveOp, CollectiveRow, LinkPeaks};
pub use custom_all_reduce::CustomAllReduceForm;
pub use expert_exchange::{
    Exchange, ExchangeOp, FusedExchangeForm, FusedExchangeRow, LowLatencyForm, LowLatencyRow, NormalForm, NormalRow,
    distinct,
};
pub use fused_moe::{FusedMoeForm, MoeLoad, MoeRow, MoeShape, MoeTime, TILES, Tiling};
pub use gemm::{GemmForm, GemmKernel, GemmLoad, GemmPairForm, GemmRow, GemmTiling, GemmTime};
pub use stream::{StreamForm, StreamRow};
pub use streamed::{StreamedForm, StreamedLoad, StreamedRow, StreamedTime};

/// What a device could do at best, from its data sheet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// Operations per second in the kernel's precision.
    pub flop_per_s: f64,
    /// Memory bandwidth in bytes per second.
    pub bytes_per_s: f64,
    /// Processors that run a tile each: streaming multiprocessors, AI cores.
    pub units: f64,
    /// Bytes of the cache in front of memory (L2).
    pub l2_bytes: f64,
}

/// A constant of a form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constant {
    /// Its name in profiles.
    pub name: &'static str,
    /// What the constant stands for, in words for a report.
    pub about: &'static str,
    /// The unit of the constant; empty for a plain number.
    pub unit: &'static str,
    /// Bounds, both above zero.
    pub bounds: [f64; 2],
    /// Where a fit starts, and the centre of its prior.
    pub start: f64,
    /// The prior: standard deviation of the value's logarithm; infinite for none.
    pub spread: f64,
}

/// A form: constants, and the time of a row of measurements under them.
pub trait Form: Sync {
    /// What one measurement asks of the kernel.
    type Row: Clone + Sync;
    /// Relative error beyond which a row counts less than its square in a fit; what priors are weighed against.
    const ROBUST: f64;
    /// The constants, in the order in which [`Form::seconds`] takes them; at most fifteen.
    fn constants(&self) -> Vec<Constant>;
    /// Where a fit starts: factors of the constants' starts, one list a start. One start, unless a form has valleys.
    fn starts(&self) -> Vec<Vec<f64>> {
        vec![vec![1.0; self.constants().len()]]
    }
    /// Seconds of a row.
    fn seconds(&self, constants: &[f64], row: &Self::Row) -> f64;
    /// The larger of operations over peak and bytes over peak bandwidth: what a bare roofline says.
    fn roofline(&self, row: &Self::Row) -> f64;
    /// The term that takes most of a row's time.
    fn bound(&self, constants: &[f64], row: &Self::Row) -> &'static str;
    /// Operations, and bytes to and from memory or over links: what a roofline is drawn from.
    fn amounts(&self, row: &Self::Row) -> [f64; 2];
    /// Logarithms of what makes two rows alike: their distance picks the nearest neighbour that a fit is compared with.
    fn features(&self, row: &Self::Row) -> [f64; 5];
}

/// A constant that starts at the first of three numbers and lies between the others, known to about a factor of e^2.
const fn constant(name: &'static str, about: &'static str, unit: &'static str, at: [f64; 3]) -> Constant {
    let [start, low, high] = at;
    constant_within(name, about, unit, [start, low, high, 2.0])
}

/// A constant that starts at the first of four numbers and lies between the next two; the last is the spread of the
/// prior.
const fn constant_within(name: &'static str, about: &'static str, unit: &'static str, at: [f64; 4]) -> Constant {
    let [start, low, high, spread] = at;
    Constant { name, about, unit, bounds: [low, high], start, spread }
}

/// The name of the largest term, the first among equals.
fn largest<const N: usize>(terms: [(f64, &'static str); N]) -> &'static str {
    terms.into_iter().reduce(|a, b| if b.0 > a.0 { b } else { a }).map_or("launch", |t| t.1)
}

/// `(a^p + b^p + c^p)^(1/p)`: between the sum (p = 1: nothing overlaps) and the largest (p infinite: all does).
pub(crate) fn norm(p: f64, terms: [f64; 3]) -> f64 {
    let most = terms.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return 0.0;
    }
    let part = |x: f64| {
        let r = x / most;
        // What is far below the largest adds nothing that a f64 could hold at p >= 1 and matters to nobody.
        if r == 1.0 {
            1.0
        } else if r < 1e-9 {
            0.0
        } else {
            libm::pow(r, p)
        }
    };
    let sum: f64 = terms.iter().map(|x| part(*x)).sum();
    if sum == 1.0 { most } else { most * libm::pow(sum, 1.0 / p) }
}

/// [`norm`] of two terms at p = 4, without logarithms.
pub(crate) fn norm4(a: f64, b: f64) -> f64 {
    let most = a.max(b);
    if most <= 0.0 {
        return 0.0;
    }
    let r = a.min(b) / most;
    most * (1.0 + r * r * r * r).sqrt().sqrt()
}

/// Four starts: the constants as they are, all larger, and two patterns of larger and smaller ones.
fn four_starts(constants: usize) -> Vec<Vec<f64>> {
    const STEP: f64 = 1.6;
    let patterns: [&[f64]; 4] = [&[1.0], &[STEP], &[STEP, 1.0 / STEP], &[1.0 / STEP, STEP, STEP]];
    patterns.iter().map(|p| p.iter().copied().cycle().take(constants).collect()).collect()
}
