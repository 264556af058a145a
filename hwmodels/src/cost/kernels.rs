//! Calibrated kernels of an engine: where there is one for an operation it gives the time, else the roofline does.

use super::memo::Memo;
use super::{AttentionBatch, AttentionKind, AttentionShape, AttentionWork, Cost, ExpertKernel, Gemm};
use crate::calibrate::profile::KernelForm;
use crate::calibrate::profile::TimeTable;
use crate::form::{
    self, AttentionClass, AttentionForm, AttentionHeads, AttentionKernel, AttentionRow, GemmForm, GemmKernel, GemmLoad,
    GemmRow, Peaks, StreamForm, StreamRow, StreamedForm, StreamedRow,
};
use std::sync::Arc;

/// The calibrated kernels of an engine.
#[derive(Clone, Debug, Default)]
pub struct Kernels {
    /// Routed experts.
    pub experts: Option<ExpertKernel>,
    /// Dense GEMMs, by the widths that they are for.
    pub gemms: Vec<DenseKernel>,
    /// Attention of one new token a sequence.
    pub decode: Option<CoreKernel>,
    /// Attention of several new tokens a sequence.
    pub prefill: Option<CoreKernel>,
    /// Kernels that only move bytes.
    pub stream: Option<StreamKernel>,
}

/// Dense GEMM with fitted constants, for operands of certain widths.
#[derive(Clone, Debug)]
pub struct DenseKernel {
    bits: [f64; 2],
    /// Bytes of an activation that enters.
    input_bytes: f64,
    form: Dense,
    constants: Vec<f64>,
    peaks: Peaks,
    memo: Arc<Memo>,
    /// Measured times, which go first.
    table: Option<Arc<TimeTable>>,
}

/// A dense GEMM's form.
#[derive(Clone, Copy, Debug)]
enum Dense {
    Tiled(GemmKernel),
    Streamed { few: u32 },
}

impl DenseKernel {
    /// For operands of `bits` a weight and activation, of which `input_bytes` enter: kernels of 8-bit weights take
    /// activations that were quantised for them. `constants` are those of a form that was fitted `warm` or not; runs
    /// have other kernels between two calls and are cold. `None` for a form of something else.
    pub fn new(bits: [f64; 2], input_bytes: f64, form: &KernelForm, constants: Vec<f64>, peaks: Peaks) -> Option<Self> {
        let form = match form {
            KernelForm::Gemm { kernel, .. } => Dense::Tiled(*kernel),
            KernelForm::Streamed { few } => Dense::Streamed { few: *few },
            _ => return None,
        };
        Some(Self { bits, input_bytes, form, constants, peaks, memo: Arc::default(), table: None })
    }

    /// With measured times where the table has them; the form stands in elsewhere.
    #[must_use]
    pub fn with_table(self, table: TimeTable) -> Self {
        Self { table: Some(Arc::new(table)), ..self }
    }

    /// Bits a weight and activation that it is for.
    pub fn bits(&self) -> [f64; 2] {
        self.bits
    }

    fn cost(&self, g: &Gemm, flop: f64, bytes: f64) -> Cost {
        self.memo.get([g.m, g.n, g.k, 0], || {
            if let Some(seconds) = self.table.as_ref().and_then(|t| t.at(&[g.n, g.k], g.m as f64)) {
                let cost = Cost::measured(0.0, seconds, [0.0, seconds], flop as u64, bytes as u64);
                return cost.at_peak(self.peaks.flop_per_s);
            }
            let ([m, n, k], weight_bytes) = ([g.m, g.n, g.k].map(|x| x as f64), g.weight_bits / 8.0);
            let (fixed_s, seconds, both) = match self.form {
                Dense::Tiled(kernel) => {
                    let out_bytes = super::gemm::output_bits(g.activation_bits) / 8.0;
                    let element_bytes = [self.input_bytes, weight_bytes, out_bytes];
                    let row = GemmRow { load: GemmLoad::even(1.0, m), n, k, element_bytes, peaks: self.peaks };
                    let t = GemmForm::cold(kernel).time(&self.constants, &row);
                    (t.fixed_s, t.seconds, [t.compute_s, t.memory_s])
                }
                Dense::Streamed { few } => {
                    let row = StreamedRow::dense(m, [n, k], weight_bytes, few, self.peaks);
                    let t = StreamedForm.time(&self.constants, &row);
                    (t.fixed_s, t.seconds, [t.compute_s, t.memory_s + t.passes_s])
                }
            };
            Cost::measured(fixed_s, seconds - fixed_s, both, flop as u64, bytes as u64).at_peak(self.peaks.flop_per_s)
        })
    }
}

/// Core attention with fitted constants.
#[derive(Clone, Debug)]
pub struct CoreKernel {
    kernel: AttentionKernel,
    constants: Vec<f64>,
    peaks: Peaks,
    /// Latent attention's keys and values are expanded to every head first.
    expanded: bool,
    /// Prompts and sequences that decode may share a call.
    mixed: bool,
}

/// Classes of sequences that a call tells apart; beyond, neighbours in length are one.
const CLASSES: usize = 48;

impl CoreKernel {
    /// Of a kernel; `expanded`: it takes latent keys and values as those of every head (prefill), not as they are
    /// cached. A kernel that packs the heads of a KV head takes them as cached even there: expanded heads share nothing
    /// to be packed for.
    pub fn new(kernel: AttentionKernel, constants: Vec<f64>, peaks: Peaks, expanded: bool) -> Self {
        Self { kernel, constants, peaks, expanded: expanded && !kernel.pack, mixed: false }
    }

    /// The same where calls with prompts and sequences that decode were measured: then a batch of both is one call.
    #[must_use]
    pub fn with_mixed(self, mixed: bool) -> Self {
        Self { mixed, ..self }
    }

    fn cost(&self, shape: &AttentionShape, work: &AttentionWork, sequences: &[AttentionClass]) -> Cost {
        let (kv, query) = (shape.kv_bits / 8.0, shape.activation_bits / 8.0);
        let heads = match shape.kind {
            AttentionKind::Grouped { heads, kv_heads, head_dim } => {
                let d = head_dim as f64;
                AttentionHeads { query: heads, kv: kv_heads, width: [d, d], kv_bytes: 2.0 * d * kv, query_bytes: query }
            }
            AttentionKind::Latent { heads, rank, rope, .. } if !self.expanded => {
                let (rank, rope) = (rank as f64, rope as f64);
                let width = [rank + rope, rank];
                AttentionHeads { query: heads, kv: 1, width, kv_bytes: (rank + rope) * kv, query_bytes: query }
            }
            AttentionKind::Latent { heads, rope, nope, value, .. } => {
                let width = [(nope + rope) as f64, value as f64];
                let kv_bytes = (width[0] + width[1]) * query;
                AttentionHeads { query: heads, kv: heads, width, kv_bytes, query_bytes: query }
            }
        };
        let row = AttentionRow::new(classes(sequences), heads, self.kernel, None, self.peaks);
        let t = AttentionForm.time(&self.constants, &row);
        let (flop, bytes) = shape.amounts(!self.expanded, work);
        Cost::measured(t.fixed_s, t.seconds - t.fixed_s, [t.tiles_s, t.memory_s], flop as u64, bytes as u64)
            .at_peak(self.peaks.flop_per_s)
    }
}

/// Sequences with the same work as one class, at most [`CLASSES`]: then neighbours count with their mean of keys.
fn classes(sequences: &[AttentionClass]) -> Vec<AttentionClass> {
    let mut all = sequences.to_vec();
    let work = |c: &AttentionClass| (c.tokens, c.keys, c.pairs, c.cut);
    all.sort_unstable_by_key(work);
    all.dedup_by(|next, kept| {
        let same = work(next) == work(kept);
        kept.sequences += if same { next.sequences } else { 0 };
        same
    });
    if all.len() <= CLASSES {
        return all;
    }
    let each = all.len().div_ceil(CLASSES);
    let mut out: Vec<AttentionClass> = Vec::with_capacity(2 * CLASSES);
    for chunk in all.chunk_by(|a, b| a.tokens == b.tokens).flat_map(|same| same.chunks(each)) {
        let sequences: u64 = chunk.iter().map(|c| c.sequences).sum();
        let mean =
            |of: fn(&AttentionClass) -> u64| chunk.iter().map(|c| c.sequences * of(c)).sum::<u64>().div_ceil(sequences);
        let (keys, pairs) = (mean(|c| c.keys), mean(|c| c.pairs));
        let cut = chunk.iter().any(|c| c.cut);
        out.push(AttentionClass { sequences, tokens: chunk[0].tokens, keys, pairs, cut });
    }
    out
}

/// A kernel that only moves bytes, with fitted constants.
#[derive(Clone, Debug)]
pub struct StreamKernel {
    constants: Vec<f64>,
    peaks: Peaks,
}

impl StreamKernel {
    /// Of fitted constants.
    pub fn new(constants: Vec<f64>, peaks: Peaks) -> Self {
        Self { constants, peaks }
    }
}

impl Kernels {
    /// A dense GEMM of `flop` operations and `bytes`, if there is a kernel for its widths.
    pub(super) fn gemm(&self, g: &Gemm, flop: f64, bytes: f64) -> Option<Cost> {
        let own = self.gemms.iter().find(|k| k.bits == [g.weight_bits, g.activation_bits])?;
        Some(own.cost(g, flop, bytes))
    }

    /// Whether attention wants to know its sequences one by one.
    pub fn wants_sequences(&self) -> bool {
        self.decode.is_some() || self.prefill.is_some()
    }

    /// Whether latent keys and values of several new tokens' sequences are expanded to those of every head before
    /// attention: all that are cached, by a product of its own. A roofline takes them so, and so does every kernel that
    /// does not take them as cached.
    pub fn expands_latent(&self) -> bool {
        self.prefill.as_ref().is_none_or(|k| k.expanded)
    }

    /// Attention of sequences that decode (one new token each) or not, if there is a kernel for them; nothing to do is
    /// never asked for.
    pub(super) fn attention(
        &self,
        decode: bool,
        shape: &AttentionShape,
        work: &AttentionWork,
        sequences: &[AttentionClass],
    ) -> Option<Cost> {
        let kernel = if decode { self.decode.as_ref() } else { self.prefill.as_ref() }?;
        (work.query_tokens > 0).then(|| kernel.cost(shape, work, sequences))
    }

    /// Attention of prompts and of sequences that decode in one call, if there is a kernel that was measured so and a
    /// batch of both.
    pub(super) fn mixed_attention(&self, shape: &AttentionShape, batch: &AttentionBatch) -> Option<Cost> {
        let kernel = self.prefill.as_ref().filter(|k| k.mixed)?;
        (batch.decode.query_tokens > 0 && batch.prefill.query_tokens > 0).then(|| {
            let mut work = batch.decode;
            work.add(&batch.prefill);
            kernel.cost(shape, &work, &batch.sequences.concat())
        })
    }

    /// A kernel that moves `bytes`, if there is one.
    pub(super) fn stream(&self, bytes: f64) -> Option<Cost> {
        let StreamKernel { constants, peaks } = self.stream.as_ref()?;
        let seconds = form::Form::seconds(&StreamForm, constants, &StreamRow { bytes, peaks: *peaks });
        let fixed = constants[0].min(seconds);
        Some(Cost::measured(fixed, seconds - fixed, [0.0, seconds], 0, bytes as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_packs_heads_takes_latent_keys_as_cached() {
        let peaks = Peaks { flop_per_s: 1e15, bytes_per_s: 1e12, units: 100.0, l2_bytes: 1e7 };
        let kernel = AttentionKernel { tile: 64, pack: true, split: false, causal: true, converts: false };
        let prefill = |pack| Some(CoreKernel::new(AttentionKernel { pack, ..kernel }, Vec::new(), peaks, true));
        let expands = |prefill| Kernels { prefill, ..Kernels::default() }.expands_latent();
        assert_eq!([expands(prefill(true)), expands(prefill(false)), expands(None)], [false, true, true]);
    }

    #[test]
    fn alike_sequences_are_one_class_and_keys_are_kept() {
        let one = |tokens, keys| AttentionClass::full(1, tokens, keys);
        let few = classes(&[one(1, 7), one(1, 5), one(1, 7), one(64, 100)]);
        assert_eq!(few, [one(1, 5), AttentionClass { sequences: 2, ..one(1, 7) }, one(64, 100)]);
        let many: Vec<AttentionClass> = (0..1000).map(|i| one(1 + i % 2, 2 * i + 2)).collect();
        let folded = classes(&many);
        assert!(folded.len() <= 2 * CLASSES && folded.iter().map(|c| c.sequences).sum::<u64>() == 1000);
        let keys = |l: &[AttentionClass]| l.iter().map(|c| c.sequences * c.keys).sum::<u64>() as f64;
        assert!((keys(&folded) / keys(&many) - 1.0).abs() < 1e-3);
        assert!(folded.windows(2).all(|w| (w[0].tokens, w[0].keys) < (w[1].tokens, w[1].keys)));
    }
}
