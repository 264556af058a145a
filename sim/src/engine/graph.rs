//! The operations of one iteration.

use super::resources::{LaneId, SharedId};
use super::runs::Runs;
use moesim_core::Picos;

/// Index of an operation in its [`Graph`], in the order of appending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

/// The device of an operation that belongs to several (a collective) or none (the host).
pub const NO_DEVICE: u32 = u32::MAX;

/// A time that is not known yet.
pub(super) const UNKNOWN: u64 = u64::MAX;
/// No operation.
pub(super) const NONE: u32 = u32::MAX;

/// What an operation does: the rows of the critical-path breakdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpKind {
    /// Per-iteration host time.
    Host,
    /// Token embedding.
    Embed,
    /// Attention with its projections.
    Attention,
    /// Router and top-k.
    Gate,
    /// Tokens to the devices of their experts.
    Dispatch,
    /// Grouped GEMM of the routed experts.
    Experts,
    /// Shared experts.
    Shared,
    /// Expert outputs back to the tokens' home.
    Combine,
    /// All-reduce or all-gather of a tensor-parallel group.
    AllReduce,
    /// A dense MLP.
    Dense,
    /// Expert weights from host memory.
    Load,
    /// Language-model head and sampling.
    Head,
    /// A rendezvous: takes no time, holds nothing.
    Join,
}

impl OpKind {
    /// Every kind, in order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Host,
        Self::Embed,
        Self::Attention,
        Self::Gate,
        Self::Dispatch,
        Self::Experts,
        Self::Shared,
        Self::Combine,
        Self::AllReduce,
        Self::Dense,
        Self::Load,
        Self::Head,
        Self::Join,
    ];
    /// Name in files.
    pub fn name(self) -> &'static str {
        [
            "host",
            "embed",
            "attention",
            "gate",
            "dispatch",
            "experts",
            "shared",
            "combine",
            "allreduce",
            "dense",
            "load",
            "head",
            "join",
        ][self as usize]
    }
}

/// Which term of the roofline bound an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bound {
    /// The launch, or a latency.
    Launch,
    /// Arithmetic.
    Compute,
    /// Memory bandwidth.
    Memory,
    /// A link of the network.
    Link,
}

impl Bound {
    /// Name in files.
    pub fn name(self) -> &'static str {
        ["launch", "compute", "memory", "link"][self as usize]
    }
}

/// What an operation takes when it is alone.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Time that no sharing stretches.
    pub launch: Picos,
    /// Time of the roofline's larger term; sharing stretches it.
    pub body: Picos,
    /// Arithmetic.
    pub flop: u64,
    /// What the arithmetic would take at the peak rate of its precision.
    pub at_peak: Picos,
    /// The binding term.
    pub bound: Bound,
}

impl Work {
    /// A fixed time with no arithmetic.
    pub fn fixed(time: Picos) -> Self {
        Self { launch: time, body: Picos::ZERO, flop: 0, at_peak: Picos::ZERO, bound: Bound::Launch }
    }
}

/// Units of a lane that an operation holds from start to end, pauses excepted.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// The lane.
    pub lane: LaneId,
    /// How many of its units.
    pub units: u32,
}

/// Bytes that an operation moves over a shared channel during its body.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// The channel.
    pub channel: SharedId,
    /// The amount, in the channel's unit.
    pub amount: u64,
}

/// Operations in the order of appending, struct of arrays; an operation depends on earlier ones only.
/// `start`, `end` and `waited_for` are the executor's results.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(super) kind: Vec<OpKind>,
    pub(super) bound: Vec<Bound>,
    pub(super) layer: Vec<u16>,
    pub(super) device: Vec<u32>,
    pub(super) launch: Vec<u64>,
    pub(super) duration: Vec<u64>,
    pub(super) flop: Vec<u64>,
    pub(super) at_peak: Vec<u64>,
    pub(super) deps_end: Vec<u32>,
    pub(super) holds_end: Vec<u32>,
    pub(super) demands_end: Vec<u32>,
    pub(super) deps: Vec<u32>,
    pub(super) holds: Vec<Hold>,
    pub(super) demands: Vec<Demand>,
    pub(super) start: Vec<u64>,
    pub(super) end: Vec<u64>,
    pub(super) waited_for: Vec<u32>,
    /// Per operation up to the last for which it was said; 0 for all others.
    priority: Vec<u8>,
    /// The same; 0 for what cannot be paused.
    chunk: Vec<u64>,
    pub(super) runs: Runs,
}

impl Graph {
    /// Forgets all operations and keeps the memory.
    pub fn clear(&mut self) {
        self.kind.clear();
        self.bound.clear();
        self.layer.clear();
        self.device.clear();
        self.launch.clear();
        self.duration.clear();
        self.flop.clear();
        self.at_peak.clear();
        self.deps_end.clear();
        self.holds_end.clear();
        self.demands_end.clear();
        self.deps.clear();
        self.holds.clear();
        self.demands.clear();
        self.start.clear();
        self.end.clear();
        self.waited_for.clear();
        self.priority.clear();
        self.chunk.clear();
        self.runs.clear();
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.kind.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kind.is_empty()
    }

    /// Appends an operation; the builder adds what it waits for, holds and draws on.
    /// Everything but a [`OpKind::Join`] takes at least one picosecond, so that time advances between grants.
    pub fn op(&mut self, kind: OpKind, layer: u16, device: u32, work: Work) -> OpBuilder<'_> {
        let least = u64::from(kind != OpKind::Join);
        self.kind.push(kind);
        self.bound.push(work.bound);
        self.layer.push(layer);
        self.device.push(device);
        self.launch.push(work.launch.0);
        self.duration.push((work.launch.0 + work.body.0).max(least));
        self.flop.push(work.flop);
        self.at_peak.push(work.at_peak.0);
        self.deps_end.push(self.deps.len() as u32);
        self.holds_end.push(self.holds.len() as u32);
        self.demands_end.push(self.demands.len() as u32);
        self.start.push(UNKNOWN);
        self.end.push(UNKNOWN);
        self.waited_for.push(NONE);
        OpBuilder { graph: self }
    }

    /// Appends a rendezvous of `deps`.
    pub fn join(&mut self, layer: u16, deps: &[OpId]) -> OpId {
        self.op(OpKind::Join, layer, NO_DEVICE, Work::fixed(Picos::ZERO)).after(deps).id()
    }

    fn range(ends: &[u32], i: usize) -> std::ops::Range<usize> {
        let from = if i == 0 { 0 } else { ends[i - 1] };
        from as usize..ends[i] as usize
    }
    /// What operation `i` waits for.
    pub fn deps(&self, i: usize) -> &[u32] {
        &self.deps[Self::range(&self.deps_end, i)]
    }
    /// What operation `i` holds.
    pub fn holds(&self, i: usize) -> &[Hold] {
        &self.holds[Self::range(&self.holds_end, i)]
    }
    /// What operation `i` draws on.
    pub fn demands(&self, i: usize) -> &[Demand] {
        &self.demands[Self::range(&self.demands_end, i)]
    }
    /// Kind of operation `i`.
    pub fn kind(&self, i: usize) -> OpKind {
        self.kind[i]
    }
    /// Model layer of operation `i`.
    pub fn layer(&self, i: usize) -> u16 {
        self.layer[i]
    }
    /// Device of operation `i`, or [`NO_DEVICE`].
    pub fn device(&self, i: usize) -> u32 {
        self.device[i]
    }
    /// Arithmetic of operation `i`.
    pub fn flop(&self, i: usize) -> u64 {
        self.flop[i]
    }
    /// What the arithmetic of operation `i` would take at the peak rate of its precision.
    pub fn at_peak(&self, i: usize) -> Picos {
        Picos(self.at_peak[i])
    }
    /// The term that bound operation `i`.
    pub fn bound(&self, i: usize) -> Bound {
        self.bound[i]
    }
    /// Priority of operation `i`.
    #[inline]
    pub fn priority(&self, i: usize) -> u8 {
        self.priority.get(i).copied().unwrap_or(0)
    }
    /// Whether any operation has a priority.
    #[inline]
    pub(super) fn has_priorities(&self) -> bool {
        !self.priority.is_empty()
    }
    /// Whether operation `i` has no priority and cannot be paused.
    pub(super) fn is_plain(&self, i: usize) -> bool {
        (self.priority.is_empty() && self.chunk.is_empty()) || (self.priority(i) == 0 && self.chunk(i) == 0)
    }
    /// Chunk in picoseconds after which operation `i` can be paused, 0 if it cannot.
    #[inline]
    pub(super) fn chunk(&self, i: usize) -> u64 {
        self.chunk.get(i).copied().unwrap_or(0)
    }
    /// When the latest run of operation `i` began.
    pub(super) fn run_start(&self, i: usize) -> u64 {
        self.runs.latest(i).map_or(self.start[i], |r| r.start)
    }
    /// When operation `i` would have started to be as far as it is, had it not been paused.
    #[inline]
    pub(super) fn origin(&self, i: usize) -> u64 {
        // Off the path of graphs in which nothing is paused.
        #[cold]
        fn paused(graph: &Graph, i: usize) -> u64 {
            graph.runs.latest(i).map_or(graph.start[i], |r| r.origin)
        }
        if self.runs.is_empty() { self.start[i] } else { paused(self, i) }
    }
    /// Operation `i` begins a run at `now`; if it was paused before, it goes on where it was. False if it was not.
    #[cold]
    pub(super) fn resume(&mut self, i: usize, now: u64, waited_for: u32) -> bool {
        let Some(run) = self.runs.latest(i) else { return false };
        self.runs.push(i, now, now - (run.end - run.origin), waited_for);
        true
    }
    /// Operation `i`, which runs, is paused at `now`.
    pub(super) fn pause(&mut self, i: usize, now: u64) {
        if self.runs.latest(i).is_none() {
            self.runs.push(i, self.start[i], self.start[i], self.waited_for[i]);
        }
        self.runs.end(i, now);
    }
    /// How long operation `i` held its lanes: from start to end less its pauses; meaningful once it ended.
    pub fn held(&self, i: usize) -> Picos {
        if self.runs.latest(i).is_none() {
            return Picos(self.end[i].saturating_sub(self.start[i]));
        }
        Picos(self.runs.of(i).map(|r| r.end - r.start).sum())
    }
    /// When operation `i` started; meaningful once it ended.
    pub fn start(&self, i: usize) -> Picos {
        Picos(self.start[i])
    }
    /// When operation `i` ended, if it has.
    pub fn end(&self, i: usize) -> Option<Picos> {
        (self.end[i] != UNKNOWN).then_some(Picos(self.end[i]))
    }
}

/// Adds to the operation just appended; see [`Graph::op`].
#[derive(Debug)]
pub struct OpBuilder<'a> {
    graph: &'a mut Graph,
}

impl OpBuilder<'_> {
    /// Waits for `deps`.
    pub fn after(self, deps: &[OpId]) -> Self {
        let last = self.graph.kind.len() - 1;
        debug_assert!(deps.iter().all(|d| (d.0 as usize) < last), "an operation waits for earlier ones only");
        self.graph.deps.extend(deps.iter().map(|d| d.0));
        self.graph.deps_end[last] = self.graph.deps.len() as u32;
        self
    }
    /// Holds one unit of `lane`.
    pub fn hold(self, lane: LaneId) -> Self {
        self.hold_units(lane, 1)
    }
    /// Holds `units` of `lane`; all holds of an operation are acquired at once.
    pub fn hold_units(self, lane: LaneId, units: u32) -> Self {
        self.graph.holds.push(Hold { lane, units });
        *self.graph.holds_end.last_mut().expect("an operation was appended") += 1;
        self
    }
    /// Moves `amount` over `channel` during the body.
    pub fn draw(self, channel: SharedId, amount: u64) -> Self {
        if amount > 0 {
            self.graph.demands.push(Demand { channel, amount });
            *self.graph.demands_end.last_mut().expect("an operation was appended") += 1;
        }
        self
    }
    /// Goes before operations of lower priority in the lines of its lanes, and pauses them where they can be. 0 unless told.
    pub fn priority(self, priority: u8) -> Self {
        let n = self.graph.kind.len();
        self.graph.priority.resize(n, 0);
        self.graph.priority[n - 1] = priority;
        self
    }
    /// Can be paused after every `chunk` (at least a picosecond) of a run, for operations of higher priority.
    pub fn pausable(self, chunk: Picos) -> Self {
        let n = self.graph.kind.len();
        self.graph.chunk.resize(n, 0);
        self.graph.chunk[n - 1] = chunk.0.max(1);
        self
    }
    /// The operation's index.
    pub fn id(self) -> OpId {
        OpId(self.graph.kind.len() as u32 - 1)
    }
}
