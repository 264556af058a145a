//! The matrices of a model under the names that checkpoints have for them, as quantisation lists name them.

use crate::model::{Heads, Layer, Mlp, Model, Precision};

/// A class of weights that has bits of its own in a model file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Attention,
    Router,
    Experts,
    Shared,
    Dense,
    Embedding,
    Head,
}

pub(super) const CLASSES: [Class; 7] =
    [Class::Attention, Class::Router, Class::Experts, Class::Shared, Class::Dense, Class::Embedding, Class::Head];

impl Class {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Router => "router",
            Self::Experts => "expert",
            Self::Shared => "shared expert",
            Self::Dense => "dense",
            Self::Embedding => "embedding",
            Self::Head => "head",
        }
    }
}

pub(super) fn bits(p: &Precision, class: Class) -> f64 {
    *bits_mut(&mut p.clone(), class)
}

pub(super) fn bits_mut(p: &mut Precision, class: Class) -> &mut f64 {
    match class {
        Class::Attention => &mut p.attention,
        Class::Router => &mut p.router,
        Class::Experts => &mut p.experts,
        Class::Shared => &mut p.shared,
        Class::Dense => &mut p.dense,
        Class::Embedding => &mut p.embedding,
        Class::Head => &mut p.head,
    }
}

/// Matrices of one kind, and every name that they may have; experts of a layer go by the name of the first.
pub(super) struct Module {
    pub class: Class,
    pub names: Vec<String>,
    pub parameters: f64,
    /// Weights of a row, which is those of one output.
    pub columns: f64,
}

const ATTENTION: &[&str] = &["self_attn", "attention", "self_attention", "attn"];
const MLP: &[&str] = &["mlp", "block_sparse_moe", "feed_forward", "ffn", "moe"];
const EXPERTS: &[&str] = &["experts.0", "experts", "switch_mlp", "switch_glu"];
const SHARED: &[&str] = &["shared_experts", "shared_expert", "shared_mlp", "share_expert"];
const GATE: &[&str] = &["gate_proj", "w1", "gate_up_proj", "linear_1"];
const UP: &[&str] = &["up_proj", "w3", "gate_up_proj", "linear_v"];
const DOWN: &[&str] = &["down_proj", "w2"];

/// All matrices. Spellings are the usual ones of `transformers`, and others that stand in `words`, the text of all
/// patterns.
pub(super) fn of(model: &Model, words: &str) -> Vec<Module> {
    let mut all = Namer { words, modules: Vec::new() };
    let hidden = model.hidden;
    for (l, layer) in model.decoder.iter().enumerate() {
        all.attention(l, layer, hidden);
        all.feed_forward(l, layer, hidden);
    }
    let table = f64::from(model.vocabulary) * f64::from(hidden);
    let mut add = |class, names: &[&str]| {
        let names = names.iter().map(|n| n.to_string()).collect();
        all.modules.push(Module { class, names, parameters: table, columns: hidden.into() });
    };
    add(Class::Embedding, &["model.embed_tokens", "model.word_embeddings", "model.embedding"]);
    if !model.tied_embedding {
        add(Class::Head, &["lm_head", "output", "head"]);
    }
    all.modules
}

struct Namer<'a> {
    words: &'a str,
    modules: Vec<Module>,
}

impl Namer<'_> {
    /// The first spelling, and those that some pattern has.
    fn spellings<'s>(&self, all: &'s [&'s str]) -> impl Iterator<Item = &'s str> {
        let last = |name: &'s str| name.split('.').next().unwrap_or(name);
        let used: Vec<&str> =
            (0..all.len()).filter(|i| *i == 0 || self.words.contains(last(all[*i]))).map(|i| all[i]).collect();
        used.into_iter()
    }
    /// `rows x columns` weights, `count` times, under each path that one part of each list makes.
    fn add(&mut self, class: Class, layer: usize, path: [&[&str]; 3], rows: u32, columns: u32, count: u32) {
        let parameters = f64::from(rows) * f64::from(columns) * f64::from(count);
        if parameters == 0.0 {
            return;
        }
        let mut names = vec![format!("model.layers.{layer}")];
        for part in path.into_iter().filter(|p| !p.is_empty()) {
            let spellings: Vec<&str> = self.spellings(part).collect();
            names = names.iter().flat_map(|n| spellings.iter().map(move |s| format!("{n}.{s}"))).collect();
        }
        self.modules.push(Module { class, names, parameters, columns: columns.into() });
    }
    fn attention(&mut self, l: usize, layer: &Layer, h: u32) {
        let a = &layer.attention;
        let times = a.experts.max(1);
        let mut add = |leaf: &[&str], rows: u32, columns: u32, count: u32| {
            self.add(Class::Attention, l, [ATTENTION, leaf, &[]], rows, columns, count);
        };
        match a.heads {
            Heads::Gqa { heads, kv_heads, head_dim } => {
                let (q, kv) = (heads.saturating_mul(head_dim), kv_heads.saturating_mul(head_dim));
                add(&["q_proj", "qkv_proj", "query_key_value", "wq"], q, h, times);
                add(&["k_proj", "qkv_proj", "query_key_value", "wk"], kv, h, 1);
                add(&["v_proj", "qkv_proj", "query_key_value", "wv"], kv, h, 1);
                add(&["o_proj", "dense", "out_proj", "wo"], h, q, times);
            }
            Heads::Mla { heads, q_rank, kv_rank, nope_dim, rope_dim, v_dim } => {
                let q = heads.saturating_mul(nope_dim.saturating_add(rope_dim));
                match q_rank {
                    Some(rank) => {
                        add(&["q_a_proj", "fused_qkv_a_proj_with_mqa"], rank, h, 1);
                        add(&["q_b_proj"], q, rank, 1);
                    }
                    None => add(&["q_proj"], q, h, 1),
                }
                add(&["kv_a_proj_with_mqa", "fused_qkv_a_proj_with_mqa"], kv_rank.saturating_add(rope_dim), h, 1);
                add(
                    &["kv_b_proj", "embed_q", "unembed_out"],
                    heads.saturating_mul(nope_dim.saturating_add(v_dim)),
                    kv_rank,
                    1,
                );
                add(&["o_proj"], h, heads.saturating_mul(v_dim), 1);
            }
        }
    }
    fn feed_forward(&mut self, l: usize, layer: &Layer, h: u32) {
        let mut three = |class: Class, inside: &[&str], width: u32, matrices: u32, count: u32| {
            if matrices == 3 {
                self.add(class, l, [MLP, inside, GATE], width, h, count);
            }
            self.add(class, l, [MLP, inside, UP], width, h, count);
            self.add(class, l, [MLP, inside, DOWN], h, width, count);
        };
        match &layer.mlp {
            Mlp::Dense { intermediate, matrices } => three(Class::Dense, &[], *intermediate, *matrices, 1),
            Mlp::Moe(m) => {
                three(Class::Experts, EXPERTS, m.expert_intermediate, m.matrices, m.experts);
                three(Class::Shared, SHARED, m.shared_intermediate, m.matrices, m.shared_experts);
                self.add(Class::Router, l, [MLP, &["gate", "router", "wg"], &[]], m.ids(), h, 1);
            }
        }
    }
}
