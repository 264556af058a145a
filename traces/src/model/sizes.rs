//! Parameters and bytes, from the architecture alone.

use super::{Attention, Heads, Layer, Mlp, Model, Moe, Span};

/// Bytes of `elements` at `bits` each, rounded up.
fn bytes(elements: u64, bits: f64) -> u64 {
    (elements as f64 * bits / 8.0).ceil() as u64
}

/// Parameters of a feed-forward block: `matrices` of `hidden x intermediate`; a bias has the width of each output.
fn mlp_parameters(hidden: u64, intermediate: u64, matrices: u64, bias: bool) -> u64 {
    matrices * hidden * intermediate + if bias { (matrices - 1) * intermediate + hidden } else { 0 }
}

impl Span {
    /// Tokens of KV kept after `context` tokens: all, at most the window, or those since the last chunk began (at the
    /// end of a chunk, that chunk). For [`Span::Cross`], `context` is the encoder's length.
    pub fn tokens_held(self, context: u64) -> u64 {
        match self {
            Self::Full | Self::Cross => context,
            Self::Window(w) => context.min(u64::from(w)),
            Self::Chunk(c) if context == 0 || c == 0 => 0,
            Self::Chunk(c) => (context - 1) % u64::from(c) + 1,
        }
    }
}

impl Attention {
    /// Parameters of the projections for a residual stream of width `hidden`. GQA: query and output `hidden x heads head_dim`,
    /// key and value `hidden x kv_heads head_dim`; with experts a query and an output each, and a router. MLA as in DeepSeek-V2 (arXiv 2405.04434, section 2.1).
    pub fn parameters(&self, hidden: u32) -> u64 {
        self.with_experts(hidden, self.experts)
    }
    /// Of these, what works on one token.
    pub fn active_parameters(&self, hidden: u32) -> u64 {
        self.with_experts(hidden, self.top_k)
    }
    /// Of [`Attention::parameters`], what is of no head: every tensor-parallel device has it whole. MLA's projections into
    /// the latent spaces, and the router of attention's experts.
    pub fn whole_parameters(&self, hidden: u32) -> u64 {
        let h = u64::from(hidden);
        match self.heads {
            Heads::Gqa { .. } => u64::from(self.experts) * h,
            Heads::Mla { q_rank, kv_rank, rope_dim, .. } => {
                let latent = u64::from(kv_rank) + u64::from(rope_dim);
                h * (q_rank.map_or(0, u64::from) + latent) + if self.bias { latent } else { 0 }
            }
        }
    }
    fn with_experts(&self, hidden: u32, experts: u32) -> u64 {
        let h = u64::from(hidden);
        match self.heads {
            Heads::Gqa { heads, kv_heads, head_dim } if self.experts > 0 => {
                let (q, kv) = (u64::from(heads) * u64::from(head_dim), u64::from(kv_heads) * u64::from(head_dim));
                let (expert, shared) = (2 * h * q, 2 * h * kv + u64::from(self.experts) * h);
                let bias = if self.bias { u64::from(experts) * (q + h) + 2 * kv } else { 0 };
                u64::from(experts) * expert + shared + bias
            }
            Heads::Gqa { heads, kv_heads, head_dim } => {
                let (q, kv) = (u64::from(heads) * u64::from(head_dim), u64::from(kv_heads) * u64::from(head_dim));
                2 * h * (q + kv) + if self.bias { q + 2 * kv + h } else { 0 }
            }
            Heads::Mla { heads, q_rank, kv_rank, nope_dim, rope_dim, v_dim } => {
                let [n, kv, nope, rope, v] = [heads, kv_rank, nope_dim, rope_dim, v_dim].map(u64::from);
                let q = n * (nope + rope);
                let query = q_rank.map_or(h * q, |r| u64::from(r) * (h + q));
                let bias = if self.bias { q + kv + rope + h } else { 0 };
                query + h * (kv + rope) + kv * n * (nope + v) + n * v * h + bias
            }
        }
    }
    /// Elements of KV kept a token: keys and values of every KV head, or MLA's latent vector and rotary key.
    pub fn kv_elements(&self) -> u64 {
        match self.heads {
            Heads::Gqa { kv_heads, head_dim, .. } => 2 * u64::from(kv_heads) * u64::from(head_dim),
            Heads::Mla { kv_rank, rope_dim, .. } => u64::from(kv_rank) + u64::from(rope_dim),
        }
    }
}

impl Moe {
    /// Inner width of a routed expert; 0 for an expert that does not exist.
    pub fn intermediate(&self, expert: u32) -> u32 {
        match &self.expert_sizes {
            Some(sizes) => sizes.get(expert as usize).copied().unwrap_or(0),
            None if expert < self.experts => self.expert_intermediate,
            None => 0,
        }
    }
    /// Parameters of a routed expert, without what it shares with others; 0 for an expert that does not exist.
    pub fn expert_parameters(&self, hidden: u32, expert: u32) -> u64 {
        let rank = u64::from(self.expert_rank);
        match self.intermediate(expert) {
            0 => 0,
            width if rank > 0 => {
                let (h, w, m) = (u64::from(hidden), u64::from(width), u64::from(self.matrices));
                m * rank * (h + w) + if self.bias { (m - 1) * w + h } else { 0 }
            }
            width => mlp_parameters(hidden.into(), width.into(), self.matrices.into(), self.bias),
        }
    }
    /// Parameters of one group's common part; 0 without groups.
    pub fn group_parameters(&self, hidden: u32) -> u64 {
        let of = |width: u32| mlp_parameters(hidden.into(), width.into(), self.matrices.into(), false);
        if self.groups > 0 { of(self.group_intermediate) } else { 0 }
    }
    /// Parameters of the base of factorised experts; 0 without one.
    pub fn base_parameters(&self, hidden: u32) -> u64 {
        let of = |width: u32| mlp_parameters(hidden.into(), width.into(), self.matrices.into(), false);
        if self.expert_base { of(self.expert_intermediate) } else { 0 }
    }
    /// Different groups that a token hits in the mean, if it takes `top_k` different ids, each as likely as the others:
    /// a group of m among n ids is missed with probability (n - m) / n times (n - m - 1) / (n - 1), and so on.
    pub fn groups_hit(&self) -> f64 {
        let (n, m) = (f64::from(self.ids()), f64::from(self.experts.checked_div(self.groups).unwrap_or(0)));
        let missed = (0..self.top_k).fold(1.0, |p, i| p * f64::max(n - m - f64::from(i), 0.0) / (n - f64::from(i)));
        f64::from(self.groups) * (1.0 - missed)
    }
    /// Parameters of all shared experts.
    pub fn shared_parameters(&self, hidden: u32) -> u64 {
        u64::from(self.shared_experts)
            * mlp_parameters(hidden.into(), self.shared_intermediate.into(), self.matrices.into(), false)
    }
    /// Experts without a feed-forward part: zero, copy and constant ones.
    pub fn zero_compute(&self) -> u32 {
        self.zero_experts + self.copy_experts + self.constant_experts
    }
    /// Ids that the gate can select: experts with weights, then zero-compute ones.
    pub fn ids(&self) -> u32 {
        self.experts + self.zero_compute()
    }
    /// Parameters of the router, a row an id, and of the constant experts beside it: a vector and the two rows that weigh
    /// it against the token (MoE++, arXiv 2410.07348, section 3.1).
    pub fn router_parameters(&self, hidden: u32) -> u64 {
        u64::from(self.ids()) * (u64::from(hidden) + u64::from(self.bias))
            + 3 * u64::from(self.constant_experts) * u64::from(hidden)
    }
}

impl Layer {
    /// Its MoE block, if it has one.
    pub fn moe(&self) -> Option<&Moe> {
        match &self.mlp {
            Mlp::Moe(moe) => Some(moe),
            Mlp::Dense { .. } => None,
        }
    }
    /// Bytes of the attention projections, cross attention included.
    pub fn attention_weight_bytes(&self, model: &Model) -> u64 {
        bytes(self.attention_parameters(model.hidden), model.precision.attention)
    }
    /// Of these, what every tensor-parallel device has whole.
    pub fn attention_whole_bytes(&self, model: &Model) -> u64 {
        let whole = |a: &Attention| a.whole_parameters(model.hidden);
        let parameters = whole(&self.attention) + self.cross.as_ref().map_or(0, whole);
        bytes(parameters, model.precision.attention)
    }
    /// Bytes of one routed expert; 0 in a dense layer.
    pub fn expert_weight_bytes(&self, model: &Model, expert: u32) -> u64 {
        self.moe().map_or(0, |m| bytes(m.expert_parameters(model.hidden, expert), model.precision.experts))
    }
    /// Bytes of one group's common part; 0 without groups.
    pub fn group_weight_bytes(&self, model: &Model) -> u64 {
        self.moe().map_or(0, |m| bytes(m.group_parameters(model.hidden), model.precision.experts))
    }
    /// Bytes of the base of factorised experts; 0 without one.
    pub fn base_weight_bytes(&self, model: &Model) -> u64 {
        self.moe().map_or(0, |m| bytes(m.base_parameters(model.hidden), model.precision.experts))
    }
    /// Bytes of all shared experts; 0 in a dense layer.
    pub fn shared_weight_bytes(&self, model: &Model) -> u64 {
        self.moe().map_or(0, |m| bytes(m.shared_parameters(model.hidden), model.precision.shared))
    }
    /// Bytes of the router and of constant experts; 0 in a dense layer.
    pub fn router_weight_bytes(&self, model: &Model) -> u64 {
        self.moe().map_or(0, |m| bytes(m.router_parameters(model.hidden), model.precision.router))
    }
    /// Bytes of a dense layer's feed-forward part; 0 in an MoE layer.
    pub fn dense_weight_bytes(&self, model: &Model) -> u64 {
        bytes(self.dense_parameters(model.hidden), model.precision.dense)
    }
    fn attention_parameters(&self, hidden: u32) -> u64 {
        self.attention.parameters(hidden) + self.cross.as_ref().map_or(0, |c| c.parameters(hidden))
    }
    fn dense_parameters(&self, hidden: u32) -> u64 {
        match self.mlp {
            Mlp::Dense { intermediate, matrices } => {
                mlp_parameters(hidden.into(), intermediate.into(), matrices.into(), false)
            }
            Mlp::Moe(_) => 0,
        }
    }
    /// (All parameters, those that work on one token); a token takes each id alike, and the mean size of experts that
    /// differ.
    pub(super) fn parameters(&self, hidden: u32) -> (u128, u128) {
        let always = u128::from(self.attention_parameters(hidden)) + u128::from(self.dense_parameters(hidden));
        let idle = |a: &Attention| u128::from(a.parameters(hidden) - a.active_parameters(hidden));
        let idle = idle(&self.attention) + self.cross.as_ref().map_or(0, idle);
        let Some(moe) = self.moe() else { return (always, always - idle) };
        let always = always + u128::from(moe.router_parameters(hidden)) + u128::from(moe.shared_parameters(hidden));
        let always = always + u128::from(moe.base_parameters(hidden));
        let part = moe.group_parameters(hidden);
        let groups = u128::from(moe.groups) * u128::from(part);
        let groups_hit = (moe.groups_hit() * part as f64) as u128;
        let experts: u128 = match moe.expert_sizes {
            Some(_) => (0..moe.experts).map(|e| u128::from(moe.expert_parameters(hidden, e))).sum(),
            None => u128::from(moe.experts) * u128::from(moe.expert_parameters(hidden, 0)),
        };
        let routed = experts * u128::from(moe.top_k) / u128::from(moe.ids());
        (always + experts + groups, always - idle + routed + groups_hit)
    }
}

impl Model {
    /// Indices of the decoder's MoE layers.
    pub fn moe_layers(&self) -> Vec<usize> {
        (0..self.decoder.len()).filter(|&l| self.decoder[l].moe().is_some()).collect()
    }
    /// All parameters; MTP modules count if the published total includes them.
    pub fn total_parameters(&self) -> u64 {
        let mtp = if self.published.total_has_mtp { self.mtp_parameters() } else { 0 };
        saturate(
            self.layer_parameters().0 + mtp + self.embedding_parameters() * if self.tied_embedding { 1 } else { 2 },
        )
    }
    /// Parameters that work on one token; embedding and head count if the published figure includes them.
    pub fn active_parameters(&self) -> u64 {
        let tables = u128::from(self.published.active_has_embedding) + u128::from(self.published.active_has_head);
        // A tied table is one table, however often it is used.
        let tables = if self.tied_embedding { tables.min(1) } else { tables };
        saturate(self.layer_parameters().1 + tables * self.embedding_parameters())
    }
    /// Every parameter there is, for validation: nothing that is stored overflows if this does not.
    pub(super) fn stored_parameters(&self) -> u128 {
        self.layer_parameters().0 + self.mtp_parameters() + 2 * self.embedding_parameters()
    }
    /// Bytes of the embedding.
    pub fn embedding_bytes(&self) -> u64 {
        bytes(saturate(self.embedding_parameters()), self.precision.embedding)
    }
    /// Bytes of the output head; 0 if it is the embedding.
    pub fn head_bytes(&self) -> u64 {
        if self.tied_embedding { 0 } else { bytes(saturate(self.embedding_parameters()), self.precision.head) }
    }
    /// Bytes of one MTP module's projection; its layer has the shape of the last decoder layer.
    pub fn mtp_projection_bytes(&self) -> u64 {
        bytes(2 * u64::from(self.hidden) * u64::from(self.hidden), self.precision.dense)
    }
    /// Bytes of self-attention KV that a decoder layer adds a token; 0 for a layer that does not exist.
    pub fn kv_bytes_per_token(&self, layer: usize) -> u64 {
        self.decoder.get(layer).map_or(0, |l| bytes(l.attention.kv_elements(), self.precision.kv))
    }
    /// Tokens of KV that a decoder layer keeps after `context` tokens; 0 for a layer that does not exist.
    pub fn kv_tokens_held(&self, layer: usize, context: u64) -> u64 {
        self.decoder.get(layer).map_or(0, |l| l.attention.span.tokens_held(context))
    }
    /// Bytes of one activation vector of the residual stream.
    pub fn activation_bytes(&self) -> u64 {
        bytes(self.hidden.into(), self.precision.activation)
    }
    fn layer_parameters(&self) -> (u128, u128) {
        let layers = self.encoder.iter().chain(&self.decoder).map(|l| l.parameters(self.hidden));
        layers.fold((0, 0), |sum, l| (sum.0 + l.0, sum.1 + l.1))
    }
    fn embedding_parameters(&self) -> u128 {
        u128::from(self.vocabulary) * u128::from(self.hidden)
    }
    fn mtp_parameters(&self) -> u128 {
        let layer = self.decoder.last().map_or(0, |l| l.parameters(self.hidden).0);
        u128::from(self.mtp_layers) * (layer + 2 * u128::from(self.hidden) * u128::from(self.hidden))
    }
}

fn saturate(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
