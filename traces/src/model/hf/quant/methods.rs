//! Which method of quantisation a configuration means, and those with few keys.

use super::modules::Class;
use super::{LINEAR, Layout, Over, Scheme, compressed, integer};
use crate::model::hf::keys::Keys;
use moesim_core::{Diag, Result};

/// Names of methods, and who reads them.
type Method = (&'static [&'static str], fn(&Keys) -> Result<Scheme>);

const METHODS: &[Method] = &[
    (&["fp8"], fp8),
    (&["fbgemm_fp8"], fbgemm),
    (&["mxfp4"], mxfp4),
    (&["awq"], integer::awq),
    (&["gptq", "gptqmodel"], integer::gptq),
    (&["auto-round", "auto_round", "intel/auto-round"], integer::auto_round),
    (&["bitsandbytes"], integer::bitsandbytes),
    (&["torchao"], integer::torchao),
    (&["compressed-tensors", "compressed_tensors"], compressed::compressed_tensors),
    (&["modelopt", "modelopt_fp4", "modelopt_mixed"], compressed::modelopt),
    (&["quark"], compressed::quark),
    (&["mlx"], integer::mlx),
];

/// Reads an object that says how weights are quantised; `mlx`: it has the key that MLX writes.
pub(super) fn read(k: &Keys, mlx: bool) -> Result<Scheme> {
    let has = |key: &str| k.names().any(|n| n == key);
    let given = k.text("quant_method")?;
    let method = match given {
        Some(method) => method,
        // Some writers leave the method out; each has keys that no other has.
        None if has("load_in_4bit") || has("load_in_8bit") => "bitsandbytes",
        None if has("quant_algo") || has("kv_cache_quant_algo") => "modelopt",
        None if has("config_groups") => "compressed-tensors",
        None if has("global_quant_config") => "quark",
        None if has("quant_type") => "torchao",
        None if mlx || (has("bits") && has("group_size")) => "mlx",
        None => {
            return Err(Diag::input("names no method of quantisation")
                .place(k.name("quant_method"))
                .cure(format!("add it: one of {}", known())));
        }
    };
    let Some((_, read)) = METHODS.iter().find(|m| m.0.contains(&method)) else {
        let short: String = method.chars().take(60).collect();
        return Err(Diag::input(format!("quantisation \"{short}\" is not one that is imported"))
            .place(k.name("quant_method"))
            .cure(format!(
                "import a configuration without it and set the bits in [precision] (imported are {})",
                known()
            )));
    };
    finish(k.of(format!("quantisation {method}")), *read)
}

/// Reads a file that lies beside a configuration.
pub(super) fn beside(k: &Keys, method: &str) -> Result<Scheme> {
    if method == "modelopt" {
        k.get("producer");
        k.text("quant_method")?;
        let inner = k.inner("quantization")?.ok_or_else(|| {
            k.wrong("quantization", "`quantization` is missing")
                .cure("give the file as ModelOpt writes it, or remove it")
        })?;
        k.finish(|_| false)?;
        inner.text("quant_method")?;
        return finish(inner, compressed::modelopt);
    }
    let Some((_, read)) = METHODS.iter().find(|m| m.0.contains(&method)) else {
        return Err(Diag::input("says how the weights are quantised, in a form that is not imported")
            .cure("import a copy of config.json from a folder without it, and set the bits in [precision]"));
    };
    k.text("quant_method")?;
    finish(k.of(format!("quantisation {method}")), *read)
}

fn known() -> String {
    METHODS.iter().map(|m| m.0[0]).collect::<Vec<_>>().join(", ")
}

/// Reads, and refuses keys that nobody read.
fn finish(k: Keys, read: fn(&Keys) -> Result<Scheme>) -> Result<Scheme> {
    let scheme = read(&k)?;
    k.finish(|key| HARMLESS.contains(&key))?;
    Ok(scheme)
}

/// Keys that say who quantised, with what effort, for which kernels, or how bits are packed.
#[rustfmt::skip]
const HARMLESS: &[&str] = &[
    "quant_method", "producer", "version", "quantization_status", "global_compression_ratio", "run_compressed", "dequantize",
    "use_optimized_inference", "format", "fmt", "scale_fmt", "checkpoint_format", "pack_dtype", "packing_format", "pack_method", "meta", "damp_percent",
    "damp_auto_increment", "damp", "true_sequential", "static_groups", "desc_act", "act_group_aware", "mse", "quantizer", "tokenizer", "dataset",
    "batch_size", "model_seqlen", "max_input_length", "pad_token_id", "cache_block_outputs", "use_cuda_fp16", "use_exllama", "disable_exllama",
    "exllama_config", "backend", "do_fuse", "fuse_max_seq_len", "modules_to_fuse", "model_name_or_path", "model_file_base_name", "is_marlin_format",
    "provider", "autoround_version", "iters", "lr", "minmax_lr", "nsamples", "seqlen", "low_gpu_mem_usage", "enable_quanted_input",
    "enable_minmax_tuning", "enable_norm_bias_tuning", "scale_dtype", "gradient_accumulate_steps", "amp", "block_name_to_quantize",
    "module_name_preceding_first_block", "lm_head_name", "bnb_4bit_compute_dtype", "bnb_4bit_quant_storage", "llm_int8_threshold",
    "llm_int8_enable_fp32_cpu_offload", "llm_int8_has_fp16_weight", "_load_in_4bit", "_load_in_8bit", "untie_embedding_weights",
    "activation_scale_ub", "export", "algo_config", "kv_cache_post_rope", "kv_cache_group", "softmax_quant_spec", "quant_mode", "log_severity_level",
    "weight_format", "name", "min_kv_scale", "kernel_backend", "offload_to_disk", "vram_strategy", "hyb_act", "adapter", "rotation",
    "failsafe", "gptaq", "scheme", "to_quant_block_names", "quant_block_list", "supported_types",
];

/// Bits of a KV cache, as several writers spell it.
pub(super) fn kv_cache(k: &Keys) -> Result<Option<f64>> {
    for key in ["kv_cache_scheme", "kv_cache_quant_algo", "kv_cache_quant_method"] {
        let Some(value) = k.get(key) else { continue };
        if value.is_object() {
            let Some(inner) = k.inner(key)? else { continue };
            let bits = inner.f64("num_bits")?.unwrap_or(8.0);
            let group = inner.f64("group_size")?.filter(|g| *g > 0.0);
            return Ok(Some(bits + group.map_or(0.0, |g| 8.0 / g)));
        }
        return match k.text(key)?.map(str::to_ascii_uppercase).as_deref() {
            Some("FP8" | "INT8" | "FP8_AFFINE" | "FP8_E4M3") => Ok(Some(8.0)),
            // Elements of 4 bits, a scale of 8 for 16 of them.
            Some("NVFP4" | "FP4" | "NVFP4_AFFINE") => Ok(Some(4.5)),
            Some("NONE" | "") | None => continue,
            Some(other) => Err(k
                .wrong(key, format!("KV cache in \"{other}\" is not known"))
                .cure("FP8, INT8 and NVFP4 are; or leave the key out and set precision.kv")),
        };
    }
    Ok(None)
}

/// 8-bit floats with a 32-bit scale a block, or one a matrix. The head and the router stay as they are.
fn fp8(k: &Keys) -> Result<Scheme> {
    let over = match k.f64s("weight_block_size")? {
        Some(block) => Over::Elements(block.iter().product::<f64>().max(1.0)),
        None => Over::Tensor,
    };
    if let Some(other) = k.text("expert_dtype")?.filter(|d| *d != "fp8") {
        return Err(k
            .wrong("expert_dtype", format!("experts in \"{other}\" beside fp8 cannot be read"))
            .cure("import a configuration without the quantisation and set the bits in [precision]"));
    }
    let mut s = Scheme::new(Some(Layout::new(8.0, 32.0, over)), LINEAR);
    s.exclude(k, &["modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules"])?;
    k.off("modules_to_convert", "a list of what is quantised, in this method,")?;
    s.kv = kv_cache(k)?;
    k.text("activation_scheme")?;
    s.activations = Some(8.0);
    Ok(s)
}

/// 8-bit floats with a scale for each row.
fn fbgemm(k: &Keys) -> Result<Scheme> {
    let mut s = Scheme::new(Some(Layout::new(8.0, 32.0, Over::Row)), LINEAR);
    s.exclude(k, &["modules_to_not_convert"])?;
    s.activations = Some(8.0);
    Ok(s)
}

/// Experts in 4 bits, one 8-bit scale for 32 elements.
fn mxfp4(k: &Keys) -> Result<Scheme> {
    let mut s = Scheme::new(Some(Layout::new(4.0, 8.0, Over::Elements(32.0))), &[Class::Experts]);
    s.exclude(k, &["modules_to_not_convert"])?;
    s.kv = kv_cache(k)?;
    Ok(s)
}
