//! What a model has and what a token costs in it, by class of weights and by kind of layer.

use super::{Heads, Layer, Model, Span};
use serde::Serialize;

/// Weights of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassSize {
    /// Its name, as under `[precision]`; `mtp` for multi-token-prediction modules, which count in no total.
    pub class: &'static str,
    /// Parameters.
    pub parameters: u64,
    /// Of these, what works on one token; of the embedding its one row.
    pub active: u64,
    /// Bits a parameter.
    pub bits: f64,
    /// Bytes that are stored.
    pub bytes: u64,
}

/// Layers whose attention is alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KvKind {
    /// How many layers.
    pub layers: u64,
    /// Which tokens are attended to: `full`, `window:TOKENS`, `chunk:TOKENS`.
    pub span: String,
    /// The projections: `gqa 96/8 x 128` (query heads, KV heads, elements) or `mla 128 x (512 + 64)`.
    pub heads: String,
    /// Bytes of KV a token in one of the layers.
    pub bytes_per_token: u64,
}

/// What `moesim model info` says of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Where the sizes were published.
    pub source: String,
    /// Decoder layers, and how many of them have experts.
    pub layers: usize,
    /// Of these, layers with experts.
    pub moe_layers: usize,
    /// The most positions of a sequence, if the file says.
    pub context: Option<u32>,
    /// All parameters, embedding and head included (a table that is both counts once), MTP modules not.
    pub total: u64,
    /// Parameters of layers that work on one token.
    pub active_without_embeddings: u64,
    /// Parameters of the embedding and the head.
    pub embeddings: u64,
    /// Weights by class.
    pub classes: Vec<ClassSize>,
    /// Bytes of all weights that are stored, MTP modules included.
    pub weight_bytes: u64,
    /// FLOP of the weights that a token passes, the head included: two a parameter.
    pub flop_per_token: f64,
    /// FLOP that each attended token adds, over all layers: products of queries with keys and of weights with values;
    /// latent attention (MLA) absorbed, as in decode. A layer with a window or chunks attends to no more than that.
    pub flop_per_attended_token: f64,
    /// Bytes of KV that a token adds, over all layers.
    pub kv_bytes_per_token: u64,
    /// The same by kind of layer.
    pub kv: Vec<KvKind>,
}

impl Model {
    /// What the model has and what a token costs.
    pub fn facts(&self) -> Facts {
        let classes = self.classes();
        let sum = |of: &dyn Fn(&ClassSize) -> u64, names: &[&str]| -> u64 {
            classes.iter().filter(|c| names.contains(&c.class)).map(of).sum()
        };
        let inside = ["attention", "router", "experts", "shared", "dense"];
        let embeddings = sum(&|c| c.parameters, &["embedding", "head"]);
        let active = sum(&|c| c.active, &inside);
        let head = u64::from(self.vocabulary) * u64::from(self.hidden);
        Facts {
            name: self.name.clone(),
            source: self.source.clone(),
            layers: self.decoder.len(),
            moe_layers: self.moe_layers().len(),
            context: self.context,
            total: sum(&|c| c.parameters, &inside) + embeddings,
            active_without_embeddings: active,
            embeddings,
            weight_bytes: classes.iter().map(|c| c.bytes).sum(),
            flop_per_token: 2.0 * (active + head) as f64,
            flop_per_attended_token: self.decoder.iter().map(attended).sum(),
            kv_bytes_per_token: (0..self.decoder.len()).map(|l| self.kv_bytes_per_token(l)).sum(),
            kv: self.kv_kinds(),
            classes,
        }
    }
    /// Weights by class, those that are there.
    fn classes(&self) -> Vec<ClassSize> {
        let h = self.hidden;
        let layers = || self.encoder.iter().chain(&self.decoder);
        let over = |of: &dyn Fn(&Layer) -> u64| layers().map(of).sum::<u64>();
        let of_attention = |l: &Layer, active: bool| {
            let all = [Some(&l.attention), l.cross.as_ref()];
            let one =
                |a| if active { super::Attention::active_parameters(a, h) } else { super::Attention::parameters(a, h) };
            all.into_iter().flatten().map(one).sum::<u64>()
        };
        let shared = |l: &Layer| l.moe().map_or(0, |m| m.shared_parameters(h));
        let router = |l: &Layer| l.moe().map_or(0, |m| m.router_parameters(h));
        let of_layer = |l: &Layer, active: bool| {
            let (all, works) = l.parameters(h);
            u64::try_from(if active { works } else { all }).unwrap_or(u64::MAX)
        };
        let experts = |l: &Layer, active: bool| {
            let rest = of_attention(l, active) + shared(l) + router(l);
            l.moe().map_or(0, |_| of_layer(l, active).saturating_sub(rest))
        };
        let dense = |l: &Layer| if l.moe().is_some() { 0 } else { of_layer(l, false) - of_attention(l, false) };
        let table = u64::from(self.vocabulary) * u64::from(h);
        let expert_bytes = |l: &Layer| {
            let each = |m: &super::Moe| (0..m.experts).map(|e| l.expert_weight_bytes(self, e)).sum::<u64>();
            l.moe()
                .map_or(0, |m| each(m) + u64::from(m.groups) * l.group_weight_bytes(self) + l.base_weight_bytes(self))
        };
        let p = &self.precision;
        let mut all = vec![
            (
                "attention",
                over(&|l| of_attention(l, false)),
                over(&|l| of_attention(l, true)),
                p.attention,
                over(&|l| l.attention_weight_bytes(self)),
            ),
            ("router", over(&router), over(&router), p.router, over(&|l| l.router_weight_bytes(self))),
            ("experts", over(&|l| experts(l, false)), over(&|l| experts(l, true)), p.experts, over(&expert_bytes)),
            ("shared", over(&shared), over(&shared), p.shared, over(&|l| l.shared_weight_bytes(self))),
            ("dense", over(&dense), over(&dense), p.dense, over(&|l| l.dense_weight_bytes(self))),
            ("embedding", table, h.into(), p.embedding, self.embedding_bytes()),
        ];
        if !self.tied_embedding {
            all.push(("head", table, table, p.head, self.head_bytes()));
        }
        if let Some(last) = self.decoder.last().filter(|_| self.mtp_layers > 0) {
            let n = u64::from(self.mtp_layers);
            let projection = 2 * u64::from(h) * u64::from(h);
            let layer = last.attention_weight_bytes(self)
                + last.router_weight_bytes(self)
                + expert_bytes(last)
                + last.shared_weight_bytes(self)
                + last.dense_weight_bytes(self);
            let bytes = n * (layer + self.mtp_projection_bytes());
            let parameters = n * (of_layer(last, false) + projection);
            let bits = 8.0 * bytes as f64 / parameters as f64;
            all.push(("mtp", parameters, n * (of_layer(last, true) + projection), bits, bytes));
        }
        let size = |(class, parameters, active, bits, bytes)| ClassSize { class, parameters, active, bits, bytes };
        all.into_iter().filter(|c| c.1 > 0).map(size).collect()
    }
    fn kv_kinds(&self) -> Vec<KvKind> {
        let mut kinds: Vec<(Span, Heads, KvKind)> = Vec::new();
        for (l, layer) in self.decoder.iter().enumerate() {
            let a = &layer.attention;
            match kinds.iter_mut().find(|k| k.0 == a.span && k.1 == a.heads) {
                Some(k) => k.2.layers += 1,
                None => {
                    let span = match a.span {
                        Span::Full => "full".into(),
                        Span::Window(n) => format!("window:{n}"),
                        Span::Chunk(n) => format!("chunk:{n}"),
                        Span::Cross => "cross".into(),
                    };
                    let heads = match a.heads {
                        Heads::Gqa { heads, kv_heads, head_dim } => format!("gqa {heads}/{kv_heads} x {head_dim}"),
                        Heads::Mla { heads, kv_rank, rope_dim, .. } => {
                            format!("mla {heads} x ({kv_rank} + {rope_dim})")
                        }
                    };
                    let kind = KvKind { layers: 1, span, heads, bytes_per_token: self.kv_bytes_per_token(l) };
                    kinds.push((a.span, a.heads, kind));
                }
            }
        }
        kinds.into_iter().map(|k| k.2).collect()
    }
}

/// FLOP of one attended token in one layer.
fn attended(layer: &Layer) -> f64 {
    let a = &layer.attention;
    // Queries of every expert of attention that a token takes.
    let times = f64::from(if a.experts > 0 { a.top_k } else { 1 });
    match a.heads {
        Heads::Gqa { heads, head_dim, .. } => 4.0 * times * f64::from(heads) * f64::from(head_dim),
        Heads::Mla { heads, kv_rank, rope_dim, .. } => {
            2.0 * f64::from(heads) * (2.0 * f64::from(kv_rank) + f64::from(rope_dim))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Model, presets};

    #[test]
    fn classes_add_up_to_the_model() {
        for preset in presets() {
            let m = Model::load(preset.name).unwrap();
            let f = m.facts();
            let mtp = f.classes.iter().find(|c| c.class == "mtp").map_or(0, |c| c.parameters);
            assert_eq!(f.total + if m.published.total_has_mtp { mtp } else { 0 }, m.total_parameters(), "{}", m.name);
            let tables = u64::from(m.published.active_has_embedding) + u64::from(m.published.active_has_head);
            let tables = if m.tied_embedding { tables.min(1) } else { tables };
            let table = u64::from(m.hidden) * u64::from(m.vocabulary);
            // Means over classes of experts are rounded layer by layer.
            let active = f.active_without_embeddings + tables * table;
            assert!(active.abs_diff(m.active_parameters()) <= 1000, "{}", m.name);
            assert_eq!(f.kv.iter().map(|k| k.layers * k.bytes_per_token).sum::<u64>(), f.kv_bytes_per_token);
        }
    }

    #[test]
    fn a_token_of_mixtral() {
        let f = Model::load("mixtral-8x7b").unwrap().facts();
        let attention = 2 * 4096 * (4096 + 1024);
        let layer = attention + 8 * 4096 + 2 * 3 * 4096 * 14336;
        assert_eq!(f.active_without_embeddings, 32 * layer);
        assert_eq!(f.flop_per_token, 2.0 * (32 * layer + 32000 * 4096) as f64);
        assert_eq!(f.flop_per_attended_token, 32.0 * 4.0 * 4096.0);
        assert_eq!((f.kv_bytes_per_token, f.kv.len()), (32 * 2 * 1024 * 2, 1));
        let experts = f.classes.iter().find(|c| c.class == "experts").unwrap();
        assert_eq!((experts.parameters, experts.bytes), (32 * 8 * 3 * 4096 * 14336, 2 * 32 * 8 * 3 * 4096 * 14336));
    }
}
