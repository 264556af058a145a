//! Model files from Hugging Face configurations (`config.json`).
//!
//! Field names are those of the `transformers` library's configuration classes for each `model_type`. What a
//! configuration leaves out has that class's default; what this model format cannot express is refused.

use super::stack::{AttentionSpec, Dense, Stack};
use super::{Heads, ModelFile, Moe, Precision, Published};
use crate::json;
use moesim_core::diag::unknown;
use moesim_core::{Diag, Result, config, input};
use serde::Deserialize;
use std::path::Path;

/// The fields that size a model, of all families; every one may be absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    model_type: Option<String>,
    text_config: Option<Box<Config>>,
    #[serde(alias = "d_model")]
    hidden_size: Option<u32>,
    #[serde(alias = "n_layers")]
    num_hidden_layers: Option<u32>,
    #[serde(alias = "n_heads")]
    num_attention_heads: Option<u32>,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    vocab_size: Option<u32>,
    intermediate_size: Option<u32>,
    intermediate_size_mlp: Option<u32>,
    moe_intermediate_size: Option<u32>,
    shared_expert_intermediate_size: Option<u32>,
    // Spellings that stand beside each other in one file, as in gpt-oss's: fields of their own, not aliases.
    num_local_experts: Option<u32>,
    num_experts: Option<u32>,
    n_routed_experts: Option<u32>,
    num_experts_per_tok: Option<u32>,
    experts_per_token: Option<u32>,
    n_shared_experts: Option<u32>,
    first_k_dense_replace: Option<u32>,
    moe_layer_freq: Option<u32>,
    decoder_sparse_step: Option<u32>,
    mlp_only_layers: Option<Vec<u32>>,
    interleave_moe_layer_step: Option<u32>,
    attention_chunk_size: Option<u32>,
    no_rope_layers: Option<Vec<u32>>,
    no_rope_layer_interval: Option<u32>,
    q_lora_rank: Option<u32>,
    kv_lora_rank: Option<u32>,
    qk_nope_head_dim: Option<u32>,
    qk_rope_head_dim: Option<u32>,
    v_head_dim: Option<u32>,
    num_nextn_predict_layers: Option<u32>,
    sliding_window: Option<u32>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<u32>,
    layer_types: Option<Vec<String>>,
    attention_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    torch_dtype: Option<String>,
    dtype: Option<String>,
    quantization_config: Option<Quantization>,
    attn_config: Option<DbrxAttention>,
    ffn_config: Option<DbrxFfn>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Quantization {
    quant_method: Option<String>,
    bits: Option<f64>,
    group_size: Option<f64>,
    weight_block_size: Option<Vec<f64>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DbrxAttention {
    kv_n_heads: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DbrxFfn {
    ffn_hidden_size: Option<u32>,
    moe_num_experts: Option<u32>,
    moe_top_k: Option<u32>,
}

const FAMILIES: [&str; 11] = [
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "deepseek_v2",
    "deepseek_v3",
    "kimi_k2",
    "llama4",
    "llama4_text",
    "gpt_oss",
    "olmoe",
    "phimoe",
];
const FILE_BYTES: u64 = 4 << 20;

/// Reads a `config.json` and writes the model file that describes the same architecture, as TOML. `name` names it; by
/// default the name of the folder that the configuration lies in.
///
/// # Errors
/// A file that is no configuration, a family that is not known, or an architecture that this format cannot express.
pub fn import_config(path: &Path, name: Option<&str>) -> Result<String> {
    let bytes = read(path)?;
    let whole: Config = serde_json::from_slice(&bytes).map_err(|e| {
        json::broken("configuration", &e).file(path).cure("give the config.json of a Hugging Face model")
    })?;
    let folder = path.parent().and_then(Path::file_name).map(|n| n.to_string_lossy().to_lowercase());
    let name = name.map(str::to_string).or(folder).filter(|n| !n.is_empty()).unwrap_or_else(|| "imported".into());
    let file = convert(&whole, name).map_err(|d| d.file(path))?;
    let text = config::to_toml(&file)?;
    // Whatever the configuration says must also be a valid model.
    super::Model::from_table(config::table(&text, "config.json")?, &path.display().to_string())?;
    Ok(text)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = input::open(path)?;
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Diag::cannot_read(path, &e))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(Diag::input("is larger than 4 MiB").file(path).cure("give the config.json of a model"));
    }
    Ok(bytes)
}

/// The value of a key with several spellings, which must agree.
fn one<const N: usize>(spellings: [(&str, Option<u32>); N]) -> Result<Option<u32>> {
    let mut given = spellings.into_iter().filter_map(|(name, value)| value.map(|v| (name, v)));
    let Some((name, value)) = given.next() else { return Ok(None) };
    match given.find(|(_, other)| *other != value) {
        None => Ok(Some(value)),
        Some((other, differs)) => Err(Diag::input(format!("says {name} {value}, but {other} {differs}"))
            .place(other)
            .cure("keep the one that is right")),
    }
}

fn need<T>(value: Option<T>, key: &str) -> Result<T> {
    value.ok_or_else(|| {
        Diag::input(format!("`{key}` is missing")).place(key).cure("add it, as the model's own configuration has it")
    })
}

fn convert(whole: &Config, name: String) -> Result<ModelFile> {
    // Multimodal models wrap the language model.
    let c = whole.text_config.as_deref().unwrap_or(whole);
    let family = need(c.model_type.as_deref().or(whole.model_type.as_deref()), "model_type")?;
    if family == "dbrx" {
        return dbrx(c, name);
    }
    if !FAMILIES.contains(&family) {
        let known: Vec<&str> = FAMILIES.iter().copied().chain(["dbrx"]).collect();
        return Err(unknown("family of MoE models that is imported", family, &known).place("model_type"));
    }
    let layers = need(c.num_hidden_layers, "num_hidden_layers")?;
    let heads = need(c.num_attention_heads, "num_attention_heads")?;
    let hidden = need(c.hidden_size, "hidden_size")?;
    let heads = match c.kv_lora_rank {
        Some(kv_rank) => Heads::Mla {
            heads,
            q_rank: c.q_lora_rank,
            kv_rank,
            nope_dim: need(c.qk_nope_head_dim, "qk_nope_head_dim")?,
            rope_dim: need(c.qk_rope_head_dim, "qk_rope_head_dim")?,
            v_dim: need(c.v_head_dim, "v_head_dim")?,
        },
        None => Heads::Gqa {
            heads,
            kv_heads: c.num_key_value_heads.unwrap_or(heads),
            head_dim: c.head_dim.unwrap_or(hidden / heads.max(1)),
        },
    };
    let bias = c.attention_bias.unwrap_or(matches!(family, "qwen2_moe" | "gpt_oss"));
    let attention = AttentionSpec { heads, pattern: pattern(c, family, layers)?, bias, experts: 0, top_k: 0 };
    let (moe, dense_width) = experts(c, family)?;
    let (every, offset, dense_layers) = moe_layers(c, family, layers)?;
    let dense = dense_width.map(|intermediate| Dense { intermediate, matrices: 3 });
    let decoder = Stack {
        layers,
        dense_layers,
        moe_every: every,
        moe_offset: offset,
        attention,
        cross: None,
        dense,
        moe: Some(moe),
    };
    file(whole, c, name, hidden, decoder)
}

/// The MoE block, and the width of dense layers.
fn experts(c: &Config, family: &str) -> Result<(Moe, Option<u32>)> {
    let width = c.intermediate_size;
    let moe_width = || need(c.moe_intermediate_size, "moe_intermediate_size");
    let own = || need(width, "intermediate_size");
    let (expert_intermediate, dense, shared_experts, shared_intermediate) = match family {
        "qwen2_moe" => {
            (moe_width()?, width, 1, need(c.shared_expert_intermediate_size, "shared_expert_intermediate_size")?)
        }
        "qwen3_moe" => (moe_width()?, width, 0, 0),
        "deepseek_v2" | "deepseek_v3" | "kimi_k2" => {
            let shared = c.n_shared_experts.unwrap_or(0);
            (moe_width()?, width, shared, if shared > 0 { moe_width()? } else { 0 })
        }
        // One shared expert as wide as a routed one beside the routed experts.
        "llama4" | "llama4_text" => (own()?, c.intermediate_size_mlp, 1, own()?),
        _ => (own()?, None, 0, 0),
    };
    let moe = Moe {
        experts: need(
            one([
                ("num_local_experts", c.num_local_experts),
                ("num_experts", c.num_experts),
                ("n_routed_experts", c.n_routed_experts),
            ])?,
            "num_local_experts",
        )?,
        top_k: need(
            one([("num_experts_per_tok", c.num_experts_per_tok), ("experts_per_token", c.experts_per_token)])?,
            "num_experts_per_tok",
        )?,
        expert_intermediate,
        matrices: 3,
        shared_experts,
        shared_intermediate,
        bias: family == "gpt_oss",
        ..Moe::default()
    };
    Ok((moe, dense))
}

/// Every so manieth layer is MoE, from which one on, and exceptions.
fn moe_layers(c: &Config, family: &str, layers: u32) -> Result<(u32, u32, Vec<u32>)> {
    Ok(match family {
        "qwen2_moe" | "qwen3_moe" => {
            // Layer l is sparse if (l + 1) % step == 0 and it is not listed.
            let step = c.decoder_sparse_step.unwrap_or(1).max(1);
            (step, step - 1, c.mlp_only_layers.clone().unwrap_or_default())
        }
        "deepseek_v2" | "deepseek_v3" | "kimi_k2" => {
            let first = c.first_k_dense_replace.unwrap_or(0).min(layers);
            (c.moe_layer_freq.unwrap_or(1).max(1), 0, (0..first).collect())
        }
        "llama4" | "llama4_text" => {
            let step = c.interleave_moe_layer_step.unwrap_or(1).max(1);
            (step, step - 1, Vec::new())
        }
        _ => (1, 0, Vec::new()),
    })
}

/// The attention spans, as short a pattern as repeats.
fn pattern(c: &Config, family: &str, layers: u32) -> Result<Vec<String>> {
    let full = "full".to_string();
    // Lengths beyond what a model may have are refused when the file is checked.
    let layers = layers.min(4096);
    let all: Vec<String> = if let Some(types) = &c.layer_types {
        let span = |t: &String| match t.as_str() {
            "full_attention" => Ok(full.clone()),
            "sliding_attention" => need(c.sliding_window, "sliding_window").map(|w| format!("window:{w}")),
            "chunked_attention" => need(c.attention_chunk_size, "attention_chunk_size").map(|w| format!("chunk:{w}")),
            other => Err(Diag::input(format!("layer type \"{other}\" cannot be expressed"))
                .place("layer_types")
                .cure("full_attention, sliding_attention and chunked_attention can")),
        };
        types.iter().map(span).collect::<Result<_>>()?
    } else if matches!(family, "llama4" | "llama4_text") {
        let chunk = format!("chunk:{}", c.attention_chunk_size.unwrap_or(8192));
        let every = c.no_rope_layer_interval.unwrap_or(4).max(1);
        // 1: rotary positions within a chunk; 0: no positions, full attention.
        let rope = |l: u32| match c.no_rope_layers.as_deref() {
            Some(list) if !list.is_empty() => list.get(l as usize).is_none_or(|&r| r != 0),
            _ => !(l + 1).is_multiple_of(every),
        };
        (0..layers).map(|l| if rope(l) { chunk.clone() } else { full.clone() }).collect()
    } else if family == "gpt_oss" {
        let window = format!("window:{}", c.sliding_window.unwrap_or(128));
        (0..layers).map(|l| if l % 2 == 0 { window.clone() } else { full.clone() }).collect()
    } else {
        let slides = match family {
            "qwen2_moe" | "qwen3_moe" => c.use_sliding_window.unwrap_or(false),
            // The window of Phi-3.5-MoE equals its context: full attention.
            "phimoe" => false,
            _ => c.sliding_window.is_some(),
        };
        let from = if family.starts_with("qwen") { c.max_window_layers.unwrap_or(0) } else { 0 };
        match c.sliding_window.filter(|_| slides) {
            Some(w) => (0..layers).map(|l| if l >= from { format!("window:{w}") } else { full.clone() }).collect(),
            None => vec![full],
        }
    };
    let period = (1..=all.len()).find(|p| all.iter().zip(all.iter().skip(*p)).all(|(a, b)| a == b));
    Ok(all[..period.unwrap_or(all.len())].to_vec())
}

fn dbrx(c: &Config, name: String) -> Result<ModelFile> {
    let hidden = need(c.hidden_size, "d_model")?;
    let heads = need(c.num_attention_heads, "n_heads")?;
    let attention = c.attn_config.clone().unwrap_or_default();
    let ffn = need(c.ffn_config.clone(), "ffn_config")?;
    let heads = Heads::Gqa { heads, kv_heads: attention.kv_n_heads.unwrap_or(heads), head_dim: hidden / heads.max(1) };
    let moe = Moe {
        experts: need(ffn.moe_num_experts, "ffn_config.moe_num_experts")?,
        top_k: need(ffn.moe_top_k, "ffn_config.moe_top_k")?,
        expert_intermediate: need(ffn.ffn_hidden_size, "ffn_config.ffn_hidden_size")?,
        matrices: 3,
        ..Moe::default()
    };
    let decoder = Stack {
        layers: need(c.num_hidden_layers, "n_layers")?,
        dense_layers: Vec::new(),
        moe_every: 1,
        moe_offset: 0,
        attention: AttentionSpec { heads, pattern: vec!["full".into()], bias: false, experts: 0, top_k: 0 },
        cross: None,
        dense: None,
        moe: Some(moe),
    };
    file(c, c, name, hidden, decoder)
}

fn file(whole: &Config, c: &Config, name: String, hidden: u32, decoder: Stack) -> Result<ModelFile> {
    Ok(ModelFile {
        base: None,
        source: format!("config.json of {name}"),
        name,
        hidden,
        vocabulary: need(c.vocab_size, "vocab_size")?,
        tied_embedding: c.tie_word_embeddings.or(whole.tie_word_embeddings).unwrap_or(false),
        mtp_layers: c.num_nextn_predict_layers.unwrap_or(0),
        decoder,
        decoder_stack: Vec::new(),
        encoder: None,
        precision: precision(whole, c)?,
        published: Published::default(),
    })
}

/// Bits per element from the element type and the quantisation.
fn precision(whole: &Config, c: &Config) -> Result<Precision> {
    let dtype = [&c.torch_dtype, &c.dtype, &whole.torch_dtype, &whole.dtype]
        .into_iter()
        .find_map(|d| d.as_deref())
        .unwrap_or("bfloat16");
    let plain = match dtype {
        "float32" => 32.0,
        "float16" | "bfloat16" => 16.0,
        d if d.starts_with("float8") => 8.0,
        other => return Err(unknown("element type", other, &["float32", "float16", "bfloat16"]).place("torch_dtype")),
    };
    let mut p = Precision {
        attention: plain,
        router: plain,
        experts: plain,
        shared: plain,
        dense: plain,
        embedding: plain,
        head: plain,
        kv: plain,
        activation: plain,
    };
    let Some(q) = c.quantization_config.as_ref().or(whole.quantization_config.as_ref()) else { return Ok(p) };
    let group = |bits: f64, scale: f64, elements: f64| bits + scale / elements.max(1.0);
    match q.quant_method.as_deref().unwrap_or_default() {
        // One 32-bit scale a block; without blocks one a tensor.
        "fp8" => {
            let block = q.weight_block_size.as_ref().map_or(f64::INFINITY, |b| b.iter().product());
            let bits = if block.is_finite() { group(8.0, 32.0, block) } else { 8.0 };
            (p.attention, p.experts, p.shared, p.dense) = (bits, bits, bits, bits);
        }
        // One 8-bit scale for 32 elements, experts only.
        "mxfp4" => p.experts = group(4.0, 8.0, 32.0),
        // A 16-bit scale and a zero point as wide as an element for each group.
        "awq" | "gptq" => {
            let bits = q.bits.unwrap_or(4.0);
            let each = group(bits, 16.0 + bits, q.group_size.filter(|g| *g > 0.0).unwrap_or(128.0));
            (p.attention, p.experts, p.shared, p.dense) = (each, each, each, each);
        }
        other => {
            return Err(unknown("quantisation that is imported", other, &["fp8", "mxfp4", "awq", "gptq"])
                .place("quantization_config.quant_method"));
        }
    }
    Ok(p)
}

#[cfg(test)]
mod tests;
