//! Families with a few dense layers first, then experts with shared ones beside them, and plain attention.

use super::Family;
use crate::model::hf::keys::Keys;
use crate::model::hf::shapes::{
    Architecture, architecture, first_dense, full_unless, gqa, layers, listed_dense, normed, spans, stack,
};
use crate::model::{AttentionSpec, Moe, QkNorm};
use moesim_core::Result;

pub(super) const FAMILY: Family = Family {
    names: &["glm4_moe", "glm4v_moe_text", "dots1", "deepseek", "solar_open", "exaone_moe", "hy_v3", "sarvam_moe"],
    read,
    harmless: &["max_window_layers", "sliding_window_pattern", "mtp_sharing", "num_expert_group"],
};

fn read(k: &Keys, family: &str) -> Result<Architecture> {
    let n = layers(k)?;
    let bias = k.bool("attention_bias")?.or(k.bool("use_qkv_bias")?).unwrap_or(family == "glm4v_moe_text");
    let mut attention = gqa(k, bias)?;
    attention.qk_norm = match family {
        "dots1" | "exaone_moe" | "hy_v3" => QkNorm::Head,
        "glm4_moe" => normed(k, QkNorm::Head, false)?,
        _ => QkNorm::None,
    };
    let slides = k.u32("sliding_window")?.is_some();
    let upper = k.u32("max_window_layers")?;
    attention.pattern = match family {
        "dots1" => spans(k, n, |l| full_unless(k, slides && l >= upper.unwrap_or(62)))?,
        // A full layer after every so many with a window; a text spells it out, as in "LLLG".
        "exaone_moe" => {
            let every = k.u32("sliding_window_pattern").ok().flatten().unwrap_or(4).max(1);
            let spelt = k.text("sliding_window_pattern").ok().flatten().filter(|t| !t.is_empty());
            let local = |l: u32| match spelt {
                Some(t) => t.as_bytes()[l as usize % t.len()] == b'L',
                None => !(l + 1).is_multiple_of(every),
            };
            spans(k, n, |l| full_unless(k, slides && local(l)))?
        }
        _ => spans(k, n, |_| full_unless(k, slides))?,
    };
    let (first, shared) = match family {
        "dots1" | "deepseek" => (0, 0),
        "solar_open" => (0, 1),
        _ => (1, 1),
    };
    mixture(k, attention, first, shared)
}

/// The experts and the layers that have none; `first` and `shared` are the class's defaults.
pub(super) fn mixture(k: &Keys, attention: AttentionSpec, first: u32, shared: u32) -> Result<Architecture> {
    let n = layers(k)?;
    let width = k.need(&["moe_intermediate_size"])?;
    let given = ["n_shared_experts", "num_shared_experts"];
    let default = if k.names().any(|n| given.contains(&n)) { 0 } else { shared };
    let shared_experts = k.any(&given)?.unwrap_or(default);
    let moe = Moe {
        experts: k.need(&["n_routed_experts", "num_local_experts", "num_experts"])?,
        top_k: k.need(&["num_experts_per_tok", "num_experts_per_token"])?,
        expert_intermediate: width,
        matrices: 3,
        shared_experts,
        shared_intermediate: if shared_experts > 0 {
            k.u32("moe_shared_expert_intermediate_size")?.unwrap_or(width)
        } else {
            0
        },
        ..Moe::default()
    };
    let mut decoder = stack(n, attention, k.u32("intermediate_size")?, Some(moe));
    decoder.moe_every = k.u32("moe_layer_freq")?.unwrap_or(1).max(1);
    let first = k.any(&["first_k_dense_replace", "first_last_k_dense_replace"])?.unwrap_or(first);
    let listed = listed_dense(k, "mlp_layer_types", n)?.or(unmarked(k, n)?);
    decoder.dense_layers = listed.unwrap_or_else(|| first_dense(first, n));
    architecture(k, decoder)
}

/// Layers that a list of true and false does not mark as MoE.
fn unmarked(k: &Keys, layers: u32) -> Result<Option<Vec<u32>>> {
    let Some(marks) = k.bools("is_moe_layer")? else { return Ok(None) };
    if marks.len() != layers as usize {
        let problem = format!("marks {} layers of {layers}", marks.len());
        return Err(k.wrong("is_moe_layer", problem).cure("mark every layer once, or leave the key out"));
    }
    Ok(Some((0..).zip(marks).filter(|(_, moe)| !moe).map(|(l, _)| l).collect()))
}

pub(super) const BAILING: Family = Family {
    names: &["bailing_moe", "bailing_moe_v2"],
    read: bailing,
    harmless: &["max_window_layers", "mtp_use_repeated_layer", "attn_mlp_ratio"],
};

/// Ling and Ring.
fn bailing(k: &Keys, family: &str) -> Result<Architecture> {
    k.off("layer_group_size", "linear attention in some layers of a group")?;
    let bias = k.bool("use_qkv_bias")?.unwrap_or(false) | k.bool("use_bias")?.unwrap_or(false);
    let mut attention = gqa(k, bias)?;
    attention.qk_norm = normed(k, QkNorm::Head, family == "bailing_moe_v2")?;
    let slides = k.bool("use_sliding_window")?.unwrap_or(false);
    k.u32("sliding_window")?;
    attention.pattern = spans(k, layers(k)?, |_| full_unless(k, slides))?;
    mixture(k, attention, 0, 0)
}

pub(super) const ERNIE: Family = Family { names: &["ernie4_5_moe"], read: ernie, harmless: &["moe_capacity"] };

/// MoE layers from one to another, every so many; beside the routed experts shared ones as wide.
fn ernie(k: &Keys, _: &str) -> Result<Architecture> {
    let n = layers(k)?;
    let attention = gqa(k, k.bool("use_bias")?.unwrap_or(false))?;
    let width = k.need(&["moe_intermediate_size"])?;
    let shared_experts = k.u32("moe_num_shared_experts")?.unwrap_or(2);
    let moe = Moe {
        experts: k.need(&["moe_num_experts", "num_experts"])?,
        top_k: k.need(&["moe_k", "num_experts_per_tok"])?,
        expert_intermediate: width,
        matrices: 3,
        shared_experts,
        shared_intermediate: if shared_experts > 0 { width } else { 0 },
        ..Moe::default()
    };
    let mut decoder = stack(n, attention, Some(k.need(&["intermediate_size"])?), Some(moe));
    let step = k.u32("moe_layer_interval")?.unwrap_or(1).max(1);
    (decoder.moe_every, decoder.moe_offset) = (step, step - 1);
    let start = k.u32("moe_layer_start_index")?.unwrap_or(1);
    // -1 is the last layer.
    let end = k.f64("moe_layer_end_index")?.filter(|e| *e >= 0.0).unwrap_or(f64::INFINITY);
    decoder.dense_layers = first_dense(n, n).into_iter().filter(|l| *l < start || f64::from(*l) > end).collect();
    if let Some(listed) = listed_dense(k, "mlp_layer_types", n)? {
        (decoder.moe_every, decoder.moe_offset, decoder.dense_layers) = (1, 0, listed);
    }
    Ok(Architecture { tied_by_default: true, ..architecture(k, decoder)? })
}
