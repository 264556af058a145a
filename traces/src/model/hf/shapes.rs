//! What families have in common: projections, spans, which layers are MoE, how long a sequence may be.

use super::keys::Keys;
use crate::model::stack::{AttentionSpec, Dense, Stack};
use crate::model::{Heads, Moe, QkNorm};
use moesim_core::Result;

/// What a configuration says of an architecture.
pub(super) struct Architecture {
    pub hidden: u32,
    pub vocabulary: u32,
    /// Whether the output head is the embedding; `None`: the configuration around this one says, or else
    /// [`Architecture::tied_by_default`].
    pub tied: Option<bool>,
    /// What the family's class has where no key says.
    pub tied_by_default: bool,
    pub mtp: u32,
    pub decoder: Stack,
    /// What was read with a loss, or left out.
    pub notes: Vec<String>,
}

/// Layers beyond which every file is refused; lists are not made longer.
const LAYERS: u32 = 4096;

pub(super) fn layers(k: &Keys) -> Result<u32> {
    k.need(&["num_hidden_layers", "n_layers", "num_layers"])
}

/// Full, grouped or multi-query attention over all tokens.
pub(super) fn gqa(k: &Keys, bias: bool) -> Result<AttentionSpec> {
    let heads = k.need(&["num_attention_heads", "n_heads"])?;
    let kv_heads = k.any(&["num_key_value_heads", "kv_n_heads"])?.unwrap_or(heads);
    let head_dim = match k.any(&["head_dim", "attention_head_dim", "kv_channels"])? {
        Some(dim) => dim,
        None => hidden(k)? / heads.max(1),
    };
    Ok(attention(Heads::Gqa { heads, kv_heads, head_dim }, bias))
}

/// Latent attention, as in DeepSeek-V2.
pub(super) fn mla(k: &Keys) -> Result<AttentionSpec> {
    let heads = k.need(&["num_attention_heads"])?;
    // Keys and values come from the latent vector: there are as many heads of them as of queries.
    k.any(&["num_key_value_heads"])?;
    k.any(&["head_dim", "qk_head_dim"])?;
    let heads = Heads::Mla {
        heads,
        q_rank: k.u32("q_lora_rank")?.filter(|r| *r > 0),
        kv_rank: k.need(&["kv_lora_rank"])?,
        nope_dim: k.need(&["qk_nope_head_dim"])?,
        rope_dim: k.need(&["qk_rope_head_dim"])?,
        v_dim: k.need(&["v_head_dim"])?,
    };
    Ok(attention(heads, k.bool("attention_bias")?.unwrap_or(false)))
}

fn attention(heads: Heads, bias: bool) -> AttentionSpec {
    let (pattern, qk_norm) = (vec!["full".into()], QkNorm::None);
    AttentionSpec { heads, pattern, bias, qk_norm, experts: 0, top_k: 0 }
}

pub(super) fn hidden(k: &Keys) -> Result<u32> {
    k.need(&["hidden_size", "d_model"])
}

/// Norms of queries and keys of this kind if the configuration says so, or by `default` where it says nothing.
pub(super) fn normed(k: &Keys, kind: QkNorm, default: bool) -> Result<QkNorm> {
    Ok(if k.bool("use_qk_norm")?.unwrap_or(default) { kind } else { QkNorm::None })
}

/// Keys by which configurations say that queries and keys are normed.
const QK_NORM: [&str; 5] = ["use_qk_norm", "qk_norm", "qk_layernorm", "use_qk_layernorm", "query_key_norm"];

/// A decoder, and the keys around it that all families spell alike.
pub(super) fn architecture(k: &Keys, decoder: Stack) -> Result<Architecture> {
    let mut notes = Vec::new();
    let says = |key: &&&str| k.get(key).and_then(serde_json::Value::as_bool) == Some(true);
    if decoder.attention.qk_norm == QkNorm::None
        && let Some(key) = QK_NORM.iter().find(says)
    {
        notes.push(format!(
            "{key}: norms of queries and keys are left out, since the importer does not know those of this family"
        ));
    }
    if k.bool("mlp_bias")? == Some(true) {
        notes.push("mlp_bias: the biases of dense feed-forward parts are not counted".into());
    }
    if let (Some(groups), Some(kept)) = (k.u32("n_group")?.filter(|g| *g > 1), k.u32("topk_group")?) {
        notes.push(format!(
            "n_group, topk_group: the gate chooses within {kept} of {groups} groups of experts; a recorded trace has that, drawn \
             routing does not"
        ));
    }
    Ok(Architecture {
        hidden: hidden(k)?,
        vocabulary: match (k.u32("vocab_size")?, k.reader()) {
            // Its configurations leave out what its class has.
            (None, "family gemma3_text") => 262_208,
            (Some(n), _) => n,
            (None, _) => k.need(&["vocab_size"])?,
        },
        tied: k.bool("tie_word_embeddings")?.or(k.bool("tie_embedding")?),
        tied_by_default: false,
        mtp: k.any(&["num_nextn_predict_layers", "num_mtp_layers"])?.unwrap_or(0),
        decoder,
        notes,
    })
}

/// A decoder whose layers are all alike.
pub(super) fn stack(layers: u32, attention: AttentionSpec, dense: Option<u32>, moe: Option<Moe>) -> Stack {
    Stack {
        layers,
        dense_layers: Vec::new(),
        moe_every: 1,
        moe_offset: 0,
        attention,
        cross: None,
        dense: dense.map(|intermediate| Dense { intermediate, matrices: 3 }),
        moe,
    }
}

/// Layers without experts as a list of kinds says: `"dense"` and `"sparse"`, one a layer.
pub(super) fn listed_dense(k: &Keys, key: &str, layers: u32) -> Result<Option<Vec<u32>>> {
    let Some(kinds) = k.texts(key)? else { return Ok(None) };
    if kinds.len() != layers as usize {
        return Err(k
            .wrong(key, format!("names {} layers of {layers}", kinds.len()))
            .cure("name every layer once, or leave the key out"));
    }
    let mut dense = Vec::new();
    for (l, kind) in (0..).zip(kinds) {
        match kind {
            "dense" => dense.push(l),
            "sparse" | "moe" => {}
            other => {
                return Err(k
                    .wrong(key, format!("layer kind \"{other}\" cannot be expressed"))
                    .cure("dense and sparse can"));
            }
        }
    }
    Ok(Some(dense))
}

/// Layers that are dense because they come first.
pub(super) fn first_dense(first: u32, layers: u32) -> Vec<u32> {
    (0..first.min(layers).min(LAYERS)).collect()
}

/// The spans that `layer_types` names, or else those of `rule`, one a layer; as short a pattern as repeats.
pub(super) fn spans(k: &Keys, layers: u32, rule: impl Fn(u32) -> Result<String>) -> Result<Vec<String>> {
    let all: Vec<String> = match k.texts("layer_types")? {
        Some(types) => {
            if types.len() != layers as usize {
                let problem = format!("names {} layers of {layers}", types.len());
                return Err(k.wrong("layer_types", problem).cure("name every layer once, or leave the key out"));
            }
            types.iter().map(|t| span(k, t)).collect::<Result<_>>()?
        }
        None => (0..layers.min(LAYERS)).map(rule).collect::<Result<_>>()?,
    };
    let period = (1..=all.len()).find(|p| all.iter().zip(all.iter().skip(*p)).all(|(a, b)| a == b));
    Ok(all[..period.unwrap_or(all.len())].to_vec())
}

fn span(k: &Keys, kind: &str) -> Result<String> {
    match kind {
        "full_attention" => Ok("full".into()),
        "sliding_attention" => window(k),
        "chunked_attention" => Ok(format!("chunk:{}", k.need(&["attention_chunk_size"])?)),
        other => Err(k
            .wrong("layer_types", format!("layer type \"{other}\" cannot be expressed"))
            .cure("full_attention, sliding_attention and chunked_attention can")),
    }
}

/// The span of a sliding window.
pub(super) fn window(k: &Keys) -> Result<String> {
    Ok(format!("window:{}", k.need(&["sliding_window"])?))
}

/// Full attention, unless `sliding` says that the layer has a window.
pub(super) fn full_unless(k: &Keys, sliding: bool) -> Result<String> {
    if sliding { window(k) } else { Ok("full".into()) }
}

/// The most positions of a sequence, and a word on how it follows from the configuration where it does not stand there.
///
/// Positions beyond those trained count where the configuration scales rotary positions, as serving engines have it: YaRN
/// from the original length, linear and dynamic scaling from the configured one; the other kinds are already in it.
pub(super) fn context(k: &Keys) -> Result<(Option<u32>, Option<String>)> {
    let keys = ["max_position_embeddings", "max_seq_len", "n_positions", "model_max_length", "max_sequence_length"];
    let mut stated: Option<(&str, u32)> = None;
    for key in keys {
        if let Some(n) = k.u32(key)?
            && stated.is_none_or(|(_, m)| n < m)
        {
            stated = Some((key, n));
        }
    }
    let Some(rope) = rope(k)? else { return Ok((stated.map(|s| s.1), None)) };
    let kind = rope.text("rope_type")?.or(rope.text("type")?).unwrap_or("default");
    let factor = rope.f64("factor")?.unwrap_or(1.0);
    let original = rope.u32("original_max_position_embeddings")?;
    let (key, from) = match (kind, original) {
        ("yarn" | "deepseek_yarn", Some(n)) => ("original_max_position_embeddings", n),
        ("yarn" | "deepseek_yarn" | "linear" | "dynamic", _) => match stated {
            Some(s) => s,
            None => return Ok((None, None)),
        },
        _ => return Ok((stated.map(|s| s.1), None)),
    };
    let positions = f64::from(from) * factor;
    if !(positions >= 1.0 && positions <= f64::from(1 << 30)) {
        let problem = format!("{key} {from} times factor {factor} is no length of a sequence");
        return Err(rope.wrong("factor", problem).cure("give a length from 1 to 2^30, or leave rope_scaling out"));
    }
    let positions = positions as u32;
    let said = stated.filter(|s| s.1 != positions);
    let note = said.map(|(stated, n)| {
        format!("context: {positions}, which is {key} {from} times {factor} ({kind}); {stated} says {n}")
    });
    Ok((Some(positions), note))
}

/// How rotary positions are scaled; of full attention, where kinds of layers differ.
fn rope<'a>(k: &Keys<'a>) -> Result<Option<Keys<'a>>> {
    for key in ["rope_scaling", "rope_parameters"] {
        if k.get(key).is_some_and(serde_json::Value::is_object)
            && let Some(rope) = k.inner(key)?
        {
            let full = if rope.names().any(|n| n == "full_attention") { rope.inner("full_attention")? } else { None };
            return Ok(Some(full.unwrap_or(rope)));
        }
    }
    Ok(None)
}
