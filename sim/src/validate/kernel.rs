//! Cases about one kernel, without a run around it: what the hardware's profile says of a call.

use moesim_core::{Diag, Result};
use moesim_hwmodels::Hardware;
use moesim_hwmodels::calibrate::device;
use moesim_hwmodels::calibrate::profile::{KernelForm, Op, Profile};
use moesim_hwmodels::form::{GemmForm, GemmLoad, GemmRow};
use serde::{Deserialize, Serialize};

/// A call of a grouped or dense GEMM; elements leave in 16 bits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelCall {
    /// Which kernel.
    pub op: Op,
    /// On which hardware: a preset, whose profile has the kernel.
    pub hardware: String,
    /// Groups of rows.
    pub groups: f64,
    /// Rows of each.
    pub m: f64,
    /// Columns of the weights.
    pub n: f64,
    /// The inner dimension.
    pub k: f64,
    /// Bits of a weight and of an activation.
    pub bits: [f64; 2],
}

/// What a call takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KernelTime {
    /// Seconds.
    pub seconds: f64,
    /// Operations a second over the device's peak, in percent.
    pub utilisation_percent: f64,
    /// Bytes a second, each operand once.
    pub bytes_per_s: f64,
}

impl KernelCall {
    /// The time by the profile of the hardware.
    ///
    /// # Errors
    /// Hardware without a profile, a profile without the kernel.
    pub fn time(&self) -> Result<KernelTime> {
        let hardware = Hardware::load(&self.hardware)?;
        let lacks = |what: &str| {
            Diag::input(format!("{} has no {what}", self.hardware)).cure("name hardware whose profile has this kernel")
        };
        let profile = Profile::load(hardware.device.profile.as_deref().ok_or_else(|| lacks("profile"))?)?;
        let kernel = profile.find(self.op, None, self.bits[0], self.bits[1]);
        let kernel = kernel.ok_or_else(|| lacks("kernel of this operation and precision"))?;
        let KernelForm::Gemm { kernel: choices, .. } = kernel.form() else {
            return Err(lacks("GEMM of this operation"));
        };
        let peaks = device::peaks(&hardware.device, &kernel.precision)?;
        let row = GemmRow {
            load: GemmLoad::even(self.groups, self.m),
            n: self.n,
            k: self.k,
            element_bytes: [self.bits[1] / 8.0, self.bits[0] / 8.0, 2.0],
            peaks,
        };
        let seconds = GemmForm::cold(*choices).time(&kernel.values()?, &row).seconds;
        Ok(KernelTime {
            seconds,
            utilisation_percent: 100.0 * row.flop() / seconds / peaks.flop_per_s,
            bytes_per_s: row.bytes() / seconds,
        })
    }
}
