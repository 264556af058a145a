//! What an operation costs on one engine: a launch, then the longer of compute and memory (the roofline of Williams,
//! Waterman and Patterson, CACM 2009), with the achievable fractions of the device.
//!
//! Where an engine has a calibrated kernel for an operation ([`Kernels`]), its form gives the time instead.
//!
//! Shapes are plain; every function gives f64 seconds, and but for calibrated attention none allocates.

mod attention;
mod engine;
mod exchange;
mod expert_kernel;
mod gemm;
mod grouped;
mod kernels;
mod memo;
mod stream;

pub use attention::{AttentionBatch, AttentionClass, AttentionKind, AttentionShape, AttentionWork, attention};
pub use engine::{Asked, AskedLog, Engine, Family, Precision};
pub use exchange::{ExchangeForm, ExchangeKernel, ExchangeKernels, Exchanged};
pub use expert_kernel::ExpertKernel;
pub use gemm::{Gemm, gate, gemm, grouped_gemm};
pub use grouped::{GroupedMlp, grouped_mlp, grouped_mlp_sized};
pub use kernels::{CoreKernel, DenseKernel, Kernels, StreamKernel};
pub use stream::{copy, elementwise};

/// The cost of one kernel, or of several in a row.
///
/// `compute_s` and `memory_s` are demands: what compute or memory alone would take. The time is not a function of their
/// sums once kernels with different bounds are put in a row, so a cost also keeps the time spent under each bound, and
/// [`Cost::time_s`] is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Seconds of launches.
    pub launch_s: f64,
    /// Seconds that compute alone would take.
    pub compute_s: f64,
    /// Seconds that memory alone would take.
    pub memory_s: f64,
    /// Floating-point operations; a multiply-add counts two.
    pub flop: u64,
    /// Bytes to and from memory.
    pub bytes: u64,
    /// Seconds that the operations would take at the engine's peak rate in the precision that they run in: what compute
    /// utilisation counts.
    pub peak_s: f64,
    /// Number of kernels that this cost is the sum of.
    pub kernels: u32,
    compute_bound_s: f64,
    memory_bound_s: f64,
}

/// The terms of a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Term {
    /// Starting kernels.
    Launch,
    /// The compute rate.
    Compute,
    /// The memory bandwidth.
    Memory,
}

impl Cost {
    /// One kernel.
    pub fn kernel(launch_s: f64, compute_s: f64, memory_s: f64, flop: u64, bytes: u64) -> Self {
        Self::measured(launch_s, compute_s.max(memory_s), [compute_s, memory_s], flop, bytes)
    }

    /// A kernel whose time comes from a calibrated form: `body_s` beside the launch, bound by the larger of what
    /// compute and memory alone would take.
    pub fn measured(launch_s: f64, body_s: f64, [compute_s, memory_s]: [f64; 2], flop: u64, bytes: u64) -> Self {
        let compute = compute_s > memory_s;
        Self {
            launch_s,
            compute_s,
            memory_s,
            flop,
            bytes,
            peak_s: 0.0,
            kernels: 1,
            compute_bound_s: if compute { body_s } else { 0.0 },
            memory_bound_s: if compute { 0.0 } else { body_s },
        }
    }

    /// The same kernel, whose operations run at most at `flop_per_s`.
    #[must_use]
    pub fn at_peak(self, flop_per_s: f64) -> Self {
        Self { peak_s: self.flop as f64 / flop_per_s, ..self }
    }

    /// Bytes that come from a memory of `bytes_per_s`: all of them, unless the kernel is faster than that memory. The
    /// rest then came from a cache.
    pub fn drawn(&self, bytes_per_s: f64) -> u64 {
        let most = (self.compute_bound_s + self.memory_bound_s) * bytes_per_s;
        if self.bytes as f64 > most { most as u64 } else { self.bytes }
    }

    /// Seconds from start to end: for one kernel, launch + max(compute, memory).
    pub fn time_s(&self) -> f64 {
        self.launch_s + self.compute_bound_s + self.memory_bound_s
    }

    /// The largest term: of the time spent launching, bound by compute, and bound by memory; memory wins ties.
    pub fn term(&self) -> Term {
        if self.memory_bound_s >= self.compute_bound_s.max(self.launch_s) {
            Term::Memory
        } else if self.compute_bound_s >= self.launch_s {
            Term::Compute
        } else {
            Term::Launch
        }
    }

    /// This, then `other`: every term adds, and so does the time.
    #[must_use]
    pub fn then(self, other: Self) -> Self {
        Self {
            launch_s: self.launch_s + other.launch_s,
            compute_s: self.compute_s + other.compute_s,
            memory_s: self.memory_s + other.memory_s,
            flop: self.flop + other.flop,
            bytes: self.bytes + other.bytes,
            peak_s: self.peak_s + other.peak_s,
            kernels: self.kernels + other.kernels,
            compute_bound_s: self.compute_bound_s + other.compute_bound_s,
            memory_bound_s: self.memory_bound_s + other.memory_bound_s,
        }
    }
}

#[cfg(test)]
mod tests;
