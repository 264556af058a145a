//! The model file: compact TOML, checked and expanded into a [`Model`].

use super::stack::{LAYERS, Stack, VOCABULARY, WIDTH};
use super::{Model, Precision, Published, preset_text, presets};
use moesim_core::diag::unknown;
use moesim_core::{Diag, Result, config, input};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::Read;

/// A model file: a stack of layers that are alike, and which of them differ. `base = "PRESET"` at the top takes all else
/// from that preset.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = whole_or_based)]
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
    /// The most positions that a sequence may have, prompt and output together. Without it there is no limit.
    pub context: Option<u32>,
    /// The output head is the embedding.
    #[serde(default)]
    pub tied_embedding: bool,
    /// Multi-token-prediction modules.
    #[serde(default)]
    pub mtp_layers: u32,
    /// The decoder, or the first of its stacks.
    pub decoder: Stack,
    /// Stacks that follow it, in order, where layers differ in more than one rule can say: in experts, top_k, widths,
    /// attention. Layers are counted from 0 within each. A trace has one number of experts, the largest of all layers'
    /// ids, and ids of a layer are below its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decoder_stack: Vec<Stack>,
    /// The encoder of an encoder-decoder model.
    pub encoder: Option<Stack>,
    /// Bits per stored element.
    pub precision: Precision,
    /// The published parameter counts.
    pub published: Published,
}

/// Either the whole file, or a base and any of its keys: what a file with a base leaves out, the base has.
fn whole_or_based(schema: &mut schemars::Schema) {
    let keys: Vec<String> =
        schema.get("properties").and_then(|p| p.as_object()).into_iter().flatten().map(|(k, _)| k.clone()).collect();
    let based = schemars::json_schema!({
        "type": "object",
        "properties": { "base": { "type": "string" } },
        "required": ["base"],
        "propertyNames": { "enum": keys },
    });
    let whole = std::mem::replace(schema, schemars::json_schema!({}));
    *schema = schemars::json_schema!({ "anyOf": [whole, based] });
}

/// All parameters, so that every sum of bytes is exact in f64.
const PARAMETERS: u128 = 1 << 50;
/// Positions of a sequence.
const CONTEXT: u32 = 1 << 30;
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
        let mut bytes = Vec::new();
        let file = input::open(name_or_path)?;
        file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Diag::cannot_read(name_or_path, &e))?;
        let wrong = |problem: &str| Diag::input(problem).file(name_or_path).cure("give a model file");
        if bytes.len() as u64 > FILE_BYTES {
            return Err(wrong("is larger than 4 MiB"));
        }
        let text = String::from_utf8(bytes)
            .map_err(|e| wrong("is not UTF-8 text").place(format!("byte {}", e.utf8_error().valid_up_to())))?;
        Self::from_text(&text, name_or_path)
    }
    /// Resolves a model file already read as a table, which came from `label`.
    pub fn from_table(table: toml::Table, label: &str) -> Result<Self> {
        let file = with_base(table, label).and_then(|t| config::from_table::<ModelFile>(t, label)).map_err(example)?;
        file.resolve().map_err(|d| d.file(label))
    }
    fn from_text(text: &str, label: &str) -> Result<Self> {
        let table = config::table(text, label).map_err(example)?;
        if table.contains_key("base") {
            return Self::from_table(table, label);
        }
        // Straight from the text, so that messages have line and column.
        config::from_toml::<ModelFile>(text, label).map_err(example)?.resolve().map_err(|d| d.file(label))
    }
}

/// Where the TOML reader has no cure, an example is one.
fn example(d: Diag) -> Diag {
    if d.cure.is_empty() { d.cure("compare it with a preset, as `moesim show mixtral-8x7b` prints it") } else { d }
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
    pub(super) fn resolve(self) -> Result<Model> {
        within("hidden", self.hidden, WIDTH)?;
        within("vocabulary", self.vocabulary, VOCABULARY)?;
        within("context", self.context.unwrap_or(1), CONTEXT)?;
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
            ("gemm_input", p.gemm_input.unwrap_or(16.0)),
        ] {
            // The least that is published is 0.8 bits (QMoE, arXiv 2310.16795).
            if !(0.1..=64.0).contains(&bits) {
                return Err(wrong(&format!("precision.{key}"), format!("{bits} bits"), "from 0.1 to 64"));
            }
        }
        let encoder = self.encoder.as_ref().map_or(Ok(vec![]), |s| s.expand("encoder"))?;
        let mut decoder = self.decoder.expand("decoder")?;
        for (i, stack) in self.decoder_stack.iter().enumerate() {
            let layers = decoder.len() as u64 + u64::from(stack.layers);
            if layers > u64::from(LAYERS) {
                return Err(wrong(
                    "decoder_stack",
                    format!("{layers} layers"),
                    &format!("at most {LAYERS} in all stacks"),
                ));
            }
            decoder.extend(stack.expand(&format!("decoder_stack[{i}]"))?);
        }
        let model = Model {
            name: self.name,
            source: self.source,
            hidden: self.hidden,
            vocabulary: self.vocabulary,
            context: self.context,
            tied_embedding: self.tied_embedding,
            decoder,
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

pub(super) fn within(key: &str, value: u32, most: u32) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(wrong(key, value.to_string(), &format!("from 1 to {most}")))
}

pub(super) fn wrong(key: &str, problem: String, rule: &str) -> Diag {
    Diag::input(format!("{problem} is out of range")).place(key).cure(format!("give {rule}"))
}
