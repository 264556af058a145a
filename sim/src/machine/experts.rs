//! The routed experts laid out on the machine: shapes and bytes, each by itself where they differ.

use super::Plan;
use crate::routing::SlotMap;
use moesim_hwmodels::cost::GroupedMlp;
use moesim_traces::model::{Model, Moe};

/// What one device of a group holds of each expert of a layer: one entry if all are alike.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    widths: Vec<u64>,
    bytes: Vec<u64>,
}

impl Sizes {
    pub(super) fn new(model: &Model, layer: usize, etp: u64) -> Self {
        let layer = &model.decoder[layer];
        let moe = layer.moe().expect("an MoE layer");
        let alike = (1..moe.experts).all(|e| moe.intermediate(e) == moe.intermediate(0));
        let experts = || 0..if alike { 1 } else { moe.experts };
        Self {
            widths: experts().map(|e| u64::from(moe.intermediate(e)).div_ceil(etp)).collect(),
            bytes: experts().map(|e| layer.expert_weight_bytes(model, e).div_ceil(etp)).collect(),
        }
    }
}

/// Experts of a group that a token with any of them selects, in the mean, were its `k` selections dealt to the groups evenly
/// and independently: k / groups over the probability of at least one.
fn choices(k: u32, groups: usize) -> f64 {
    let other = 1.0 - 1.0 / groups as f64;
    let none: f64 = (0..k).map(|_| other).product();
    (f64::from(k) / groups as f64 / (1.0 - none)).max(1.0)
}

impl Plan {
    /// The MoE block of MoE layer `moe_layer`.
    pub fn moe(&self, moe_layer: usize) -> &Moe {
        self.model.decoder[self.moe_layers[moe_layer]].moe().expect("an MoE layer")
    }

    /// The experts of MoE layer `moe_layer` as one device of a group sees them; the width is that of expert 0.
    pub fn experts(&self, moe_layer: usize) -> GroupedMlp {
        let moe = self.moe(moe_layer);
        GroupedMlp {
            hidden: self.model.hidden.into(),
            intermediate: self.experts[moe_layer].widths[0],
            rank: moe.expert_rank.into(),
            matrices: moe.matrices.into(),
            weight_bits: self.model.precision.experts,
            activation_bits: self.model.precision.activation,
            choices: choices(moe.top_k, self.ranks.ep),
            everywhere: [0.0; 2],
        }
    }

    /// What experts of MoE layer `moe_layer` have in common, as one device of a group sees it: the common part of each of
    /// its groups of experts, and the base of factorised experts.
    pub fn common_parts(&self, moe_layer: usize) -> (Option<GroupedMlp>, Option<GroupedMlp>) {
        let moe = self.moe(moe_layer);
        let part = |has: bool, width: u32| {
            let intermediate = u64::from(width).div_ceil(self.ranks.etp as u64);
            has.then(|| GroupedMlp { intermediate, rank: 0, choices: 1.0, ..self.experts(moe_layer) })
        };
        (part(moe.groups > 0, moe.group_intermediate), part(moe.expert_base, moe.expert_intermediate))
    }

    /// Bytes of what experts have in common on each device: it is kept wherever an expert is that has it, in device memory
    /// even where experts themselves are loaded on demand.
    pub fn common_part_bytes(&self, placement: &SlotMap) -> Vec<u64> {
        let mut bytes = vec![0; self.ranks.devices()];
        let etp = self.ranks.etp as u64;
        for (l, &layer) in self.moe_layers.iter().enumerate() {
            let layer = &self.model.decoder[layer];
            let (part, base) = (layer.group_weight_bytes(&self.model), layer.base_weight_bytes(&self.model));
            for group in 0..placement.groups() {
                let parts = placement.group_parts(l, group).len() as u64;
                let bases = u64::from(!placement.group_slots(l, group).is_empty());
                for device in self.ranks.group_devices(group) {
                    bytes[device] += parts * part.div_ceil(etp) + bases * base.div_ceil(etp);
                }
            }
        }
        bytes
    }

    /// Bytes of routed experts on each device where every expert is on the devices of its groups.
    pub fn all_resident(&self, placement: &SlotMap) -> Vec<u64> {
        let mut bytes = vec![0; self.ranks.devices()];
        for layer in 0..self.moe_layers.len() {
            for group in 0..placement.groups() {
                let slots = placement.group_slots(layer, group);
                let held: u64 = slots.map(|s| self.expert_bytes(layer, placement.expert(layer, s))).sum();
                for device in self.ranks.group_devices(group) {
                    bytes[device] += held;
                }
            }
        }
        bytes
    }

    /// Inner widths of the experts of MoE layer `moe_layer` on one device of their group, where they differ.
    pub fn expert_widths(&self, moe_layer: usize) -> Option<&[u64]> {
        Some(&self.experts[moe_layer].widths[..]).filter(|w| w.len() > 1)
    }

    /// Bytes of a routed expert of MoE layer `moe_layer` on one device of its group.
    pub fn expert_bytes(&self, moe_layer: usize, expert: usize) -> u64 {
        let bytes = &self.experts[moe_layer].bytes;
        if bytes.len() == 1 { bytes[0] } else { bytes[expert] }
    }

    /// Bytes of every routed expert on one device of its group, if all of all layers are alike.
    pub fn uniform_expert_bytes(&self) -> Option<u64> {
        let first = self.experts.first()?.bytes[0];
        self.experts.iter().all(|l| l.bytes == [first]).then_some(first)
    }
}
