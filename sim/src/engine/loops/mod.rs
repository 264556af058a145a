//! Fidelity `phase` where operations overlap: components that share nothing run loops of their own, in arrays, and meet
//! only in what couples them.
//!
//! A component is what operations tie together: lanes and channels that one of them holds or draws on, as those of a
//! device. Operations without either (collectives, rendezvous of several components) are alone: their ends follow from
//! their dependencies. Every component runs ahead as if nothing from outside would reach it; the earliest end that does
//! reach one is then certain, and the components that it reaches go back to that instant and on from there. The outcome
//! is that of [`super::des`], to the bit. Operations with a priority or pauses, with several holds or a part of a
//! lane's units, and components that grow together while both are at work are left to it.

mod part;

use super::des::at_most;
use super::graph::{Graph, NONE, OpId, OpKind, UNKNOWN};
use super::resources::Resources;
use super::share::MaxMin;
use part::{Part, Shared};

/// An operation that is alone, or one of a component that others wait for; not certain yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    op: u32,
    /// When the operation was appended.
    since: u64,
    start: u64,
    /// As far as components have run ahead; [`UNKNOWN`] if that is not far enough.
    end: u64,
}

/// A block of operations: the first one, when it was appended, and what was waited for before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) from: usize,
    pub(super) now: u64,
    pub(super) after: Option<OpId>,
}

/// The loops cannot decide a block: [`super::des`] must.
#[derive(Debug)]
pub(super) struct Coupled;

/// The components of a machine.
#[derive(Debug, Default)]
pub(super) struct Loops {
    parts: Vec<Part>,
    /// By lane and by channel: the component, [`NONE`] until an operation needs it.
    lanes: Vec<u32>,
    channels: Vec<u32>,
    /// By operation: the component, [`NONE`] for what is alone.
    part_of: Vec<u32>,
    certain: Vec<bool>,
    open: Vec<Open>,
    /// By operation: the first of its edges, which lead to the components that wait for it; (component, next edge).
    heads: Vec<u32>,
    edges: Vec<(u32, u32)>,
    /// Components that one instant reaches, marks of the instant, and components that have not run ahead since.
    touched: Vec<u32>,
    marks: Vec<u64>,
    round: u64,
    behind: Vec<u32>,
    solver: MaxMin,
    /// Blocks since all was idle, and what the next one will have waited for.
    pub(super) blocks: Vec<Block>,
    after: Option<OpId>,
}

// What components use, lent field by field, so that a component can be lent beside it.
macro_rules! shared {
    ($self:ident, $graph:ident, $resources:ident) => {
        Shared {
            graph: $graph,
            resources: $resources,
            solver: &mut $self.solver,
            part_of: &$self.part_of,
            certain: &$self.certain,
        }
    };
}

impl Loops {
    /// Forgets the last graph; components stay known.
    pub(super) fn reset(&mut self) {
        self.part_of.clear();
        self.certain.clear();
        self.heads.clear();
        self.edges.clear();
        self.open.clear();
        self.behind.clear();
        self.blocks.clear();
        self.parts.iter_mut().for_each(Part::clear);
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Takes over the operations `from..` at `now`; earlier ones are done or already taken over.
    ///
    /// # Errors
    /// What only events can do; nothing is to be asked of the loops any more until they are reset.
    pub(super) fn submit(
        &mut self,
        graph: &mut Graph,
        resources: &Resources,
        from: usize,
        now: u64,
    ) -> Result<(), Coupled> {
        self.lanes.resize(resources.lanes.len(), NONE);
        self.channels.resize(resources.channels.len(), NONE);
        let n = graph.len();
        self.part_of.resize(n, NONE);
        self.certain.resize(from, true);
        self.certain.resize(n, false);
        self.heads.resize(n, NONE);
        self.blocks.push(Block { from, now, after: self.after.take() });
        for i in from..n {
            let holds = graph.holds(i);
            let whole = holds.iter().all(|h| resources.lanes[h.lane.0 as usize].units == h.units);
            if !graph.is_plain(i) || holds.len() > 1 || !whole {
                return Err(Coupled);
            }
            self.part_of[i] = self.component(graph, i, now)?;
        }
        self.round += 1;
        for i in from..n {
            let part = self.part_of[i];
            if part == NONE {
                self.open.push(Open { op: i as u32, since: now, start: UNKNOWN, end: UNKNOWN });
            } else {
                self.reach(graph, resources, part, now, true);
                self.parts[part as usize].add(i as u32);
            }
            for &d in graph.deps(i) {
                let from = self.part_of[d as usize];
                if from != NONE && graph.end[d as usize] <= now {
                    self.certain[d as usize] = true;
                }
                if part == NONE || part == from || self.certain[d as usize] {
                    continue;
                }
                if from != NONE && self.heads[d as usize] == NONE {
                    self.open.push(Open { op: d, since: now, start: UNKNOWN, end: UNKNOWN });
                }
                self.edges.push((part, self.heads[d as usize]));
                self.heads[d as usize] = self.edges.len() as u32 - 1;
            }
        }
        self.instant(graph, resources, now, false);
        Ok(())
    }

    /// The component of operation `i`, which is appended at `now`.
    fn component(&mut self, graph: &Graph, i: usize, now: u64) -> Result<u32, Coupled> {
        if graph.holds(i).is_empty() && graph.demands(i).is_empty() {
            // A rendezvous with one component is of that.
            let mut parts = graph.deps(i).iter().map(|&d| self.part_of[d as usize]).filter(|p| *p != NONE);
            let first = parts.next().unwrap_or(NONE);
            let one = graph.kind[i] == OpKind::Join && parts.all(|p| p == first);
            return Ok(if one { first } else { NONE });
        }
        let lanes = graph.holds(i).iter().map(|h| (true, h.lane.0 as usize));
        let uses = lanes.chain(graph.demands(i).iter().map(|d| (false, d.channel.0 as usize)));
        let mut part = NONE;
        for (lane, at) in uses.clone() {
            let other = if lane { self.lanes[at] } else { self.channels[at] };
            if part == NONE || other == NONE || other == part {
                part = if part == NONE { other } else { part };
                continue;
            }
            // Two grow together: the one that is idle joins the other.
            let (stays, goes) =
                if self.parts[other as usize].is_idle_at(graph, now) { (part, other) } else { (other, part) };
            self.lanes.iter_mut().chain(&mut self.channels).filter(|p| **p == goes).for_each(|p| *p = stays);
            self.part_of.iter_mut().filter(|p| **p == goes).for_each(|p| *p = stays);
            if !self.parts[goes as usize].is_idle_at(graph, now) {
                return Err(Coupled);
            }
            part = stays;
        }
        if part == NONE {
            self.parts.push(Part::default());
            self.marks.push(0);
            part = self.parts.len() as u32 - 1;
        }
        for (lane, at) in uses {
            *(if lane { &mut self.lanes[at] } else { &mut self.channels[at] }) = part;
        }
        Ok(part)
    }

    /// The instant `at` reaches `part`: what it ran ahead from there on is taken back. `settled`: its own events of the
    /// instant come first.
    fn reach(&mut self, graph: &mut Graph, resources: &Resources, part: u32, at: u64, settled: bool) {
        if std::mem::replace(&mut self.marks[part as usize], self.round) == self.round {
            return;
        }
        self.touched.push(part);
        let mut x = shared!(self, graph, resources);
        self.parts[part as usize].back(x.graph);
        self.parts[part as usize].run(&mut x, at);
        if settled {
            self.parts[part as usize].instant(&mut x, at);
        }
    }

    /// Ends of what is open, as far as components have run; the earliest that reaches a component or is `until`.
    fn look(&mut self, graph: &Graph, until: u32) -> u64 {
        let mut release = UNKNOWN;
        for i in 0..self.open.len() {
            let Open { op, since, .. } = self.open[i];
            let at = op as usize;
            let (start, end) = if self.part_of[at] == NONE {
                let mut start = since;
                for &d in graph.deps(at) {
                    let known = self.part_of[d as usize] != NONE || self.certain[d as usize];
                    // What is open is in the order of appending, and waits for what came before.
                    let end = match known {
                        true => graph.end[d as usize],
                        false => self.open[..i].iter().rev().find(|o| o.op == d).map_or(UNKNOWN, |o| o.end),
                    };
                    start = start.max(end);
                    if start == UNKNOWN {
                        break;
                    }
                }
                (start, if start == UNKNOWN { UNKNOWN } else { at_most(start, graph.duration[at]) })
            } else {
                (graph.start[at], graph.end[at])
            };
            (self.open[i].start, self.open[i].end) = (start, end);
            if self.heads[at] != NONE || op == until {
                release = release.min(end);
            }
        }
        release
    }

    /// What is open and ends by `at` is certain, and reaches components.
    fn commit(&mut self, graph: &mut Graph, resources: &Resources, at: u64) {
        self.look(graph, NONE);
        let mut kept = 0;
        for i in 0..self.open.len() {
            let open = self.open[i];
            if open.end > at {
                self.open[kept] = open;
                kept += 1;
                continue;
            }
            let op = open.op as usize;
            self.certain[op] = true;
            if self.part_of[op] == NONE {
                (graph.start[op], graph.end[op]) = (open.start, open.end);
            }
            let mut edge = self.heads[op];
            while edge != NONE {
                let (part, next) = self.edges[edge as usize];
                self.reach(graph, resources, part, at, false);
                edge = next;
            }
        }
        self.open.truncate(kept);
    }

    /// Takes the instant `at`, which reaches the components in `touched` and those that what ends by then does.
    /// `ending`: operations of theirs end then too.
    fn instant(&mut self, graph: &mut Graph, resources: &Resources, at: u64, ending: bool) {
        let mut finished = if ending { 0 } else { usize::MAX };
        loop {
            self.commit(graph, resources, at);
            let mut x = shared!(self, graph, resources);
            for &part in self.touched.iter().skip(finished) {
                self.parts[part as usize].finish(&mut x, at);
            }
            finished = finished.max(self.touched.len());
            let mut joined = false;
            for &part in &self.touched {
                joined |= self.parts[part as usize].release(&mut x, at);
            }
            if !joined {
                break;
            }
        }
        let mut x = shared!(self, graph, resources);
        for &part in &self.touched {
            self.parts[part as usize].settle(&mut x, at);
            self.parts[part as usize].keep(at);
        }
        self.behind.append(&mut self.touched);
    }

    /// Advances until `until` has ended, or until all have if there is none; the time of that.
    ///
    /// # Panics
    /// If an operation can never run: an error in the graph.
    pub(super) fn advance(&mut self, graph: &mut Graph, resources: &Resources, until: Option<OpId>) -> u64 {
        let wanted = until.map_or(NONE, |op| op.0);
        self.after = until;
        loop {
            let mut x = shared!(self, graph, resources);
            for part in self.behind.drain(..) {
                if !self.parts[part as usize].ahead {
                    self.parts[part as usize].run(&mut x, UNKNOWN);
                }
            }
            let mut release = self.look(graph, wanted);
            if wanted != NONE {
                // An operation of a component, or one that was done as it was appended.
                release = release.min(graph.end[wanted as usize]);
            }
            if release == UNKNOWN {
                assert!(until.is_none(), "operation {wanted} can never run");
                self.commit(graph, resources, UNKNOWN - 1);
                break;
            }
            self.round += 1;
            self.instant(graph, resources, release, true);
            if wanted != NONE && graph.end[wanted as usize] <= release {
                if self.open.is_empty() && self.parts.iter().all(|p| p.is_idle_at(graph, release)) {
                    self.rest();
                }
                return release;
            }
        }
        let done = self.open.is_empty() && self.parts.iter().all(Part::is_idle);
        assert!(done, "operations can never run");
        self.rest();
        graph.end.iter().copied().max().unwrap_or(0)
    }

    /// Nothing is in flight any more: the next block may go to the linear pass.
    fn rest(&mut self) {
        self.parts.iter_mut().for_each(Part::clear);
        self.behind.clear();
        self.blocks.clear();
        self.after = None;
    }
}
