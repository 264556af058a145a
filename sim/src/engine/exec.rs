//! The executor of one instance: a graph appended block by block, advanced by a linear pass, by loops of components, or
//! by events.

use super::des::Des;
use super::graph::{Graph, OpId};
use super::loops::Loops;
use super::phase::{self, Scratch};
use super::resources::Resources;
use moesim_core::Picos;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Execution fidelity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Execution {
    /// Every operation is granted and completed by events.
    Op,
    /// Blocks whose operations share nothing are advanced in one pass, others by loops of the components that they tie
    /// together; the outcome is the same.
    #[default]
    Phase,
}

/// Runs the operations of one instance.
#[derive(Debug)]
pub struct Executor {
    /// The operations of the current iteration.
    pub graph: Graph,
    resources: Resources,
    execution: Execution,
    des: Des,
    loops: Loops,
    scratch: Scratch,
    taken: usize,
    operations: u64,
    linear: u64,
}

impl Executor {
    /// An executor on `resources`.
    pub fn new(resources: Resources, execution: Execution) -> Self {
        Self {
            graph: Graph::default(),
            resources,
            execution,
            des: Des::default(),
            loops: Loops::default(),
            scratch: Scratch::default(),
            taken: 0,
            operations: 0,
            linear: 0,
        }
    }

    /// Starts a new iteration; the last one's operations are forgotten.
    pub fn begin(&mut self) {
        self.operations += self.graph.len() as u64;
        self.graph.clear();
        self.des.reset();
        self.loops.reset();
        self.taken = 0;
    }

    /// Advances what was appended since the last call, from `now` until `until` is done; the time of that.
    pub fn advance(&mut self, until: OpId, now: Picos) -> Picos {
        if self.try_linear(now) {
            let end = self.graph.end[until.0 as usize];
            // What outlasts the rendezvous may meet the next block.
            if self.graph.end[self.taken..].iter().all(|&e| e <= end) {
                self.linear += (self.graph.len() - self.taken) as u64;
                self.taken = self.graph.len();
                return Picos(end);
            }
            phase::undo(&mut self.graph, self.taken);
        }
        if self.try_loops(now) {
            return Picos(self.loops.advance(&mut self.graph, &self.resources, Some(until)));
        }
        self.submit(now);
        Picos(self.des.run_until(&mut self.graph, &self.resources, until))
    }

    /// Advances everything to its end; the time of the last completion, `now` if there is none.
    pub fn finish(&mut self, now: Picos) -> Picos {
        if self.try_linear(now) {
            self.linear += (self.graph.len() - self.taken) as u64;
        } else if self.try_loops(now) {
            self.loops.advance(&mut self.graph, &self.resources, None);
        } else {
            self.submit(now);
            self.des.run_to_idle(&mut self.graph, &self.resources);
        }
        self.taken = self.graph.len();
        Picos(self.graph.end.iter().copied().max().unwrap_or(0).max(now.0))
    }

    fn submit(&mut self, now: Picos) {
        self.des.submit(&mut self.graph, &self.resources, self.taken, now.0);
        self.taken = self.graph.len();
    }

    fn try_linear(&mut self, now: Picos) -> bool {
        self.execution == Execution::Phase
            && self.des.is_idle()
            && self.loops.is_idle()
            && phase::advance(&mut self.graph, &self.resources, &mut self.scratch, self.taken, now.0)
    }

    /// Hands the block to the loops of components; false where the events must decide, which then stand where the loops
    /// stood.
    fn try_loops(&mut self, now: Picos) -> bool {
        if self.execution != Execution::Phase || !self.des.is_idle() {
            return false;
        }
        let (from, n) = (self.taken, self.graph.len());
        if self.loops.submit(&mut self.graph, &self.resources, from, now.0).is_ok() {
            (self.linear, self.taken) = (self.linear + (n - from) as u64, n);
            return true;
        }
        // Block after block as they came, but for this one.
        let mut blocks = std::mem::take(&mut self.loops.blocks);
        let last = blocks.pop();
        if let Some(first) = blocks.first() {
            self.linear -= (from - first.from) as u64;
            phase::undo(&mut self.graph, first.from);
        }
        for (i, block) in blocks.iter().enumerate() {
            let end = blocks.get(i + 1).map_or(from, |b| b.from);
            self.des.submit_block(&mut self.graph, &self.resources, block.from..end, block.now);
            if let Some(until) = blocks.get(i + 1).map_or(last.and_then(|b| b.after), |b| b.after) {
                self.des.run_until(&mut self.graph, &self.resources, until);
            }
        }
        self.loops.reset();
        false
    }

    /// The resources that operations hold and draw on.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }
    /// Operations completed in all iterations so far.
    pub fn operations(&self) -> u64 {
        self.operations + self.taken as u64
    }
    /// Of these, how many a linear pass or the loops of components advanced.
    pub fn linear_operations(&self) -> u64 {
        self.linear
    }
}

#[cfg(test)]
mod tests {
    use super::super::critical;
    use super::super::graph::{Bound, NO_DEVICE, OpKind, Work};
    use super::*;
    use proptest::prelude::*;

    /// A random machine and random blocks: (kind, launch, body, lane, channel, amount, dependencies back, priority, chunk).
    type Op = (u8, u64, u64, u8, u8, u64, Vec<u8>, u8, u64);

    fn build(graph: &mut Graph, resources: &Resources, block: &[Op]) {
        for (kind, launch, body, lane, channel, amount, back, priority, chunk) in block {
            let n = graph.len() as u32;
            let kind = if *kind == 0 { OpKind::Join } else { OpKind::Experts };
            let (launch, body) = if kind == OpKind::Join { (0, 0) } else { (*launch, *body) };
            let work =
                Work { launch: Picos(launch), body: Picos(body), flop: 1, at_peak: Picos(1), bound: Bound::Memory };
            let deps: Vec<OpId> =
                back.iter().filter(|&&b| u32::from(b) < n).map(|&b| OpId(n - 1 - u32::from(b))).collect();
            let op = graph.op(kind, 0, NO_DEVICE, work).after(&deps);
            if kind != OpKind::Join {
                let op = if *priority > 0 { op.priority(*priority) } else { op };
                let op = if *chunk > 0 { op.pausable(Picos(*chunk)) } else { op };
                let op = if (*lane as usize) < resources.lanes.len() {
                    op.hold(super::super::LaneId(u32::from(*lane)))
                } else {
                    op
                };
                if (*channel as usize) < resources.channels.len() {
                    op.draw(super::super::SharedId(u32::from(*channel)), *amount);
                }
            }
        }
    }

    fn op() -> impl Strategy<Value = Op> {
        // Half without priorities, which is what the linear pass takes most of.
        let urgent = prop_oneof![Just((0u8, 0u64)), (0u8..3, 0u64..4)];
        let op = (0u8..4, 0u64..4, 0u64..6, 0u8..5, 0u8..5, 1u64..50, prop::collection::vec(0u8..6, 0..4), urgent);
        op.prop_map(|(a, b, c, d, e, f, g, (h, i))| (a, b, c, d, e, f, g, h, i))
    }

    /// Runs the blocks one after the other; when each was done, all times, and the operations a linear pass took.
    type Outcome = (Vec<Picos>, Vec<u64>, Vec<u64>, Vec<u32>, Vec<Picos>);
    fn run(resources: &Resources, execution: Execution, blocks: &[Vec<Op>]) -> (Outcome, u64) {
        let whole: Vec<(Vec<Op>, usize)> = blocks.iter().map(|b| (b.clone(), 0)).collect();
        overlapping(resources, execution, &whole)
    }

    /// The same, each block waited for only up to the operation that is so many from its end.
    fn overlapping(resources: &Resources, execution: Execution, blocks: &[(Vec<Op>, usize)]) -> (Outcome, u64) {
        let mut e = Executor::new(resources.clone(), execution);
        e.begin();
        let mut now = Picos(5);
        let mut at = Vec::new();
        for (block, back) in blocks {
            build(&mut e.graph, resources, block);
            let until = OpId((e.graph.len() - 1 - back % block.len()) as u32);
            now = e.advance(until, now);
            at.push(now);
        }
        let end = e.finish(now);
        let held = (0..e.graph.len()).map(|i| e.graph.held(i)).collect();
        let span = critical::path(&e.graph, Picos(5), |_, _| ()).total();
        assert_eq!(span, end.0 - 5, "the critical path sums to the span");
        ((at, e.graph.start.clone(), e.graph.end.clone(), e.graph.waited_for.clone(), held), e.linear_operations())
    }

    fn machine(per_second: f64) -> Resources {
        let mut resources = Resources::default();
        for i in 0..3 {
            resources.lane(format!("lane{i}"), 1);
            resources.channel(format!("channel{i}"), per_second);
        }
        resources
    }

    /// A chain of operations on each of three devices, each with a lane and a channel of its own, and a rendezvous of
    /// the chains: what the linear pass is for.
    fn chains() -> impl Strategy<Value = Vec<Op>> {
        let link = (0u64..4, 0u64..6, 1u64..50);
        prop::collection::vec(prop::collection::vec(link, 3), 1..5).prop_map(|rows| {
            let mut block: Vec<Op> = Vec::new();
            for row in &rows {
                for (device, &(launch, body, amount)) in row.iter().enumerate() {
                    // Three back is the same device's operation before, or the rendezvous region of the last block.
                    block.push((1, launch, body, device as u8, device as u8, amount, vec![2], 0, 0));
                }
            }
            block.push((0, 0, 0, 9, 9, 1, vec![0, 1, 2], 0, 0));
            block
        })
    }

    /// Three devices with two lanes and a channel each.
    fn devices(per_second: f64) -> Resources {
        let mut resources = Resources::default();
        for i in 0..6 {
            resources.lane(format!("lane{i}"), 1);
        }
        for i in 0..3 {
            resources.channel(format!("channel{i}"), per_second);
        }
        resources
    }

    /// An operation of a device on one of its lanes, or a collective, or a rendezvous.
    fn on_device() -> impl Strategy<Value = Op> {
        let back = prop::collection::vec(0u8..8, 0..4);
        (0u8..6, 0u64..5, 0u64..8, 0u8..2, 1u64..50, back).prop_map(|(device, launch, body, lane, amount, back)| {
            match device {
                0..3 => (1, launch, body, 2 * device + lane, device, amount, back, 0, 0),
                3 | 4 => (1, launch, body, 9, 9, 1, back, 0, 0),
                _ => (0, 0, 0, 9, 9, 1, back, 0, 0),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// `phase` and `op` give every operation the same start and end, on random graphs in random blocks.
        #[test]
        fn phase_equals_op(blocks in prop::collection::vec(prop::collection::vec(op(), 1..12), 1..4), per_second in 1e12..2e13f64) {
            let resources = machine(per_second);
            let (by_phase, by_op) = (run(&resources, Execution::Phase, &blocks), run(&resources, Execution::Op, &blocks));
            prop_assert_eq!(by_phase.0, by_op.0);
            prop_assert_eq!(by_op.1, 0);
        }

        /// Whatever is waited for, and however blocks overlap.
        #[test]
        fn loops_equal_op(
            blocks in prop::collection::vec((prop::collection::vec(op(), 1..12), 0usize..12), 1..5),
            per_second in 1e12..2e13f64,
        ) {
            let resources = machine(per_second);
            let by_phase = overlapping(&resources, Execution::Phase, &blocks);
            let by_op = overlapping(&resources, Execution::Op, &blocks);
            prop_assert_eq!(by_phase.0, by_op.0);
        }

        /// Operations of three devices, with collectives and rendezvous between them, overlap block by block: no event
        /// is needed.
        #[test]
        fn devices_run_loops_of_their_own(
            blocks in prop::collection::vec((prop::collection::vec(on_device(), 1..16), 0usize..16), 1..6),
            per_second in 1e12..2e13f64,
        ) {
            let resources = devices(per_second);
            let by_phase = overlapping(&resources, Execution::Phase, &blocks);
            let by_op = overlapping(&resources, Execution::Op, &blocks);
            prop_assert_eq!(by_phase.0, by_op.0);
            prop_assert_eq!(by_phase.1, blocks.iter().map(|b| b.0.len()).sum::<usize>() as u64);
        }

        /// Chains that share nothing go through the linear pass, all of them, and come out the same.
        #[test]
        fn chains_are_linear_and_equal_op(blocks in prop::collection::vec(chains(), 1..4), per_second in 1e12..2e13f64) {
            let resources = machine(per_second);
            let (by_phase, by_op) = (run(&resources, Execution::Phase, &blocks), run(&resources, Execution::Op, &blocks));
            prop_assert_eq!(by_phase.0, by_op.0);
            prop_assert_eq!(by_phase.1, blocks.iter().map(Vec::len).sum::<usize>() as u64);
        }
    }
}
