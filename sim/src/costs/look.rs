//! Which kernel an operation of a run takes, out of the profiles that the hardware names.

use super::{DONOR, OTHER_PRECISION, compute_share};
use crate::experiment::Resolved;
use crate::framework::Use;
use crate::machine::Deployment;
use moesim_core::{Result, diag};
use moesim_hwmodels::Hardware;
use moesim_hwmodels::calibrate::profile::{Kernel, Op, Profile, TimeTable};
use moesim_hwmodels::calibrate::{data, device};
use moesim_hwmodels::form::Peaks;

/// Scales may make weights wider by up to this many bits than inputs of the same elements
/// ([`moesim_hwmodels::cost::Engine::input_bits`]).
const SCALES: f64 = 0.75;
/// Weights of more bits than this are in 32.
pub(super) const WIDE: f64 = 24.5;

/// A kernel, the profile that the kernel is of, and what makes the kernel a stand-in.
pub(super) struct Found<'a> {
    pub(super) profile: &'a Profile,
    pub(super) kernel: &'a Kernel,
    /// The kernel was fitted in another precision than the operation's.
    pub(super) other_precision: bool,
    /// No kernel of the engine's framework, though that has others for this use.
    other_framework: bool,
}

/// The profiles of a run.
pub(super) struct Look<'a> {
    pub(super) resolved: &'a Resolved,
    pub(super) deployment: &'a Deployment,
}

impl<'a> Look<'a> {
    /// The device's own profile, then its donors.
    pub(super) fn profiles(&self) -> impl Iterator<Item = &'a Profile> + use<'a> {
        self.resolved.profiles.iter().map(|p| &**p)
    }

    /// The kernel for one of `ops` that suits and that the device has a peak rate for, in a precision for these bits of
    /// a weight and activation, else in any: of the device's own profile before donors', then none that is slow as a
    /// whole, then in the precision that suits best, then what the engine prefers for this use, then what stands first.
    pub(super) fn find(
        &self,
        ops: &[Op],
        of: Option<Use>,
        bits: [f64; 2],
        suits: impl Fn(&Kernel) -> bool,
    ) -> Option<Found<'a>> {
        let engine = of.zip(self.resolved.engine.as_ref());
        let preferred = |k: &Kernel| engine.map_or(Some(0), |(of, e)| e.suits(of, &k.family));
        let named = engine.is_some_and(|(of, e)| e.asked(of).is_some());
        let each = self.profiles().enumerate().flat_map(|(at, p)| p.kernels.iter().map(move |k| (at, p, k)));
        let has_peak = |k: &Kernel| k.op.counts_bytes() || self.peaks(k, bits).is_ok();
        let all = each
            .filter(|(_, _, k)| ops.contains(&k.op) && suits(k) && (!named || preferred(k).is_some()) && has_peak(k));
        // Among equals the first stays.
        let best = all.min_by_key(|(at, _, k)| {
            let precision = k.rank(bits[0], bits[1]);
            // A family that is slow as a whole was not tuned when it was measured: no engine would keep it.
            let slow = k.notes.iter().any(|n| n.contains(data::SLOW_THROUGHOUT));
            (precision.is_none(), *at, slow, precision, preferred(k).unwrap_or(usize::MAX))
        });
        best.map(|(_, profile, kernel)| Found {
            profile,
            kernel,
            other_precision: !kernel.suits(bits[0], bits[1]),
            other_framework: preferred(kernel).is_none(),
        })
    }

    /// That some profile has every family which the experiment names.
    pub(super) fn known(&self) -> Result<()> {
        let engine = self.resolved.engine.iter();
        let named = engine.flat_map(|e| Use::ALL.into_iter().filter_map(move |of| Some((e, of, e.asked(of)?))));
        for (engine, of, asked) in named {
            let known: Vec<&str> =
                self.profiles().flat_map(|f| of.ops().iter().flat_map(|op| f.families(*op))).collect();
            if !known.iter().any(|family| engine.suits(of, family).is_some()) {
                return Err(diag::unknown("kernel family", asked, &known).place(of.key()));
            }
        }
        Ok(())
    }

    /// The device's own table for an operation, of a family of the engine's framework before others; another device's times say nothing of
    /// this one's. A family that the experiment names has no other beside itself.
    pub(super) fn table(&self, op: Op, of: Use, bits: [f64; 2]) -> Option<(&'a Profile, &'a TimeTable)> {
        let engine = self.resolved.engine.as_ref();
        let own = |suits: &dyn Fn(&str) -> bool| {
            let mut own = self.profiles().filter(|p| self.own(p));
            own.find_map(|p| Some((p, p.table(op, suits, bits[0], bits[1])?)))
        };
        let named = engine.is_some_and(|e| e.asked(of).is_some());
        own(&|family| engine.is_none_or(|e| e.suits(of, family).is_some()))
            .or_else(|| own(&|_| true).filter(|_| !named))
    }

    /// Bits of a weight and of what meets it: activations, or what they are rounded to before the product.
    pub(super) fn operands(&self, [weight, activation]: [f64; 2]) -> [f64; 2] {
        let input = self.resolved.model.precision.gemm_input.filter(|bits| weight <= bits + SCALES);
        [weight, input.map_or(activation, |bits| activation.min(bits))]
    }

    /// The device's peaks for operands of these bits, on the processors that communication leaves.
    pub(super) fn peaks(&self, kernel: &Kernel, bits: [f64; 2]) -> Result<Peaks> {
        let device = &self.resolved.hardware.device;
        let wide = bits[0].max(bits[1]);
        let precision = match kernel.suits(bits[0], bits[1]) {
            // Kernels in 16 bits stand in for those in 32, at the device's rate for these.
            true if bits[0] > WIDE && device.peak.fp32.is_some() => "float32",
            true => kernel.precision.as_str(),
            false if wide > 8.5 => "bfloat16",
            false if device.peak.fp8.is_some() => "fp8",
            false => "int8",
        };
        let all = device::peaks(device, precision)?;
        let share = self.share()?;
        Ok(Peaks { flop_per_s: all.flop_per_s * share, units: all.units * share, ..all })
    }

    /// Whether a profile was measured on the run's device.
    pub(super) fn own(&self, profile: &Profile) -> bool {
        let run = &self.resolved.hardware;
        profile.hardware == run.name
            || Hardware::load(&profile.hardware).is_ok_and(|h| h.device.name == run.device.name)
    }

    /// The part of the processors that compute.
    fn share(&self) -> Result<f64> {
        compute_share(self.resolved)
    }

    pub(super) fn words(&self, f: &Found) -> String {
        let (p, k) = (f.profile, f.kernel);
        let error = k.left_out().map_or("error on unseen shapes not measured".into(), |e| {
            format!("mean error {:.1} % on what was left out", 100.0 * e.mean)
        });
        let donor = match self.own(p) {
            true => String::new(),
            false => format!("{DONOR}measured on {}", p.device),
        };
        let precision = if f.other_precision { OTHER_PRECISION } else { "" };
        let framework = match self.resolved.engine.as_ref().filter(|_| f.other_framework) {
            Some(e) => format!(", no kernel of {} was measured", e.word()),
            None => String::new(),
        };
        let (name, hash) = (&p.name, k.data.hash());
        format!("profile {name}: {} {} ({error}; data {hash}{donor}{precision}{framework})", k.family, k.precision)
    }
}
