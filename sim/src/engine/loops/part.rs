//! One component of a machine: lanes and channels that no operation of another component touches, with a loop of its
//! own.

use super::super::des::{Flow, alone_s, at_most};
use super::super::graph::{Graph, NONE, OpKind, UNKNOWN};
use super::super::resources::Resources;
use super::super::share::MaxMin;

/// A running operation.
#[derive(Clone, Copy, Debug)]
struct Run {
    op: u32,
    end: u64,
    /// When its body begins, if that has to be looked at; [`UNKNOWN`] otherwise.
    body: u64,
    /// Progress, once sharing has slowed it.
    flow: Option<Flow>,
}

/// A lane with its holder, [`NONE`] if it is free, and its last one.
#[derive(Clone, Copy, Debug)]
struct Lane {
    id: u32,
    holder: u32,
    last: u32,
}

/// Where a component stands.
#[derive(Debug, Default)]
struct State {
    running: Vec<Run>,
    /// Ready, in line for their lanes.
    queued: Vec<u32>,
    /// Not ready, in the order of appending.
    blocked: Vec<u32>,
    lanes: Vec<Lane>,
}

impl State {
    fn copy(&mut self, from: &Self) {
        self.running.clone_from(&from.running);
        self.queued.clone_from(&from.queued);
        self.blocked.clone_from(&from.blocked);
        self.lanes.clone_from(&from.lanes);
    }
}

/// A component, run ahead of what is certain: nothing from outside has reached it since `saved`.
#[derive(Debug, Default)]
pub(super) struct Part {
    now: State,
    saved: State,
    /// Operations that started or ended since `saved`.
    started: Vec<u32>,
    ended: Vec<u32>,
    /// Working lists of the instant that is settled, empty between instants: operations that are ready, channels whose
    /// rates change, operations whose bodies draw on those channels.
    ready: Vec<u32>,
    dirty: Vec<u32>,
    bodies: Vec<u32>,
    /// Whether it has nothing left to do unless something from outside reaches it.
    pub(super) ahead: bool,
    /// The instant that is saved.
    at: u64,
}

/// What all components use.
pub(super) struct Shared<'a> {
    pub(super) graph: &'a mut Graph,
    pub(super) resources: &'a Resources,
    pub(super) solver: &'a mut MaxMin,
    /// The component of each operation, [`NONE`] for those that are alone.
    pub(super) part_of: &'a [u32],
    /// Whether an operation that others than its component wait for has ended for certain.
    pub(super) certain: &'a [bool],
}

impl Part {
    pub(super) fn clear(&mut self) {
        for state in [&mut self.now, &mut self.saved] {
            state.running.clear();
            state.queued.clear();
            state.blocked.clear();
            state.lanes.clear();
        }
        self.started.clear();
        self.ended.clear();
        (self.ahead, self.at) = (false, UNKNOWN);
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.now.running.is_empty() && self.now.queued.is_empty() && self.now.blocked.is_empty()
    }

    /// Whether nothing is in flight after `at`.
    pub(super) fn is_idle_at(&self, graph: &Graph, at: u64) -> bool {
        self.is_idle() && self.ended.iter().all(|&op| graph.end[op as usize] <= at)
    }

    /// Adds an operation that waits for others; called where nothing is run ahead.
    pub(super) fn add(&mut self, op: u32) {
        self.now.blocked.push(op);
    }

    /// Goes back to where it was certain.
    pub(super) fn back(&mut self, graph: &mut Graph) {
        if self.started.is_empty() && self.ended.is_empty() {
            self.ahead = false;
            return;
        }
        for op in self.ended.drain(..) {
            graph.end[op as usize] = UNKNOWN;
        }
        for op in self.started.drain(..) {
            let i = op as usize;
            (graph.start[i], graph.waited_for[i]) = (UNKNOWN, NONE);
        }
        self.now.copy(&self.saved);
        self.ahead = false;
    }

    /// What was run so far, up to the instant `at`, is certain.
    pub(super) fn keep(&mut self, at: u64) {
        self.at = at;
        self.saved.copy(&self.now);
        self.started.clear();
        self.ended.clear();
    }

    /// The time of the next event, [`UNKNOWN`] if there is none.
    fn next(&self) -> u64 {
        self.now.running.iter().map(|r| r.end.min(r.body)).min().unwrap_or(UNKNOWN)
    }

    /// Takes all instants before `limit`.
    pub(super) fn run(&mut self, x: &mut Shared, limit: u64) {
        loop {
            let at = self.next();
            if at >= limit {
                break;
            }
            self.finish(x, at);
            self.release(x, at);
            self.settle(x, at);
        }
        self.ahead = limit == UNKNOWN;
    }

    /// Takes the events of `at`, unless that instant was taken already.
    pub(super) fn instant(&mut self, x: &mut Shared, at: u64) {
        if self.at != at && self.next() == at {
            self.finish(x, at);
            self.release(x, at);
            self.settle(x, at);
        }
    }

    /// What ends at `at` ends, and bodies begin.
    pub(super) fn finish(&mut self, x: &mut Shared, at: u64) {
        let mut i = 0;
        while i < self.now.running.len() {
            let run = &mut self.now.running[i];
            let begins = run.body == at;
            if begins {
                run.body = UNKNOWN;
            }
            if run.end != at {
                if begins {
                    self.dirty.extend(x.graph.demands(run.op as usize).iter().map(|d| d.channel.0));
                }
                i += 1;
                continue;
            }
            let op = self.now.running.remove(i).op;
            x.graph.end[op as usize] = at;
            self.ended.push(op);
            for h in x.graph.holds(op as usize) {
                if let Some(lane) = self.now.lanes.iter_mut().find(|l| l.id == h.lane.0) {
                    (lane.holder, lane.last) = (NONE, op);
                }
            }
            // Who is alone on a channel afterwards, or comes to it at this instant, shares it with nobody.
            for channel in x.graph.demands(op as usize).iter().map(|d| d.channel) {
                let draws = |r: &Run| x.graph.demands(r.op as usize).iter().any(|d| d.channel == channel);
                if self.now.running.iter().any(draws) {
                    self.dirty.push(channel.0);
                }
            }
        }
    }

    /// What waits for nothing any more at `at` is to be settled, a rendezvous done. True if there was one.
    pub(super) fn release(&mut self, x: &mut Shared, at: u64) -> bool {
        let (mut kept, mut joined) = (0, false);
        for i in 0..self.now.blocked.len() {
            let op = self.now.blocked[i];
            // Other components may be further than this one.
            let own = x.part_of[op as usize];
            let done = |&d: &u32| match x.part_of[d as usize] == own {
                true => x.graph.end[d as usize] != UNKNOWN,
                false => x.certain[d as usize] && x.graph.end[d as usize] <= at,
            };
            if !x.graph.deps(op as usize).iter().all(done) {
                self.now.blocked[kept] = op;
                kept += 1;
            } else if x.graph.kind[op as usize] == OpKind::Join {
                (x.graph.start[op as usize], x.graph.end[op as usize]) = (at, at);
                self.started.push(op);
                self.ended.push(op);
                joined = true;
            } else {
                self.ready.push(op);
            }
        }
        self.now.blocked.truncate(kept);
        joined
    }

    /// Grants at `at`: first those in line, then the newly ready in the order of appending; then rates.
    pub(super) fn settle(&mut self, x: &mut Shared, at: u64) {
        let mut i = 0;
        while i < self.now.queued.len() {
            let op = self.now.queued[i];
            let lane = self.lane(x, op);
            if self.now.lanes[lane].holder == NONE {
                self.now.queued.remove(i);
                let waited_for = self.now.lanes[lane].last;
                self.start(x, op, at, waited_for);
            } else {
                i += 1;
            }
        }
        let mut ready = std::mem::take(&mut self.ready);
        ready.sort_unstable();
        for op in ready.drain(..) {
            let free = match x.graph.holds(op as usize).first() {
                Some(_) => {
                    let lane = self.lane(x, op);
                    self.now.lanes[lane].holder == NONE
                }
                None => true,
            };
            if free {
                self.start(x, op, at, NONE);
            } else {
                self.now.queued.push(op);
            }
        }
        self.ready = ready;
        if !self.dirty.is_empty() {
            self.reshare(x, at);
        }
    }

    /// The index of the lane that `op` holds.
    fn lane(&mut self, x: &Shared, op: u32) -> usize {
        let id = x.graph.holds(op as usize)[0].lane.0;
        self.now.lanes.iter().position(|l| l.id == id).unwrap_or_else(|| {
            self.now.lanes.push(Lane { id, holder: NONE, last: NONE });
            self.now.lanes.len() - 1
        })
    }

    fn start(&mut self, x: &mut Shared, op: u32, at: u64, waited_for: u32) {
        let i = op as usize;
        (x.graph.start[i], x.graph.waited_for[i]) = (at, waited_for);
        self.started.push(op);
        if !x.graph.holds(i).is_empty() {
            let lane = self.lane(x, op);
            self.now.lanes[lane].holder = op;
        }
        let mut run = Run { op, end: at_most(at, x.graph.duration[i]), body: UNKNOWN, flow: None };
        let mut shared = false;
        for d in x.graph.demands(i) {
            // Those alone until now learn when their bodies begin.
            for other in &mut self.now.running {
                let o = other.op as usize;
                if x.graph.demands(o).iter().any(|e| e.channel == d.channel) {
                    shared = true;
                    let body = x.graph.start[o] + x.graph.launch[o];
                    if body > at {
                        other.body = body;
                    }
                }
            }
        }
        if shared {
            let body = at + x.graph.launch[i];
            if body > at {
                run.body = body;
            } else {
                self.dirty.extend(x.graph.demands(i).iter().map(|d| d.channel.0));
            }
        }
        self.now.running.push(run);
    }

    /// Sets the rates of all bodies that share a channel, directly or through others, with a dirty one.
    fn reshare(&mut self, x: &mut Shared, at: u64) {
        self.bodies.clear();
        self.dirty.sort_unstable();
        self.dirty.dedup();
        let mut c = 0;
        while c < self.dirty.len() {
            let channel = self.dirty[c];
            c += 1;
            for run in &self.now.running {
                let i = run.op as usize;
                let demands = x.graph.demands(i);
                let in_body = x.graph.start[i] + x.graph.launch[i] <= at;
                if in_body && !self.bodies.contains(&run.op) && demands.iter().any(|d| d.channel.0 == channel) {
                    self.bodies.push(run.op);
                    for d in demands {
                        if !self.dirty.contains(&d.channel.0) {
                            self.dirty.push(d.channel.0);
                        }
                    }
                }
            }
        }
        self.dirty.clear();
        self.bodies.sort_unstable();
        x.solver.clear();
        for &op in &self.bodies {
            let demands = x.graph.demands(op as usize).iter().map(|d| (d.channel.0, d.amount as f64));
            x.solver.add(alone_s(x.graph, op), demands);
        }
        let rates = x.solver.solve(|c| x.resources.channels[c as usize].per_second);
        for (&op, rate) in self.bodies.iter().zip(rates) {
            let i = op as usize;
            let full = 1.0 / alone_s(x.graph, op);
            let Some(run) = self.now.running.iter_mut().find(|r| r.op == op) else { continue };
            if run.flow.is_none() && rate == full {
                // Never slowed and not slowed now: its end stands.
                continue;
            }
            let begun = Flow::new(full, x.graph.start[i] + x.graph.launch[i]);
            let flow = run.flow.get_or_insert(begun);
            if let Some(end) = flow.set(at, rate) {
                run.end = end;
            }
        }
    }
}
