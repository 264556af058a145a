//! What `moesim place` found, as it is printed.

use moesim_solver::Homes;
use serde::Serialize;

/// What a method found.
#[derive(Debug, Serialize)]
pub(super) struct MethodRow {
    /// The method, or the file that was judged.
    pub(super) method: String,
    /// Why there is nothing more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<String>,
    #[serde(flatten)]
    pub(super) found: Option<Found>,
    #[serde(skip)]
    pub(super) homes: Option<Homes>,
}

/// A placement in figures.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    /// The objective on the training part.
    pub(super) objective: f64,
    /// What no placement beats.
    pub(super) bound: f64,
    /// Objective over bound, less one.
    pub(super) gap: Option<f64>,
    /// Time of the busiest device of each layer, summed.
    pub(super) load: f64,
    pub(super) load_bound: f64,
    /// Cost of copies, where rows are known.
    pub(super) traffic: Option<f64>,
    /// Replicas beyond one for each expert, over all layers.
    pub(super) redundant: u64,
    /// What ran, where the method's name does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ran: Option<String>,
    /// The same input gives the same placement.
    pub(super) reproducible: bool,
    /// Replicas that move from the placement of `--from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) moves: Option<u64>,
    /// Wall time of the search.
    pub(super) seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) held_out: Option<HeldOut>,
}

/// Everything that is printed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) objective: String,
    pub(super) unit: &'static str,
    pub(super) layers: usize,
    pub(super) experts: usize,
    pub(super) devices: usize,
    pub(super) nodes: usize,
    pub(super) redundant: usize,
    pub(super) iteration_tokens: f64,
    pub(super) trained_on: String,
    pub(super) held_out_on: Option<String>,
    pub(super) notes: Vec<String>,
    pub(super) methods: Vec<MethodRow>,
}

/// What a placement does on sequences that it has not seen.
#[derive(Debug, Serialize)]
pub(super) struct HeldOut {
    /// Time of the busiest device of each layer, summed, in an iteration with their loads.
    pub(super) load: f64,
    /// What iterations take in batches of their rows, where that is the objective.
    pub(super) time: Option<f64>,
    /// The time, or the load without one, over that of the method named in `against`: the ratio, and how 95 % of bootstrap samples of the sequences (of the
    /// batches, for the time) spread about it.
    pub(super) ratio: Option<f64>,
    pub(super) interval: Option<[f64; 2]>,
    pub(super) against: Option<&'static str>,
    /// Copies of a token, each counted as sent from a home in turn.
    pub(super) copies_per_token: PerToken,
    pub(super) simulated: Option<Simulated>,
}

/// Copies of a token that leave its device, and its node.
#[derive(Debug, Serialize)]
pub(super) struct PerToken {
    pub(super) between_devices: f64,
    pub(super) between_nodes: f64,
}

/// A run with the placement, on those sequences.
#[derive(Debug, Serialize)]
pub(super) struct Simulated {
    pub(super) output_tokens_per_s: f64,
    pub(super) imbalance_mean: Option<f64>,
    pub(super) imbalance_p99: Option<f64>,
    /// Dispatch and combine, between devices.
    pub(super) cross_device_bytes: u64,
    /// Of these, between nodes.
    pub(super) cross_node_bytes: u64,
    pub(super) simulated_s: f64,
}

impl HeldOut {
    /// The time, or the load without one; its ratio, and the ratio's interval.
    pub(super) fn words(&self) -> (f64, Option<f64>, Option<[f64; 2]>) {
        (self.time.unwrap_or(self.load), self.ratio, self.interval)
    }
}
