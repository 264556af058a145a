//! Experts in host memory, loaded when a gate selects them, behind a cache in device memory.
//!
//! * **Size.** Each device caches at most `policy.cache_fraction` of the experts of its group over all layers (25 %
//!   unless told), at least one, plus a staging buffer of one expert.
//! * **Access order.** When a layer's gates are done, the activated experts of a device are looked up in ascending
//!   expert number, each once however many tokens it has. A hit becomes the most recently used. Loads queue on the
//!   device's copy engine in the same order.
//! * **Eviction.** The least recently used expert leaves. Experts that the current layer activates are pinned: they
//!   are passed over until the layer has been looked up whole.
//! * **Overflow.** If every cached expert is pinned, the missing expert streams through the staging buffer and is not
//!   kept.
//! * **Overlap.** Hits run at once as one grouped GEMM; each missing expert runs when its own load is done. Loads write
//!   to the device memory that kernels read from, and share its bandwidth with them.

use super::lru::Lru;
use super::{CacheReport, ExecutionPolicy, LayerOps, StateView};
use crate::machine::Plan;
use crate::routing::{LayerRouting, SlotMap};
use moesim_core::{Diag, Result};

/// See the module's documentation.
#[derive(Debug)]
pub struct OnDemand {
    fraction: f64,
    // Per expert-parallel group: its devices hold the same experts and load their parts together.
    caches: Vec<Lru>,
    hits: Vec<u32>,
    missing: Vec<u32>,
    report: CacheReport,
}

impl OnDemand {
    /// A cache of `fraction` of each device's experts.
    pub fn new(fraction: f64) -> Self {
        Self { fraction, caches: Vec::new(), hits: Vec::new(), missing: Vec::new(), report: CacheReport::default() }
    }

    /// Experts that each of the groups caches.
    fn capacity(&self, placement: &SlotMap, layers: usize, group: usize) -> usize {
        let held: usize = (0..layers).map(|l| placement.group_slots(l, group).len()).sum();
        ((held as f64 * self.fraction) as usize).max(1)
    }
}

impl ExecutionPolicy for OnDemand {
    fn check(&self, plan: &Plan) -> Result<()> {
        if !(self.fraction > 0.0 && self.fraction <= 1.0) {
            return Err(Diag::input(format!("{} is not a fraction", self.fraction))
                .place("policy.cache_fraction")
                .cure("set it above 0 and at most 1"));
        }
        let m = &plan.machine;
        if m.copy.is_empty() {
            return Err(Diag::input(format!("on-demand loading needs a host link, and {} has none", m.hardware.name))
                .place("policy.execution")
                .cure("choose hardware with a host.link table, for example rtx4090-offload"));
        }
        let moe = |l: usize| plan.model.decoder[plan.moe_layers[l]].moe().map_or(0, |m| u64::from(m.experts));
        let all: u64 = (0..plan.moe_layers.len()).map(|l| moe(l) * plan.expert_bytes(l) * plan.ranks.etp as u64).sum();
        let host = m.hardware.host.memory.as_ref().map_or(0, |m| m.capacity.value.get());
        if all > host {
            return Err(Diag::input(format!(
                "the experts need {:.1} GiB of host memory and {} has {:.1} GiB",
                all as f64 / f64::from(1 << 30),
                m.hardware.name,
                host as f64 / f64::from(1 << 30)
            ))
            .place("hardware.host.memory.capacity")
            .cure("give the host more memory or choose a smaller model"));
        }
        Ok(())
    }

    fn resident_expert_bytes(&self, plan: &Plan, placement: &SlotMap) -> Vec<u64> {
        let layers = plan.moe_layers.len();
        let largest = (0..layers).map(|l| plan.expert_bytes(l)).max().unwrap_or(0);
        let mut bytes = vec![0; plan.ranks.devices()];
        for group in 0..placement.groups() {
            for device in plan.ranks.group_devices(group) {
                bytes[device] = (self.capacity(placement, layers, group) as u64 + 1) * largest;
            }
        }
        bytes
    }

    fn lower(&mut self, view: &StateView, routing: &LayerRouting, ops: &mut LayerOps) {
        self.execute(view, routing, ops, |_, _| false);
    }

    fn cache(&self) -> Option<CacheReport> {
        Some(self.report)
    }
}

impl OnDemand {
    /// Appends the operations of one layer. An expert for whose (MoE layer, slot) `keep` holds is never evicted.
    pub(super) fn execute(
        &mut self,
        view: &StateView,
        routing: &LayerRouting,
        ops: &mut LayerOps,
        keep: impl Fn(usize, usize) -> bool,
    ) {
        let plan = ops.plan;
        let layers = plan.moe_layers.len();
        let slots = view.placement.slots();
        if self.caches.is_empty() {
            self.caches = (0..routing.groups())
                .map(|g| Lru::new(layers * slots, self.capacity(view.placement, layers, g)))
                .collect();
        }
        let arrived = ops.dispatch(routing);
        ops.shared_experts();
        let bytes = plan.expert_bytes(ops.moe_layer);
        for group in 0..routing.groups() {
            let range = routing.group_slots(group);
            let tokens = routing.group_tokens(group);
            let first = (ops.moe_layer * slots + range.start) as u32;
            let keep = |key: u32| keep(key as usize / slots, key as usize % slots);
            look_up(&mut self.caches[group], first, tokens, keep, &mut self.hits, &mut self.missing);
            self.report.hits += self.hits.len() as u64;
            self.report.loads += self.missing.len() as u64;
            for device in plan.ranks.group_devices(group) {
                ops.experts_on_device(device, &self.hits, arrived);
                for &n in &self.missing {
                    // The gate, not the dispatch, tells which experts are needed.
                    let loaded = ops.load(device, bytes, ops.gate);
                    self.report.bytes += bytes;
                    let ready = if arrived == ops.gate { loaded } else { ops.both(loaded, arrived) };
                    ops.experts_on_device(device, &[n], ready);
                }
            }
        }
        ops.combine(routing);
    }
}

/// Looks up the experts with tokens, whose keys begin at `first`: the tokens of each that was held, and of each that was
/// not and is taken in if one may leave. Experts with tokens and those to `keep` stay.
pub(super) fn look_up(
    cache: &mut Lru,
    first: u32,
    tokens: &[u32],
    keep: impl Fn(u32) -> bool,
    hits: &mut Vec<u32>,
    missing: &mut Vec<u32>,
) {
    let activated = |key: u32| key.checked_sub(first).is_some_and(|i| tokens.get(i as usize).is_some_and(|&n| n > 0));
    hits.clear();
    missing.clear();
    for (i, &n) in tokens.iter().enumerate().filter(|(_, n)| **n > 0) {
        let key = first + i as u32;
        if cache.touch(key) {
            hits.push(n);
        } else {
            cache.insert(key, |held| activated(held) || keep(held));
            missing.push(n);
        }
    }
}
