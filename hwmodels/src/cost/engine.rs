//! An engine: what executes kernels, with the rates that they reach.

use super::{Cost, Gemm, Kernels};
use crate::hardware::Device;
use std::sync::{Arc, Mutex, PoisonError};

/// The operand type that a kernel computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// 32-bit floating point.
    Fp32,
    /// 16-bit floating point.
    Bf16,
    /// 8-bit floating point.
    Fp8,
    /// 8-bit integers.
    Int8,
    /// 4-bit floating point.
    Fp4,
}

/// Kernel families with an achievable fraction each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Dense GEMM.
    Dense,
    /// Grouped GEMM of experts.
    Grouped,
    /// Core attention.
    Attention,
}

/// A part of an operation that an engine was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Asked {
    /// A dense product.
    Product(Gemm),
    /// A kernel that only moves so many bytes.
    Stream(f64),
}

/// What an engine was asked for, in order, with the seconds that it gave.
pub type AskedLog = Arc<Mutex<Vec<(Asked, f64)>>>;

/// Executes kernels one after another.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Peak rate for operands of 32, 16, 8 and 4 bits, and the type that it is reached in; a width that the device lacks
    /// has the next wider one's, and 32 bits those of 16.
    pub peak: [(Precision, f64); WIDTHS],
    /// Seconds per operation by family and width, achievable fraction applied.
    s_per_flop: [[f64; WIDTHS]; 3],
    /// Achievable memory bandwidth, in bytes per second.
    pub bytes_per_s: f64,
    s_per_byte: f64,
    /// Share of the processors that compute, in (0, 1]: peak rates are of that share.
    share: f64,
    /// Seconds to start a kernel.
    pub launch_s: f64,
    /// Bits to which the inputs of products are rounded before them, where weights are as narrow; infinite if they are
    /// not.
    gemm_input: f64,
    /// Calibrated kernels, which take the place of rooflines.
    pub kernels: Kernels,
    /// Where dense products and streams are noted, if they are.
    asked: Option<AskedLog>,
}

impl Engine {
    /// The device's own cores.
    pub fn gpu(device: &Device) -> Self {
        let (p, a) = (&device.peak, &device.achievable);
        let wide = (Precision::Bf16, p.bf16.value.per_second());
        let widest = p.fp32.as_ref().map_or(wide, |r| (Precision::Fp32, r.value.per_second()));
        let fp8 = p.fp8.as_ref().map(|r| (Precision::Fp8, r.value.per_second()));
        let byte = fp8.or(p.int8.as_ref().map(|r| (Precision::Int8, r.value.per_second()))).unwrap_or(wide);
        let nibble = p.fp4.as_ref().map_or(byte, |r| (Precision::Fp4, r.value.per_second()));
        Self::new(
            [widest, wide, byte, nibble],
            [a.compute.value, a.grouped.value, a.attention.value],
            device.memory.bandwidth.value.per_second() * a.memory.value,
            device.launch.value.seconds(),
        )
    }

    /// The same with this share of its processors: arithmetic takes longer, memory does not.
    #[must_use]
    pub fn with_share(mut self, share: f64) -> Self {
        self.share = share;
        self.s_per_flop.iter_mut().flatten().for_each(|s| *s /= share);
        self
    }

    /// The same, where inputs of products with weights of about these bits or fewer are rounded to these bits before
    /// them.
    #[must_use]
    pub fn with_gemm_input(self, bits: Option<f64>) -> Self {
        Self { gemm_input: bits.unwrap_or(f64::INFINITY), ..self }
    }

    /// Bits of an input of a product with weights of `weight_bits` that comes in `activation_bits`. Scales may make
    /// weights wider by up to three quarters of a bit than inputs of the same elements.
    pub fn input_bits(&self, weight_bits: f64, activation_bits: f64) -> f64 {
        if weight_bits <= self.gemm_input + 0.75 { activation_bits.min(self.gemm_input) } else { activation_bits }
    }

    /// The device's processing in memory, if it has any: 16-bit operands, narrower ones at the same rate.
    pub fn pim(device: &Device) -> Option<Self> {
        device.pim.as_ref().map(|pim| {
            Self::new(
                [(Precision::Bf16, pim.peak.value.per_second()); WIDTHS],
                [pim.achievable_compute.value; 3],
                pim.bandwidth.value.per_second() * pim.achievable_memory.value,
                pim.launch.value.seconds(),
            )
        })
    }

    fn new(peak: [(Precision, f64); WIDTHS], achievable: [f64; 3], bytes_per_s: f64, launch_s: f64) -> Self {
        let s_per_flop = achievable.map(|fraction| peak.map(|(_, rate)| 1.0 / (rate * fraction)));
        let s_per_byte = 1.0 / bytes_per_s;
        Self {
            peak,
            s_per_flop,
            bytes_per_s,
            s_per_byte,
            share: 1.0,
            launch_s,
            gemm_input: f64::INFINITY,
            kernels: Kernels::default(),
            asked: None,
        }
    }

    /// From now on dense products and streams are noted in the log that is returned.
    pub fn note_asked(&mut self) -> AskedLog {
        self.asked.insert(AskedLog::default()).clone()
    }

    /// Notes a part, if parts are noted.
    pub(super) fn asked(&self, part: Asked, cost: &Cost) {
        if let Some(log) = &self.asked {
            log.lock().unwrap_or_else(PoisonError::into_inner).push((part, cost.time_s()));
        }
    }

    /// The share of the processors that compute, in (0, 1].
    pub fn share(&self) -> f64 {
        self.share
    }

    /// The type that a kernel computes in when its wider operand has `bits`: narrower weights are dequantised to the
    /// activations' width, so MXFP4 or INT4 weights with 16-bit activations run at the 16-bit rate.
    pub fn precision(&self, bits: f64) -> Precision {
        self.peak[width(bits)].0
    }

    /// The rate that kernels of `family` reach when their wider operand has `bits`, in operations per second.
    pub fn flop_per_s(&self, family: Family, bits: f64) -> f64 {
        1.0 / self.s_per_flop[family as usize][width(bits)]
    }

    /// One kernel of `flop` operations and `bytes` of memory traffic.
    pub(super) fn kernel(&self, family: Family, bits: f64, flop: f64, bytes: f64) -> Cost {
        // Counts go through signed integers, to which the conversion is short.
        let compute_s = flop * self.s_per_flop[family as usize][width(bits)];
        Cost::kernel(self.launch_s, compute_s, bytes * self.s_per_byte, flop as i64 as u64, bytes as i64 as u64)
            .at_peak(self.peak[width(bits)].1 * self.share)
    }
}

/// Widths of operands that have a rate of their own.
const WIDTHS: usize = 4;

/// The row of the rate tables: above 24 bits, above 8, above 4, the rest. Formats with shared scales count as their elements'
/// width, hence the half bit.
fn width(bits: f64) -> usize {
    usize::from(bits <= 24.5) + usize::from(bits <= 8.5) + usize::from(bits <= 4.5)
}
