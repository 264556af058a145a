//! Core attention: scores, softmax and weighted sum in one kernel; the projections around it are GEMMs.

use super::{Cost, Engine, Family};

/// What is kept per token, and how queries meet it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionKind {
    /// Multi-head, grouped-query or multi-query attention.
    Grouped {
        /// Query heads.
        heads: u64,
        /// Key and value heads.
        kv_heads: u64,
        /// Width of a head.
        head_dim: u64,
    },
    /// Multi-head latent attention with absorbed projections (DeepSeek-V2, arXiv 2405.04434, section 2.1): every head
    /// meets one latent vector per token, whose first `rank` elements are the values too.
    Latent {
        /// Query heads.
        heads: u64,
        /// Width of the latent vector.
        rank: u64,
        /// Width of the key part that carries the position.
        rope: u64,
    },
}

/// The shape of attention in one layer, on one device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// What is kept per token.
    pub kind: AttentionKind,
    /// Bits per element of the KV cache.
    pub kv_bits: f64,
    /// Bits per element of queries and outputs.
    pub activation_bits: f64,
}

/// What a batch asks of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttentionWork {
    /// Tokens with a query.
    pub query_tokens: u64,
    /// Sum over queries of the keys that each sees.
    pub query_key_pairs: u64,
    /// Tokens whose keys and values are read: the context of each sequence, once per sequence and step.
    pub kv_tokens_read: u64,
    /// Tokens whose keys and values are added to the cache.
    pub kv_tokens_written: u64,
}

impl AttentionShape {
    /// Bytes of KV cache per token in this layer.
    pub fn kv_bytes_per_token(&self) -> f64 {
        let elements = match self.kind {
            AttentionKind::Grouped { kv_heads, head_dim, .. } => 2.0 * kv_heads as f64 * head_dim as f64,
            AttentionKind::Latent { rank, rope, .. } => rank as f64 + rope as f64,
        };
        elements * self.kv_bits / 8.0
    }

    /// Operations per (query, key) pair: a multiply-add per element of the scores and of the weighted sum.
    fn flop_per_pair(&self) -> f64 {
        match self.kind {
            AttentionKind::Grouped { heads, head_dim, .. } => 4.0 * heads as f64 * head_dim as f64,
            AttentionKind::Latent { heads, rank, rope } => 2.0 * heads as f64 * (2.0 * rank as f64 + rope as f64),
        }
    }

    /// Elements of query and output per query token.
    fn elements_per_query(&self) -> f64 {
        match self.kind {
            AttentionKind::Grouped { heads, head_dim, .. } => 2.0 * heads as f64 * head_dim as f64,
            AttentionKind::Latent { heads, rank, rope } => heads as f64 * (2.0 * rank as f64 + rope as f64),
        }
    }
}

/// One kernel: the pairs' operations; queries and outputs, keys and values read, keys and values written. Without
/// queries nothing is launched.
pub fn attention(engine: &Engine, shape: &AttentionShape, work: AttentionWork) -> Cost {
    if work.query_tokens == 0 {
        return Cost::default();
    }
    let kv_tokens = work.kv_tokens_read as f64 + work.kv_tokens_written as f64;
    let queries = work.query_tokens as f64 * shape.elements_per_query() * shape.activation_bits / 8.0;
    let bytes = kv_tokens * shape.kv_bytes_per_token() + queries;
    let flop = work.query_key_pairs as f64 * shape.flop_per_pair();
    engine.kernel(Family::Attention, shape.kv_bits.max(shape.activation_bits), flop, bytes)
}
