//! The trace of a run, and whether it is of the run's model.

use crate::experiment::Resolved;
use crate::machine::Plan;
use crate::routing::Cache;
use moesim_core::{Diag, Result};
use moesim_traces::Trace;
use moesim_traces::model::Moe;
use std::sync::Arc;

/// Opens or draws the trace of an experiment, without a cache (see [`Cache`]).
///
/// # Errors
/// As the container's reader says.
pub fn open_trace(resolved: &Resolved) -> Result<Arc<Trace>> {
    Ok(Cache::none().open(resolved.routing(), &|_| {})?.trace)
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
