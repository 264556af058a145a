//! What an execution policy appends operations with.

use super::Slots;
use crate::engine::{Graph, LaneId, NO_DEVICE, OpId, OpKind, SharedId};
use crate::machine::Plan;
use crate::network::Network;
use crate::routing::{LayerRouting, SlotMap};
use moesim_hwmodels::cost::{Cost, Engine, GroupedMlp, grouped_mlp, grouped_mlp_sized};

/// An expert that runs alone has each of its tokens once, however many experts of a group a token selects in the mean, and takes no
/// other tokens.
fn alone(mlp: GroupedMlp, counts: &[u32]) -> GroupedMlp {
    match counts.iter().filter(|n| **n > 0).nth(1) {
        Some(_) => mlp,
        None => GroupedMlp { choices: 1.0, everywhere: [0.0; 2], ..mlp },
    }
}

/// One layer's part of the graph, after its gate.
#[derive(Debug)]
pub struct Ops<'a> {
    /// The model on the machine.
    pub plan: &'a Plan,
    /// Index among the MoE layers.
    pub moe_layer: usize,
    /// Where the experts are.
    pub placement: &'a SlotMap,
    pub(crate) graph: &'a mut Graph,
    pub(crate) network: &'a mut Network,
    pub(crate) layer: u16,
    pub(crate) gate: OpId,
    /// What the experts wait for.
    pub(crate) arrived: OpId,
    /// Per device: the last operation of its tokens, none without tokens.
    pub(crate) frontier: &'a mut [Option<OpId>],
    /// Per device: tokens that it holds after attention.
    pub(crate) tokens: &'a [u64],
    pub(crate) done: &'a mut Vec<OpId>,
}

impl Ops<'_> {
    /// The rendezvous of the layer's gates: from its end on it is known which experts are needed.
    pub fn gate(&self) -> OpId {
        self.gate
    }

    /// Devices.
    pub fn devices(&self) -> usize {
        self.tokens.len()
    }

    /// Appends the dispatch; what experts wait for. Where tokens are replicated there is none: it is the gate.
    pub fn dispatch(&mut self, routing: &LayerRouting) -> OpId {
        if self.plan.ranks.replicated() {
            return self.gate;
        }
        if let Some(work) = self.network.dispatch(self.plan, routing, self.tokens) {
            let op = self.graph.op(OpKind::Dispatch, self.layer, NO_DEVICE, work).after(&[self.gate]);
            self.arrived = op.id();
        }
        self.arrived
    }

    /// Appends the shared experts of every device with tokens, beside the dispatch.
    pub fn shared_experts(&mut self) {
        for d in 0..self.tokens.len() {
            if self.tokens[d] == 0 {
                continue;
            }
            let cost = self.plan.shared_cost(self.moe_layer, self.tokens[d]);
            if cost.flop > 0 {
                let op = self.on_device(OpKind::Shared, d, cost, self.gate);
                self.frontier[d] = Some(op);
            }
        }
    }

    /// Appends routed experts on the device's own cores: `counts[i]` tokens for the expert in the i-th of `slots`. Returns
    /// nothing if there are no tokens.
    pub fn experts_on_device(&mut self, device: usize, slots: Slots, counts: &[u32], after: OpId) -> Option<OpId> {
        let cost = self.expert_cost(&self.plan.machine.gpu, slots, counts);
        (cost.flop > 0).then(|| {
            let op = self.on_device(OpKind::Experts, device, cost, after);
            self.done.push(op);
            op
        })
    }

    /// Appends an operation of `cost` on `lane` that draws its bytes on `channel`; the combine waits for it.
    pub fn experts_on(&mut self, device: usize, cost: Cost, lane: LaneId, channel: SharedId, after: OpId) -> OpId {
        let work = crate::machine::work(cost);
        let op = self.graph.op(OpKind::Experts, self.layer, device as u32, work);
        let drawn = self.plan.machine.drawn(channel, &cost);
        let op = op.after(&[after]).hold(lane).draw(channel, drawn).id();
        self.done.push(op);
        op
    }

    /// The cost on `engine` of `counts[i]` tokens for the expert in the i-th of `slots`, as one grouped GEMM.
    pub fn expert_cost(&self, engine: &Engine, slots: Slots, counts: &[u32]) -> Cost {
        let mlp = GroupedMlp { everywhere: self.tokens_everywhere(), ..self.plan.experts(self.moe_layer) };
        let mlp = alone(mlp, counts);
        match self.plan.expert_widths(self.moe_layer) {
            None => grouped_mlp(engine, &mlp, counts),
            Some(widths) => {
                let width = |i| widths[self.placement.expert(self.moe_layer, slots.at(i))];
                grouped_mlp_sized(engine, &mlp, counts.iter().enumerate().map(|(i, &n)| (n, width(i))))
            }
        }
    }

    /// Tokens that come to every device, and their selections; zeros where devices get those for their own experts alone.
    fn tokens_everywhere(&self) -> [f64; 2] {
        let tokens: u64 = match self.plan.ranks.replicated() {
            true => self.tokens[0],
            false if self.network.everywhere() => self.tokens.iter().sum(),
            false => 0,
        };
        [tokens as f64, tokens as f64 * f64::from(self.plan.moe(self.moe_layer).top_k)]
    }

    /// Appends a copy of `bytes` from host memory to `device`.
    ///
    /// # Panics
    /// If the machine has no host link; policies check that.
    pub fn load(&mut self, device: usize, bytes: u64, after: OpId) -> OpId {
        let m = &self.plan.machine;
        let link = m.hardware.host.link.as_ref().expect("the policy checked that there is a host link");
        let rate = link.bandwidth.value.per_second() * link.achievable.value;
        let cost = moesim_hwmodels::cost::copy(bytes as f64, rate, link.latency.value.seconds());
        let (lane, channel, memory) = (m.copy[device], m.host_link[device], m.memory[device]);
        let op = self.graph.op(OpKind::Load, self.layer, device as u32, crate::machine::work(cost));
        op.after(&[after]).hold(lane).draw(channel, bytes).draw(memory, bytes).id()
    }

    /// Appends what experts have in common, on every device with tokens for it.
    fn common_parts(&mut self, routing: &LayerRouting) {
        let plan = self.plan;
        let (part, base) = plan.common_parts(self.moe_layer);
        if part.is_none() && base.is_none() {
            return;
        }
        for group in 0..routing.groups() {
            let of = |mlp: Option<GroupedMlp>, counts: &[u32]| {
                mlp.map_or(Cost::default(), |mlp| grouped_mlp(&plan.machine.gpu, &mlp, counts))
            };
            // Padding has experts of its own, but nothing in common with others.
            let all = routing.real_tokens_at(group).try_into().unwrap_or(u32::MAX);
            let cost = of(part, routing.part_tokens(group)).then(of(base, &[all]));
            for device in plan.ranks.group_devices(group).filter(|_| cost.flop > 0) {
                let op = self.on_device(OpKind::Experts, device, cost, self.arrived);
                self.done.push(op);
            }
        }
    }

    /// Appends what experts have in common and what follows the experts; then moves the frontier of every device with tokens. Where
    /// tokens are dealt or at home on one device, an all-reduce in every expert group of several devices, the combine, and an
    /// all-gather in every attention rank of several devices; where they are replicated, an all-reduce over the rank.
    pub fn combine(&mut self, routing: &LayerRouting) {
        self.common_parts(routing);
        let plan = self.plan;
        if plan.ranks.replicated() {
            return self.reduce_everywhere();
        }
        if plan.ranks.etp > 1 && !self.network.everywhere() {
            for g in 0..plan.ranks.ep {
                if let Some(work) = self.network.group_allreduce(plan, g, routing.tokens_at(g) * plan.token_bytes) {
                    let devices = plan.ranks.group_devices(g);
                    let inside = |graph: &Graph, op: &OpId| devices.contains(&(graph.device(op.0 as usize) as usize));
                    let mine: Vec<OpId> = self.done.iter().copied().filter(|o| inside(self.graph, o)).collect();
                    self.done.retain(|o| !mine.contains(o));
                    self.done.push(self.graph.op(OpKind::AllReduce, self.layer, NO_DEVICE, work).after(&mine).id());
                }
            }
        }
        let all = match self.network.combine(plan) {
            Some(work) => self.graph.op(OpKind::Combine, self.layer, NO_DEVICE, work).after(self.done).id(),
            None if self.done.is_empty() => self.gate,
            None => self.graph.join(self.layer, self.done),
        };
        self.done.clear();
        for rank in 0..plan.ranks.dp {
            let devices = plan.ranks.rank_devices(rank);
            if devices.clone().all(|d| self.tokens[d] == 0) {
                continue;
            }
            let mut end = all;
            if plan.ranks.tp > 1 {
                let tokens: u64 = devices.clone().map(|d| self.tokens[d]).sum();
                if let Some(work) = self.network.rank_ring(plan, rank, 1, tokens * plan.token_bytes) {
                    let device = devices.start as u32;
                    end = self.graph.op(OpKind::AllReduce, self.layer, device, work).after(&[all]).id();
                }
            }
            for d in devices {
                self.frontier[d] = Some(match self.frontier[d] {
                    // Shared experts may outlast the combine.
                    Some(shared) if shared > self.gate => self.graph.join(self.layer, &[shared, end]),
                    _ => end,
                });
            }
        }
    }

    /// One all-reduce sums what experts and shared experts of all devices made of the tokens that all of them have.
    fn reduce_everywhere(&mut self) {
        let shared = self.frontier.iter().flatten().copied().filter(|op| *op > self.gate);
        self.done.extend(shared);
        let bytes = self.tokens[0] * self.plan.token_bytes;
        let end = match self.network.rank_ring(self.plan, 0, 2, bytes) {
            Some(work) => self.graph.op(OpKind::AllReduce, self.layer, 0, work).after(self.done).id(),
            None if self.done.is_empty() => self.gate,
            None => self.graph.join(self.layer, self.done),
        };
        self.done.clear();
        self.frontier.fill(Some(end));
    }

    /// What waits for both.
    pub fn both(&mut self, a: OpId, b: OpId) -> OpId {
        self.graph.join(self.layer, &[a, b])
    }

    fn on_device(&mut self, kind: OpKind, device: usize, cost: Cost, after: OpId) -> OpId {
        let m = &self.plan.machine;
        let op = self.graph.op(kind, self.layer, device as u32, crate::machine::work(cost));
        op.after(&[after]).hold(m.compute[device]).draw(m.memory[device], m.drawn(m.memory[device], &cost)).id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_expert_has_each_token_once() {
        let mlp = GroupedMlp {
            hidden: 64,
            intermediate: 32,
            rank: 0,
            matrices: 3,
            weight_bits: 16.0,
            activation_bits: 16.0,
            choices: 2.5,
            everywhere: [0.0; 2],
        };
        for (counts, choices) in [(&[7u32][..], 1.0), (&[0, 7, 0], 1.0), (&[1, 7], 2.5), (&[], 1.0)] {
            let everywhere = if choices > 1.0 { [9.0, 18.0] } else { [0.0; 2] };
            let found = alone(GroupedMlp { everywhere: [9.0, 18.0], ..mlp }, counts);
            assert_eq!((found.choices, found.everywhere), (choices, everywhere), "{counts:?}");
        }
    }
}
