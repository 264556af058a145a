//! A calibrated kernel for the experts of a device, in place of two rooflines.

use super::{Cost, GroupedMlp};
use crate::calibrate::data::moe::widths;
use crate::calibrate::profile::Kernel;
use crate::form::{FusedMoe, MoeLoad, MoeRow, MoeShape, Peaks};
use moesim_core::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A fused MoE kernel with fitted constants.
#[derive(Clone, Debug)]
pub struct ExpertKernel {
    form: FusedMoe,
    constants: Vec<f64>,
    peaks: Peaks,
    /// (Experts, intermediate) with a tuned tile.
    tuned: Vec<[u64; 2]>,
    /// Tokens of the measurements.
    sizes: [f64; 2],
    /// Bytes of an activation inside the kernel.
    activation_bytes: f64,
    /// Calls with fewer or more tokens than any measurement.
    outside: Arc<AtomicU64>,
}

impl ExpertKernel {
    /// A profile's kernel on a device with these peaks.
    ///
    /// # Errors
    /// Constants that are not sensible.
    pub fn new(kernel: &Kernel, peaks: Peaks) -> Result<Self> {
        // As it was fitted: kernels of 8-bit weights quantise their own activations.
        let activation_bytes = widths(&kernel.precision).map_or(2.0, |w| w[1]);
        Ok(Self {
            form: kernel.form(),
            constants: kernel.values()?,
            peaks,
            tuned: kernel.tuned.clone(),
            sizes: kernel.data.sizes,
            activation_bytes,
            outside: Arc::default(),
        })
    }

    /// Calls so far with fewer or more tokens than any measurement.
    pub fn outside(&self) -> u64 {
        self.outside.load(Ordering::Relaxed)
    }

    /// The cost of `tokens[e]` tokens for expert `e` of the device. Operations and bytes are those of [`super::grouped_mlp`]:
    /// what is useful, not what padding adds.
    pub(super) fn cost(&self, mlp: &GroupedMlp, tokens: &[u32], flop: u64, bytes: u64) -> Cost {
        let load = MoeLoad::of(tokens.iter().copied());
        let load = MoeLoad { tokens: load.rows / mlp.choices.max(1.0), ..load };
        if load.tokens < self.sizes[0] || load.tokens > self.sizes[1] {
            self.outside.fetch_add(1, Ordering::Relaxed);
        }
        let shape = MoeShape {
            hidden: mlp.hidden as f64,
            intermediate: mlp.intermediate as f64,
            first: mlp.matrices.saturating_sub(1) as f64,
            experts: tokens.len() as f64,
            weight_bytes: mlp.weight_bits / 8.0,
            activation_bytes: self.activation_bytes,
            tuned: self.tuned.contains(&[tokens.len() as u64, mlp.intermediate]),
        };
        let time = self.form.time(&self.constants, &MoeRow { load, shape, peaks: self.peaks });
        // Row passes are memory traffic.
        Cost::measured(
            time.fixed_s,
            time.gemm_s + time.passes_s,
            [time.compute_s, time.memory_s + time.passes_s],
            flop,
            bytes,
        )
    }
}
