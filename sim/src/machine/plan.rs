//! What does not change during a run: the model on the machine, and the costs of everything but attention and experts.

use super::experts::Sizes;
use super::{AttentionDemand, Deployment, Machine, Ranks};
use crate::engine::{Bound, Work};
use moesim_core::{Diag, Picos, Result};
use moesim_hwmodels::cost::{self, Cost, Gemm, elementwise, gemm};
use moesim_hwmodels::network::{Bottleneck, Ring};
use moesim_traces::model::{Attention, Mlp, Model};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Layers with the same attention; their cost in an iteration is the same.
#[derive(Clone, Debug)]
pub struct AttentionClass {
    /// The attention of these layers.
    pub attention: Attention,
    /// How many layers.
    pub layers: u64,
    /// Bytes of KV a token in one of the layers.
    pub kv_bytes: u64,
}

/// The model laid out on the machine.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The model.
    pub model: Model,
    /// The machine.
    pub machine: Machine,
    /// The rank maps.
    pub ranks: Ranks,
    /// Batch and block limits.
    pub deployment: Deployment,
    /// Model layers that are MoE layers, in order.
    pub moe_layers: Vec<usize>,
    /// Attention classes.
    pub classes: Vec<AttentionClass>,
    /// Class of each model layer.
    pub class_of: Vec<usize>,
    /// Ring of each attention rank's devices; empty without tensor parallelism.
    pub rings: Vec<Ring>,
    /// Bytes of one token's activation.
    pub token_bytes: u64,
    /// Bytes of a token in a dispatch.
    pub dispatch_token_bytes: u64,
    /// Bytes of a token in a combine.
    pub combine_token_bytes: u64,
    /// What the engine does its own way.
    pub habits: Habits,
    pub(super) experts: Vec<Sizes>,
}

/// A small kernel that an engine makes part of another, so that the small one costs nothing by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fused {
    /// Norm and residual, in the all-reduce before them: of ranks of several devices that have all tokens.
    AllReduceNorm,
    /// The rotary embedding and the copy of keys and values into the cache, in the attention kernel.
    RotaryCache,
}

/// What engines do differently in a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// Small kernels that are part of others.
    pub fused: Vec<Fused>,
    /// Tokens that are gathered on all devices travel rounded to the inputs of the experts' products.
    pub rounds_before_gather: bool,
}

impl Plan {
    /// Lays `model` out on `machine`.
    ///
    /// # Errors
    /// What the deployment or this version does not support.
    pub fn new(model: Model, machine: Machine, deployment: Deployment) -> Result<Self> {
        let ranks = Ranks::new(&deployment, &model, machine.devices())?;
        if !model.encoder.is_empty() || model.decoder.iter().any(|l| l.cross.is_some()) {
            return Err(Diag::input(format!("{} has an encoder, which serving does not model yet", model.name))
                .cure("choose a decoder-only model"));
        }
        let mut machine = machine;
        machine.gpu = machine.gpu.with_gemm_input(model.precision.gemm_input);
        let moe_layers = model.moe_layers();
        let mut classes: Vec<AttentionClass> = Vec::new();
        let mut class_of = Vec::new();
        for (l, layer) in model.decoder.iter().enumerate() {
            let at = classes.iter().position(|c| c.attention == layer.attention).unwrap_or_else(|| {
                let kv_bytes = model.kv_bytes_per_token(l);
                classes.push(AttentionClass { attention: layer.attention.clone(), layers: 0, kv_bytes });
                classes.len() - 1
            });
            classes[at].layers += 1;
            class_of.push(at);
        }
        let rings = if ranks.tp > 1 {
            let network = Bottleneck::new(machine.topology.clone());
            (0..ranks.dp).map(|r| network.ring(&ranks.rank_devices(r).map(|d| d as u32).collect::<Vec<_>>())).collect()
        } else {
            Vec::new()
        };
        let token_bytes = model.activation_bytes();
        let in_bits = |bits: Option<f64>| bits.map_or(token_bytes, |bits| sent(&model, bits));
        let (dispatch_token_bytes, combine_token_bytes) =
            (in_bits(deployment.dispatch_bits), in_bits(deployment.combine_bits));
        let experts = moe_layers.iter().map(|&l| Sizes::new(&model, l, ranks.etp as u64)).collect();
        Ok(Self {
            model,
            machine,
            ranks,
            deployment,
            moe_layers,
            classes,
            class_of,
            rings,
            token_bytes,
            dispatch_token_bytes,
            combine_token_bytes,
            habits: Habits::default(),
            experts,
        })
    }

    /// The plan for an engine with these habits; `gathers`: a dispatch takes every token to every device.
    #[must_use]
    pub fn with_habits(mut self, habits: Habits, gathers: bool) -> Self {
        if habits.rounds_before_gather && gathers && self.deployment.dispatch_bits.is_none() {
            let p = &self.model.precision;
            self.dispatch_token_bytes = sent(&self.model, self.machine.gpu.input_bits(p.experts, p.activation));
        }
        self.habits = habits;
        self
    }

    /// Kernels and collectives that one device is given for an iteration with a prompt: those that have a cost by themselves, with experts
    /// of a layer as one.
    pub fn launches(&self) -> u64 {
        const TOKENS: u64 = 2;
        let sums = u64::from(self.ranks.tp > 1);
        let exchanges = u64::from(!self.ranks.replicated() && self.machine.devices() > 1);
        let kernels = |cost: Cost| u64::from(cost.kernels);
        let attention = |class: usize| {
            let mut demand = AttentionDemand::default();
            demand.add(&self.attention_work(class, 0, TOKENS as u32), self.machine.gpu.kernels.wants_sequences());
            let summed = sums * (1 + u64::from(self.qk_norm_bytes(class, TOKENS) > 0));
            kernels(self.attention_cost(class, TOKENS, &demand.view())) + summed
        };
        let moe = |l: usize| {
            kernels(self.gate_cost(l, TOKENS)) + kernels(self.shared_cost(l, TOKENS)) + 1 + 2 * exchanges + sums
        };
        let dense = |l: usize| kernels(self.dense_cost(l, TOKENS)) + sums;
        let layers = (0..self.model.decoder.len()).map(|l| {
            let mlp = self.moe_layers.iter().position(|m| *m == l).map_or_else(|| dense(l), moe);
            attention(self.class_of[l]) + mlp
        });
        kernels(self.embed_cost(TOKENS)) + layers.sum::<u64>() + kernels(self.head_cost(1))
    }

    /// Norm and residual: the stream is read twice and written twice.
    pub(super) fn norm(&self, tokens: u64) -> Cost {
        if self.ranks.replicated() && self.habits.fused.contains(&Fused::AllReduceNorm) {
            return Cost::default();
        }
        elementwise(&self.machine.gpu, 4.0 * tokens as f64 * self.token_bytes as f64)
    }

    /// Gate of MoE layer `moe_layer` for `tokens` on one device, with the norm before it.
    pub fn gate_cost(&self, moe_layer: usize, tokens: u64) -> Cost {
        let p = &self.model.precision;
        let moe = self.moe(moe_layer);
        self.norm(tokens).then(cost::gate(
            &self.machine.gpu,
            tokens,
            self.model.hidden.into(),
            moe.ids().into(),
            p.router,
            p.activation,
        ))
    }

    /// Shared experts of MoE layer `moe_layer` for `tokens` on one device, its part of them where tokens are replicated; nothing if
    /// there are none.
    pub fn shared_cost(&self, moe_layer: usize, tokens: u64) -> Cost {
        let moe = self.moe(moe_layer);
        let whole = u64::from(moe.shared_experts) * u64::from(moe.shared_intermediate);
        let width = if self.ranks.replicated() { whole.div_ceil(self.ranks.tp as u64) } else { whole };
        self.mlp(width, moe.matrices.into(), self.model.precision.shared, tokens)
    }

    /// The dense MLP of model layer `layer` on one device of a rank, with the norm before it; nothing in an MoE layer.
    pub fn dense_cost(&self, layer: usize, tokens: u64) -> Cost {
        match &self.model.decoder[layer].mlp {
            Mlp::Dense { intermediate, matrices } => {
                let width = u64::from(*intermediate).div_ceil(self.ranks.tp as u64);
                self.norm(tokens).then(self.mlp(width, (*matrices).into(), self.model.precision.dense, tokens))
            }
            Mlp::Moe(_) => Cost::default(),
        }
    }

    fn mlp(&self, width: u64, matrices: u64, weight_bits: f64, tokens: u64) -> Cost {
        if width == 0 {
            return Cost::default();
        }
        let (gpu, k) = (&self.machine.gpu, u64::from(self.model.hidden));
        let activation_bits = self.model.precision.activation;
        let up = gemm(gpu, Gemm { m: tokens, n: (matrices - 1) * width, k, weight_bits, activation_bits });
        up.then(gemm(gpu, Gemm { m: tokens, n: k, k: width, weight_bits, activation_bits }))
    }

    /// Embedding of `tokens` on one device.
    pub fn embed_cost(&self, tokens: u64) -> Cost {
        elementwise(&self.machine.gpu, 2.0 * tokens as f64 * self.token_bytes as f64)
    }

    /// Head and sampling of `samples` sequences on one device of a rank.
    pub fn head_cost(&self, samples: u64) -> Cost {
        let (gpu, p) = (&self.machine.gpu, &self.model.precision);
        let n = u64::from(self.model.vocabulary).div_ceil(self.ranks.tp as u64);
        let head =
            Gemm { m: samples, n, k: self.model.hidden.into(), weight_bits: p.head, activation_bits: p.activation };
        gemm(gpu, head).then(elementwise(gpu, samples as f64 * n as f64 * 4.0))
    }
}

/// Bytes of a token whose elements have these bits. Counts of elements are far below 2^53.
fn sent(model: &Model, bits: f64) -> u64 {
    (f64::from(model.hidden) * bits / 8.0).ceil() as u64
}

/// A cost on the clock: rounded once.
pub(crate) fn work(cost: Cost) -> Work {
    let launch = Picos::from_seconds(cost.launch_s);
    Work {
        launch,
        body: Picos::from_seconds(cost.time_s()).since(launch),
        flop: cost.flop,
        at_peak: Picos::from_seconds(cost.peak_s),
        bound: match cost.term() {
            cost::Term::Launch => Bound::Launch,
            cost::Term::Compute => Bound::Compute,
            cost::Term::Memory => Bound::Memory,
        },
    }
}
