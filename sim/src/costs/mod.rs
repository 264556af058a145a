//! What operations of a run cost by calibrated kernels, and where each comes from, in words.
//!
//! An operation takes a kernel in the operation's precision out of the device's own profile, else out of the profiles that this profile
//! names as donors: of those that were not slow throughout the one in the precision that suits best, then the first that the engine's
//! framework runs, else the first of all. Without any the operation keeps the roofline with the device's achievable fractions.

mod look;

use crate::experiment::{CostFidelity, Resolved};
use crate::framework::Use;
#[cfg(doc)]
use crate::machine::Deployment;
use crate::network::Dispatch;
use look::{Found, Look, WIDE};
use moesim_core::{Diag, Result};
use moesim_hwmodels::calibrate::profile::{FormName, Kernel, KernelForm, Op, Profile, TimeTable};
use moesim_hwmodels::calibrate::{data, device};
use moesim_hwmodels::cost::{
    CoreKernel, DenseKernel, ExchangeForm, ExchangeKernel, ExchangeKernels, ExpertKernel, Kernels, StreamKernel,
};
use moesim_hwmodels::form::{CollectiveOp, NormalForm};
use moesim_hwmodels::topology::TopologySpec;
use moesim_traces::model::{Heads, Model};
use std::collections::{BTreeMap, BTreeSet};

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
    /// Operations of which a kernel has no such error.
    unmeasured: BTreeSet<&'static str>,
}

impl Calibrated {
    /// For `resolved`, with this way of dispatch.
    ///
    /// # Errors
    /// A kernel family that the experiment names and no profile has, processors that the device lacks.
    pub fn new(resolved: &Resolved, way: &dyn Dispatch) -> Result<Self> {
        let mut out = Self::default();
        let look = Look { resolved, deployment: &resolved.experiment.deployment };
        look.known()?;
        if resolved.experiment.fidelity.costs == CostFidelity::Roofline {
            return Ok(out.without_kernels());
        }
        let p = &resolved.model.precision;
        out.experts(&look)?;
        let mut lacking = Vec::new();
        for weight in [p.attention, p.router, p.shared, p.dense, p.head] {
            // Weights in 32 bits meet inputs that are widened before the product.
            let bits = [weight, if weight > WIDE { weight.max(p.activation) } else { p.activation }];
            if out.kernels.gemms.iter().any(|g| g.bits() == bits) {
                continue;
            }
            // Kernels of another precision are other kernels: a roofline is nearer.
            let operands = look.operands(bits);
            if let Some(found) =
                look.find(&[Op::Gemm], Some(Use::Gemm), operands, |_| true).filter(|f| !f.other_precision)
            {
                let peaks = look.peaks(found.kernel, operands)?;
                let input = data::moe::input_bytes(&found.kernel.precision).unwrap_or(p.activation / 8.0);
                let (form, constants) = (found.kernel.form(), found.kernel.values()?);
                let Some(mut dense) = DenseKernel::new(bits, input, form, constants, peaks) else {
                    lacking.push(weight);
                    continue;
                };
                out.say("gemm", &look, &found);
                if let Some((profile, table)) = look.table(Op::Gemm, Use::Gemm, operands) {
                    dense = dense.with_table(table.clone());
                    out.say_table("gemm", profile, table);
                }
                out.kernels.gemms.push(dense);
            } else {
                lacking.push(weight);
            }
        }
        if let Some(words) = out.words.get_mut("gemm") {
            lacking.dedup();
            lacking.iter().for_each(|bits| words.push_str(&format!("; {ROOFLINE} for weights of {bits} bits")));
        }
        out.attention(&look)?;
        // How much of a stream comes from the cache differs from device to device: no donors.
        let norm =
            look.find(&[Op::Stream], None, [p.activation; 2], |k| k.family == NORM).filter(|f| look.own(f.profile));
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
        self.errors.retain(|what, _| !self.unmeasured.contains(what));
        for what in WHAT {
            self.words.entry(what).or_insert_with(|| ROOFLINE.into());
        }
        for what in BETWEEN {
            self.words.entry(what).or_insert_with(|| "bytes over the links' achievable rates".into());
        }
        self
    }

    fn say(&mut self, what: &'static str, look: &Look, found: &Found) {
        match found.kernel.left_out() {
            Some(e) => {
                let error = self.errors.entry(what).or_default();
                *error = error.max(e.mean);
            }
            None => {
                self.unmeasured.insert(what);
            }
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
        let found = look.find(&ops, Some(Use::Experts), bits, |_| true).filter(|f| !f.other_precision);
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
        let tp = u64::from(look.deployment.attention_tp.max(1));
        // Some kernels were measured on few heads to a head of keys and values, or on one width.
        let fits = |k: &Kernel| match model.decoder.first().map(|l| l.attention.heads) {
            Some(Heads::Gqa { heads, kv_heads, head_dim }) => {
                k.fits_heads([u64::from(heads) / tp, u64::from(kv_heads).div_ceil(tp)], [u64::from(head_dim); 2])
            }
            _ => true,
        };
        for (op, of, expanded, what) in
            [(ops[0], uses[0], false, "decode attention"), (ops[1], uses[1], latent, "prefill attention")]
        {
            // Keys and values in 8 bits under queries in 16 have kernels of their own.
            let narrow = bits[0] <= 8.5 && bits[1] > 8.5;
            let own = look.find(&[op], Some(of), bits, |k| (k.precision == "fp8_wo") == narrow && fits(k));
            let found = match own.filter(|f| !f.other_precision) {
                Some(own) => Some(own),
                None => look.find(&[op], Some(of), bits, |_| true),
            };
            let Some(found) = found else { continue };
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
                let found = look.find(&[op], None, [16.0; 2], |k| forms.contains(&k.form().name()));
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
                let constants = found.kernel.values()?;
                let constants = match form {
                    ExchangeForm::Normal { .. } if !look.own(found.profile) => NormalForm::elsewhere(constants),
                    _ => constants,
                };
                let mut kernel = ExchangeKernel::new(form, constants, peaks, found.kernel.data.sizes);
                if whats[0] == "dispatch" && !kernel.serves(nodes) {
                    continue;
                }
                self.say(what, look, &found);
                // Engines run a kernel of their own where messages are small, which takes longer without graphs; which of both is known of
                // a family that the experiment names.
                let eager = look.resolved.engine.as_ref().is_some_and(|e| !e.graphs);
                let named = look.resolved.engine.as_ref().is_some_and(|e| e.asked(Use::AllReduce).is_some());
                let small = |k: &Kernel| {
                    let launched = named || k.family.ends_with(EAGER) == eager;
                    k.form().name() == FormName::CustomAllReduce && launched
                };
                let own = match what {
                    "all-reduce" => look.find(&[op], Some(Use::AllReduce), [16.0; 2], small),
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
/// What readers call measurements of prompts beside sequences that decode.
const MIXED: &str = "mixed";
/// How families of kernels that were measured without graphs end.
pub(crate) const EAGER: &str = "_eager";
/// The streaming layer that stands for all: a norm.
const NORM: &str = "layernorm";

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

#[cfg(test)]
mod tests;
