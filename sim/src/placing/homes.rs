//! Where an experiment says that experts are: a rule's placement, or a file's.

use crate::experiment::Resolved;
use crate::machine::Plan;
use crate::registry::Registry;
#[cfg(test)]
use crate::routing::{Counting, SlotMap};
use moesim_core::output::content_hash;
use moesim_core::{Diag, Result};
use moesim_solver::{Homes, Needs, Placement, Problem, file};
use serde::Serialize;
use std::path::Path;

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
    let name = &resolved.experiment.policy.placement;
    if let Some(path) = resolved.placement_file() {
        return from_file(plan, &path).map_err(|d| d.place("policy.placement"));
    }
    let rule = registry.placement(name)?;
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

/// The experts of `plan` where `rule` puts them.
#[cfg(test)]
pub(crate) fn place(plan: &Plan, rule: &dyn Placement, name: &str) -> Result<SlotMap> {
    Ok(plan.slot_map(&ruled(plan, rule, name)?, &Counting::Groups))
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
