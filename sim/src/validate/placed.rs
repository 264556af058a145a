//! Experiments whose experts a method places, on the first part of their routing; the run replays the rest.

use crate::experiment::Resolved;
use crate::placing::{self, Loads, Site};
use crate::registry::Registry;
use crate::routing::{Cache, Opened};
use moesim_core::{Diag, Result, diag};
use moesim_traces::Trace;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How experts are placed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacedSpec {
    /// A placement method.
    pub method: String,
    /// The part of the sequences that it sees.
    pub train: f64,
    /// It sees their prompts alone.
    #[serde(default)]
    pub prompts_only: bool,
    /// Replicas of a layer beyond one for each expert.
    #[serde(default)]
    pub redundant: usize,
    /// Most experts of a layer on a device, if not as even as can be.
    #[serde(default)]
    pub slots: Option<u32>,
    /// Tokens of an iteration.
    pub iteration_tokens: f64,
}

impl PlacedSpec {
    /// Places the experts of `resolved`; the trace that it runs on, which is part of one from `cache` or elsewhere.
    ///
    /// # Errors
    /// What a run would refuse, an unknown method, and what the method cannot place.
    pub fn place(
        &self,
        resolved: &mut Resolved,
        registry: &Registry,
        cache: &Cache,
        say: &dyn Fn(String),
    ) -> Result<Opened> {
        let names: Vec<&str> = registry.placements().iter().map(|e| e.name).collect();
        let entry = registry.placements().iter().find(|e| e.name == self.method);
        let entry = entry.ok_or_else(|| diag::unknown("placement method", &self.method, &names))?;
        let site = Site::new(resolved, registry)?;
        let Opened { trace, from } = cache.open(resolved.routing(), say)?;
        let (all, experts) = (trace.sequences(), site.experts());
        let seen = (all as f64 * self.train) as usize;
        if seen == 0 || seen == all {
            return Err(Diag::input(format!("{seen} of {all} sequences to train on")).place("train"));
        }
        let part = |range: std::ops::Range<usize>, prompts_only: bool| {
            let sequences = range.map(|i| {
                let mut s = trace.sequence(i).to_owned();
                if prompts_only {
                    (s.decode, s.weights) = (Vec::new(), None);
                }
                s
            });
            Trace::from_sequences(trace.meta().clone(), sequences.collect())
        };
        let training = part(0..seen, self.prompts_only)?;
        let loads = Loads::of_trace(&training, 0..seen, experts)?;
        let groups = site.plan.ranks.ep;
        let mut p = placing::problem(Some(&site), experts, groups, self.redundant, &loads, self.iteration_tokens);
        if let Some(n) = self.slots {
            p.slots.iter_mut().for_each(|l| l.fill(n));
        }
        p.traffic = Some(placing::sample(&site, &training, 0..seen, self.iteration_tokens)?);
        p.check()?;
        let homes = entry.plain()?.place(&p)?.homes;
        p.check_homes(&homes)?;
        resolved.homes = Some(Arc::new(homes));
        Ok(Opened { trace: Arc::new(part(seen..all, false)?), from })
    }
}
