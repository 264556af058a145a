//! What does not change during a run: the model on the machine, the costs of everything but the experts, and memory.

use super::experts::Sizes;
use super::{Deployment, Machine, Ranks};
use crate::engine::{Bound, Work};
use moesim_core::{Diag, Picos, Result};
use moesim_hwmodels::cost::{self, Cost, Gemm, elementwise, gemm};
use moesim_hwmodels::network::{Bottleneck, Ring};
use moesim_traces::model::{Attention, Heads, Layer, Mlp, Model, Span};

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
    pub(super) experts: Vec<Sizes>,
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
        let sent = |bits: Option<f64>| {
            // Counts of elements are far below 2^53.
            bits.map_or(token_bytes, |bits| (f64::from(model.hidden) * bits / 8.0).ceil() as u64)
        };
        let (dispatch_token_bytes, combine_token_bytes) =
            (sent(deployment.dispatch_bits), sent(deployment.combine_bits));
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
            experts,
        })
    }

    /// Bytes of all weights but the routed experts on each device: attention, dense layers, embedding and head split
    /// over the tensor-parallel devices; routers, shared experts and what attention has that is of no head whole.
    pub fn common_weight_bytes(&self) -> u64 {
        let m = &self.model;
        let layers = |of: &dyn Fn(&Layer) -> u64| m.decoder.iter().map(of).sum::<u64>();
        let latent = layers(&|l| l.attention_whole_bytes(m));
        let split = layers(&|l| l.attention_weight_bytes(m) + l.dense_weight_bytes(m)) - latent
            + m.embedding_bytes()
            + m.head_bytes();
        let whole = latent + layers(&|l| l.router_weight_bytes(m) + l.shared_weight_bytes(m));
        split.div_ceil(self.ranks.tp as u64) + whole
    }

    /// Bytes of KV on each device of a rank for a sequence of `context` tokens, in whole blocks. Latent caches (MLA) are
    /// whole on every tensor-parallel device, KV heads are split, each device keeping at least one.
    pub fn kv_bytes(&self, context: u32) -> u64 {
        self.kv_held(|span| span.tokens_held(context.into()))
    }

    /// The most bytes that [`Plan::kv_bytes`] reaches on the way to `context`: a chunk is let go when the next one begins.
    pub fn kv_peak_bytes(&self, context: u32) -> u64 {
        self.kv_held(|span| match span {
            Span::Chunk(w) => u64::from(context.min(w)),
            span => span.tokens_held(context.into()),
        })
    }

    fn kv_held(&self, tokens: impl Fn(Span) -> u64) -> u64 {
        let block = u64::from(self.deployment.kv_block_tokens);
        self.classes
            .iter()
            .map(|c| {
                let held = tokens(c.attention.span).div_ceil(block) * block;
                let each = match c.attention.heads {
                    Heads::Gqa { kv_heads, .. } => {
                        let kept = u64::from(kv_heads).div_ceil(self.ranks.tp as u64);
                        c.kv_bytes * kept / u64::from(kv_heads)
                    }
                    Heads::Mla { .. } => c.kv_bytes,
                };
                c.layers * held * each
            })
            .sum()
    }

    /// Norm and residual: the stream is read twice and written twice.
    pub(super) fn norm(&self, tokens: u64) -> Cost {
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

    /// Shared experts of MoE layer `moe_layer` for `tokens` on one device; nothing if there are none.
    pub fn shared_cost(&self, moe_layer: usize, tokens: u64) -> Cost {
        let moe = self.moe(moe_layer);
        let width = u64::from(moe.shared_experts) * u64::from(moe.shared_intermediate);
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

#[cfg(test)]
mod tests {
    use super::*;
    use moesim_hwmodels::hardware::Hardware;

    fn plan(deployment: Deployment) -> Plan {
        let machine = Machine::new(Hardware::load("h100-8").unwrap()).unwrap();
        Plan::new(Model::load("gpt-oss-20b").unwrap(), machine, deployment).unwrap()
    }

    /// gpt-oss-20b: 12 full and 12 window layers of 2 x 8 x 64 x 2 = 2,048 bytes a token.
    #[test]
    fn kv_follows_the_context_in_blocks_and_windows() {
        let p = plan(Deployment::default());
        assert_eq!(p.kv_bytes(1), 24 * 16 * 2048);
        assert_eq!(p.kv_bytes(128), 24 * 128 * 2048);
        assert_eq!(p.kv_bytes(1024), 12 * (1024 + 128) * 2048);
        let split = plan(Deployment { attention_tp: 4, ..Deployment::default() });
        assert_eq!(split.kv_bytes(1024) * 4, p.kv_bytes(1024));
    }

    /// Every device of a tensor-parallel rank has the projections into the latent spaces whole: 61 layers of 7168 x (1536 +
    /// 512 + 64) bytes, which eight devices hold eight times.
    #[test]
    fn latent_projections_are_not_split() {
        let of = |attention_tp| {
            let machine = Machine::new(Hardware::load("h100-8").unwrap()).unwrap();
            let deployment = Deployment { attention_tp, ..Deployment::default() };
            Plan::new(Model::load("deepseek-v3").unwrap(), machine, deployment).unwrap()
        };
        let (one, eight) = (of(1), of(8));
        let m = &one.model;
        let (attention, latent) = (m.precision.attention / 8.0, 61.0 * 7168.0 * (1536.0 + 512.0 + 64.0));
        let whole: u64 = m.decoder.iter().map(|l| l.router_weight_bytes(m) + l.shared_weight_bytes(m)).sum();
        let more = 8 * (eight.common_weight_bytes() - whole) - (one.common_weight_bytes() - whole);
        assert!((more as f64 - 7.0 * attention * latent).abs() < 8.0 * 8.0, "{more}");
    }

    /// A chunk of 4 blocks is full at its end and let go at the next token; the peak remembers it.
    #[test]
    fn the_peak_of_a_chunked_cache_is_a_whole_chunk() {
        let mut p = plan(Deployment::default());
        p.classes.iter_mut().for_each(|c| c.attention.span = Span::Chunk(64));
        assert!(p.kv_bytes(65) < p.kv_bytes(64));
        for context in [1, 64, 65, 1000] {
            let largest = (1..=context).map(|c| p.kv_bytes(c)).max();
            assert_eq!(Some(p.kv_peak_bytes(context)), largest, "{context}");
        }
    }

    /// DeepSeek-V3: 61 layers with 1,536 + 512 + 64 columns of 7,168 that every tensor-parallel device has whole, at 8 bits.
    #[test]
    fn latent_down_projections_are_whole_on_every_device() {
        let machine = Machine::new(Hardware::load("h800-2x8").unwrap()).unwrap();
        let of = |attention_tp| {
            let d = Deployment { attention_tp, ..Deployment::default() };
            Plan::new(Model::load("deepseek-v3").unwrap(), machine.clone(), d).unwrap()
        };
        let (one, eight) = (of(1), of(8));
        let bits = one.model.precision.attention;
        let down = (61.0 * (1536.0 + 512.0 + 64.0) * 7168.0 * bits / 8.0) as u64;
        let whole: u64 = one
            .model
            .decoder
            .iter()
            .map(|l| l.router_weight_bytes(&one.model) + l.shared_weight_bytes(&one.model))
            .sum();
        let split = one.common_weight_bytes() - whole - down;
        assert!(eight.common_weight_bytes().abs_diff(split.div_ceil(8) + whole + down) <= 1);
    }
}
