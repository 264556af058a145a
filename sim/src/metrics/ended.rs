//! A run that is over, as its outputs read it.

use super::Totals;
use super::summary::Sessions;
use crate::experiment::Experiment;
use crate::framework::Framework;
use crate::machine::Plan;
use crate::network::Network;
use crate::placing::PlacementReport;
use crate::policy::Report;
use crate::replacement::ReplacementReport;
use crate::routing::{Provenance, Replay, Selections};
use crate::serving::Rank;
use moesim_traces::Trace;
use std::collections::BTreeMap;

/// A run that is over.
pub struct Ended<'a> {
    /// What was simulated, with the settings of policies as they are, defaults included.
    pub experiment: Experiment,
    /// The model on the machine.
    pub plan: &'a Plan,
    /// What was collected.
    pub totals: &'a Totals,
    /// Bytes over links.
    pub network: &'a Network,
    /// Counts of selections.
    pub replay: &'a Replay,
    /// What was replayed.
    pub trace: &'a Trace,
    /// Where assignments came from.
    pub provenance: Provenance,
    /// What became of them.
    pub selections: Selections,
    /// Where costs of operations come from.
    pub costs: &'a BTreeMap<&'static str, String>,
    /// Their mean relative errors on what fits had not seen, where they are known.
    pub errors: &'a BTreeMap<&'static str, f64>,
    /// The serving engine, if the experiment has one.
    pub engine: Option<&'a Framework>,
    /// Whether the execution policy saw routing that lay ahead.
    pub oracle: bool,
    /// Whether it keeps experts elsewhere than on devices.
    pub offloads: bool,
    /// What it counted.
    pub report: Report,
    /// Where the placement comes from, if from a file.
    pub placement: Option<&'a PlacementReport>,
    /// What re-placement did, if there was any.
    pub replacement: Option<ReplacementReport>,
    /// What came of sessions, if requests belong to any.
    pub sessions: Option<Sessions>,
    /// What the reader should know of the requests that came.
    pub arrival_notes: Vec<String>,
    /// Operations completed.
    pub operations: u64,
    /// Bytes of weights on the fullest device.
    pub weight_bytes: u64,
    /// The attention ranks.
    pub ranks: &'a [Rank],
}
