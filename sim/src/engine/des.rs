//! Fidelity `op`: every operation is released, granted and completed by events.
//!
//! At one instant all completions are taken first, then pauses (see [`pause`]), then waiting operations are granted, then
//! those that became ready at this instant, by priority and in the order of appending. Lines are served by priority, among
//! equals first come, first served. Rendezvous complete inside the first step. An operation that is alone on its
//! channels ends when its duration says; where several draw on one, [`super::share`] sets their rates and their ends are
//! rounded up.

mod pause;

use super::graph::{Graph, NONE, OpId, OpKind, UNKNOWN};
use super::queue::EventQueue;
use super::resources::Resources;
use super::share::MaxMin;
use pause::Pausable;
use std::collections::VecDeque;
use std::ops::Range;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// Operation and generation: a rescheduled end leaves a stale event of an older generation behind.
    Finish(u32, u32),
    /// Something else about an operation. Few: the step of an end takes no jump table.
    Other(u32, Other),
}

#[derive(Clone, Copy, Debug)]
enum Other {
    /// The body of an operation that shares a channel begins.
    Body,
    /// A chunk of a pausable operation that is in somebody's way ends.
    Boundary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Blocked,
    Queued,
    Running,
    Done,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    busy: u32,
    waiting: VecDeque<u32>,
    last_release: u32,
}

/// Progress of a body whose rate sharing changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    remaining: f64,
    rate: f64,
    since: u64,
}

impl Flow {
    /// A body that begins `since` at `rate`.
    pub(super) fn new(rate: f64, since: u64) -> Self {
        Self { remaining: 1.0, rate, since }
    }

    /// Progress up to `now`.
    fn advance(&mut self, now: u64) {
        self.remaining = (self.remaining - self.rate * ((now - self.since) as f64 / 1e12)).max(0.0);
        self.since = now;
    }

    /// Takes `rate` from `now` on; the end, if the rate is another.
    pub(super) fn set(&mut self, now: u64, rate: f64) -> Option<u64> {
        if self.rate == rate {
            return None;
        }
        // A run takes a picosecond at least.
        let least = u64::from(self.rate == 0.0);
        self.advance(now);
        self.rate = rate;
        let left = (self.remaining / rate * 1e12).ceil() as u64;
        Some(at_most(now, left.max(least)))
    }
}

/// The event-driven executor of one [`Graph`].
#[derive(Debug, Default)]
pub struct Des {
    queue: EventQueue<Event>,
    pending: Vec<u32>,
    state: Vec<State>,
    generation: Vec<u32>,
    /// Index into `flows` of an operation that sharing slowed, else [`NONE`].
    flow: Vec<u32>,
    flows: Vec<Flow>,
    successors: Vec<u32>,
    edges: Vec<(u32, u32)>,
    lanes: Vec<Lane>,
    users: Vec<Vec<u32>>,
    dirty: Vec<u32>,
    /// Those of one round of sharing, and marks of the round in which an operation or channel was last seen.
    bodies: Vec<u32>,
    op_round: Vec<u64>,
    channel_round: Vec<u64>,
    round: u64,
    solver: MaxMin,
    ready: Vec<u32>,
    released: Vec<u32>,
    completed: Vec<u32>,
    /// Running operations that can be paused, and those of them at a boundary of this instant.
    pausables: Vec<Pausable>,
    boundaries: Vec<u32>,
    live: usize,
    now: u64,
}

impl Des {
    /// Forgets the last graph; nothing may be in flight.
    pub fn reset(&mut self) {
        debug_assert_eq!(self.live, 0, "a graph ends when its operations have");
        self.queue.clear();
        self.pending.clear();
        self.state.clear();
        self.generation.clear();
        self.flow.clear();
        self.flows.clear();
        self.pausables.clear();
        self.op_round.clear();
        self.successors.clear();
        self.edges.clear();
    }

    /// Whether nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.live == 0
    }

    /// The time of the last event.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Takes over the operations `from..` at time `now`; earlier ones are done or already taken over.
    pub fn submit(&mut self, graph: &mut Graph, resources: &Resources, from: usize, now: u64) {
        self.submit_block(graph, resources, from..graph.len(), now);
    }

    /// The same of some operations alone; later ones are for later.
    pub(super) fn submit_block(&mut self, graph: &mut Graph, resources: &Resources, block: Range<usize>, now: u64) {
        self.lanes.resize_with(resources.lanes.len(), || Lane { last_release: NONE, ..Lane::default() });
        self.users.resize_with(resources.channels.len(), Vec::new);
        self.channel_round.resize(resources.channels.len(), 0);
        let Range { start: from, end: n } = block;
        self.now = self.now.max(now);
        self.state.resize(from, State::Done);
        self.state.resize(n, State::Blocked);
        self.pending.resize(n, 0);
        self.generation.resize(n, 0);
        self.flow.resize(n, NONE);
        self.op_round.resize(n, 0);
        self.successors.resize(n, NONE);
        self.live += n - from;
        for i in from..n {
            let mut waits = 0;
            for &d in graph.deps(i) {
                if graph.end[d as usize] == UNKNOWN {
                    waits += 1;
                    self.edges.push((i as u32, self.successors[d as usize]));
                    self.successors[d as usize] = self.edges.len() as u32 - 1;
                }
            }
            self.pending[i] = waits;
            if waits == 0 {
                self.release(graph, i as u32);
            }
        }
        self.propagate(graph);
        self.settle(graph, resources);
    }

    /// Runs until `op` is done and its instant is settled; its end.
    ///
    /// # Panics
    /// If the operation can never run: an error in the graph.
    pub fn run_until(&mut self, graph: &mut Graph, resources: &Resources, op: OpId) -> u64 {
        while graph.end[op.0 as usize] == UNKNOWN {
            assert!(self.step(graph, resources), "operation {} can never run", op.0);
        }
        graph.end[op.0 as usize]
    }

    /// Runs until nothing is in flight; the time of the last event.
    pub fn run_to_idle(&mut self, graph: &mut Graph, resources: &Resources) -> u64 {
        while self.live > 0 {
            assert!(self.step(graph, resources), "{} operations can never run", self.live);
        }
        self.now
    }

    /// Takes all events of the next instant; false if there is none.
    pub fn step(&mut self, graph: &mut Graph, resources: &Resources) -> bool {
        let Some(time) = self.queue.peek_time() else { return false };
        self.now = time;
        while self.queue.peek_time() == Some(time) {
            match self.queue.pop() {
                Some((_, Event::Finish(op, generation))) => {
                    if self.generation[op as usize] == generation && self.state[op as usize] == State::Running {
                        self.finish(graph, op);
                    }
                }
                Some((_, Event::Other(op, Other::Body))) => self.mark_dirty(graph, op),
                Some((_, Event::Other(op, Other::Boundary))) => self.boundaries.push(op),
                None => break,
            }
        }
        if !self.boundaries.is_empty() {
            self.pause_wanted(graph, resources);
        }
        self.propagate(graph);
        self.settle(graph, resources);
        true
    }

    /// Ends `op` now, whatever its state. What waits for it goes on; what it moved so far stays moved.
    pub fn cancel(&mut self, graph: &mut Graph, resources: &Resources, op: OpId) {
        let i = op.0 as usize;
        match self.state[i] {
            State::Done => return,
            State::Running => self.finish(graph, op.0),
            State::Blocked | State::Queued => {
                for h in graph.holds(i) {
                    self.lanes[h.lane.0 as usize].waiting.retain(|&w| w != op.0);
                    self.released.push(h.lane.0);
                }
                self.ready.retain(|&r| r != op.0);
                // A paused one has started already.
                graph.start[i] = graph.start[i].min(self.now);
                self.complete(graph, op.0);
            }
        }
        self.propagate(graph);
        self.settle(graph, resources);
    }

    /// An operation has nothing left to wait for: a rendezvous completes, the others go to the grants of this instant.
    fn release(&mut self, graph: &mut Graph, op: u32) {
        if self.state[op as usize] == State::Done {
            return;
        }
        if graph.kind[op as usize] == OpKind::Join {
            graph.start[op as usize] = self.now;
            self.complete(graph, op);
        } else {
            self.ready.push(op);
        }
    }

    fn complete(&mut self, graph: &mut Graph, op: u32) {
        graph.end[op as usize] = self.now;
        self.state[op as usize] = State::Done;
        self.live -= 1;
        self.completed.push(op);
    }

    fn finish(&mut self, graph: &mut Graph, op: u32) {
        if !graph.runs.is_empty() {
            graph.runs.end(op as usize, self.now);
        }
        self.vacate(graph, op);
        self.complete(graph, op);
    }

    /// Releases what the running `op` holds and leaves its channels.
    #[inline]
    fn vacate(&mut self, graph: &Graph, op: u32) {
        if !self.pausables.is_empty() {
            self.stops(op);
        }
        for h in graph.holds(op as usize) {
            let lane = &mut self.lanes[h.lane.0 as usize];
            lane.busy -= h.units;
            lane.last_release = op;
            self.released.push(h.lane.0);
        }
        for d in graph.demands(op as usize) {
            let users = &mut self.users[d.channel.0 as usize];
            if let Some(at) = users.iter().position(|&u| u == op) {
                users.remove(at);
            }
            if !users.is_empty() {
                self.dirty.push(d.channel.0);
            }
        }
    }

    /// Counts completions down in what waits for them.
    fn propagate(&mut self, graph: &mut Graph) {
        while let Some(op) = self.completed.pop() {
            let mut edge = std::mem::replace(&mut self.successors[op as usize], NONE);
            while edge != NONE {
                let (to, next) = self.edges[edge as usize];
                self.pending[to as usize] -= 1;
                if self.pending[to as usize] == 0 {
                    self.release(graph, to);
                }
                edge = next;
            }
        }
    }

    /// Grants: first those that waited, lane by lane as released, then the newly ready in the order of appending.
    fn settle(&mut self, graph: &mut Graph, resources: &Resources) {
        let mut at = 0;
        while at < self.released.len() {
            let lane = self.released[at] as usize;
            at += 1;
            while let Some(&head) = self.lanes[lane].waiting.front() {
                if !self.can_start(graph, resources, head, true) {
                    break;
                }
                for h in graph.holds(head as usize) {
                    self.lanes[h.lane.0 as usize].waiting.pop_front();
                }
                let waited_for = self.lanes[lane].last_release;
                self.start(graph, head, waited_for);
                // Its other lanes have a new head.
                self.released
                    .extend(graph.holds(head as usize).iter().map(|h| h.lane.0).filter(|&l| l as usize != lane));
            }
        }
        self.released.clear();
        let mut ready = std::mem::take(&mut self.ready);
        ready.sort_unstable();
        if graph.has_priorities() {
            pause::sort_by_priority(graph, &mut ready);
        }
        for &op in &ready {
            if self.can_start(graph, resources, op, false) {
                self.start(graph, op, NONE);
            } else {
                self.state[op as usize] = State::Queued;
                for h in graph.holds(op as usize) {
                    let waiting = &mut self.lanes[h.lane.0 as usize].waiting;
                    if graph.has_priorities() {
                        pause::enqueue(graph, waiting, op);
                    } else {
                        waiting.push_back(op);
                    }
                }
            }
        }
        ready.clear();
        self.ready = ready;
        if !self.dirty.is_empty() {
            self.reshare(graph, resources);
        }
        if !self.pausables.is_empty() {
            self.ask(graph, resources);
        }
    }

    /// Whether all holds are free and nobody else is first in line (`waiting`: whether `op` itself stands in line; if not,
    /// it goes before those of lower priority).
    fn can_start(&self, graph: &Graph, resources: &Resources, op: u32, waiting: bool) -> bool {
        graph.holds(op as usize).iter().all(|h| {
            let lane = &self.lanes[h.lane.0 as usize];
            let first = match lane.waiting.front() {
                Some(&head) if waiting => head == op,
                Some(&head) => graph.has_priorities() && pause::outranks(graph, op, head),
                None => !waiting,
            };
            first && lane.busy + h.units <= resources.lanes[h.lane.0 as usize].units
        })
    }

    fn start(&mut self, graph: &mut Graph, op: u32, waited_for: u32) {
        let i = op as usize;
        self.state[i] = State::Running;
        let mut origin = self.now;
        if graph.runs.is_empty() || !graph.resume(i, self.now, waited_for) {
            graph.start[i] = self.now;
            graph.waited_for[i] = waited_for;
        } else {
            origin = graph.origin(i);
        }
        if graph.chunk(i) > 0 {
            self.runs(graph, op);
        }
        for h in graph.holds(i) {
            self.lanes[h.lane.0 as usize].busy += h.units;
        }
        // A body that sharing has slowed before gets its rate and its end from sharing again.
        let mut shared = origin != self.now && self.flow[i] != NONE;
        if !shared {
            self.queue.push(at_most(origin, graph.duration[i]), Event::Finish(op, self.generation[i]));
        }
        for d in graph.demands(i) {
            let users = &mut self.users[d.channel.0 as usize];
            if !users.is_empty() {
                shared = true;
                // Those alone until now learn when their bodies begin.
                for &u in users.iter() {
                    let body = graph.origin(u as usize) + graph.launch[u as usize];
                    if body > self.now {
                        self.queue.push(body, Event::Other(u, Other::Body));
                    }
                }
            }
            users.push(op);
        }
        if shared {
            let body = origin + graph.launch[i];
            if body > self.now {
                self.queue.push(body, Event::Other(op, Other::Body));
            } else {
                self.mark_dirty(graph, op);
            }
        }
    }

    fn mark_dirty(&mut self, graph: &Graph, op: u32) {
        if self.state[op as usize] == State::Running {
            self.dirty.extend(graph.demands(op as usize).iter().map(|d| d.channel.0));
        }
    }

    /// Sets the rates of all bodies that share a channel, directly or through others, with a dirty one.
    fn reshare(&mut self, graph: &mut Graph, resources: &Resources) {
        self.round += 1;
        let (round, now) = (self.round, self.now);
        let mut channels = std::mem::take(&mut self.dirty);
        channels.retain(|&c| std::mem::replace(&mut self.channel_round[c as usize], round) != round);
        let mut at = 0;
        while at < channels.len() {
            for &u in &self.users[channels[at] as usize] {
                let i = u as usize;
                let in_body = graph.origin(i) + graph.launch[i] <= now;
                if in_body && std::mem::replace(&mut self.op_round[i], round) != round {
                    self.bodies.push(u);
                    for d in graph.demands(i) {
                        let c = d.channel.0;
                        if std::mem::replace(&mut self.channel_round[c as usize], round) != round {
                            channels.push(c);
                        }
                    }
                }
            }
            at += 1;
        }
        channels.clear();
        self.dirty = channels;
        // Rates are sums in the order of appending, whatever the order of discovery.
        self.bodies.sort_unstable();
        self.solver.clear();
        for &u in &self.bodies {
            let demands = graph.demands(u as usize).iter().map(|d| (d.channel.0, d.amount as f64));
            self.solver.add(alone_s(graph, u), demands);
        }
        let rates = self.solver.solve(|c| resources.channels[c as usize].per_second);
        for (u, rate) in self.bodies.drain(..).zip(rates) {
            let i = u as usize;
            let full = 1.0 / alone_s(graph, u);
            if self.flow[i] == NONE {
                // Never slowed and not slowed now: its end stands.
                if rate == full {
                    continue;
                }
                self.flow[i] = self.flows.len() as u32;
                self.flows.push(Flow::new(full, graph.origin(i) + graph.launch[i]));
            }
            if let Some(end) = self.flows[self.flow[i] as usize].set(now, rate) {
                self.generation[i] += 1;
                self.queue.push(end, Event::Finish(u, self.generation[i]));
            }
        }
    }
}

/// `time` after `start`, or the last instant of the clock.
#[inline]
pub(super) fn at_most(start: u64, time: u64) -> u64 {
    start.saturating_add(time).min(UNKNOWN - 1)
}

/// The body's time alone in seconds, at least a picosecond.
pub(super) fn alone_s(graph: &Graph, op: u32) -> f64 {
    (graph.duration[op as usize] - graph.launch[op as usize]).max(1) as f64 / 1e12
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::graph::{Bound, NO_DEVICE, Work};
    use moesim_core::Picos;

    fn work(launch: u64, body: u64) -> Work {
        Work { launch: Picos(launch), body: Picos(body), flop: 0, at_peak: Picos::ZERO, bound: Bound::Memory }
    }

    fn run(graph: &mut Graph, resources: &Resources) -> Vec<(u64, u64)> {
        let mut des = Des::default();
        des.submit(graph, resources, 0, 0);
        des.run_to_idle(graph, resources);
        (0..graph.len()).map(|i| (graph.start[i], graph.end[i])).collect()
    }

    #[test]
    fn lanes_serve_first_come_first_served_and_k_of_n() {
        let mut r = Resources::default();
        let lane = r.lane("sm", 3);
        let mut g = Graph::default();
        for (units, time) in [(2, 10), (2, 10), (1, 5)] {
            g.op(OpKind::Experts, 0, 0, work(0, time)).hold_units(lane, units);
        }
        // The third would fit beside the first, but the second came before it.
        assert_eq!(run(&mut g, &r), [(0, 10), (10, 20), (10, 15)]);
        assert_eq!(g.waited_for[1], 0);
    }

    #[test]
    fn several_lanes_are_acquired_at_once() {
        let mut r = Resources::default();
        let (a, b) = (r.lane("a", 1), r.lane("b", 1));
        let mut g = Graph::default();
        g.op(OpKind::Load, 0, 0, work(0, 10)).hold(a);
        g.op(OpKind::Load, 0, 0, work(0, 10)).hold(a).hold(b);
        g.op(OpKind::Load, 0, 0, work(0, 10)).hold(b);
        assert_eq!(run(&mut g, &r), [(0, 10), (10, 20), (20, 30)]);
    }

    #[test]
    fn two_on_a_channel_halve_and_recover_to_the_picosecond() {
        let mut r = Resources::default();
        let hbm = r.channel("hbm", 100.0);
        let mut g = Graph::default();
        // Each alone: launch 0.2 s, then 100 B at 100 B/s. The second begins its body at 0.7 s.
        let s = 1_000_000_000_000;
        g.op(OpKind::Experts, 0, 0, work(s / 5, s)).draw(hbm, 100);
        let wait = g.op(OpKind::Host, 0, NO_DEVICE, work(0, s / 2)).id();
        g.op(OpKind::Load, 0, 0, work(s / 5, s)).after(&[wait]).draw(hbm, 100);
        let times = run(&mut g, &r);
        // By 0.7 s half of the first is done; the other half takes 1 s; then the second's half takes 0.5 s alone.
        assert_eq!(times[0], (0, 17 * s / 10));
        assert_eq!(times[2], (s / 2, 22 * s / 10));
    }

    #[test]
    fn who_shares_nothing_never_pays() {
        let mut r = Resources::default();
        let hbm = r.channel("hbm", 100.0);
        let mut g = Graph::default();
        let s = 1_000_000_000_000;
        // 40 B/s and 60 B/s fit on 100 B/s together.
        g.op(OpKind::Experts, 0, 0, work(7, s)).draw(hbm, 40);
        g.op(OpKind::Load, 0, 0, work(3, s)).draw(hbm, 60);
        assert_eq!(run(&mut g, &r), [(0, s + 7), (0, s + 3)]);
    }

    #[test]
    fn a_cancelled_operation_frees_its_lane_and_its_dependents() {
        let mut r = Resources::default();
        let lane = r.lane("copy", 1);
        let mut g = Graph::default();
        let first = g.op(OpKind::Load, 0, 0, work(0, 100)).hold(lane).id();
        let second = g.op(OpKind::Load, 0, 0, work(0, 100)).hold(lane).id();
        let third = g.op(OpKind::Load, 0, 0, work(0, 100)).hold(lane).id();
        let timer = g.op(OpKind::Host, 0, NO_DEVICE, work(0, 30)).id();
        let after = g.op(OpKind::Experts, 0, 0, work(0, 5)).after(&[first]).id();
        let mut des = Des::default();
        des.submit(&mut g, &r, 0, 0);
        des.run_until(&mut g, &r, timer);
        des.cancel(&mut g, &r, second);
        des.cancel(&mut g, &r, first);
        des.run_to_idle(&mut g, &r);
        assert_eq!(g.end(first.0 as usize), Some(Picos(30)));
        assert_eq!(g.end(after.0 as usize), Some(Picos(35)));
        assert_eq!(g.end(third.0 as usize), Some(Picos(130)));
    }
}
