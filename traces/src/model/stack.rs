//! A stack of layers in a model file: what they have in common, which of them differ; checked and expanded.

use super::file::{within, wrong};
use super::{Attention, Heads, Layer, Mlp, Moe, QkNorm, Span};
use moesim_core::{Diag, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A stack of layers. Layer `l` is MoE if there is `moe`, `l % moe_every == moe_offset`, and it is not listed in
/// `dense_layers`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stack {
    /// How many.
    pub layers: u32,
    /// Layers without experts.
    #[serde(default)]
    pub dense_layers: Vec<u32>,
    /// Every so manieth layer is MoE.
    #[serde(default = "one")]
    pub moe_every: u32,
    /// The first MoE layer.
    #[serde(default)]
    pub moe_offset: u32,
    /// Self-attention.
    pub attention: AttentionSpec,
    /// Attention to the encoder.
    pub cross: Option<AttentionSpec>,
    /// The feed-forward part of dense layers.
    pub dense: Option<Dense>,
    /// The feed-forward part of MoE layers; without it all layers are dense.
    pub moe: Option<Moe>,
}

/// Attention of a stack.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttentionSpec {
    /// The projections.
    pub heads: Heads,
    /// Spans, repeated over the layers: `"full"`, `"window:TOKENS"`, `"chunk:TOKENS"`.
    #[serde(default = "full")]
    pub pattern: Vec<String>,
    /// The projections have biases.
    #[serde(default)]
    pub bias: bool,
    /// Norms of queries and keys: `none`, `head`, `layer`.
    #[serde(default)]
    pub qk_norm: QkNorm,
    /// Experts of attention, as in JetMoE (arXiv 2404.07413, mixture of attention heads): each has a query and an output
    /// projection of its own, as wide as `heads` says, keys and values are shared, and a gate of its own chooses. A token
    /// has `top_k` times so many query heads. 0: no experts. Traces do not have these selections: a simulation reads the
    /// weights that uniform choice activates in the mean.
    #[serde(default)]
    pub experts: u32,
    /// Of these, how many a token takes.
    #[serde(default)]
    pub top_k: u32,
}

/// Dense feed-forward.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Inner width.
    pub intermediate: u32,
    /// 2 (up, down) or 3 (gate, up, down).
    #[serde(default = "super::three")]
    pub matrices: u32,
}

fn one() -> u32 {
    1
}
fn full() -> Vec<String> {
    vec!["full".to_string()]
}

/// Bounds that keep every later product within 64 bits (and every byte count exact in f64); each is at least eight
/// times what any published model has.
pub(super) const WIDTH: u32 = 1 << 20;
const HEADS: u32 = 1 << 16;
pub(super) const VOCABULARY: u32 = 1 << 24;
pub(super) const LAYERS: u32 = 4096;
const EXPERTS: u32 = 65_534; // 0xFFFF marks a missing selection in traces.

impl Stack {
    pub(super) fn expand(&self, at: &str) -> Result<Vec<Layer>> {
        within(&format!("{at}.layers"), self.layers, LAYERS)?;
        within(&format!("{at}.moe_every"), self.moe_every, LAYERS)?;
        if self.moe_offset >= self.moe_every {
            return Err(wrong(&format!("{at}.moe_offset"), self.moe_offset.to_string(), "below moe_every"));
        }
        if let Some(l) = self.dense_layers.iter().find(|l| **l >= self.layers) {
            return Err(wrong(&format!("{at}.dense_layers"), format!("layer {l}"), "below the number of layers"));
        }
        let attention = self.attention.spans(&format!("{at}.attention"))?;
        let cross = self.cross.as_ref().map(|c| c.spans(&format!("{at}.cross"))).transpose()?;
        let is_moe =
            |l: u32| self.moe.is_some() && l % self.moe_every == self.moe_offset && !self.dense_layers.contains(&l);
        let key = |k: &str| format!("{at}.{k}");
        let moe = self.moe.as_ref().map(|m| check_moe(m, &key("moe")).map(|()| Mlp::Moe(m.clone()))).transpose()?;
        let dense = self.dense.as_ref().map(|d| d.check(&key("dense"))).transpose()?;
        let lacks = |l: u32, kind: &str| {
            Diag::input(format!("layer {l} is {kind} but there is no [{at}.{kind}] table"))
                .place(at)
                .cure("add the table, or change dense_layers, moe_every and moe_offset")
        };
        (0..self.layers)
            .map(|l| {
                let (mlp, kind) = if is_moe(l) { (&moe, "moe") } else { (&dense, "dense") };
                let mlp = mlp.clone().ok_or_else(|| lacks(l, kind))?;
                let pick = |a: &[Attention]| a[l as usize % a.len()].clone();
                Ok(Layer { attention: pick(&attention), cross: cross.as_deref().map(pick), mlp })
            })
            .collect()
    }
}

impl Dense {
    fn check(&self, at: &str) -> Result<Mlp> {
        within(&format!("{at}.intermediate"), self.intermediate, WIDTH)?;
        matrices(at, self.matrices)?;
        Ok(Mlp::Dense { intermediate: self.intermediate, matrices: self.matrices })
    }
}

impl AttentionSpec {
    /// One attention block an entry of the pattern; at least one.
    fn spans(&self, at: &str) -> Result<Vec<Attention>> {
        let check = |key: &str, value: u32, most: u32| within(&format!("{at}.heads.{key}"), value, most);
        match self.heads {
            Heads::Gqa { heads, kv_heads, head_dim } => {
                check("heads", heads, HEADS)?;
                check("kv_heads", kv_heads, heads)?;
                check("head_dim", head_dim, HEADS)?;
            }
            Heads::Mla { heads, q_rank, kv_rank, nope_dim, rope_dim, v_dim } => {
                check("heads", heads, HEADS)?;
                check("q_rank", q_rank.unwrap_or(1), WIDTH)?;
                check("kv_rank", kv_rank, WIDTH)?;
                check("nope_dim", nope_dim, HEADS)?;
                check("rope_dim", rope_dim, HEADS)?;
                check("v_dim", v_dim, HEADS)?;
            }
        }
        if self.qk_norm != QkNorm::None && matches!(self.heads, Heads::Mla { .. }) {
            return Err(Diag::input("norms of queries and keys of latent attention (MLA) cannot be expressed")
                .place(format!("{at}.qk_norm"))
                .cure("set it to \"none\", or give gqa heads"));
        }
        if self.experts > 0 {
            if matches!(self.heads, Heads::Mla { .. }) {
                return Err(Diag::input("experts of latent attention (MLA) cannot be expressed")
                    .place(format!("{at}.experts"))
                    .cure("set it to 0, or give gqa heads"));
            }
            within(&format!("{at}.experts"), self.experts, HEADS)?;
            within(&format!("{at}.top_k"), self.top_k, self.experts)?;
        } else if self.top_k > 0 {
            return Err(wrong(
                &format!("{at}.top_k"),
                format!("{} of no experts", self.top_k),
                "experts too, or no top_k",
            ));
        }
        if self.pattern.is_empty() {
            return Err(wrong(&format!("{at}.pattern"), "an empty list".into(), "at least one span, as in [\"full\"]"));
        }
        let block = |text: &String| {
            let span = parse_span(text).ok_or_else(|| {
                let rule = "\"full\", \"window:TOKENS\", \"chunk:TOKENS\" or \"cross\", with 1 to 2^30 tokens";
                wrong(&format!("{at}.pattern"), format!("\"{text}\""), rule)
            })?;
            let (heads, bias, qk_norm) = (self.heads, self.bias, self.qk_norm);
            Ok(Attention { span, heads, bias, qk_norm, experts: self.experts, top_k: self.top_k })
        };
        self.pattern.iter().map(block).collect()
    }
}

fn parse_span(text: &str) -> Option<Span> {
    let tokens = |t: &str| t.parse().ok().filter(|n| (1..=1 << 30).contains(n));
    match text.split_once(':') {
        None if text == "full" => Some(Span::Full),
        None if text == "cross" => Some(Span::Cross),
        Some(("window", n)) => tokens(n).map(Span::Window),
        Some(("chunk", n)) => tokens(n).map(Span::Chunk),
        _ => None,
    }
}

fn check_moe(moe: &Moe, at: &str) -> Result<()> {
    let key = |k: &str| format!("{at}.{k}");
    within(&key("experts"), moe.experts, EXPERTS)?;
    for (kind, n) in [
        ("zero_experts", moe.zero_experts),
        ("copy_experts", moe.copy_experts),
        ("constant_experts", moe.constant_experts),
    ] {
        if n > EXPERTS - moe.experts {
            return Err(wrong(&key(kind), n.to_string(), &format!("at most {EXPERTS} experts of all kinds")));
        }
    }
    if moe.ids() > EXPERTS {
        return Err(wrong(at, format!("{} experts of all kinds", moe.ids()), &format!("at most {EXPERTS}")));
    }
    within(&key("top_k"), moe.top_k, moe.ids())?;
    matrices(at, moe.matrices)?;
    match &moe.expert_sizes {
        None => within(&key("expert_intermediate"), moe.expert_intermediate, WIDTH)?,
        Some(sizes) => {
            if sizes.len() != moe.experts as usize {
                let problem = format!("{} sizes for {} experts", sizes.len(), moe.experts);
                return Err(wrong(&key("expert_sizes"), problem, "one an expert"));
            }
            sizes.iter().try_for_each(|s| within(&key("expert_sizes"), *s, WIDTH))?;
        }
    }
    if moe.groups > 0 {
        if !moe.experts.is_multiple_of(moe.groups) {
            let rule = format!("a divisor of the {} experts", moe.experts);
            return Err(wrong(&key("groups"), moe.groups.to_string(), &rule));
        }
        within(&key("group_intermediate"), moe.group_intermediate, WIDTH)?;
    }
    if moe.expert_rank > WIDTH {
        return Err(wrong(&key("expert_rank"), moe.expert_rank.to_string(), &format!("at most {WIDTH}, 0 for none")));
    }
    if moe.expert_base && (moe.expert_rank == 0 || moe.expert_sizes.is_some()) {
        return Err(Diag::input("a base is of factorised experts that are alike")
            .place(key("expert_base"))
            .cure("set expert_rank and expert_intermediate, or leave expert_base out"));
    }
    match moe.capacity_factor {
        // At E / k an expert can take every token.
        Some(c) if !(c > 0.0 && c <= f64::from(EXPERTS)) => {
            return Err(wrong(&key("capacity_factor"), c.to_string(), &format!("above 0 and at most {EXPERTS}")));
        }
        None if moe.capacity_padding => {
            return Err(Diag::input("there is no capacity to pad to")
                .place(key("capacity_padding"))
                .cure("set capacity_factor too, or leave capacity_padding out"));
        }
        _ => {}
    }
    if moe.shared_experts > 0 {
        within(&key("shared_experts"), moe.shared_experts, 1024)?;
        within(&key("shared_intermediate"), moe.shared_intermediate, WIDTH)?;
    }
    Ok(())
}

fn matrices(at: &str, n: u32) -> Result<()> {
    if matches!(n, 2 | 3) {
        return Ok(());
    }
    Err(wrong(&format!("{at}.matrices"), n.to_string(), "2 (up, down) or 3 (gate, up, down)"))
}
