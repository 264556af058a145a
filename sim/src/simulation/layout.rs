//! The trace against the model, and the experts where a placement rule puts them.

use crate::machine::Plan;
use crate::routing::{Capacity, LayerShape, SlotMap};
use moesim_core::{Diag, Result};
use moesim_solver::{Placement, Problem};
use moesim_traces::Trace;
use moesim_traces::model::Moe;

/// Refuses a trace that is not of the plan's model, or has nothing to replay.
pub(crate) fn check_trace(plan: &Plan, trace: &Trace) -> Result<()> {
    let moe: Vec<_> = plan.moe_layers.iter().filter_map(|&l| plan.model.decoder[l].moe()).collect();
    let most = |of: fn(&Moe) -> u32| moe.iter().map(|m| of(m)).max().unwrap_or(0);
    let (e, k) = (most(|m| m.ids()), most(|m| m.top_k));
    if moe.len() != trace.layers() || e as usize != trace.experts() || (k as usize) < trace.k() {
        return Err(Diag::input(format!(
            "the trace (of {}) has {} MoE layers of {} experts, top-{}; {} has {} of {e}, top-{k}",
            trace.meta().model,
            trace.layers(),
            trace.experts(),
            trace.k(),
            plan.model.name,
            moe.len()
        ))
        .place("workload.routing")
        .cure("name the trace's model, or a trace of this model"));
    }
    if trace.sequences() == 0 || trace.rows() == 0 {
        return Err(Diag::input("the trace has no rows").place("workload.routing").cure("import it again"));
    }
    if (0..trace.sequences()).any(|i| trace.sequence(i).decode.is_empty() && trace.sequence(i).prefill.is_empty()) {
        return Err(Diag::input("a sequence of the trace has no rows")
            .place("workload.routing")
            .cure("import it again"));
    }
    Ok(())
}

/// The experts of `plan` where `rule` puts them.
pub(crate) fn place(plan: &Plan, rule: &dyn Placement, name: &str) -> Result<SlotMap> {
    let moe: Vec<_> = plan.moe_layers.iter().filter_map(|&l| plan.model.decoder[l].moe()).collect();
    let (layers, groups) = (moe.len(), plan.ranks.ep);
    // A rule knows one number of experts: it places all layers once for each that there is, and layers take theirs.
    let mut homes: moesim_solver::Homes = vec![Vec::new(); layers];
    for l in 0..layers {
        if homes[l].is_empty() {
            let experts = moe[l].experts as usize;
            let mut placed = rule.place(&Problem { layers, experts, groups })?;
            check_homes(&placed, layers, experts, groups, name)?;
            for l in (0..layers).filter(|&l| moe[l].experts as usize == experts) {
                homes[l] = std::mem::take(&mut placed[l]);
            }
        }
    }
    let shapes: Vec<_> = moe.iter().map(|m| shape(m)).collect();
    Ok(SlotMap::shaped(&homes, &shapes, groups, plan.machine.devices()))
}

/// What the replay must know of a layer beside its experts' homes.
fn shape(m: &Moe) -> LayerShape {
    let per_token = |factor: f64| factor * f64::from(m.top_k) / f64::from(m.experts);
    LayerShape {
        zero_compute: m.zero_compute() as usize,
        expert_groups: m.groups as usize,
        capacity: m.capacity_factor.map(|c| Capacity { per_token: per_token(c), padded: m.capacity_padding }),
    }
}

fn check_homes(homes: &moesim_solver::Homes, layers: usize, experts: usize, groups: usize, name: &str) -> Result<()> {
    let fine = homes.len() == layers
        && homes.iter().all(|l| l.len() == experts)
        && homes.iter().flatten().all(|on| {
            let mut sorted = on.clone();
            sorted.sort_unstable();
            sorted.dedup();
            !on.is_empty() && sorted.len() == on.len() && sorted.iter().all(|&g| (g as usize) < groups)
        });
    if fine {
        return Ok(());
    }
    Err(Diag::input(format!(
        "placement {name} leaves an expert without a home, or names a group twice or beyond {groups}"
    ))
    .place("policy.placement")
    .cure("mend the placement, or choose another"))
}
