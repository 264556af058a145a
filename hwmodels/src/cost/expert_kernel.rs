//! A calibrated kernel for the experts of a device, in place of two rooflines.

use super::{Cost, GroupedMlp};
use crate::calibrate::data::moe::widths;
use crate::calibrate::profile::{Kernel, KernelForm, TimeTable};
use crate::form::{FusedMoeForm, GemmForm, GemmKernel, GemmLoad, GemmRow, MoeLoad, MoeRow, MoeShape, Peaks};
use crate::form::{StreamedForm, StreamedLoad, StreamedRow};
use moesim_core::{Diag, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A kernel of experts with fitted constants.
#[derive(Clone, Debug)]
pub struct ExpertKernel {
    layer: Layer,
    constants: Vec<f64>,
    peaks: Peaks,
    /// What measurements were between: tokens, or rows a group where groups of rows were measured.
    sizes: [f64; 2],
    /// Bytes of an activation inside the kernel.
    activation_bytes: f64,
    /// Calls that were smaller or larger than any measurement.
    outside: Arc<AtomicU64>,
    /// Measured times, which go first.
    table: Option<Arc<TimeTable>>,
}

/// What was measured.
#[derive(Clone, Debug)]
enum Layer {
    /// A fused layer, with (experts, intermediate) that have a tuned tile.
    Fused { form: FusedMoeForm, tuned: Vec<[u64; 2]> },
    /// A layer on processors, whose weights are streamed for so many rows of an expert.
    Streamed { few: u32 },
    /// Both grouped GEMMs and the activation between.
    Pair(GemmKernel),
    /// One grouped GEMM: the layer takes two, and an activation that streams.
    Grouped(GemmKernel),
}

impl ExpertKernel {
    /// A profile's kernel on a device with these peaks.
    ///
    /// # Errors
    /// Constants that are not sensible, a kernel of another form.
    pub fn new(kernel: &Kernel, peaks: Peaks) -> Result<Self> {
        let layer = match kernel.form() {
            KernelForm::FusedMoe { tiling, tuned } => {
                Layer::Fused { form: FusedMoeForm { tiling: *tiling }, tuned: tuned.clone() }
            }
            KernelForm::Streamed { few } => Layer::Streamed { few: *few },
            KernelForm::GemmPair { kernel } => Layer::Pair(*kernel),
            KernelForm::Gemm { kernel, .. } => Layer::Grouped(*kernel),
            _ => {
                let problem = format!("{} is no kernel of experts", kernel.family);
                return Err(Diag::input(problem).cure("name another kernel, or fit one to MoE layers"));
            }
        };
        // As it was fitted: kernels of 8-bit weights quantise their own activations.
        let activation_bytes = widths(&kernel.precision).map_or(2.0, |w| w[1]);
        Ok(Self {
            layer,
            constants: kernel.values()?,
            peaks,
            sizes: kernel.data.sizes,
            activation_bytes,
            outside: Arc::default(),
            table: None,
        })
    }

    /// With measured times where the table has them; the form stands in elsewhere, which counts as outside.
    #[must_use]
    pub fn with_table(self, table: TimeTable) -> Self {
        Self { table: Some(Arc::new(table)), ..self }
    }

    /// Calls so far that were smaller or larger than any measurement.
    pub fn outside(&self) -> u64 {
        self.outside.load(Ordering::Relaxed)
    }

    /// Whether the activation between the two GEMMs is a kernel of its own.
    pub(super) fn activation_apart(&self) -> bool {
        matches!(self.layer, Layer::Grouped(_))
    }

    fn sized(&self, size: f64) {
        if size < self.sizes[0] || size > self.sizes[1] {
            self.outside.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The cost of `tokens[e]` tokens for expert `e` of the device. Operations and bytes are those of
    /// [`super::grouped_mlp`]: what is useful, not what padding adds.
    pub(super) fn cost(&self, mlp: &GroupedMlp, tokens: &[u32], flop: u64, bytes: u64) -> Cost {
        if let Some(table) = &self.table {
            let rows: u64 = tokens.iter().map(|n| u64::from(*n)).sum();
            let of = [mlp.hidden, mlp.intermediate, mlp.matrices.saturating_sub(1), tokens.len() as u64];
            if let Some(seconds) = table.at(&of, rows as f64) {
                return Cost::measured(0.0, seconds, [0.0, seconds], flop, bytes).at_peak(self.peaks.flop_per_s);
            }
            self.outside.fetch_add(1, Ordering::Relaxed);
        }
        let kernel = match &self.layer {
            Layer::Fused { form, tuned } => return self.fused(*form, tuned, mlp, tokens, flop, bytes),
            Layer::Streamed { few } => return self.streamed(*few, mlp, tokens, flop, bytes),
            Layer::Pair(kernel) | Layer::Grouped(kernel) => *kernel,
        };
        let load = GemmLoad::of(tokens.iter().copied());
        self.sized(if self.activation_apart() { load.rows / load.groups } else { load.rows / mlp.choices.max(1.0) });
        let (hidden, inner) = (mlp.hidden as f64, mlp.intermediate as f64);
        let element_bytes = [self.activation_bytes, mlp.weight_bits / 8.0, 2.0];
        let time = |n: f64, k: f64| {
            let row = GemmRow { load, n, k, element_bytes, peaks: self.peaks };
            GemmForm::cold(kernel).time(&self.constants, &row)
        };
        let up = time(mlp.matrices.saturating_sub(1) as f64 * inner, hidden);
        let down = time(hidden, inner);
        let fixed_s = up.fixed_s + down.fixed_s;
        let both = [up.compute_s + down.compute_s, up.memory_s + down.memory_s];
        Cost::measured(fixed_s, up.seconds + down.seconds - fixed_s, both, flop, bytes).at_peak(self.peaks.flop_per_s)
    }

    fn streamed(&self, few: u32, mlp: &GroupedMlp, tokens: &[u32], flop: u64, bytes: u64) -> Cost {
        let load = StreamedLoad::of(tokens.iter().copied(), few);
        let entered = (load.rows[0] + load.rows[1]) / mlp.choices.max(1.0);
        self.sized(entered);
        let first = mlp.matrices.saturating_sub(1) as f64;
        let widths = [mlp.hidden as f64, mlp.intermediate as f64, first, tokens.len() as f64];
        let row = StreamedRow::experts(load, entered, widths, mlp.weight_bits / 8.0, self.peaks);
        let t = StreamedForm.time(&self.constants, &row);
        // Row passes are memory traffic.
        let both = [t.compute_s, t.memory_s + t.passes_s];
        Cost::measured(t.fixed_s, t.seconds - t.fixed_s, both, flop, bytes).at_peak(self.peaks.flop_per_s)
    }

    fn fused(
        &self,
        form: FusedMoeForm,
        tuned: &[[u64; 2]],
        mlp: &GroupedMlp,
        tokens: &[u32],
        flop: u64,
        bytes: u64,
    ) -> Cost {
        let load = MoeLoad::of(tokens.iter().copied());
        let load = match mlp.everywhere {
            [entered, pairs] if entered > 0.0 => MoeLoad { tokens: entered, off: (pairs - load.rows).max(0.0), ..load },
            _ => MoeLoad { tokens: load.rows / mlp.choices.max(1.0), ..load },
        };
        self.sized(load.tokens);
        let shape = MoeShape {
            hidden: mlp.hidden as f64,
            intermediate: mlp.intermediate as f64,
            first: mlp.matrices.saturating_sub(1) as f64,
            experts: tokens.len() as f64,
            weight_bytes: mlp.weight_bits / 8.0,
            activation_bytes: self.activation_bytes,
            tuned: tuned.contains(&[tokens.len() as u64, mlp.intermediate]),
        };
        let time = form.time(&self.constants, &MoeRow { load, shape, peaks: self.peaks });
        // Row passes are memory traffic.
        Cost::measured(
            time.fixed_s,
            time.gemm_s + time.passes_s,
            [time.compute_s, time.memory_s + time.passes_s],
            flop,
            bytes,
        )
        .at_peak(self.peaks.flop_per_s)
    }
}
