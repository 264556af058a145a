//! What a policy may know when it decides: nothing that lies ahead of the simulated time, unless it is an oracle.

use crate::routing::{LayerRouting, Replay, Revealed, SlotMap};
use moesim_core::Picos;

/// What a policy may know when it decides.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Simulated time: the end of the layer's last gate.
    pub now: Picos,
    /// Iterations completed before this one.
    pub iterations: u64,
    /// (token, expert) assignments of completed iterations by (MoE layer, slot), layer-major; of a replica that came during the run,
    /// since then.
    pub history: &'a [u64],
    /// Where the experts are; with re-placement, in this iteration.
    pub placement: &'a SlotMap,
    /// Requests in line and running, per attention rank, when the iteration began.
    pub queued: &'a [u32],
    /// Bytes of KV cache in use, per attention rank, when the iteration began.
    pub kv_used: &'a [u64],
    /// Tokens of the iteration, their sequences, and what gates of this layer and of those before it selected for them.
    pub rows: Revealed<'a>,
    pub(crate) future: Option<Future<'a>>,
}

impl<'a> View<'a> {
    /// The layers that lie ahead in this iteration: for oracles (see [`ExecutionPolicy::oracle`](super::ExecutionPolicy::oracle)),
    /// nothing for others.
    pub fn future(&self) -> Option<Future<'a>> {
        self.future
    }
}

/// The routing of the current iteration's MoE layers after the one being lowered. Later iterations are not in it.
#[derive(Clone, Copy, Debug)]
pub struct Future<'a> {
    replay: &'a Replay,
    moe_layer: usize,
}

impl<'a> Future<'a> {
    /// What lies ahead of `moe_layer`.
    pub(crate) fn new(replay: &'a Replay, moe_layer: usize) -> Self {
        Self { replay, moe_layer }
    }
    /// The MoE layers that lie ahead.
    pub fn layers(&self) -> std::ops::Range<usize> {
        self.moe_layer + 1..self.replay.map().layers()
    }
    /// The routing of `moe_layer`; nothing if it does not lie ahead.
    pub fn routing(&self, moe_layer: usize) -> Option<LayerRouting<'a>> {
        self.layers().contains(&moe_layer).then(|| self.replay.reveal(moe_layer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment;
    use crate::lowering::Ops;
    use crate::metrics::tables::Tables;
    use crate::policy::ExecutionPolicy;
    use crate::policy::execution::ExpertParallel;
    use crate::registry::{Entry, Extension, Registry};
    use crate::routing::MISSING;
    use crate::simulation::{Simulation, open_trace};
    use std::collections::BTreeSet;

    /// Counts the rows of its view beside the routing.
    struct Counting;

    impl ExecutionPolicy for Counting {
        fn lower(&mut self, view: &View, routing: &LayerRouting, ops: &mut Ops) {
            assert!(view.future().is_none(), "no oracle");
            assert_eq!(view.rows.layers(), 0..routing.moe_layer + 1);
            let mut counts = vec![0; view.placement.slots()];
            let mut positions = BTreeSet::new();
            for token in view.rows.tokens(routing.moe_layer) {
                assert!(positions.insert((token.request, token.position)) && token.weights.is_none());
                token.experts.iter().filter(|e| **e != MISSING).for_each(|e| counts[usize::from(*e)] += 1);
            }
            assert_eq!(positions.len() as u64, routing.tokens);
            (0..counts.len()).for_each(|slot| assert_eq!(counts[routing.expert(slot)], routing.slot_tokens(slot)));
            // What an earlier gate selected stays visible, and the same.
            if routing.moe_layer > 0 {
                assert_eq!(view.rows.tokens(0).count() as u64, routing.tokens);
            }
            ExpertParallel.lower(view, routing, ops);
        }
    }

    #[test]
    fn rows_are_what_the_routing_counts() {
        for missing in ["wrap", "draw"] {
            let set = [
                "policy.execution=counting".to_string(),
                format!("workload.routing.missing={missing}"),
                "deployment.attention_tp=2".to_string(),
                "workload.arrivals.requests=6".to_string(),
                "workload.arrivals.prompt_tokens.mean=40".to_string(),
                "workload.arrivals.output_tokens.mean=8".to_string(),
                "workload.routing.sequences=4".to_string(),
                "workload.routing.decode_rows=6".to_string(),
            ];
            let resolved = experiment::load("quickstart", &set).unwrap();
            let registry = Registry::builtin().with(Extension::Execution(Entry {
                name: "counting",
                about: "expert parallelism that looks at every row",
                make: |_| Ok(Box::new(Counting)),
            }));
            let mut s = Simulation::new(&resolved, &registry, || open_trace(&resolved), Tables::default()).unwrap();
            s.run(&mut |_| true).unwrap();
            let assigned = s.ended().provenance;
            assert!(assigned.traced > 0 && assigned.wrapped + assigned.drawn > 0, "{assigned:?}");
        }
    }
}
