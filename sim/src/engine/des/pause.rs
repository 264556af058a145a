//! Pausing: an operation that stands first in line takes the lanes of running ones of lower priority that can be paused.
//!
//! * A pausable operation can be paused where its run (since its start or resumption) is a whole number of chunks long,
//!   and nowhere else. It is, if at that instant an operation of higher priority is first in line on all its lanes, lacks
//!   units of a lane that the pausable one holds, and could start if everything of lower priority that can be paused were.
//! * At one instant completions come first, then pauses (lowest priority first, among equals the latest appended), then
//!   grants. No more are paused than that takes.
//! * A paused operation releases its lanes, leaves its channels, and waits at the head of its priority. It resumes where
//!   it was, without a second launch: one that sharing never slowed needs what its duration says in all, another keeps
//!   the fraction of its body that is left.

use super::{Des, Event, Other, State};
use crate::engine::graph::{Graph, NONE, UNKNOWN};
use crate::engine::resources::Resources;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// A running operation that can be paused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pausable {
    pub(super) op: u32,
    /// The time of the boundary at which it will be looked at, if somebody asked for that.
    asked: u64,
}

/// Whether `op` has a higher priority than `other`.
#[cold]
pub(super) fn outranks(graph: &Graph, op: u32, other: u32) -> bool {
    graph.priority(op as usize) > graph.priority(other as usize)
}

/// Highest priority first, otherwise as before.
#[cold]
pub(super) fn sort_by_priority(graph: &Graph, ops: &mut [u32]) {
    ops.sort_by_key(|&op| Reverse(graph.priority(op as usize)));
}

/// Puts `op` at the end of its priority.
#[cold]
pub(super) fn enqueue(graph: &Graph, waiting: &mut VecDeque<u32>, op: u32) {
    let end = waiting.partition_point(|&w| !outranks(graph, op, w));
    waiting.insert(end, op);
}

impl Des {
    /// `op`, pausable or not, has stopped running.
    #[cold]
    pub(super) fn stops(&mut self, op: u32) {
        self.pausables.retain(|p| p.op != op);
    }

    /// The pausable `op` has begun to run.
    #[cold]
    pub(super) fn runs(&mut self, graph: &Graph, op: u32) {
        if !graph.holds(op as usize).is_empty() {
            self.pausables.push(Pausable { op, asked: UNKNOWN });
        }
    }

    /// Has every running operation that somebody would pause looked at on its next chunk boundary, which may be now.
    #[cold]
    pub(super) fn ask(&mut self, graph: &Graph, resources: &Resources) {
        for at in 0..self.pausables.len() {
            let Pausable { op, asked } = self.pausables[at];
            if asked != UNKNOWN || !self.is_wanted(graph, resources, op) {
                continue;
            }
            let (since, chunk) = (graph.run_start(op as usize), graph.chunk(op as usize));
            let chunks = (self.now - since).div_ceil(chunk).max(1);
            let boundary = since.saturating_add(chunk.saturating_mul(chunks));
            if boundary < UNKNOWN {
                self.pausables[at].asked = boundary;
                self.queue.push(boundary, Event::Other(op, Other::Boundary));
            }
        }
    }

    /// Pauses those that stand on a boundary and are still in somebody's way.
    #[cold]
    pub(super) fn pause_wanted(&mut self, graph: &mut Graph, resources: &Resources) {
        let mut boundaries = std::mem::take(&mut self.boundaries);
        boundaries.sort_unstable_by_key(|&op| (graph.priority(op as usize), Reverse(op)));
        for &op in &boundaries {
            // It may have ended, or been paused and resumed, since.
            let asked = self.pausables.iter_mut().find(|p| p.op == op && p.asked == self.now);
            let Some(pausable) = asked else { continue };
            pausable.asked = UNKNOWN;
            if self.is_wanted(graph, resources, op) {
                self.pause(graph, op);
            }
        }
        boundaries.clear();
        self.boundaries = boundaries;
    }

    /// Whether an operation of higher priority that is first in line would start if such as `op` were paused.
    fn is_wanted(&self, graph: &Graph, resources: &Resources, op: u32) -> bool {
        graph.holds(op as usize).iter().any(|held| {
            let Some(&waiter) = self.lanes[held.lane.0 as usize].waiting.front() else { return false };
            let lacks = |lane, units| self.lanes[lane as usize].busy + units > resources.lanes[lane as usize].units;
            let holds = graph.holds(waiter as usize);
            outranks(graph, waiter, op)
                && holds.iter().any(|h| h.lane == held.lane && lacks(h.lane.0, h.units))
                && holds.iter().all(|h| {
                    let lane = &self.lanes[h.lane.0 as usize];
                    let pausable: u32 = self.pausables.iter().map(|p| self.gives(graph, p.op, waiter, h.lane.0)).sum();
                    let first = lane.waiting.front() == Some(&waiter);
                    first && lane.busy - pausable + h.units <= resources.lanes[h.lane.0 as usize].units
                })
        })
    }

    /// Units of `lane` that pausing the running `op` would give `waiter`.
    fn gives(&self, graph: &Graph, op: u32, waiter: u32, lane: u32) -> u32 {
        if !outranks(graph, waiter, op) {
            return 0;
        }
        graph.holds(op as usize).iter().filter(|h| h.lane.0 == lane).map(|h| h.units).sum()
    }

    fn pause(&mut self, graph: &mut Graph, op: u32) {
        let i = op as usize;
        graph.pause(i, self.now);
        self.state[i] = State::Queued;
        // Its end stands no more.
        self.generation[i] += 1;
        if self.flow[i] != NONE {
            let flow = &mut self.flows[self.flow[i] as usize];
            flow.advance(self.now);
            flow.rate = 0.0;
        }
        self.vacate(graph, op);
        for h in graph.holds(i) {
            let waiting = &mut self.lanes[h.lane.0 as usize].waiting;
            let head = waiting.partition_point(|&w| outranks(graph, w, op));
            waiting.insert(head, op);
        }
    }
}

#[cfg(test)]
mod tests;
