//! Settings of re-placement: experts that move to other devices while a run serves.

use moesim_core::{Diag, Picos, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Re-placement during a run: from time to time a method places the experts by the loads that it predicts, and weights that are
/// new on a device move there over the links, layer after layer, while the run serves. Exactly one of `every` and `iterations`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Replacement {
    /// Simulated time from round to round.
    pub every: Option<Picos>,
    /// Iterations from round to round.
    pub iterations: Option<u64>,
    /// The placement method: one that needs no rows.
    pub method: String,
    /// Replicas of a layer beyond one for each expert; the run starts with those of `policy.placement`.
    pub redundant: u32,
    /// How much the counts of the last interval weigh in the predicted loads, the rest being the prediction before; above 0, up to 1.
    pub smoothing: f64,
    /// Most replicas that move in a round, for methods that can start from the placement there is; unless told, no limit.
    pub max_moves: Option<u64>,
    /// The part of every link that weights take while they move, 0.01 to 0.9; collectives have the rest.
    pub bandwidth_share: f64,
}

impl Default for Replacement {
    fn default() -> Self {
        Self {
            every: None,
            iterations: None,
            method: "longest-first".into(),
            redundant: 0,
            smoothing: 0.5,
            max_moves: None,
            bandwidth_share: 0.2,
        }
    }
}

/// From round to round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interval {
    Time(Picos),
    Iterations(u64),
}

/// The key that is wrong.
pub(crate) fn place(key: &str) -> String {
    format!("policy.replacement.{key}")
}

impl Replacement {
    /// The interval, of settings that are sound.
    pub(crate) fn interval(&self) -> Result<Interval> {
        let wrong = |key: &str, problem: String, cure: &str| Err(Diag::input(problem).place(place(key)).cure(cure));
        if !(self.smoothing > 0.0 && self.smoothing <= 1.0) {
            return wrong("smoothing", format!("{} is not a weight", self.smoothing), "set it above 0 and at most 1");
        }
        if !(0.01..=0.9).contains(&self.bandwidth_share) {
            let problem = format!("{} leaves weights or collectives without links", self.bandwidth_share);
            return wrong("bandwidth_share", problem, "set it from 0.01 to 0.9");
        }
        if self.max_moves == Some(0) {
            return wrong("max_moves", "nothing may move".into(), "set it to at least 1, or leave it out");
        }
        match (self.every, self.iterations) {
            (Some(Picos(0)), _) => wrong("every", "is no time".into(), "set it above 0, as in \"10 s\""),
            (_, Some(0)) => wrong("iterations", "is 0".into(), "set it to at least 1"),
            (Some(t), None) => Ok(Interval::Time(t)),
            (None, Some(n)) => Ok(Interval::Iterations(n)),
            (both, _) => {
                let problem = if both.is_some() { "has both every and iterations" } else { "says not when" };
                Err(Diag::input(problem)
                    .place("policy.replacement")
                    .cure("set one of every, as in \"10 s\", and iterations, as in 500"))
            }
        }
    }
}
