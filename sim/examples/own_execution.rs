//! An execution policy of one's own, with the whole command line: this file is a user's crate (docs/own-policy.md tells the way).
//!
//! ```text
//! cargo run --example own_execution -- show my-on-demand
//! cargo run --example own_execution -- run quickstart --set hardware=rtx4090-offload --set policy.execution=my-on-demand
//! ```
//!
//! `my-on-demand` is `on-demand` once more, out of public items alone: experts live in host memory and are loaded when a gate selects
//! them, behind a cache of the least recently used in device memory. Its setting and its counters stand where those of policies that
//! come with moesim stand, and its runs have the bytes of theirs. It serves models whose experts all have one size.

use moesim::lowering::{Ops, Picked, Slots};
use moesim::machine::Plan;
use moesim::policy::residency::{CacheFraction, Lru};
use moesim::policy::{ExecutionPolicy, Report, Settings, View};
use moesim::registry::{Entry, Extension, Registry};
use moesim::routing::{LayerRouting, SlotMap};
use moesim::{Diag, Result};

struct MyOnDemand {
    fraction: CacheFraction,
    /// One for each expert-parallel group: its devices hold the same experts.
    caches: Vec<Lru>,
    hits: u64,
    loads: u64,
    loaded_bytes: u64,
    capacity_bytes: u64,
}

impl MyOnDemand {
    fn new(s: &mut Settings) -> Result<Self> {
        let about = "share of its group's experts that a device caches; auto: what memory is left";
        let fraction = s.value("cache_fraction", about, CacheFraction::Auto)?;
        Ok(Self { fraction, caches: Vec::new(), hits: 0, loads: 0, loaded_bytes: 0, capacity_bytes: 0 })
    }

    /// Bytes of experts that each device of `group` caches: at least one expert.
    fn capacity(&self, plan: &Plan, map: &SlotMap, group: usize) -> u64 {
        let held: u64 = (0..map.layers()).map(|layer| map.group_slots(layer, group).len() as u64).sum();
        let kept = match self.fraction {
            CacheFraction::Of(fraction) => (held as f64 * fraction) as u64,
            CacheFraction::Auto => {
                let common = plan.common_part_bytes(map)[plan.ranks.group_devices(group).start];
                let other = plan.common_weight_bytes() + common + each(plan);
                (plan.room_for_experts(other) / each(plan)).min(held)
            }
        };
        kept.max(1) * each(plan)
    }
}

/// Bytes of an expert on a device.
fn each(plan: &Plan) -> u64 {
    plan.uniform_expert_bytes().unwrap_or(0)
}

impl ExecutionPolicy for MyOnDemand {
    fn check(&self, plan: &Plan) -> Result<()> {
        if plan.machine.copy.is_empty() || plan.uniform_expert_bytes().is_none() {
            return Err(Diag::input("my-on-demand needs a host link, and experts of one size")
                .place("policy.execution")
                .cure("choose hardware as rtx4090-offload, and a model as gpt-oss-20b"));
        }
        Ok(())
    }

    fn resident_expert_bytes(&self, plan: &Plan, map: &SlotMap) -> Vec<u64> {
        let mut bytes = vec![0; plan.ranks.devices()];
        for group in 0..map.groups() {
            // A buffer of one expert lies beside the cache: what is not kept streams through it.
            let held = self.capacity(plan, map, group) + each(plan);
            plan.ranks.group_devices(group).for_each(|device| bytes[device] = held);
        }
        bytes
    }

    fn lower(&mut self, view: &View, routing: &LayerRouting, ops: &mut Ops) {
        let (plan, map) = (ops.plan, view.placement);
        let (slots, bytes) = (map.slots(), each(plan));
        for group in self.caches.len()..routing.groups() {
            let capacity = self.capacity(plan, map, group);
            self.capacity_bytes = self.capacity_bytes.max(capacity);
            self.caches.push(Lru::new(plan.moe_layers.len() * slots, capacity));
        }
        let arrived = ops.dispatch(routing);
        ops.shared_experts();
        for group in 0..routing.groups() {
            let (mut hits, mut missing) = (Picked::default(), Picked::default());
            let cache = &mut self.caches[group];
            let layer = (ops.moe_layer * slots) as u32;
            // Experts that this layer uses do not leave while it is looked up.
            let used = |key: u32| {
                key.checked_sub(layer).is_some_and(|slot| slot < slots as u32 && routing.slot_tokens(slot as usize) > 0)
            };
            for (slot, &tokens) in routing.group_slots(group).zip(routing.group_tokens(group)).filter(|(_, n)| **n > 0)
            {
                let key = layer + slot as u32;
                if cache.touch(key) {
                    hits.push(slot, tokens);
                } else {
                    cache.insert(key, bytes, used);
                    missing.push(slot, tokens);
                }
            }
            self.hits += hits.tokens.len() as u64;
            self.loads += missing.tokens.len() as u64;
            for device in plan.ranks.group_devices(group) {
                // What is there runs at once as one kernel; every other expert when its weights have come.
                ops.experts_on_device(device, hits.slots(), &hits.tokens, arrived);
                for (slot, tokens) in missing.iter() {
                    let loaded = ops.load(device, bytes, ops.gate());
                    self.loaded_bytes += bytes;
                    let ready = if arrived == ops.gate() { loaded } else { ops.both(loaded, arrived) };
                    ops.experts_on_device(device, Slots::From(slot), &[tokens], ready);
                }
            }
        }
        ops.combine(routing);
    }

    fn report(&self, into: &mut Report) {
        into.ratio("hit_rate", self.hits, self.hits + self.loads);
        into.count("hits", self.hits);
        into.count("loads", self.loads);
        into.count("loaded_bytes", self.loaded_bytes);
        into.count("capacity_bytes", self.capacity_bytes);
    }
}

fn main() -> std::process::ExitCode {
    moesim::cli::main(Registry::builtin().with(Extension::Execution(Entry {
        name: "my-on-demand",
        about: "on-demand once more, from public items alone",
        make: |s| Ok(Box::new(MyOnDemand::new(s)?)),
    })))
}
