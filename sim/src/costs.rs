//! What operations of a run cost by calibrated kernels, and where each comes from, in words.
//!
//! An operation takes a kernel in its own precision out of the device's own profile, else out of the profiles that it names as donors: of
//! those the first that the engine's framework runs, else the first of all; else it keeps the roofline with the device's achievable fractions.

use crate::experiment::{CostFidelity, Resolved};
use crate::framework::{Framework, Use};
use crate::machine::Deployment;
use crate::network::Dispatch;
use moesim_core::{Diag, Result, diag};
use moesim_hwmodels::Hardware;
use moesim_hwmodels::calibrate::profile::{FormName, Kernel, KernelForm, Op, Profile, TimeTable};
use moesim_hwmodels::calibrate::{data, device};
use moesim_hwmodels::cost::{
    CoreKernel, DenseKernel, ExchangeForm, ExchangeKernel, ExchangeKernels, ExpertKernel, Kernels, StreamKernel,
};
use moesim_hwmodels::form::{CollectiveOp, Peaks};
use moesim_hwmodels::topology::TopologySpec;
use moesim_traces::model::{Heads, Model};
use std::collections::BTreeMap;

/// The calibrated kernels of a run.
#[derive(Clone, Debug, Default)]
pub struct Calibrated {
    /// Of a device.
    pub kernels: Kernels,
    /// Between devices.
    pub exchange: ExchangeKernels,
    /// Where the cost of each operation comes from.
    pub words: BTreeMap<&'static str, String>,
    /// The mean relative error of each operation's kernel on what its fit had not seen, the largest of several; absent
    /// where it was not measured.
    pub errors: BTreeMap<&'static str, f64>,
}

/// A kernel, the profile that it is of, and what makes it a stand-in.
struct Found<'a> {
    profile: &'a Profile,
    kernel: &'a Kernel,
    /// Fitted in another precision than it is used in.
    other_precision: bool,
    /// No kernel of the engine's framework, though that has others for this use.
    other_framework: bool,
}

impl Calibrated {
    /// For `resolved`, with this way of dispatch.
    ///
    /// # Errors
    /// A family of experts' kernels that no profile has, a device without peaks for a kernel, processors that it lacks.
    pub fn new(resolved: &Resolved, way: &dyn Dispatch) -> Result<Self> {
        let mut out = Self::default();
        if resolved.experiment.fidelity.costs == CostFidelity::Roofline {
            return Ok(out.without_kernels());
        }
        let look = Look { resolved, deployment: &resolved.experiment.deployment };
        let p = &resolved.model.precision;
        out.experts(&look)?;
        for weight in [p.attention, p.router, p.shared, p.dense, p.head] {
            let bits = [weight, p.activation];
            if out.kernels.gemms.iter().any(|g| g.bits() == bits) {
                continue;
            }
            // Kernels of another precision are other kernels: a roofline is nearer.
            let operands = look.operands(bits);
            if let Some(found) =
                look.find(&[Op::Gemm], Some(Use::Gemm), operands, |_| true)?.filter(|f| !f.other_precision)
            {
                let peaks = look.peaks(found.kernel, operands)?;
                let input = data::moe::input_bytes(&found.kernel.precision).unwrap_or(p.activation / 8.0);
                let (form, constants) = (found.kernel.form(), found.kernel.values()?);
                let Some(mut dense) = DenseKernel::new(bits, input, form, constants, peaks) else { continue };
                out.say("gemm", &look, &found);
                if let Some((profile, table)) = look.table(Op::Gemm, Use::Gemm, operands) {
                    dense = dense.with_table(table.clone());
                    out.say_table("gemm", profile, table);
                }
                out.kernels.gemms.push(dense);
            }
        }
        out.attention(&look)?;
        // How much of a stream comes from the cache differs from device to device: no donors.
        let norm =
            look.find(&[Op::Stream], None, [p.activation; 2], |k| k.family == NORM)?.filter(|f| look.own(f.profile));
        if let Some(found) = norm {
            let peaks = look.peaks(found.kernel, [p.activation; 2])?;
            out.kernels.stream = Some(StreamKernel::new(found.kernel.values()?, peaks));
            out.say("stream", &look, &found);
        }
        out.exchange(&look, way)?;
        Ok(out.without_kernels())
    }

    /// The same with words for every operation that has no kernel.
    fn without_kernels(mut self) -> Self {
        for what in WHAT {
            self.words.entry(what).or_insert_with(|| ROOFLINE.into());
        }
        for what in BETWEEN {
            self.words.entry(what).or_insert_with(|| "bytes over the links' achievable rates".into());
        }
        self
    }

    fn say(&mut self, what: &'static str, look: &Look, found: &Found) {
        if let Some(e) = found.kernel.left_out() {
            let error = self.errors.entry(what).or_default();
            *error = error.max(e.mean);
        }
        let text = self.words.entry(what).or_default();
        let new = look.words(found);
        if !text.contains(&new) {
            *text = if text.is_empty() { new } else { format!("{text}; {new}") };
        }
    }

    fn say_table(&mut self, what: &'static str, profile: &Profile, table: &TimeTable) {
        let (name, hash) = (&profile.name, table.data.hash());
        let text = self.words.entry(what).or_default();
        *text = format!(
            "table {name}: {} {} (measured times, interpolated; data {hash}), where it lacks shape or size: {text}",
            table.family, table.precision
        );
    }

    fn experts(&mut self, look: &Look) -> Result<()> {
        let p = &look.resolved.model.precision;
        let bits = look.operands([p.experts, p.activation]);
        let ops = [Op::Experts, Op::GroupedGemm];
        // Experts in a precision that was not measured keep the roofline: their kernels differ too much.
        let found = look.find(&ops, Some(Use::Experts), bits, |_| true)?.filter(|f| !f.other_precision);
        match found {
            Some(found) => {
                let mut kernel = ExpertKernel::new(found.kernel, look.peaks(found.kernel, bits)?)?;
                self.say("experts", look, &found);
                if let Some((profile, table)) = look.table(Op::Experts, Use::Experts, bits) {
                    kernel = kernel.with_table(table.clone());
                    self.say_table("experts", profile, table);
                }
                self.kernels.experts = Some(kernel);
            }
            None if look.table(Op::Experts, Use::Experts, bits).is_some() => {
                return Err(Diag::input(
                    "the profile has a table of experts and no fitted kernel that stands in where it lacks a size",
                )
                .place("hardware.device.profile")
                .cure("fit one into it: moesim calibrate fit TIMES.csv --into PROFILE --out PROFILE"));
            }
            None if look.profiles().next().is_some() => {
                self.words.insert("experts", format!("{ROOFLINE}: the profile has no kernel in this precision"));
            }
            None => {}
        }
        Ok(())
    }

    fn attention(&mut self, look: &Look) -> Result<()> {
        let (model, p): (&Model, _) = (&look.resolved.model, &look.resolved.model.precision);
        let latent = model.decoder.iter().any(|l| matches!(l.attention.heads, Heads::Mla { .. }));
        let bits = [p.kv, p.activation];
        let ops = if latent {
            [Op::LatentDecodeAttention, Op::LatentPrefillAttention]
        } else {
            [Op::DecodeAttention, Op::PrefillAttention]
        };
        let uses = [Use::DecodeAttention, Use::PrefillAttention];
        for (op, of, expanded, what) in
            [(ops[0], uses[0], false, "decode attention"), (ops[1], uses[1], latent, "prefill attention")]
        {
            // Keys and values in 8 bits under queries in 16 have kernels of their own.
            let narrow = bits[0] <= 8.5 && bits[1] > 8.5;
            let own = look.find(&[op], Some(of), bits, |k| (k.precision == "fp8_wo") == narrow)?;
            let own = own.filter(|f| !f.other_precision);
            let Some(found) = own.map_or_else(|| look.find(&[op], Some(of), bits, |_| true), |f| Ok(Some(f)))? else {
                continue;
            };
            let KernelForm::Attention { kernel } = found.kernel.form() else { continue };
            let peaks = look.peaks(found.kernel, bits)?;
            let core = Some(
                CoreKernel::new(*kernel, found.kernel.values()?, peaks, expanded)
                    .with_mixed(found.kernel.cell.iter().any(|c| c.cell == MIXED)),
            );
            *(if op == ops[0] { &mut self.kernels.decode } else { &mut self.kernels.prefill }) = core;
            self.say(what, look, &found);
        }
        Ok(())
    }

    fn exchange(&mut self, look: &Look, way: &dyn Dispatch) -> Result<()> {
        let nodes = look.resolved.hardware.topology.nodes();
        // One device sends nothing, and where links differ from pair to pair no one rate says what a kernel would reach.
        let Ok(peaks) = device::links(&look.resolved.hardware) else { return Ok(()) };
        let switched = matches!(
            look.resolved.hardware.topology,
            TopologySpec::Switch { .. }
                | TopologySpec::FatTreeRail { .. }
                | TopologySpec::Planes { .. }
                | TopologySpec::Pcie { .. }
        );
        let (ops, forms) = way.kernels();
        let collectives = ([Op::AllReduce, Op::AllGather], &[FormName::Collective][..]);
        for (ops, forms, whats) in
            [(ops, forms, ["dispatch", "combine"]), (collectives.0, collectives.1, ["all-reduce", "all-gather"])]
        {
            for (op, what) in ops.into_iter().zip(whats) {
                let found = look.find(&[op], None, [16.0; 2], |k| forms.contains(&k.form().name()))?;
                // What was measured behind a switch says nothing of a mesh.
                let Some(found) = found.filter(|f| look.own(f.profile) || switched) else { continue };
                let form = match found.kernel.form() {
                    KernelForm::LowLatency => ExchangeForm::LowLatency,
                    KernelForm::Normal { units: [least, most] } => {
                        let asked = u64::from(look.deployment.communication_units);
                        let units = if asked == 0 { COPYING } else { asked };
                        ExchangeForm::Normal { units: units.clamp(*least, *most) as f64 }
                    }
                    KernelForm::FusedExchange => ExchangeForm::Fused,
                    KernelForm::Collective => ExchangeForm::Collective(match op {
                        Op::AllReduce => CollectiveOp::AllReduce,
                        Op::AllGather => CollectiveOp::AllGather,
                        Op::ReduceScatter => CollectiveOp::ReduceScatter,
                        _ => CollectiveOp::AllToAll,
                    }),
                    _ => continue,
                };
                let mut kernel = ExchangeKernel::new(form, found.kernel.values()?, peaks, found.kernel.data.sizes);
                if whats[0] == "dispatch" && !kernel.serves(nodes) {
                    continue;
                }
                self.say(what, look, &found);
                // Engines run a kernel of their own where messages are small, which takes longer without graphs.
                let eager = look.resolved.engine.as_ref().is_some_and(|e| !e.graphs);
                let small =
                    |k: &Kernel| k.form().name() == FormName::CustomAllReduce && k.family.ends_with("_eager") == eager;
                let own = match what {
                    "all-reduce" => look.find(&[op], Some(Use::AllReduce), [16.0; 2], small)?,
                    _ => None,
                };
                if let Some(own) = own {
                    let (constants, sizes) = (own.kernel.values()?, own.kernel.data.sizes);
                    kernel =
                        kernel.with_small(ExchangeKernel::new(ExchangeForm::CustomAllReduce, constants, peaks, sizes));
                    self.say(what, look, &own);
                }
                let place = match what {
                    "dispatch" => &mut self.exchange.dispatch,
                    "combine" => &mut self.exchange.combine,
                    "all-reduce" => &mut self.exchange.all_reduce,
                    _ => &mut self.exchange.all_gather,
                };
                *place = Some(kernel);
            }
        }
        Ok(())
    }
}

/// Processors that copy in kernels for throughput, unless the deployment says: DeepEP's own default (`Buffer.num_sms`).
const COPYING: u64 = 20;
/// How words of an operation without a kernel begin.
pub(crate) const ROOFLINE: &str = "roofline with assumed fractions";
/// How words of a kernel say that it was measured elsewhere.
pub(crate) const DONOR: &str = ", donor: ";
/// How words of a kernel say that it was fitted in another precision than it is used in.
pub(crate) const OTHER_PRECISION: &str = ", used in another precision";
/// Operations of a device that have words.
pub(crate) const WHAT: [&str; 5] = ["experts", "gemm", "decode attention", "prefill attention", "stream"];
/// The same between devices.
const BETWEEN: [&str; 4] = ["dispatch", "combine", "all-reduce", "all-gather"];
/// Scales may make weights wider by up to this many bits than inputs of the same elements ([`moesim_hwmodels::cost::Engine::input_bits`]).
const SCALES: f64 = 0.75;
/// What readers call measurements of prompts beside sequences that decode.
const MIXED: &str = "mixed";
/// The streaming layer that stands for all: a norm.
const NORM: &str = "layernorm";

struct Look<'a> {
    resolved: &'a Resolved,
    deployment: &'a Deployment,
}

impl<'a> Look<'a> {
    /// The device's own profile, then its donors.
    fn profiles(&self) -> impl Iterator<Item = &'a Profile> + use<'a> {
        self.resolved.profiles.iter().map(|p| &**p)
    }

    /// The kernel for one of `ops` that suits, in a precision for these bits of a weight and activation, else in any: of the device's own
    /// profile before donors', then none that is slow as a whole, then in the precision that suits best, then what the engine prefers for this use, then what stands first.
    ///
    /// # Errors
    /// A family that the experiment names and no profile has.
    fn find(
        &self,
        ops: &[Op],
        of: Option<Use>,
        bits: [f64; 2],
        suits: impl Fn(&Kernel) -> bool,
    ) -> Result<Option<Found<'a>>> {
        let engine = of.zip(self.resolved.engine.as_ref());
        if let Some((of, engine)) = engine {
            self.known(ops, of, engine)?;
        }
        let preferred = |k: &Kernel| engine.map_or(Some(0), |(of, e)| e.suits(of, &k.family));
        let named = engine.is_some_and(|(of, e)| e.asked(of).is_some());
        let each = self.profiles().enumerate().flat_map(|(at, p)| p.kernels.iter().map(move |k| (at, p, k)));
        let all = each.filter(|(_, _, k)| ops.contains(&k.op) && suits(k) && (!named || preferred(k).is_some()));
        // Among equals the first stays.
        let best = all.min_by_key(|(at, _, k)| {
            let precision = k.rank(bits[0], bits[1]);
            // A family that is slow as a whole was not tuned when it was measured: no engine would keep it.
            let slow = k.notes.iter().any(|n| n.contains(data::SLOW_THROUGHOUT));
            (precision.is_none(), *at, slow, precision, preferred(k).unwrap_or(usize::MAX))
        });
        Ok(best.map(|(_, profile, kernel)| Found {
            profile,
            kernel,
            other_precision: !kernel.suits(bits[0], bits[1]),
            other_framework: preferred(kernel).is_none(),
        }))
    }

    /// That some profile has a family which the experiment names.
    fn known(&self, ops: &[Op], of: Use, engine: &Framework) -> Result<()> {
        let Some(asked) = engine.asked(of) else { return Ok(()) };
        let known: Vec<&str> = self.profiles().flat_map(|f| ops.iter().flat_map(|op| f.families(*op))).collect();
        match known.iter().any(|family| engine.suits(of, family).is_some()) {
            true => Ok(()),
            false => Err(diag::unknown("kernel family", asked, &known).place(of.key())),
        }
    }

    /// The device's own table for an operation; another device's times say nothing of this one's.
    fn table(&self, op: Op, of: Use, bits: [f64; 2]) -> Option<(&'a Profile, &'a TimeTable)> {
        let suits = |family: &str| self.resolved.engine.as_ref().is_none_or(|e| e.suits(of, family).is_some());
        let own = self.profiles().filter(|p| self.own(p));
        own.filter_map(|p| Some((p, p.table(op, suits, bits[0], bits[1])?))).next()
    }

    /// Bits of a weight and of what meets it: activations, or what they are rounded to before the product.
    fn operands(&self, [weight, activation]: [f64; 2]) -> [f64; 2] {
        let input = self.resolved.model.precision.gemm_input.filter(|bits| weight <= bits + SCALES);
        [weight, input.map_or(activation, |bits| activation.min(bits))]
    }

    /// The device's peaks for operands of these bits, on the processors that communication leaves.
    fn peaks(&self, kernel: &Kernel, bits: [f64; 2]) -> Result<Peaks> {
        let device = &self.resolved.hardware.device;
        let wide = bits[0].max(bits[1]);
        let precision = match kernel.suits(bits[0], bits[1]) {
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
    fn own(&self, profile: &Profile) -> bool {
        let run = &self.resolved.hardware;
        profile.hardware == run.name
            || Hardware::load(&profile.hardware).is_ok_and(|h| h.device.name == run.device.name)
    }

    /// The part of the processors that compute.
    fn share(&self) -> Result<f64> {
        compute_share(self.resolved)
    }

    fn words(&self, f: &Found) -> String {
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

/// The part of a device's processors that [`Deployment::communication_units`] leaves to compute.
///
/// # Errors
/// More than the device has, or a device that does not say how many it has.
pub fn compute_share(resolved: &Resolved) -> Result<f64> {
    let kept = resolved.experiment.deployment.communication_units;
    if kept == 0 {
        return Ok(1.0);
    }
    let wrong = |problem: String, cure: &str| {
        Err(Diag::input(problem).file(&resolved.label).place("deployment.communication_units").cure(cure))
    };
    match &resolved.hardware.device.units {
        None => wrong(
            format!("{} does not say how many processors it has", resolved.hardware.device.name),
            "add hardware.device.units",
        ),
        Some(u) if u.value <= kept => wrong(format!("keeps {kept} of {} processors", u.value), "leave some to compute"),
        Some(u) => Ok(f64::from(u.value - kept) / f64::from(u.value)),
    }
}
