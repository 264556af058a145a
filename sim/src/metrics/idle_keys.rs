//! Keys of an experiment that change nothing in a run, each in a sentence of the summary's notes.
//!
//! A test (`sim/src/keys.rs`) changes every key of every schema: what changes no result and is not refused must be said here.

use super::Ended;
use crate::experiment::CostFidelity;
use crate::framework::{Framework, Use};
use crate::machine::Fused;
use crate::policy::CacheFraction;
use crate::routing::Routing;
use moesim_core::Picos;
use moesim_traces::model::Moe;

/// The sentences for a run.
pub(super) fn sentences(s: &Ended) -> Vec<String> {
    let mut out = Vec::new();
    out.extend(achievable(s));
    out.extend(units(s));
    let (x, plan, hardware) = (&s.experiment, s.plan, &s.plan.machine.hardware);
    if s.offloads && hardware.host.memory.is_some() {
        out.push("hardware.host.memory.bandwidth is not used: each device's own link bounds its copies".into());
    }
    let host = &hardware.host.iteration_overhead;
    if host.value > Picos::ZERO && s.engine.is_none_or(|e| e.host_time.is_some()) {
        let why = if s.engine.is_none() {
            "without [engine] no host time passes"
        } else {
            "the engine has a host time of its own"
        };
        out.push(format!("hardware.host.iteration_overhead is not used: {why}"));
    }
    if s.engine.is_some_and(|e| e.memory_share.is_some() || e.memory_kept.is_some()) {
        out.push("hardware.device.reserve is not used: the engine says how much memory it takes".into());
    }
    out.extend(s.engine.into_iter().flat_map(|e| engine(s, e)));
    if plan.model.mtp_layers > 0 {
        out.push(format!(
            "model.mtp_layers is not used: {} module(s) of multi-token prediction are neither held nor run",
            plan.model.mtp_layers
        ));
    }
    if x.policy.cache_fraction.is_some_and(|f| f != CacheFraction::Auto) {
        out.push(format!("policy.cache_fraction is not used by {}", x.policy.execution));
    }
    if plan.ranks.replicated() {
        let (d, dispatch) = (&plan.deployment, x.policy.dispatch.kind.as_str());
        let idle = [
            ("policy.dispatch", dispatch != "flat" && s.engine.is_none_or(|e| e.dispatch.value != dispatch)),
            ("deployment.dispatch_bits", d.dispatch_bits.is_some()),
            ("deployment.combine_bits", d.combine_bits.is_some()),
        ];
        let names: Vec<&str> = idle.into_iter().filter(|i| i.1).map(|i| i.0).collect();
        if !names.is_empty() {
            out.push(format!(
                "not used are {}: tokens are on every device (deployment.layout), so that none are dispatched",
                names.join(", ")
            ));
        }
    }
    if plan.moe_layers.is_empty() && !matches!(x.workload.routing, Routing::None) {
        out.push(format!("workload.routing is not used: {} has no MoE layer", plan.model.name));
    }
    out
}

/// Keys of `[engine]`.
fn engine(s: &Ended, e: &Framework) -> Vec<String> {
    let (plan, mut out) = (s.plan, Vec::new());
    let sums = plan.ranks.tp > 1 || plan.ranks.etp > 1;
    let asked: Vec<&str> = Use::ALL.into_iter().filter(|of| e.asked(*of).is_some()).map(Use::key).collect();
    if s.experiment.fidelity.costs == CostFidelity::Roofline && !asked.is_empty() {
        out.push(format!("not used are {}: fidelity.costs is roofline", asked.join(", ")));
    } else if e.asked(Use::AllReduce).is_some() && !(sums && s.network.kernels().all_reduce.is_some()) {
        out.push("engine.kernels.all_reduce is not used: no devices sum anything by a calibrated kernel".into());
    }
    if e.fused.value.contains(&Fused::AllReduceNorm) && !plan.ranks.replicated() {
        out.push("engine.fused: all-reduce-norm changes nothing where no all-reduce comes before a norm".into());
    }
    let p = &plan.model.precision;
    let narrow = plan.machine.gpu.input_bits(p.experts, p.activation) < p.activation;
    let gathers = s.network.everywhere() && !plan.ranks.replicated() && plan.deployment.dispatch_bits.is_none();
    if e.rounds_before_gather.value && e.rounds_before_gather.is_user() && !(narrow && gathers) {
        out.push(
            "engine.rounds_before_gather changes nothing: no tokens are gathered whose products have narrower inputs"
                .into(),
        );
    }
    out
}

/// Fractions of peaks that rooflines take, where calibrated kernels stand in for all of them.
fn achievable(s: &Ended) -> Option<String> {
    let (model, kernels) = (&s.plan.model, &s.plan.machine.gpu.kernels);
    let p = &model.precision;
    let gemms = [p.attention, p.router, p.shared, p.dense, p.head];
    let dense = gemms.iter().all(|w| kernels.gemms.iter().any(|k| k.bits() == [*w, p.activation]));
    let rank = |m: &Moe| m.expert_rank > 0 || m.expert_sizes.is_some() || m.groups > 0;
    let moe = model.decoder.iter().filter_map(|l| l.moe());
    let by_roofline = moe.clone().any(rank) || model.decoder.iter().any(|l| l.attention.experts > 0);
    let grouped = moe.count() == 0 || (kernels.experts.is_some() && !by_roofline);
    let attention = kernels.decode.is_some() && kernels.prefill.is_some();
    let memory = dense && grouped && attention && kernels.stream.is_some();
    let idle = [("compute", dense), ("grouped", grouped), ("attention", attention), ("memory", memory)];
    let names: Vec<&str> = idle.into_iter().filter(|i| i.1).map(|i| i.0).collect();
    (!names.is_empty()).then(|| {
        let those = names.join(", ");
        format!("hardware.device.achievable: not used are {those} (calibrated kernels stand in for every roofline that would take them)")
    })
}

/// Where the run's device has other processors than the one whose name it bears, with which its profile was measured.
fn units(s: &Ended) -> Option<String> {
    let device = &s.plan.machine.hardware.device;
    let measured = moesim_hwmodels::calibrate::device::hardware(&device.name).ok()?.device;
    let (own, theirs) = (device.units.as_ref()?.value, measured.units.as_ref()?.value);
    (own != theirs && device.profile.is_some() && device.peak == measured.peak).then(|| {
        format!(
            "hardware.device.units is {own}, of {} it is {theirs}: peaks are of all processors together, so that each now counts as \
             {:.2} times as fast; change hardware.device.peak with it",
            device.name,
            f64::from(theirs) / f64::from(own)
        )
    })
}
