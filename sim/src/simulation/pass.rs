//! One iteration: attention and gates by the framework, experts by the execution policy, layer after layer.

use crate::engine::{Executor, Graph, NO_DEVICE, OpId, OpKind, Work};
use crate::lowering::LayerOps;
use crate::machine::{Batch, Plan, work};
use crate::metrics::recorder::Recorder;
use crate::network::Network;
use crate::policy::{Executing, FutureView, StateView};
use crate::routing::{Provenance, Replay, Segment, Selections, Source};
use crate::serving::{Rank, Step};
use moesim_core::{Diag, Picos, Result};
use moesim_hwmodels::cost::Cost;
use moesim_solver::traffic::Mode;

/// A cost on the clock with the bytes that it draws from device memory.
#[derive(Clone, Copy)]
struct Priced {
    work: Work,
    bytes: u64,
}

impl Priced {
    /// On a device of `plan`, whose memories are all alike.
    fn new(plan: &Plan, cost: Cost) -> Self {
        Self { work: work(cost), bytes: plan.machine.drawn(plan.machine.memory[0], &cost) }
    }
}

/// What an iteration computed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) sequences: u64,
    pub(crate) prefill_tokens: u64,
    pub(crate) decode_tokens: u64,
}

/// Buffers of the iteration being built; reused, so that nothing is allocated once they are warm.
pub(super) struct Iteration {
    /// Per rank: what it computes.
    pub(super) steps: Vec<Vec<Step>>,
    /// When it began.
    pub(super) begin: Picos,
    /// Assignments of all iterations.
    pub(super) provenance: Provenance,
    /// What became of them.
    pub(super) selections: Selections,
    segments: Vec<Segment>,
    shape: Shape,
    rank_tokens: Vec<u64>,
    samples: Vec<u64>,
    device_tokens: Vec<u64>,
    /// Per rank and attention class.
    attention: Vec<Priced>,
    gates: Vec<Priced>,
    frontier: Vec<Option<OpId>>,
    ops: Vec<OpId>,
    kv_used: Vec<u64>,
    batch: Batch,
    same_gates: bool,
}

impl Iteration {
    pub(super) fn new(plan: &Plan) -> Self {
        let moe: Vec<_> = plan.moe_layers.iter().filter_map(|&l| plan.model.decoder[l].moe()).collect();
        Self {
            steps: vec![Vec::new(); plan.ranks.dp],
            begin: Picos::ZERO,
            provenance: Provenance::default(),
            selections: Selections::default(),
            segments: Vec::new(),
            shape: Shape::default(),
            rank_tokens: Vec::new(),
            samples: Vec::new(),
            device_tokens: Vec::new(),
            attention: Vec::new(),
            gates: Vec::new(),
            frontier: Vec::new(),
            ops: Vec::new(),
            kv_used: Vec::new(),
            batch: Batch::default(),
            same_gates: moe.windows(2).all(|m| m[0].ids() == m[1].ids()),
        }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// Lowers and executes an iteration that begins at `now`; its end.
    #[expect(clippy::too_many_arguments, reason = "the run's parts, borrowed apart")]
    pub(super) fn run(
        &mut self,
        now: Picos,
        number: u64,
        plan: &Plan,
        executor: &mut Executor,
        replay: &mut Replay,
        source: &Source,
        network: &mut Network,
        policy: &mut Executing,
        recorder: &mut Recorder,
        ranks: &[Rank],
        queued: &[u32],
    ) -> Result<Picos> {
        self.begin = now;
        self.gather(plan, ranks);
        if !plan.moe_layers.is_empty() {
            let came = replay.load(source, &self.segments);
            self.provenance.add(&came);
            let selections = replay.selections();
            self.selections.add(&selections);
            if came.total() != replay.assigned() || selections.routed() != replay.assigned() {
                return Err(Diag::run("assignments are not conserved").cure("report this with the experiment"));
            }
        }
        self.kv_used.clear();
        self.kv_used.extend(ranks.iter().map(|r| r.kv.used()));
        self.price(plan);
        executor.begin();
        network.begin(now);
        self.start(plan, &mut executor.graph);
        let mut at = now;
        let mut moe_layer = 0;
        for (l, layer) in plan.model.decoder.iter().enumerate() {
            self.attend(plan, &mut executor.graph, network, l);
            // Who follows is where the gate of the layer before sent it.
            if layer.moe().is_some() && replay.map().follows() {
                self.device_tokens.clear();
                self.device_tokens.extend(replay.held(moe_layer).iter().map(|n| u64::from(*n)));
            }
            if layer.moe().is_none() {
                self.dense(plan, &mut executor.graph, network, l);
                continue;
            }
            let gate = self.gate(plan, &mut executor.graph, l, moe_layer);
            at = executor.advance(gate, at);
            network.reach(at);
            let routing = replay.reveal(moe_layer);
            recorder.imbalance(&routing);
            let view = StateView {
                now: at,
                iterations: number,
                history: replay.history(),
                placement: replay.map(),
                queued,
                kv_used: &self.kv_used,
            };
            let mut ops = LayerOps {
                plan,
                moe_layer,
                placement: replay.map(),
                graph: &mut executor.graph,
                network,
                layer: l as u16,
                gate,
                arrived: gate,
                frontier: &mut self.frontier,
                tokens: &self.device_tokens,
                done: &mut self.ops,
            };
            policy.lower(&view, &FutureView::new(replay, moe_layer), &routing, &mut ops);
            moe_layer += 1;
        }
        self.head(plan, &mut executor.graph);
        let end = executor.finish(at);
        replay.retire();
        Ok(end)
    }

    /// The batch as segments to replay, tokens per rank and device, sequences to sample.
    fn gather(&mut self, plan: &Plan, ranks: &[Rank]) {
        let tp = plan.ranks.tp;
        self.segments.clear();
        self.rank_tokens.clear();
        self.samples.clear();
        self.device_tokens.clear();
        self.attention.clear();
        self.shape = Shape::default();
        let listed = plan.machine.gpu.kernels.wants_sequences();
        for (r, (rank, steps)) in ranks.iter().zip(&self.steps).enumerate() {
            let (mut tokens, mut samples) = (0u64, 0u64);
            for &Step { index, count } in steps {
                let live = &rank.running[index as usize];
                let (device, spread) = ((r * tp) as u32, tp as u32);
                let turn = (tokens % tp as u64) as u32;
                let (binding, prompt, from) = (live.binding, live.prompt, live.computed);
                self.segments.push(Segment { binding, prompt, from, count, device, spread, turn });
                tokens += u64::from(count);
                samples += u64::from(live.computed + count == live.target());
                if live.decodes() {
                    self.shape.decode_tokens += u64::from(count);
                } else {
                    self.shape.prefill_tokens += u64::from(count);
                }
            }
            self.shape.sequences += steps.len() as u64;
            self.rank_tokens.push(tokens);
            self.samples.push(samples);
            for i in 0..tp as u64 {
                self.device_tokens.push((tokens + tp as u64 - 1 - i) / tp as u64);
            }
            for class in 0..plan.classes.len() {
                self.batch.clear();
                for &Step { index, count } in steps {
                    self.batch.add(&plan.attention_work(class, rank.running[index as usize].computed, count), listed);
                }
                let none = tokens == 0;
                let cost = if none { Cost::default() } else { plan.attention_cost(class, tokens, &self.batch.view()) };
                self.attention.push(Priced::new(plan, cost));
            }
        }
    }

    /// Gates are alike in all layers, as a rule.
    fn price(&mut self, plan: &Plan) {
        self.gates.clear();
        for &tokens in &self.device_tokens {
            let gated = tokens > 0 && !plan.moe_layers.is_empty();
            let cost = if gated { plan.gate_cost(0, tokens) } else { Cost::default() };
            self.gates.push(Priced::new(plan, cost));
        }
    }

    fn start(&mut self, plan: &Plan, graph: &mut Graph) {
        let host = &plan.machine.hardware.host;
        let overhead = graph.op(OpKind::Host, 0, NO_DEVICE, Work::fixed(host.iteration_overhead.value));
        let host = overhead.hold(plan.machine.host).id();
        self.frontier.clear();
        for (r, &tokens) in self.rank_tokens.iter().enumerate() {
            let cost = (tokens > 0).then(|| Priced::new(plan, plan.embed_cost(tokens)));
            for d in plan.ranks.rank_devices(r) {
                self.frontier.push(cost.map(|c| on_device(plan, graph, OpKind::Embed, 0, d, c, host)));
            }
        }
    }

    fn attend(&mut self, plan: &Plan, graph: &mut Graph, network: &mut Network, layer: usize) {
        let class = plan.class_of[layer];
        for r in 0..plan.ranks.dp {
            if self.rank_tokens[r] == 0 {
                continue;
            }
            let cost = self.attention[r * plan.classes.len() + class];
            for d in plan.ranks.rank_devices(r) {
                if let Some(before) = self.frontier[d] {
                    let op = on_device(plan, graph, OpKind::Attention, layer, d, cost, before);
                    self.frontier[d] = Some(op);
                }
            }
            // A token that follows is summed up only where it is; the others have it everywhere.
            let follows = plan.deployment.tokens == Mode::TokenFollows && plan.model.decoder[layer].moe().is_some();
            self.reduce(plan, graph, network, layer, r, if follows { 1 } else { 2 });
        }
    }

    fn dense(&mut self, plan: &Plan, graph: &mut Graph, network: &mut Network, layer: usize) {
        for r in 0..plan.ranks.dp {
            if self.rank_tokens[r] == 0 {
                continue;
            }
            let cost = Priced::new(plan, plan.dense_cost(layer, self.rank_tokens[r]));
            for d in plan.ranks.rank_devices(r) {
                if let Some(before) = self.frontier[d] {
                    let op = on_device(plan, graph, OpKind::Dense, layer, d, cost, before);
                    self.frontier[d] = Some(op);
                }
            }
            self.reduce(plan, graph, network, layer, r, 2);
        }
    }

    /// All-reduce (`rounds` 2) or reduce-scatter (1) over a tensor-parallel rank.
    fn reduce(&mut self, plan: &Plan, graph: &mut Graph, network: &mut Network, layer: usize, r: usize, rounds: u64) {
        if plan.ranks.tp == 1 {
            return;
        }
        let Some(work) = network.rank_ring(plan, r, rounds, self.rank_tokens[r] * plan.token_bytes) else { return };
        let devices = plan.ranks.rank_devices(r);
        self.ops.clear();
        self.ops.extend(devices.clone().filter_map(|d| self.frontier[d]));
        let op = graph.op(OpKind::AllReduce, layer as u16, devices.start as u32, work).after(&self.ops).id();
        self.ops.clear();
        for d in devices {
            self.frontier[d] = Some(op);
        }
    }

    /// Appends the gates of a layer; the rendezvous of all of them.
    fn gate(&mut self, plan: &Plan, graph: &mut Graph, layer: usize, moe_layer: usize) -> OpId {
        self.ops.clear();
        for d in 0..self.frontier.len() {
            let Some(before) = self.frontier[d] else { continue };
            let tokens = self.device_tokens[d];
            let after = if tokens == 0 {
                before
            } else {
                let cost = if self.same_gates && plan.deployment.tokens == Mode::ReturnHome {
                    self.gates[d]
                } else {
                    Priced::new(plan, plan.gate_cost(moe_layer, tokens))
                };
                on_device(plan, graph, OpKind::Gate, layer, d, cost, before)
            };
            self.frontier[d] = Some(after);
            self.ops.push(after);
        }
        let join = graph.join(layer as u16, &self.ops);
        self.ops.clear();
        join
    }

    fn head(&mut self, plan: &Plan, graph: &mut Graph) {
        let last = plan.model.decoder.len() - 1;
        for (r, &samples) in self.samples.iter().enumerate() {
            if samples == 0 {
                continue;
            }
            let cost = Priced::new(plan, plan.head_cost(samples));
            for d in plan.ranks.rank_devices(r) {
                if let Some(before) = self.frontier[d] {
                    on_device(plan, graph, OpKind::Head, last, d, cost, before);
                }
            }
        }
    }
}

fn on_device(plan: &Plan, graph: &mut Graph, kind: OpKind, layer: usize, d: usize, c: Priced, after: OpId) -> OpId {
    let m = &plan.machine;
    graph.op(kind, layer as u16, d as u32, c.work).after(&[after]).hold(m.compute[d]).draw(m.memory[d], c.bytes).id()
}
