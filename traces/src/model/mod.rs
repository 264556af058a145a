//! Model architectures as data: what an iteration computes, stores and moves, layer by layer.
//!
//! A model file is compact TOML (see [`ModelFile`]); [`Model`] is its expansion, one [`Layer`] a layer. Sizes come from the
//! published configuration that the file names. Weights count matrices and biases; norms, attention sinks and gate
//! corrections (together under 0.01 % of any preset) are left out.

mod facts;
mod file;
mod hf;
mod presets;
mod sizes;
mod stack;

pub use facts::{ClassSize, Facts, KvKind};
pub use file::ModelFile;
pub use hf::{Imported, import_config};
pub use presets::{Preset, preset_text, presets};
pub use stack::{AttentionSpec, Dense, Stack};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A model's architecture, expanded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name, as traces and reports use it.
    pub name: String,
    /// Where the sizes were published.
    pub source: String,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Rows of the embedding.
    pub vocabulary: u32,
    /// The most positions that a sequence may have, prompt and output together; `None`: no limit is known.
    #[serde(default)]
    pub context: Option<u32>,
    /// The output head is the embedding, stored once.
    pub tied_embedding: bool,
    /// The decoder's layers, in order.
    pub decoder: Vec<Layer>,
    /// The encoder's layers; empty for decoder-only models.
    pub encoder: Vec<Layer>,
    /// Multi-token-prediction modules, each a copy of the last decoder layer's shape behind a `2 hidden x hidden` projection.
    pub mtp_layers: u32,
    /// Bits per stored element.
    pub precision: Precision,
    /// The published parameter counts and what they include.
    pub published: Published,
}

/// One transformer layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Self-attention.
    pub attention: Attention,
    /// Attention to the encoder's output, in the decoder of an encoder-decoder model.
    pub cross: Option<Attention>,
    /// What follows it.
    pub mlp: Mlp,
}

/// One attention block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Which earlier tokens are attended to, and so how many tokens of KV are kept.
    pub span: Span,
    /// The projections.
    pub heads: Heads,
    /// The projections have biases.
    pub bias: bool,
    /// Norms of queries and keys.
    #[serde(default)]
    pub qk_norm: QkNorm,
    /// Experts of the query and output projections; 0: no experts. See [`AttentionSpec::experts`].
    #[serde(default)]
    pub experts: u32,
    /// Of these, how many a token takes.
    #[serde(default)]
    pub top_k: u32,
}

/// Norms of queries and keys, between their projections and the rotary embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QkNorm {
    /// None.
    #[default]
    None,
    /// Of each head by itself: Qwen3 (arXiv 2505.09388, section 2).
    Head,
    /// Over all heads together, so that devices that split the heads must sum two numbers a token: MiniMax-M2 (`qk_norm_type: per_layer`).
    Layer,
}

/// Which tokens a token attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Span {
    /// All earlier tokens.
    Full,
    /// The last so many tokens, itself included.
    Window(u32),
    /// The tokens since the last multiple of this length.
    Chunk(u32),
    /// The encoder's output.
    Cross,
}

/// The projections of an attention block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Heads {
    /// Grouped-query attention; multi-head and multi-query are its ends.
    Gqa {
        /// Query heads.
        heads: u32,
        /// Key and value heads.
        kv_heads: u32,
        /// Elements of a head.
        head_dim: u32,
    },
    /// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values come from one cached latent vector.
    Mla {
        /// Query heads.
        heads: u32,
        /// Rank of the query's down-projection; `None`: queries are projected at once.
        q_rank: Option<u32>,
        /// Rank of the cached latent vector.
        kv_rank: u32,
        /// Elements of a key head without position.
        nope_dim: u32,
        /// Elements of the shared key part with rotary position, cached beside the latent vector.
        rope_dim: u32,
        /// Elements of a value head.
        v_dim: u32,
    },
}

/// The feed-forward part of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Mlp {
    /// Every token passes the same weights.
    Dense {
        /// Inner width.
        intermediate: u32,
        /// 2 (up, down) or 3 (gate, up, down).
        matrices: u32,
    },
    /// Every token passes the shared experts and the routed experts that the gate selects.
    Moe(Moe),
}

/// A mixture-of-experts block.
///
/// The ids that a gate selects, and that traces have, are the experts with weights, `0..experts`, then the zero, the copy
/// and the constant experts, in that order ([`Moe::ids`] in all).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Moe {
    /// Routed experts with weights; zero-compute experts are not among them.
    pub experts: u32,
    /// The most experts selected for a token, of all ids. A token with fewer has 0xFFFF in the rest of its row.
    pub top_k: u32,
    /// Inner width of a routed expert.
    pub expert_intermediate: u32,
    /// 2 (up, down) or 3 (gate, up, down), routed and shared alike.
    #[serde(default = "three")]
    pub matrices: u32,
    /// Experts that every token passes.
    #[serde(default)]
    pub shared_experts: u32,
    /// Inner width of one shared expert.
    #[serde(default)]
    pub shared_intermediate: u32,
    /// Router and routed experts have biases.
    #[serde(default)]
    pub bias: bool,
    /// Inner width per expert where they differ; then `expert_intermediate` is not used.
    #[serde(default)]
    pub expert_sizes: Option<Vec<u32>>,
    /// Experts that add nothing: zero experts (MoE++, arXiv 2410.07348), null experts (AdaMoE, arXiv 2406.13233).
    #[serde(default)]
    pub zero_experts: u32,
    /// Experts that add the token itself (MoE++; the zero-computation experts of LongCat-Flash).
    #[serde(default)]
    pub copy_experts: u32,
    /// Experts that add a mix of the token and one learnt vector (MoE++).
    #[serde(default)]
    pub constant_experts: u32,
    /// Groups of consecutive experts, all of one size, that have a part in common (Grove MoE, arXiv 2508.07785); 0: none.
    /// A token that hits a group computes its common part once on every device that has a member which it hit: the common
    /// part is held wherever a member is, so a placement that keeps groups together computes it once.
    #[serde(default)]
    pub groups: u32,
    /// Inner width of a group's common part.
    #[serde(default)]
    pub group_intermediate: u32,
    /// Every matrix `m x n` of a routed expert is kept and computed as `m x rank` times `rank x n` (MoE-SVD); 0: whole.
    #[serde(default)]
    pub expert_rank: u32,
    /// Beside the factors there is one base expert as wide as `expert_intermediate` that all of the layer add (the base
    /// weights of D2-MoE, arXiv 2502.17298). It is on every device with experts; by linearity a token computes it once on each device that it
    /// is sent to.
    #[serde(default)]
    pub expert_base: bool,
    /// Capacity factor c (GShard, arXiv 2006.16668; Switch, arXiv 2101.03961): of an iteration of T tokens over all ranks,
    /// each expert takes at most ceil(c T top_k / experts), and no more than T, in the order of the batch. What is beyond is
    /// dropped: the ids are recorded, so the gate does not choose again. Zero-compute experts take all.
    #[serde(default)]
    pub capacity_factor: Option<f64>,
    /// Dispatch, combine and experts are sized by the capacity, not by the tokens that came: each expert has a buffer of its
    /// capacity, of which each device fills the share of the tokens that it has.
    #[serde(default)]
    pub capacity_padding: bool,
}

fn three() -> u32 {
    3
}

/// Bits per stored element, scales included: MXFP4 is 4 + 8/32 = 4.25, FP8 in 128 x 128 blocks 8 + 32/16384.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Precision {
    /// Attention projections.
    pub attention: f64,
    /// Routers.
    pub router: f64,
    /// Routed experts.
    pub experts: f64,
    /// Shared experts.
    pub shared: f64,
    /// Feed-forward parts of dense layers, and the projection of an MTP module.
    pub dense: f64,
    /// Embedding.
    pub embedding: f64,
    /// Output head.
    pub head: f64,
    /// KV cache.
    pub kv: f64,
    /// Activations between operations.
    pub activation: f64,
    /// Bits to which inputs of products are rounded before them, where weights are about as narrow or narrower: 8 of models that compute
    /// in FP8. Unless told, inputs are not rounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gemm_input: Option<f64>,
}

/// The published parameter counts, as printed, and what they include.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// All parameters, as printed: `"20.9 B"`, `"1 T"`; empty if nothing was published.
    #[serde(default)]
    pub total: String,
    /// Parameters that work on one token, as printed.
    #[serde(default)]
    pub active: String,
    /// The total includes the MTP modules.
    #[serde(default)]
    pub total_has_mtp: bool,
    /// The active count includes the embedding.
    #[serde(default)]
    pub active_has_embedding: bool,
    /// The active count includes the output head.
    #[serde(default)]
    pub active_has_head: bool,
}

#[cfg(test)]
mod tests;
