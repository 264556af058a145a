//! The slots of a placement, as a run counts over them.

use super::Plan;
use crate::routing::{Capacity, Counting, LayerShape, SlotMap};
use moesim_solver::Homes;
use moesim_solver::traffic::Mode;
use moesim_traces::model::Moe;

impl Plan {
    /// The slots of experts that are at `homes`, groups of every expert of every MoE layer, with what the dispatch wants counted.
    pub fn slot_map(&self, homes: &Homes, counting: &Counting) -> SlotMap {
        let moe = self.moe_layers.iter().filter_map(|&l| self.model.decoder[l].moe());
        let shapes: Vec<_> = moe.map(shape).collect();
        let map = SlotMap::shaped(homes, &shapes, self.ranks.ep, self.machine.devices()).counting(counting);
        if self.deployment.tokens == Mode::TokenFollows { map.following() } else { map }
    }
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
