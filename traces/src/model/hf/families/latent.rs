//! DeepSeek's line: latent attention, dense layers first, shared experts beside the routed ones.

use super::Family;
use super::first_dense::mixture;
use crate::model::hf::keys::Keys;
use crate::model::hf::shapes::{Architecture, gqa, mla};
use moesim_core::Result;

pub(super) const FAMILY: Family = Family {
    names: &["deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe_lite", "mistral4", "axk1", "sarvam_mla"],
    read,
    harmless: &["q_head_dim", "num_expert_group", "lm_head", "rm_head"],
};

fn read(k: &Keys, family: &str) -> Result<Architecture> {
    let (first, shared) = match family {
        "deepseek_v2" => (0, 2),
        "mistral4" => (0, 1),
        "deepseek_v3" | "kimi_k2" => (3, 1),
        _ => (1, 1),
    };
    // Small ones of this family have plain attention.
    if k.bool("use_mla")? == Some(false) {
        for key in ["q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"] {
            k.off(key, "latent attention beside use_mla = false")?;
        }
        return mixture(k, gqa(k, k.bool("attention_bias")?.unwrap_or(false))?, first, shared);
    }
    mixture(k, mla(k)?, first, shared)
}
