//! [`on_demand`](super::on_demand) with an eviction that knows the rest of the iteration: an oracle, and so a bound on
//! what any cache of that size can gain from prediction.
//!
//! * **Eviction.** Among the cached experts that the current layer does not activate, one that no remaining layer of this
//!   iteration activates leaves: the least recently used of them. (Belady 1966, "A study of replacement algorithms for a
//!   virtual-storage computer", with a horizon of one iteration.)
//! * **Overflow.** If every cached expert is still to be used in this iteration, the missing one streams through the
//!   staging buffer and is not kept: a layer comes once an iteration, so keeping it would save nothing within the horizon.
//! * **What holds.** An iteration loads exactly the activated experts that were not cached when it began: the fewest
//!   that any policy can load from that cache without prefetching. Beyond the iteration the order is that of least recent
//!   use, so no bound over a whole run follows: what this policy streams, LRU may have kept for the next iteration.
//!
//! Everything else (size, access order, overlap) is as in `on-demand`.

use super::on_demand::OnDemand;
use crate::lowering::Ops;
use crate::machine::Plan;
use crate::policy::{ExecutionPolicy, Report, Settings, View};
use crate::routing::{LayerRouting, SlotMap};
use moesim_core::Result;

/// See the module's documentation.
#[derive(Debug)]
pub struct OnDemandBelady(OnDemand);

impl OnDemandBelady {
    /// With the settings of `on-demand`.
    ///
    /// # Errors
    /// What those cannot be.
    pub fn from_settings(s: &mut Settings) -> Result<Self> {
        Ok(Self(OnDemand::from_settings(s)?))
    }
}

impl ExecutionPolicy for OnDemandBelady {
    fn check(&self, plan: &Plan) -> Result<()> {
        self.0.check(plan)
    }
    fn resident_expert_bytes(&self, plan: &Plan, placement: &SlotMap) -> Vec<u64> {
        self.0.resident_expert_bytes(plan, placement)
    }
    fn oracle(&self) -> bool {
        true
    }
    fn lower(&mut self, view: &View, routing: &LayerRouting, ops: &mut Ops) {
        let future = view.future();
        self.0.execute(view, routing, ops, |layer, slot| {
            future.and_then(|f| f.routing(layer)).is_some_and(|later| later.slot_tokens(slot) > 0)
        });
    }
    fn report(&self, into: &mut Report) {
        self.0.report(into);
    }
}

#[cfg(test)]
mod tests {
    use crate::lowering::Picked;
    use crate::metrics::tables::Tables;
    use crate::policy::Report;
    use crate::policy::execution::on_demand::{Wanted, look_up};
    use crate::policy::residency::Lru;
    use crate::registry::Registry;
    use crate::simulation::{Simulation, open_trace};
    use proptest::prelude::*;

    /// Hits and loads of the quickstart on one card with experts in host memory, and whether it says that it is an oracle.
    fn run(policy: &str, concurrency: u32, fraction: f64) -> (Report, bool) {
        let set = [
            "hardware=rtx4090-offload".to_string(),
            format!("policy.execution.kind={policy}"),
            format!("policy.execution.cache_fraction={fraction}"),
            format!("workload.arrivals.concurrency={concurrency}"),
            // A quarter of the requests and half of the tokens: still thousands of look-ups, in a moment.
            "workload.arrivals.requests=32".to_string(),
            "workload.arrivals.output_tokens.mean=64".to_string(),
            // Without a way through a front end users send as an iteration ends, so that batches are alike however long it took.
            "engine.front_end=\"0 ns\"".to_string(),
        ];
        let resolved = crate::experiment::load("quickstart", &set).unwrap();
        let mut s =
            Simulation::new(&resolved, &Registry::builtin(), || open_trace(&resolved), Tables::default()).unwrap();
        s.run(&mut |_| true).unwrap();
        let summary = crate::metrics::Summary::new(&s.ended());
        (summary.counters[policy].clone(), summary.oracle)
    }

    #[test]
    fn it_loads_no_more_than_lru_on_the_quickstart() {
        for concurrency in [1, 4, 16] {
            for fraction in [0.05, 0.25, 0.5] {
                let (lru, causal) = run("on-demand", concurrency, fraction);
                let (belady, oracle) = run("on-demand-belady", concurrency, fraction);
                assert_eq!((causal, oracle), (false, true));
                let [[lru_hits, lru], [hits, loads]] =
                    [&lru, &belady].map(|r| ["hits", "loads"].map(|c| r.get(c).unwrap()));
                println!("{concurrency} {fraction}: LRU {lru} loads, Belady {loads}");
                assert_eq!(lru_hits + lru, hits + loads, "the same look-ups");
                assert!(loads <= lru, "{concurrency} {fraction}: {loads} > {lru}");
            }
        }
    }

    const LAYERS: usize = 5;
    const SLOTS: usize = 6;

    proptest! {
        /// From any cache, an iteration loads the activated experts that the cache lacks, and nothing more.
        #[test]
        fn an_iteration_loads_what_was_not_cached_when_it_began(
            iterations in prop::collection::vec(prop::collection::vec(0u8..1 << SLOTS, LAYERS), 1..12), capacity in 1u64..30,
        ) {
            let mut cache = Lru::new(LAYERS * SLOTS, capacity);
            for activated in iterations {
                let uses = |layer: usize, slot: usize| activated[layer] >> slot & 1 == 1;
                let used = |key: usize| uses(key / SLOTS, key % SLOTS);
                let absent = (0..LAYERS * SLOTS).filter(|&k| used(k) && !cache.holds(k as u32)).count();
                let mut loads = 0;
                for layer in 0..LAYERS {
                    let tokens: Vec<u32> = (0..SLOTS).map(|slot| u32::from(uses(layer, slot))).collect();
                    let (mut hits, mut missing) = (Picked::default(), Picked::default());
                    let later = |key: u32| key as usize / SLOTS > layer && used(key as usize);
                    let wanted = Wanted { layer_key: layer * SLOTS, first: 0, tokens: &tokens };
                    look_up(&mut cache, &wanted, |_| 1, later, &mut hits, &mut missing);
                    loads += missing.tokens.len();
                }
                prop_assert_eq!(loads, absent);
            }
        }
    }
}
