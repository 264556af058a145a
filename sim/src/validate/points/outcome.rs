//! What came of a point.

use super::Point;
use super::express::Expressed;
use super::rounds::{MEASURED, Simulated};
use moesim_core::{Diag, Result};
use serde::Serialize;
use std::collections::BTreeMap;

/// A point, measured and simulated.
#[derive(Clone, Debug, Serialize)]
pub struct PointOutcome {
    /// As measured.
    #[serde(flatten)]
    pub point: Point,
    /// Simulated mean time to the first token, milliseconds.
    pub ttft_ms: Option<f64>,
    /// Simulated mean time per output token after the first, milliseconds.
    pub tpot_ms: Option<f64>,
    /// Simulated over measured TTFT, less 1.
    pub ttft_relative_error: Option<f64>,
    /// Simulated over measured TPOT, less 1.
    pub tpot_relative_error: Option<f64>,
    /// The hardware preset.
    pub hardware: Option<String>,
    /// Rounds of as many requests as there are clients that were simulated.
    pub rounds: Option<u32>,
    /// Rounds that were measured.
    pub rounds_measured: u32,
    /// What bound most of the time.
    pub bottleneck: Option<&'static str>,
    /// Parts of the critical path by kind of operation.
    pub breakdown: BTreeMap<&'static str, f64>,
    /// Where the costs of operations came from.
    pub costs: BTreeMap<&'static str, String>,
    /// What stands in for something that is not known or not there.
    pub notes: Vec<String>,
    /// Why the point cannot be expressed; then it counts as missed.
    pub reason: Option<String>,
}

impl PointOutcome {
    /// Of a point whose experiment was made and run, or could not be.
    pub fn new(point: &Point, expressed: &Result<Expressed>, simulated: Result<Simulated>) -> Self {
        let mut out = Self {
            point: point.clone(),
            ttft_ms: None,
            tpot_ms: None,
            ttft_relative_error: None,
            tpot_relative_error: None,
            hardware: None,
            rounds: None,
            rounds_measured: MEASURED,
            bottleneck: None,
            breakdown: BTreeMap::new(),
            costs: BTreeMap::new(),
            notes: Vec::new(),
            reason: None,
        };
        if let Ok(e) = expressed {
            out.hardware = Some(e.hardware.clone());
            out.notes.clone_from(&e.notes);
        }
        match simulated {
            Ok(s) => {
                out.ttft_relative_error = Some(s.ttft_ms / point.mean_ttft_ms - 1.0);
                out.tpot_relative_error = Some(s.tpot_ms / point.mean_tpot_ms - 1.0);
                (out.ttft_ms, out.tpot_ms, out.rounds) = (Some(s.ttft_ms), Some(s.tpot_ms), Some(s.rounds));
                (out.bottleneck, out.breakdown) = (s.bottleneck, s.breakdown);
                out.costs = s.costs;
            }
            // The point is the file; what would cure another experiment would make this one another point.
            Err(d) => out.reason = Some(Diag { file: None, cure: String::new(), ..d }.to_string()),
        }
        out
    }

    /// The largest parts of the critical path, the largest first.
    pub fn largest_parts(&self, n: usize) -> Vec<(&'static str, f64)> {
        let mut parts: Vec<(&'static str, f64)> = self.breakdown.iter().map(|(k, v)| (*k, *v)).collect();
        parts.sort_by(|a, b| b.1.total_cmp(&a.1));
        parts.truncate(n);
        parts
    }
}
