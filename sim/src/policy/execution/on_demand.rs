//! Experts in host memory, loaded when a gate selects them, behind a cache in device memory.
//!
//! * **Size.** Each device caches at most `cache_fraction` of the experts of its group over all layers, at least one,
//!   plus a staging buffer of one expert. Where experts differ in size, that fraction of their bytes, at least the largest
//!   expert. `auto`, the default, is what memory is left beside all other weights, the staging buffer and a KV cache for one
//!   sequence as long as a full batch (`deployment.max_batched_tokens`); the KV cache takes at most half of what is there.
//! * **Access order.** When a layer's gates are done, the activated experts of a device are looked up in ascending
//!   expert number, each once however many tokens it has. A hit becomes the most recently used. Loads queue on the
//!   device's copy engine in the same order.
//! * **Eviction.** The least recently used expert leaves, or as many as make room. Experts that the current layer activates are pinned: they
//!   are passed over until the layer has been looked up whole.
//! * **Overflow.** If what is not pinned would not make room, the missing expert streams through the staging buffer and is not
//!   kept.
//! * **Overlap.** Hits run at once as one grouped GEMM; each missing expert runs when its own load is done. Loads write
//!   to the device memory that kernels read from, and share its bandwidth with them.

use crate::lowering::{Ops, Picked, Slots};
use crate::machine::Plan;
use crate::policy::residency::{CacheFraction, Lru};
use crate::policy::{ExecutionPolicy, Report, Settings, View};
use crate::routing::{LayerRouting, SlotMap};
use moesim_core::{Diag, Result};

/// See the module's documentation.
#[derive(Debug)]
pub struct OnDemand {
    fraction: CacheFraction,
    // Per expert-parallel group: its devices hold the same experts and load their parts together.
    caches: Vec<Lru>,
    hits: Picked,
    missing: Picked,
    counted: Counted,
}

/// What a cache did.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// Activated experts found in device memory, counted once a layer and iteration.
    hits: u64,
    /// Activated experts loaded.
    loads: u64,
    /// Bytes loaded.
    bytes: u64,
    /// Bytes of experts that the fullest cache of a device can hold.
    capacity: u64,
}

impl OnDemand {
    /// With the setting `cache_fraction`.
    ///
    /// # Errors
    /// What is no fraction.
    pub fn from_settings(s: &mut Settings) -> Result<Self> {
        let about = "share of its group's experts that a device caches; auto: what memory is left";
        Ok(Self::new(s.value("cache_fraction", about, CacheFraction::Auto)?))
    }

    /// A cache of `fraction` of each device's experts.
    pub fn new(fraction: CacheFraction) -> Self {
        Self {
            fraction,
            caches: Vec::new(),
            hits: Picked::default(),
            missing: Picked::default(),
            counted: Counted::default(),
        }
    }

    /// Bytes of experts that each device of `group` caches.
    fn capacity(&self, plan: &Plan, placement: &SlotMap, group: usize) -> u64 {
        let layers = 0..placement.layers();
        // Devices of a group hold the same; so the first speaks for all.
        let other = || {
            let common = plan.common_part_bytes(placement)[plan.ranks.group_devices(group).start];
            plan.common_weight_bytes() + common + staging(plan, placement)
        };
        if let Some(each) = plan.uniform_expert_bytes() {
            let held: usize = layers.map(|l| placement.group_slots(l, group).len()).sum();
            let kept = match self.fraction {
                CacheFraction::Of(fraction) => (held as f64 * fraction) as u64,
                CacheFraction::Auto => (plan.room_for_experts(other()) / each.max(1)).min(held as u64),
            };
            return kept.max(1) * each;
        }
        let slots = layers.flat_map(|l| placement.group_slots(l, group).map(move |s| (l, s)));
        let bytes = slots.map(|(l, s)| plan.expert_bytes(l, placement.expert(l, s)));
        let (held, largest) = bytes.fold((0, 0), |(sum, most), b| (sum + b, b.max(most)));
        let kept = match self.fraction {
            CacheFraction::Of(fraction) => (held as f64 * fraction) as u64,
            CacheFraction::Auto => plan.room_for_experts(other()).min(held),
        };
        kept.max(largest)
    }
}

/// Bytes of the buffer through which an expert comes that is not kept: the largest.
fn staging(plan: &Plan, placement: &SlotMap) -> u64 {
    let moe = |l: usize| plan.model.decoder[plan.moe_layers[l]].moe().map_or(0, |m| m.experts as usize);
    let all = (0..placement.layers()).flat_map(|l| (0..moe(l)).map(move |e| plan.expert_bytes(l, e)));
    all.max().unwrap_or(0)
}

impl ExecutionPolicy for OnDemand {
    fn check(&self, plan: &Plan) -> Result<()> {
        let m = &plan.machine;
        if plan.moe_layers.is_empty() {
            return Err(Diag::input(format!("{} has no experts to keep in host memory", plan.model.name))
                .place("policy.execution")
                .cure("set it to \"expert-parallel\""));
        }
        if m.copy.is_empty() {
            return Err(Diag::input(format!("on-demand loading needs a host link, and {} has none", m.hardware.name))
                .place("policy.execution")
                .cure("choose hardware with a host.link table, for example rtx4090-offload"));
        }
        let moe = |l: usize| plan.model.decoder[plan.moe_layers[l]].moe().map_or(0, |m| m.experts as usize);
        let layer = |l: usize| (0..moe(l)).map(|e| plan.expert_bytes(l, e)).sum::<u64>();
        let all: u64 = (0..plan.moe_layers.len()).map(layer).sum::<u64>() * plan.ranks.etp as u64;
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
        let mut bytes = vec![0; plan.ranks.devices()];
        let staging = staging(plan, placement);
        for group in 0..placement.groups() {
            let cached = self.capacity(plan, placement, group);
            for device in plan.ranks.group_devices(group) {
                bytes[device] = cached + staging;
            }
        }
        bytes
    }

    fn lower(&mut self, view: &View, routing: &LayerRouting, ops: &mut Ops) {
        self.execute(view, routing, ops, |_, _| false);
    }

    fn report(&self, into: &mut Report) {
        let c = &self.counted;
        into.ratio("hit_rate", c.hits, c.hits + c.loads);
        into.count("hits", c.hits);
        into.count("loads", c.loads);
        into.count("loaded_bytes", c.bytes);
        into.count("capacity_bytes", c.capacity);
    }
}

impl OnDemand {
    /// Appends the operations of one layer. An expert for whose (MoE layer, slot) `keep` holds is never evicted.
    pub(super) fn execute(
        &mut self,
        view: &View,
        routing: &LayerRouting,
        ops: &mut Ops,
        keep: impl Fn(usize, usize) -> bool,
    ) {
        let plan = ops.plan;
        let layers = plan.moe_layers.len();
        let slots = view.placement.slots();
        if self.caches.is_empty() {
            let sizes: Vec<u64> = (0..routing.groups()).map(|g| self.capacity(plan, view.placement, g)).collect();
            self.counted.capacity = sizes.iter().copied().max().unwrap_or(0);
            self.caches = sizes.into_iter().map(|size| Lru::new(layers * slots, size)).collect();
        }
        let arrived = ops.dispatch(routing);
        ops.shared_experts();
        let (layer, placement) = (ops.moe_layer, view.placement);
        let uniform = plan.uniform_expert_bytes();
        let bytes_of = |slot| uniform.unwrap_or_else(|| plan.expert_bytes(layer, placement.expert(layer, slot)));
        for group in 0..routing.groups() {
            let range = routing.group_slots(group);
            let tokens = routing.group_tokens(group);
            let keep = |key: u32| keep(key as usize / slots, key as usize % slots);
            let wanted = Wanted { layer_key: layer * slots, first: range.start, tokens };
            look_up(&mut self.caches[group], &wanted, bytes_of, keep, &mut self.hits, &mut self.missing);
            self.counted.hits += self.hits.tokens.len() as u64;
            self.counted.loads += self.missing.tokens.len() as u64;
            for device in plan.ranks.group_devices(group) {
                ops.experts_on_device(device, self.hits.slots(), &self.hits.tokens, arrived);
                for (slot, n) in self.missing.iter() {
                    let bytes = bytes_of(slot);
                    // The gate, not the dispatch, tells which experts are needed.
                    let loaded = ops.load(device, bytes, ops.gate());
                    self.counted.bytes += bytes;
                    let ready = if arrived == ops.gate() { loaded } else { ops.both(loaded, arrived) };
                    ops.experts_on_device(device, Slots::From(slot), &[n], ready);
                }
            }
        }
        ops.combine(routing);
    }
}

/// What a layer asks of a cache.
pub(super) struct Wanted<'a> {
    /// Key of the layer's slot 0.
    pub(super) layer_key: usize,
    /// The first slot of `tokens`.
    pub(super) first: usize,
    /// Tokens of each slot.
    pub(super) tokens: &'a [u32],
}

/// Looks up the experts with tokens, of so many `bytes` a slot: those that were held, and those that were not, which are
/// taken in if enough others may leave. Experts with tokens and those to `keep` stay.
pub(super) fn look_up(
    cache: &mut Lru,
    wanted: &Wanted,
    bytes: impl Fn(usize) -> u64,
    keep: impl Fn(u32) -> bool,
    hits: &mut Picked,
    missing: &mut Picked,
) {
    let tokens = wanted.tokens;
    let first = (wanted.layer_key + wanted.first) as u32;
    let activated = |key: u32| key.checked_sub(first).is_some_and(|i| tokens.get(i as usize).is_some_and(|&n| n > 0));
    hits.clear();
    missing.clear();
    for (i, &n) in tokens.iter().enumerate().filter(|(_, n)| **n > 0) {
        let (key, slot) = (first + i as u32, wanted.first + i);
        if cache.touch(key) {
            hits.push(slot, n);
        } else {
            cache.insert(key, bytes(slot), |held| activated(held) || keep(held));
            missing.push(slot, n);
        }
    }
}
