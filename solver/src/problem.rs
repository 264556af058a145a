//! What is to be placed, within which limits, and for what.

mod limits;

use crate::curve::Curve;
use crate::time::Batches;
use crate::traffic::{Mode, Traffic};
use crate::{Homes, Watch};
use moesim_core::{Diag, Result};
use std::sync::Arc;

/// What is wanted least.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Objective {
    /// The time of the busiest group of every layer, summed over layers.
    #[default]
    Load,
    /// What tokens cost on their ways.
    Traffic,
    /// Load + `traffic` x traffic.
    Weighted {
        /// What a unit of traffic counts in units of load.
        traffic: f64,
    },
    /// What iterations take: experts and exchanges of batches, see [`crate::time`].
    Time,
    /// The least traffic among placements whose load is within `slack` (a fraction) of the best that was found.
    Lexicographic {
        /// How much more load is allowed.
        slack: f64,
    },
}

/// What [`Problem::affordable_steps`] spends: some twenty to thirty seconds of one core.
const WORK: u64 = 250_000_000;

/// How long is searched. Steps are counted, so that the same input gives the same placement; the clock only cuts.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Moves that a local search tries in a layer, and branch-and-bound nodes where a program counts them.
    pub steps: u64,
    /// Wall time after which the best so far is taken.
    pub until: Option<std::time::Instant>,
    /// A gap that is good enough, as a fraction of the bound.
    pub gap: f64,
}

impl Default for Effort {
    fn default() -> Self {
        Self { steps: 20_000, until: None, gap: 0.0 }
    }
}

impl Effort {
    /// Whether the clock has run out.
    pub fn over(&self) -> bool {
        self.until.is_some_and(|t| std::time::Instant::now() >= t)
    }
}

/// A replica that has to be where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// MoE layer.
    pub layer: usize,
    /// Expert.
    pub expert: usize,
    /// Expert-parallel group.
    pub group: usize,
}

/// What is to be placed, under which limits, and for what.
#[derive(Clone, Debug)]
pub struct Problem {
    /// MoE layers.
    pub layers: usize,
    /// Experts a layer.
    pub experts: usize,
    /// Expert-parallel groups (devices, unless experts are split).
    pub groups: usize,
    /// Node of each group, ascending from 0.
    pub node_of: Vec<u32>,
    /// Replicas of a layer beyond one for each expert.
    pub redundant: usize,
    /// Tokens of each (layer, expert) in an iteration, layer-major.
    pub tokens: Vec<f64>,
    /// What a replica costs its group, by tokens. The tokens of an expert are shared evenly by its replicas.
    pub curve: Curve,
    /// Speed of each group; its time is its cost over its speed.
    pub speed: Vec<f64>,
    /// Most experts of each (layer, group).
    pub slots: Vec<Vec<u32>>,
    /// Groups of consecutive experts that have to be on one node each; 0: none.
    pub expert_groups: usize,
    /// Replicas that have to be where they are.
    pub pins: Vec<Pin>,
    /// A placement to start from, and how many replicas may be where it has none.
    pub from: Option<(Arc<Homes>, u64)>,
    /// What is wanted least.
    pub objective: Objective,
    /// The ways of tokens, where rows are known.
    pub traffic: Option<Arc<Traffic>>,
    /// Batches of rows, for [`Objective::Time`].
    pub batches: Option<Arc<Batches>>,
    /// How long is searched.
    pub effort: Effort,
    /// Seed of methods that draw.
    pub seed: u64,
    /// Who is told how the search goes.
    pub watch: Option<Arc<dyn Watch>>,
}

impl Problem {
    /// Experts as loaded as each other on groups of one node, all alike: all that placement rules without loads ask.
    pub fn even(layers: usize, experts: usize, groups: usize) -> Self {
        let slots = vec![vec![experts.div_ceil(groups) as u32; groups]; layers];
        Self {
            layers,
            experts,
            groups,
            node_of: vec![0; groups],
            redundant: 0,
            tokens: vec![1.0; layers * experts],
            curve: Curve::tokens(),
            speed: vec![1.0; groups],
            slots,
            expert_groups: 0,
            pins: Vec::new(),
            from: None,
            objective: Objective::Load,
            traffic: None,
            batches: None,
            effort: Effort::default(),
            seed: 1,
            watch: None,
        }
    }

    /// The same with `redundant` replicas more a layer, as even over the groups as can be.
    #[must_use]
    pub fn with_redundant(mut self, redundant: usize) -> Self {
        self.redundant = redundant;
        let most = (self.experts + redundant).div_ceil(self.groups) as u32;
        self.slots = vec![vec![most; self.groups]; self.layers];
        self
    }

    /// Replicas of a layer.
    pub fn replicas(&self) -> usize {
        self.experts + self.redundant
    }

    /// Nodes.
    pub fn nodes(&self) -> usize {
        self.node_of.iter().max().map_or(1, |n| *n as usize + 1)
    }

    /// Cost of one of `replicas` replicas of an expert: in the mean of all batches where they count.
    pub fn cost(&self, layer: usize, expert: usize, replicas: usize) -> f64 {
        if let (Objective::Time, Some(b)) = (self.objective, &self.batches) {
            return b.mean_cost(layer, expert, replicas);
        }
        self.curve.of(self.tokens[layer * self.experts + expert] / replicas as f64)
    }

    /// Steps for each layer, so that a search looks at [`WORK`] tokens, batches and groups in all layers together: at least 500, at
    /// most 20,000.
    pub fn affordable_steps(&self) -> u64 {
        let of = |t: &Traffic, twice: bool| {
            // Tokens of two experts, before and after; those that follow are looked at in the next layer too.
            let k = t.rows.ids(0, 0).len();
            let tokens = 4 * t.rows.tokens() * k / self.experts.max(1);
            if twice { tokens * (1 + k) / k.max(1) } else { tokens }
        };
        let follows = |t: &Traffic| t.mode == Mode::TokenFollows;
        let slots = self.replicas().div_ceil(self.groups);
        let each = match (self.objective, &self.traffic, &self.batches) {
            (Objective::Time, _, Some(b)) => {
                of(&b.traffic, follows(&b.traffic)) + b.batches * (2 * slots + self.groups / 4)
            }
            (Objective::Load | Objective::Time, ..) | (_, None, _) => slots,
            (_, Some(t), _) => of(t, follows(t)),
        };
        (WORK / (self.layers * (each + self.groups)).max(1) as u64).clamp(500, 20_000)
    }

    /// Time of each group in a layer.
    pub fn times(&self, layer: usize, homes: &[Vec<u32>]) -> Vec<f64> {
        let mut times = vec![0.0; self.groups];
        for (e, on) in homes.iter().enumerate() {
            let cost = self.cost(layer, e, on.len());
            on.iter().for_each(|&g| times[g as usize] += cost);
        }
        times.iter_mut().zip(&self.speed).for_each(|(t, s)| *t /= s);
        times
    }

    /// Time of the busiest group of a layer.
    pub fn layer_load(&self, layer: usize, homes: &[Vec<u32>]) -> f64 {
        self.times(layer, homes).into_iter().fold(0.0, f64::max)
    }

    /// The same, summed over layers.
    pub fn load(&self, homes: &Homes) -> f64 {
        homes.iter().enumerate().map(|(l, h)| self.layer_load(l, h)).sum()
    }

    /// What tokens cost on their ways, on the rows that the search sees; 0 without rows.
    pub fn traffic_cost(&self, homes: &Homes) -> f64 {
        self.traffic.as_ref().map_or(0.0, |t| t.cost(homes))
    }

    /// The objective of a placement; of a lexicographic one, its traffic.
    pub fn value(&self, homes: &Homes) -> f64 {
        match self.objective {
            Objective::Load => self.load(homes),
            Objective::Traffic | Objective::Lexicographic { .. } => self.traffic_cost(homes),
            Objective::Time => self.batches.as_ref().map_or_else(|| self.load(homes), |b| b.value(&self.speed, homes)),
            Objective::Weighted { traffic } => self.load(homes) + traffic * self.traffic_cost(homes),
        }
    }

    /// Limits slots to what memory holds: `room[g]` bytes of each group for experts of `bytes[l]` each, all layers together.
    ///
    /// # Errors
    /// Memory that does not hold every expert and the redundant ones: how much is missing.
    pub fn within_memory(mut self, bytes: &[u64], room: &[u64]) -> Result<Self> {
        self.slots = limits::quotas(&self, bytes, room)?;
        Ok(self)
    }

    /// Refuses what cannot be placed, whatever the method.
    ///
    /// # Errors
    /// Too few slots, more replicas than groups, pins that contradict each other or the limits.
    pub fn check(&self) -> Result<()> {
        limits::check(self)
    }

    /// Refuses a placement outside the limits.
    ///
    /// # Errors
    /// The first limit that it breaks, and where.
    pub fn check_homes(&self, homes: &Homes) -> Result<()> {
        limits::check_homes(self, homes)
    }

    /// Whether every group takes as many experts of every layer.
    pub fn equal_slots(&self) -> bool {
        self.replicas().is_multiple_of(self.groups) && self.slots.iter().flatten().all(|s| *s == self.slots[0][0])
    }

    /// Whether the search ends here: the clock has run out, or nobody waits for what it finds.
    pub(crate) fn over(&self) -> bool {
        self.effort.over() || self.stopped(0, 0.0)
    }

    /// Tells who looks on; whether nobody waits any more.
    pub(crate) fn stopped(&self, steps: u64, change: f64) -> bool {
        self.watch.as_ref().is_some_and(|w| !w.at(steps, change))
    }

    /// An error of a method that cannot place this.
    pub(crate) fn refuse(&self, method: &str, why: &str) -> Diag {
        Diag::input(format!("{method} {why}")).place("policy.placement").cure("choose another method")
    }
}

/// Replicas that `new` has where `old` has none: weights to load.
pub fn moves(old: &Homes, new: &Homes) -> u64 {
    let pairs = old.iter().zip(new).flat_map(|(a, b)| a.iter().zip(b));
    pairs.map(|(a, b)| b.iter().filter(|g| !a.contains(g)).count() as u64).sum()
}
