//! The model file: compact TOML, checked and expanded into a [`Model`].

use super::{Attention, Heads, Layer, Mlp, Model, Moe, Precision, Published, Span, preset_text, presets};
use moesim_core::diag::unknown;
use moesim_core::{Diag, Result, config};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::Read;

/// A model file: a stack of layers that are alike, and which of them differ. `base = "PRESET"` at the top takes all else
/// from that preset.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// A preset from which this file states the differences.
    pub base: Option<String>,
    /// The model's name.
    pub name: String,
    /// Where the sizes were published.
    pub source: String,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Rows of the embedding.
    pub vocabulary: u32,
    /// The output head is the embedding.
    #[serde(default)]
    pub tied_embedding: bool,
    /// Multi-token-prediction modules.
    #[serde(default)]
    pub mtp_layers: u32,
    /// The decoder.
    pub decoder: Stack,
    /// The encoder of an encoder-decoder model.
    pub encoder: Option<Stack>,
    /// Bits per stored element.
    pub precision: Precision,
    /// The published parameter counts.
    pub published: Published,
}

/// A stack of layers. Layer `l` is MoE if `l % moe_every == moe_offset` and it is not listed in `dense_layers`.
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
    /// The feed-forward part of MoE layers.
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
const WIDTH: u32 = 1 << 20;
const HEADS: u32 = 1 << 16;
const VOCABULARY: u32 = 1 << 24;
const LAYERS: u32 = 4096;
const EXPERTS: u32 = 65_534; // 0xFFFF marks a missing selection in traces.
const PARAMETERS: u128 = 1 << 50;
const FILE_BYTES: u64 = 4 << 20;

impl Model {
    /// Loads a preset by name, or a model file by path (anything with a `/` or ending in `.toml`).
    pub fn load(name_or_path: &str) -> Result<Self> {
        if let Some(text) = preset_text(name_or_path) {
            return Self::from_text(text, name_or_path);
        }
        if !name_or_path.ends_with(".toml") && !name_or_path.contains('/') {
            let names: Vec<&str> = presets().iter().map(|p| p.name).collect();
            let d = unknown("model preset", name_or_path, &names);
            let cure = format!("{}; or give the path of a .toml file", d.cure);
            return Err(d.cure(cure));
        }
        let mut text = String::new();
        let file = std::fs::File::open(name_or_path).map_err(|e| Diag::cannot_read(name_or_path, &e))?;
        file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(|e| Diag::cannot_read(name_or_path, &e))?;
        if text.len() as u64 > FILE_BYTES {
            return Err(Diag::input("is larger than 4 MiB").file(name_or_path).cure("give a model file"));
        }
        Self::from_text(&text, name_or_path)
    }
    /// Resolves a model file already read as a table, which came from `label`.
    pub fn from_table(table: toml::Table, label: &str) -> Result<Self> {
        let file: ModelFile = config::from_table(with_base(table, label)?, label)?;
        file.resolve().map_err(|d| d.file(label))
    }
    fn from_text(text: &str, label: &str) -> Result<Self> {
        let table = config::table(text, label)?;
        if table.contains_key("base") {
            return Self::from_table(table, label);
        }
        // Straight from the text, so that messages have line and column.
        config::from_toml::<ModelFile>(text, label)?.resolve().map_err(|d| d.file(label))
    }
}

/// Puts a file's own keys over those of its base.
fn with_base(mut table: toml::Table, label: &str) -> Result<toml::Table> {
    let Some(base) = table.remove("base") else { return Ok(table) };
    let names: Vec<&str> = presets().iter().map(|p| p.name).collect();
    let name = base.as_str().unwrap_or_default();
    let text = preset_text(name).ok_or_else(|| unknown("model preset", name, &names).file(label).place("base"))?;
    let mut merged = with_base(config::table(text, name)?, name)?;
    merge(&mut merged, table);
    Ok(merged)
}

fn merge(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(u)), toml::Value::Table(o)) => merge(u, o),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

impl ModelFile {
    /// Checks every size and expands the stacks.
    fn resolve(self) -> Result<Model> {
        within("hidden", self.hidden, WIDTH)?;
        within("vocabulary", self.vocabulary, VOCABULARY)?;
        if self.mtp_layers > 16 {
            return Err(wrong("mtp_layers", format!("{} MTP modules", self.mtp_layers), "at most 16"));
        }
        let p = &self.precision;
        for (key, bits) in [
            ("attention", p.attention),
            ("router", p.router),
            ("experts", p.experts),
            ("shared", p.shared),
            ("dense", p.dense),
            ("embedding", p.embedding),
            ("head", p.head),
            ("kv", p.kv),
            ("activation", p.activation),
        ] {
            if !(bits > 0.0 && bits <= 64.0) {
                return Err(wrong(&format!("precision.{key}"), format!("{bits} bits"), "above 0 and at most 64"));
            }
        }
        let encoder = self.encoder.as_ref().map_or(Ok(vec![]), |s| s.expand("encoder"))?;
        let model = Model {
            name: self.name,
            source: self.source,
            hidden: self.hidden,
            vocabulary: self.vocabulary,
            tied_embedding: self.tied_embedding,
            decoder: self.decoder.expand("decoder")?,
            encoder,
            mtp_layers: self.mtp_layers,
            precision: self.precision,
            published: self.published,
        };
        if model.stored_parameters() > PARAMETERS {
            let problem = format!("the sizes multiply to {} parameters", model.stored_parameters());
            return Err(wrong("decoder", problem, "at most 2^50 in all"));
        }
        Ok(model)
    }
}

impl Stack {
    fn expand(&self, at: &str) -> Result<Vec<Layer>> {
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
        let is_moe = |l: u32| l % self.moe_every == self.moe_offset && !self.dense_layers.contains(&l);
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
        if self.pattern.is_empty() {
            return Err(wrong(&format!("{at}.pattern"), "an empty list".into(), "at least one span, as in [\"full\"]"));
        }
        let block = |text: &String| {
            let span = parse_span(text).ok_or_else(|| {
                let rule = "\"full\", \"window:TOKENS\", \"chunk:TOKENS\" or \"cross\", with 1 to 2^30 tokens";
                wrong(&format!("{at}.pattern"), format!("\"{text}\""), rule)
            })?;
            Ok(Attention { span, heads: self.heads, bias: self.bias })
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
    within(&key("top_k"), moe.top_k, moe.experts)?;
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

fn within(key: &str, value: u32, most: u32) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(wrong(key, value.to_string(), &format!("from 1 to {most}")))
}

fn wrong(key: &str, problem: String, rule: &str) -> Diag {
    Diag::input(format!("{problem} is out of range")).place(key).cure(format!("give {rule}"))
}
