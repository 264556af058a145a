//! Operations of single iterations, for pictures and timelines.

use crate::engine::{Bound, Graph, LaneId, OpKind};
use crate::metrics::Outcome;
use crate::metrics::timeline::Timeline;
use moesim_core::Picos;

/// One operation of an iteration that is kept.
#[derive(Clone, Copy, Debug)]
pub struct TimedOp {
    /// Index in the iteration.
    pub operation: u32,
    /// Kind.
    pub kind: OpKind,
    /// Model layer.
    pub layer: u16,
    /// Device, or [`crate::engine::NO_DEVICE`].
    pub device: u32,
    /// The first lane that it holds; none for collectives.
    pub lane: Option<LaneId>,
    /// Start.
    pub start: Picos,
    /// End.
    pub end: Picos,
    /// Binding term.
    pub bound: Bound,
    /// It is on the critical path.
    pub critical: bool,
}

/// The operations of a typical iteration, and of the first ones if there is a timeline.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Number of the typical iteration, from 1.
    pub iteration: u64,
    /// Its operations.
    pub operations: Vec<TimedOp>,
    pub(crate) timeline: Option<Timeline>,
    on_path: Vec<u32>,
}

/// What tells a typical iteration: sums over those so far, this one included.
pub(super) struct SoFar {
    pub(super) iterations: u64,
    /// Iterations with prompts took longer than those that only decode, in all.
    pub(super) mostly_prompts: bool,
    pub(super) sequence_time: u128,
    pub(super) running_time: u128,
}

impl Sample {
    /// Whether the iteration just counted is kept for the picture. The first is; later ones at least double the number of the
    /// one kept before, so that the picture is of an advanced run, and have at least as many sequences as iterations have in
    /// the mean over time, so that neither the drain nor a lull stands for the run. Iterations that only decode go first
    /// where they are most of the time.
    pub(super) fn keeps(&self, outcome: &Outcome, so_far: &SoFar) -> bool {
        let sort = (outcome.sort() == 1) != so_far.mostly_prompts;
        let full = u128::from(outcome.size.sequences) * so_far.running_time >= so_far.sequence_time;
        so_far.iterations == 1 || (so_far.iterations >= 2 * self.iteration && full && sort)
    }

    pub(super) fn clear_path(&mut self) {
        self.on_path.clear();
    }

    pub(super) fn on_path(&mut self, operation: usize) {
        self.on_path.push(operation as u32);
    }

    /// Keeps the operations of iteration `iteration` in the timeline, and for the picture if `whole`.
    pub(super) fn keep(&mut self, g: &Graph, iteration: u64, whole: bool) {
        if !whole && self.timeline.is_none() {
            return;
        }
        let kept = (0..g.len()).filter(|&i| g.kind(i) != OpKind::Join).map(|i| TimedOp {
            operation: i as u32,
            kind: g.kind(i),
            layer: g.layer(i),
            device: g.device(i),
            lane: g.holds(i).first().map(|h| h.lane),
            start: g.start(i),
            end: g.end(i).unwrap_or_default(),
            bound: g.bound(i),
            critical: false,
        });
        if let Some(timeline) = &mut self.timeline {
            timeline.add(iteration, kept.clone());
        }
        if whole {
            self.iteration = iteration;
            self.operations.clear();
            self.operations.extend(kept);
            // Not in the order of appending where one waited for another that was appended later.
            self.on_path.sort_unstable();
            for k in &mut self.operations {
                k.critical = self.on_path.binary_search(&k.operation).is_ok();
            }
        }
    }
}
