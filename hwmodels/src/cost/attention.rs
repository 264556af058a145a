//! Core attention: scores, softmax and weighted sum in one kernel; the projections around it are GEMMs.

use super::{Cost, Engine, Family};
pub use crate::form::AttentionClass;

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
    /// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1). Where a sequence has one new token,
    /// projections are absorbed: every head meets one latent vector per token, whose first `rank` elements are the
    /// values too. Where it has several, keys and values are expanded to those of every head, which is less arithmetic,
    /// unless a calibrated kernel takes them as they are cached even there ([`super::Kernels::expands_latent`]).
    Latent {
        /// Query heads.
        heads: u64,
        /// Width of the latent vector.
        rank: u64,
        /// Width of the key part that carries the position.
        rope: u64,
        /// Width of the other part of a head's key, once expanded.
        nope: u64,
        /// Width of a head's value, once expanded.
        value: u64,
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
    /// Tokens of the context that no query sees: a window or chunk begins behind them.
    pub kv_tokens_hidden: u64,
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
    fn flop_per_pair(&self, decode: bool) -> f64 {
        match self.kind {
            AttentionKind::Grouped { heads, head_dim, .. } => 4.0 * heads as f64 * head_dim as f64,
            AttentionKind::Latent { heads, rank, rope, .. } if decode => {
                2.0 * heads as f64 * (2.0 * rank as f64 + rope as f64)
            }
            AttentionKind::Latent { heads, rope, nope, value, .. } => 2.0 * heads as f64 * (nope + rope + value) as f64,
        }
    }

    /// Elements of query and output per query token.
    fn elements_per_query(&self, decode: bool) -> f64 {
        match self.kind {
            AttentionKind::Grouped { heads, head_dim, .. } => 2.0 * heads as f64 * head_dim as f64,
            AttentionKind::Latent { heads, rank, rope, .. } if decode => {
                heads as f64 * (2.0 * rank as f64 + rope as f64)
            }
            AttentionKind::Latent { heads, rope, nope, value, .. } => heads as f64 * (nope + rope + value) as f64,
        }
    }

    /// Operations, and bytes of queries and outputs, keys and values read, keys and values written. Latent keys and
    /// values that are expanded are counted as read expanded, in the activations' width.
    pub(super) fn amounts(&self, decode: bool, work: &AttentionWork) -> (f64, f64) {
        let (read, written) = (work.kv_tokens_read as f64, work.kv_tokens_written as f64);
        let key = match self.kind {
            AttentionKind::Latent { heads, rope, nope, value, .. } if !decode => {
                heads as f64 * (nope + rope + value) as f64 * self.activation_bits / 8.0
            }
            _ => self.kv_bytes_per_token(),
        };
        let queries = work.query_tokens as f64 * self.elements_per_query(decode) * self.activation_bits / 8.0;
        let bytes = read * key + written * self.kv_bytes_per_token() + queries;
        (work.query_key_pairs as f64 * self.flop_per_pair(decode), bytes)
    }
}

/// What a batch asks of one layer on one device.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttentionBatch<'a> {
    /// Sequences with one new token.
    pub decode: AttentionWork,
    /// The others.
    pub prefill: AttentionWork,
    /// Both, one by one, if the engine [wants](super::Kernels::wants_sequences) them.
    pub sequences: [&'a [AttentionClass]; 2],
}

impl AttentionWork {
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.query_tokens += other.query_tokens;
        self.query_key_pairs += other.query_key_pairs;
        self.kv_tokens_read += other.kv_tokens_read;
        self.kv_tokens_hidden += other.kv_tokens_hidden;
        self.kv_tokens_written += other.kv_tokens_written;
    }
}

/// Core attention: a kernel for the sequences with one new token, then one for the others; one call for both where such
/// calls were measured, or where nothing tells them apart (heads as they are cached, and no calibrated kernel). Without
/// queries nothing is launched.
pub fn attention(engine: &Engine, shape: &AttentionShape, batch: &AttentionBatch) -> Cost {
    let bits = shape.kv_bits.max(shape.activation_bits);
    let roofline = |decode: bool, work: &AttentionWork| {
        if work.query_tokens == 0 {
            return Cost::default();
        }
        let (flop, bytes) = shape.amounts(decode, work);
        engine.kernel(Family::Attention, bits, flop, bytes)
    };
    let grouped = matches!(shape.kind, AttentionKind::Grouped { .. });
    if grouped && !engine.kernels.wants_sequences() {
        let mut both = batch.decode;
        both.add(&batch.prefill);
        return roofline(true, &both);
    }
    if let Some(cost) = engine.kernels.mixed_attention(shape, batch) {
        return cost;
    }
    let part = |decode: bool, work: &AttentionWork, sequences: &[AttentionClass]| {
        let calibrated = engine.kernels.attention(decode, shape, work, sequences);
        calibrated.unwrap_or_else(|| roofline(decode, work))
    };
    part(true, &batch.decode, batch.sequences[0]).then(part(false, &batch.prefill, batch.sequences[1]))
}
