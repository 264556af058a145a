//! One pass of a batch through the model: attention and gates by the framework, experts by the execution policy, layer after
//! layer.

use crate::engine::{Executor, NO_DEVICE, OpId, OpKind, Work};
use crate::lowering::{Lowering, Ops, Priced};
use crate::machine::{AttentionDemand, Plan};
use crate::metrics::{Outcome, Recorder};
use crate::network::Network;
use crate::policy::{ExecutionPolicy, Future, View};
use crate::routing::{Provenance, Replay, Revealed, Selections, Source};
use crate::serving::{Batch, Rank, Step};
use moesim_core::{Diag, Picos, Result};
use moesim_hwmodels::cost::Cost;
use moesim_solver::traffic::Mode;

/// The parts of a run that an iteration works with.
pub(super) struct Parts<'a> {
    pub(super) plan: &'a Plan,
    pub(super) executor: &'a mut Executor,
    pub(super) network: &'a mut Network,
    pub(super) replay: &'a mut Replay,
    pub(super) source: &'a Source,
    pub(super) policy: &'a mut dyn ExecutionPolicy,
    pub(super) recorder: &'a mut Recorder,
}

/// What an iteration finds when it begins.
pub(super) struct Begin<'a> {
    pub(super) now: Picos,
    pub(super) batch: &'a Batch,
    pub(super) ranks: &'a [Rank],
    /// Requests in line and running, per rank.
    pub(super) queued: &'a [u32],
}

/// Lowers iterations; its buffers are reused, so that nothing is allocated once they are warm.
pub(super) struct Pass {
    /// Assignments of all iterations.
    pub(super) provenance: Provenance,
    /// What became of them.
    pub(super) selections: Selections,
    device_tokens: Vec<u64>,
    /// Per rank and attention class.
    attention: Vec<Priced>,
    gates: Vec<Priced>,
    frontier: Vec<Option<OpId>>,
    ops: Vec<OpId>,
    kv_used: Vec<u64>,
    demand: AttentionDemand,
    /// Before every iteration.
    host_time: Picos,
    /// To launch an iteration with prompts, while devices run what was launched.
    eager_launch: Picos,
    same_gates: bool,
}

impl Pass {
    /// Host time before every iteration, and for each kernel of one with prompts.
    pub(super) fn new(plan: &Plan, [host_time, eager_kernel]: [Picos; 2]) -> Self {
        let moe: Vec<_> = plan.moe_layers.iter().filter_map(|&l| plan.model.decoder[l].moe()).collect();
        Self {
            provenance: Provenance::default(),
            selections: Selections::default(),
            device_tokens: Vec::new(),
            attention: Vec::new(),
            gates: Vec::new(),
            frontier: Vec::new(),
            ops: Vec::new(),
            kv_used: Vec::new(),
            demand: AttentionDemand::default(),
            host_time,
            eager_launch: Picos(eager_kernel.0.saturating_mul(plan.launches())),
            same_gates: moe.windows(2).all(|m| m[0].ids() == m[1].ids()),
        }
    }

    /// Lowers and executes an iteration; what came of it.
    pub(super) fn run(&mut self, begin: &Begin, parts: &mut Parts) -> Result<Outcome> {
        let (now, plan) = (begin.now, parts.plan);
        if !plan.moe_layers.is_empty() {
            self.load(begin.batch, parts)?;
        }
        self.kv_used.clear();
        self.kv_used.extend(begin.ranks.iter().map(|r| r.kv.used()));
        self.device_tokens.clone_from(&begin.batch.device_tokens);
        self.price(plan, begin);
        parts.executor.begin();
        parts.network.begin(now);
        self.start(&mut lowering(parts), begin.batch);
        let (mut at, mut last_gate) = (now, None);
        let mut moe_layer = 0;
        for (l, layer) in plan.model.decoder.iter().enumerate() {
            self.attend(&mut lowering(parts), begin.batch, l);
            if layer.moe().is_none() {
                self.dense(&mut lowering(parts), begin.batch, l);
                continue;
            }
            // Who follows is where the gate of the layer before sent it.
            if parts.replay.map().follows() {
                self.device_tokens.clear();
                self.device_tokens.extend(parts.replay.held(moe_layer).iter().map(|n| u64::from(*n)));
            }
            let gate = self.gate(&mut lowering(parts), l, moe_layer);
            at = parts.executor.advance(gate, at);
            last_gate = Some(gate);
            parts.network.reach(at);
            self.experts(begin, parts, (l, moe_layer), (gate, at));
            moe_layer += 1;
        }
        let launched = now + self.host_time + self.eager_launch;
        if begin.batch.size.prefill_tokens > 0 && launched > at {
            self.launched(&mut lowering(parts), launched.since(at), last_gate);
        }
        self.head(&mut lowering(parts), begin.batch);
        let end = parts.executor.finish(at);
        parts.replay.retire();
        let waiting = begin.ranks.iter().map(|r| r.waiting.len()).sum();
        Ok(Outcome { begin: now, end, size: begin.batch.size, waiting, kv_used: self.kv_used.iter().sum() })
    }

    /// Counts what the batch selects.
    fn load(&mut self, batch: &Batch, parts: &mut Parts) -> Result<()> {
        let came = parts.replay.load(parts.source, &batch.segments);
        self.provenance.add(&came);
        let selections = parts.replay.selections();
        self.selections.add(&selections);
        let assigned = parts.replay.assigned();
        if came.total() != assigned || selections.routed() != assigned {
            return Err(Diag::run("assignments are not conserved").cure("report this with the experiment"));
        }
        Ok(())
    }

    /// The execution policy appends what follows `gate`, which ended at `at`, in `layer`, the MoE layer `moe_layer`.
    fn experts(
        &mut self,
        begin: &Begin,
        parts: &mut Parts,
        (layer, moe_layer): (usize, usize),
        (gate, at): (OpId, Picos),
    ) {
        let replay = &*parts.replay;
        let routing = replay.reveal(moe_layer);
        parts.recorder.imbalance(&routing);
        let view = View {
            now: at,
            iterations: parts.recorder.iterations(),
            history: replay.history(),
            placement: replay.map(),
            queued: begin.queued,
            kv_used: &self.kv_used,
            rows: Revealed::new(parts.source, &begin.batch.segments, moe_layer),
            future: parts.policy.oracle().then(|| Future::new(replay, moe_layer)),
        };
        let mut ops = Ops {
            plan: parts.plan,
            moe_layer,
            placement: replay.map(),
            graph: &mut parts.executor.graph,
            network: parts.network,
            layer: layer as u16,
            gate,
            arrived: gate,
            frontier: &mut self.frontier,
            tokens: &self.device_tokens,
            done: &mut self.ops,
        };
        parts.policy.lower(&view, &routing, &mut ops);
    }

    /// Attention of every rank and class; gates, which are alike in all layers, as a rule.
    fn price(&mut self, plan: &Plan, begin: &Begin) {
        let listed = plan.machine.gpu.kernels.wants_sequences();
        self.attention.clear();
        for ((rank, steps), &tokens) in begin.ranks.iter().zip(&begin.batch.steps).zip(&begin.batch.rank_tokens) {
            for class in 0..plan.classes.len() {
                self.demand.clear();
                for &Step { index, count } in steps {
                    let computed = rank.running[index as usize].computed;
                    self.demand.add(&plan.attention_work(class, computed, count), listed);
                }
                let none = tokens == 0;
                let cost = if none { Cost::default() } else { plan.attention_cost(class, tokens, &self.demand.view()) };
                self.attention.push(Priced::new(plan, cost));
            }
        }
        self.gates.clear();
        for &tokens in &self.device_tokens {
            let gated = tokens > 0 && !plan.moe_layers.is_empty();
            let cost = if gated { plan.gate_cost(0, tokens) } else { Cost::default() };
            self.gates.push(Priced::new(plan, cost));
        }
    }

    fn start(&mut self, cx: &mut Lowering, batch: &Batch) {
        let plan = cx.plan;
        let host = cx.graph.op(OpKind::Host, 0, NO_DEVICE, Work::fixed(self.host_time)).hold(plan.machine.host).id();
        self.frontier.clear();
        for (r, &tokens) in batch.rank_tokens.iter().enumerate() {
            let cost = (tokens > 0).then(|| Priced::new(plan, plan.embed_cost(tokens)));
            for d in plan.ranks.rank_devices(r) {
                self.frontier.push(cost.map(|c| cx.on_device(OpKind::Embed, 0, d, c, host)));
            }
        }
    }

    fn attend(&mut self, cx: &mut Lowering, batch: &Batch, layer: usize) {
        let plan = cx.plan;
        let class = plan.class_of[layer];
        for r in (0..plan.ranks.dp).filter(|&r| batch.rank_tokens[r] > 0) {
            let cost = self.attention[r * plan.classes.len() + class];
            // The sum lies inside attention; before its kernels it takes as long.
            self.reduce(cx, layer, r, 2, plan.qk_norm_bytes(class, batch.rank_tokens[r]));
            self.on_rank(cx, OpKind::Attention, layer, r, cost);
            // Dealt tokens are summed up only where they are, before experts; dense layers want all of them everywhere.
            let dealt = !plan.ranks.replicated() && plan.model.decoder[layer].moe().is_some();
            self.reduce(cx, layer, r, if dealt { 1 } else { 2 }, batch.rank_tokens[r] * plan.token_bytes);
        }
    }

    fn dense(&mut self, cx: &mut Lowering, batch: &Batch, layer: usize) {
        let plan = cx.plan;
        for r in (0..plan.ranks.dp).filter(|&r| batch.rank_tokens[r] > 0) {
            let cost = Priced::new(plan, plan.dense_cost(layer, batch.rank_tokens[r]));
            self.on_rank(cx, OpKind::Dense, layer, r, cost);
            self.reduce(cx, layer, r, 2, batch.rank_tokens[r] * plan.token_bytes);
        }
    }

    /// Appends an operation on every device of rank `r` behind what that does now.
    fn on_rank(&mut self, cx: &mut Lowering, kind: OpKind, layer: usize, r: usize, cost: Priced) {
        for d in cx.plan.ranks.rank_devices(r) {
            if let Some(before) = self.frontier[d] {
                self.frontier[d] = Some(cx.on_device(kind, layer, d, cost, before));
            }
        }
    }

    /// All-reduce (`rounds` 2) or reduce-scatter (1) of `bytes` over a tensor-parallel rank; nothing if there is nothing to sum.
    fn reduce(&mut self, cx: &mut Lowering, layer: usize, r: usize, rounds: u64, bytes: u64) {
        let plan = cx.plan;
        if plan.ranks.tp == 1 || bytes == 0 {
            return;
        }
        let Some(work) = cx.network.rank_ring(plan, r, rounds, bytes) else { return };
        let devices = plan.ranks.rank_devices(r);
        self.ops.clear();
        self.ops.extend(devices.clone().filter_map(|d| self.frontier[d]));
        let op = cx.graph.op(OpKind::AllReduce, layer as u16, devices.start as u32, work).after(&self.ops).id();
        self.ops.clear();
        for d in devices {
            self.frontier[d] = Some(op);
        }
    }

    /// Appends the gates of a layer; the rendezvous of all of them.
    fn gate(&mut self, cx: &mut Lowering, layer: usize, moe_layer: usize) -> OpId {
        let plan = cx.plan;
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
                cx.on_device(OpKind::Gate, layer, d, cost, before)
            };
            self.frontier[d] = Some(after);
            self.ops.push(after);
        }
        let join = cx.graph.join(layer as u16, &self.ops);
        self.ops.clear();
        join
    }

    /// The host goes on launching for `left` behind the last gate; what comes behind all layers waits for that. One operation at the end
    /// stands for all launches, so that those before it stay alone in the executor.
    fn launched(&mut self, cx: &mut Lowering, left: Picos, gate: Option<OpId>) {
        let last = (cx.plan.model.decoder.len() - 1) as u16;
        let op = cx.graph.op(OpKind::Host, last, NO_DEVICE, Work::fixed(left)).after(gate.as_slice());
        let op = op.hold(cx.plan.machine.host).id();
        for before in self.frontier.iter_mut().flatten() {
            *before = cx.graph.join(last, &[*before, op]);
        }
    }

    fn head(&mut self, cx: &mut Lowering, batch: &Batch) {
        let plan = cx.plan;
        let last = plan.model.decoder.len() - 1;
        for (r, &samples) in batch.samples.iter().enumerate() {
            if samples == 0 {
                continue;
            }
            let cost = Priced::new(plan, plan.head_cost(samples));
            for d in plan.ranks.rank_devices(r) {
                if let Some(before) = self.frontier[d] {
                    cx.on_device(OpKind::Head, last, d, cost, before);
                }
            }
        }
    }
}

/// What the operations of the iteration are appended with.
fn lowering<'a>(parts: &'a mut Parts) -> Lowering<'a> {
    Lowering { plan: parts.plan, graph: &mut parts.executor.graph, network: parts.network }
}
