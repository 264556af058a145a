//! One device: its memory, its compute rates, and what of them kernels reach.

use moesim_core::{Bandwidth, Bytes, FlopRate, Picos, Sourced};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A GPU, NPU or die.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Name of the part.
    pub name: String,
    /// Its own memory.
    pub memory: Memory,
    /// Dense peak rates.
    pub peak: Peak,
    /// Processors that run a tile of a kernel each (streaming multiprocessors, AI cores); calibrated costs need it.
    pub units: Option<Sourced<u32>>,
    /// Calibrated costs of its kernels: a profile's name (see `moesim list profiles`) or a file that `moesim calibrate
    /// fit` wrote, relative to the experiment. Kernels that it lacks keep the roofline with the fractions of
    /// `achievable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Last-level cache.
    pub llc: Option<Sourced<Bytes>>,
    /// Time from one kernel's end to the next one's start, per kernel.
    pub launch: Sourced<Picos>,
    /// What kernels reach of the peaks.
    pub achievable: Achievable,
    /// Fraction of memory kept for the system, in 0..1.
    pub reserve: Sourced<f64>,
    /// Processing in or beside the same memory.
    pub pim: Option<Pim>,
}

/// A memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Size.
    pub capacity: Sourced<Bytes>,
    /// Peak bandwidth.
    pub bandwidth: Sourced<Bandwidth>,
}

/// Dense peak rates by operand type (no structured sparsity).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peak {
    /// 32-bit floating point without tensor cores; unless told, kernels in 32 bits are priced at the rate of 16.
    pub fp32: Option<Sourced<FlopRate>>,
    /// 16-bit floating point with 32-bit accumulation.
    pub bf16: Sourced<FlopRate>,
    /// 8-bit floating point.
    pub fp8: Option<Sourced<FlopRate>>,
    /// 8-bit integers.
    pub int8: Option<Sourced<FlopRate>>,
    /// 4-bit floating point.
    pub fp4: Option<Sourced<FlopRate>>,
}

/// Fractions of peak that kernels reach, in (0, 1].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Achievable {
    /// Dense GEMM, of the peak compute rate.
    pub compute: Sourced<f64>,
    /// Grouped GEMM of experts, of the peak compute rate.
    pub grouped: Sourced<f64>,
    /// Core attention, of the peak compute rate.
    pub attention: Sourced<f64>,
    /// Streaming, of the peak memory bandwidth.
    pub memory: Sourced<f64>,
}

/// Processing in memory (PIM), or on the logic die under it: a second engine on the device's own memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pim {
    /// Peak rate of the device's PIM units together, 16-bit operands.
    pub peak: Sourced<FlopRate>,
    /// Internal bandwidth of the device's memory together.
    pub bandwidth: Sourced<Bandwidth>,
    /// Time to start one PIM kernel.
    pub launch: Sourced<Picos>,
    /// Fraction of the peak rate that kernels reach, in (0, 1].
    pub achievable_compute: Sourced<f64>,
    /// Fraction of the internal bandwidth that kernels reach, in (0, 1].
    pub achievable_memory: Sourced<f64>,
}
