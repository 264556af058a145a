//! The trace against the model, and the experts where a placement rule puts them.

use crate::experiment::Resolved;
use crate::machine::Plan;
use crate::registry::Registry;
use crate::routing::{Cache, Capacity, Counting, LayerShape, SlotMap};
use moesim_core::output::content_hash;
use moesim_core::{Bytes, Diag, Result};
use moesim_solver::traffic::Mode;
use moesim_solver::{Homes, Needs, Placement, Problem, file};
use moesim_traces::Trace;
use moesim_traces::model::Moe;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// Opens or draws the trace of an experiment, without a cache (see [`Cache`]).
///
/// # Errors
/// As the container's reader says.
pub fn open_trace(resolved: &Resolved) -> Result<Arc<Trace>> {
    Ok(Cache::none().open(resolved, &|_| {})?.trace)
}

/// Refuses a trace that is not of the plan's model, or has nothing to replay.
pub(crate) fn check_trace(plan: &Plan, trace: &Trace) -> Result<()> {
    if plan.moe_layers.is_empty() {
        return Ok(());
    }
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

/// A placement that came from a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlacementReport {
    /// Its format.
    pub format: &'static str,
    /// Hash of the file.
    pub hash: String,
    /// Replicas beyond one for each expert, over all layers.
    pub redundant: u64,
    /// What the solver said of it: method, objective, bound.
    pub result: Option<serde_json::Value>,
}

/// Where every expert is, and what says so.
pub(crate) struct Placed {
    pub(crate) homes: Homes,
    pub(crate) report: Option<PlacementReport>,
}

/// The placement that an experiment names: a rule, or a file.
pub(crate) fn placement(plan: &Plan, resolved: &Resolved, registry: &Registry) -> Result<Placed> {
    if let Some(homes) = &resolved.homes {
        return Ok(Placed { homes: homes.to_vec(), report: None });
    }
    let policies = &resolved.experiment.policy;
    let name = &policies.placement;
    if let Some(path) = resolved.placement_file() {
        return from_file(plan, &path).map_err(|d| d.place("policy.placement"));
    }
    let rule = registry.placement(policies)?;
    if rule.needs() != Needs::Nothing {
        return Err(Diag::input(format!("{name} places by loads, which a run does not know before it"))
            .place("policy.placement")
            .cure(format!("make a file with `moesim place --solver {name} --out FILE` and name it here")));
    }
    Ok(Placed { homes: ruled(plan, &*rule, name)?, report: None })
}

/// The placement in a file, in any format that a solver or a serving engine writes.
fn from_file(plan: &Plan, path: &Path) -> Result<Placed> {
    let moe: Vec<_> = plan.moe_layers.iter().filter_map(|&l| plan.model.decoder[l].moe()).collect();
    let numbers: Vec<u32> = plan.moe_layers.iter().map(|l| *l as u32).collect();
    let most = moe.iter().map(|m| m.experts as usize).max().unwrap_or(0);
    let options = file::ReadOptions {
        devices: Some(plan.ranks.ep),
        experts: Some(most),
        layer_numbers: Some(&numbers),
        ..file::ReadOptions::default()
    };
    let read = file::read(path, &options)?;
    let mut homes = read.placed.homes();
    for (l, m) in moe.iter().enumerate() {
        homes[l].truncate(m.experts as usize);
    }
    let bytes = std::fs::read(path).map_err(|e| Diag::cannot_read(path, &e))?;
    let report = PlacementReport {
        format: read.format,
        hash: content_hash(&bytes),
        redundant: read.placed.replicas().redundant,
        result: read.result,
    };
    Ok(Placed { homes, report: Some(report) })
}

/// The slots of a placement, with what the dispatch wants counted.
pub(crate) fn counted(plan: &Plan, homes: &Homes, counting: &Counting) -> SlotMap {
    let map = slots(plan, homes).counting(counting);
    if plan.deployment.tokens == Mode::TokenFollows { map.following() } else { map }
}

/// The experts of `plan` where `rule` puts them.
#[cfg(test)]
pub(crate) fn place(plan: &Plan, rule: &dyn Placement, name: &str) -> Result<SlotMap> {
    Ok(slots(plan, &ruled(plan, rule, name)?))
}

fn slots(plan: &Plan, homes: &Homes) -> SlotMap {
    let moe = plan.moe_layers.iter().filter_map(|&l| plan.model.decoder[l].moe());
    let shapes: Vec<_> = moe.map(shape).collect();
    SlotMap::shaped(homes, &shapes, plan.ranks.ep, plan.machine.devices())
}

fn ruled(plan: &Plan, rule: &dyn Placement, name: &str) -> Result<Homes> {
    let moe: Vec<_> = plan.moe_layers.iter().filter_map(|&l| plan.model.decoder[l].moe()).collect();
    let (layers, groups) = (moe.len(), plan.ranks.ep);
    // A rule knows one number of experts: it places all layers once for each that there is, and layers take theirs.
    let mut homes: Homes = vec![Vec::new(); layers];
    for l in 0..layers {
        if homes[l].is_empty() {
            let experts = moe[l].experts as usize;
            let mut placed = rule.place(&Problem::even(layers, experts, groups))?.homes;
            check_homes(&placed, layers, experts, groups, name)?;
            for l in (0..layers).filter(|&l| moe[l].experts as usize == experts) {
                homes[l] = std::mem::take(&mut placed[l]);
            }
        }
    }
    Ok(homes)
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

fn check_homes(homes: &Homes, layers: usize, experts: usize, groups: usize, name: &str) -> Result<()> {
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

/// Bytes of KV cache on each device once the weights are in; an error if they do not fit.
pub(crate) fn kv_room(plan: &Plan, weights: u64) -> Result<u64> {
    let usable = plan.machine.hardware.usable_memory().get();
    let least = plan.kv_bytes(plan.deployment.kv_block_tokens);
    match usable.checked_sub(weights) {
        Some(room) if room >= least => Ok(room),
        _ => {
            let missing = Bytes(weights + least - usable);
            Err(Diag::does_not_fit(format!(
                "{} does not fit: weights of {:.2} GiB a device on {} with {:.2} GiB usable; {} bytes ({:.2} GiB) are missing",
                plan.model.name,
                Bytes(weights).gib(),
                plan.machine.hardware.name,
                Bytes(usable).gib(),
                missing.get(),
                missing.gib()
            ))
            .place("deployment")
            .cure("use more devices, more tensor or expert parallelism, or narrower weights"))
        }
    }
}
