//! Model files from Hugging Face configurations (`config.json`).
//!
//! Field names are those of the `transformers` library's configuration classes for each `model_type`, and of the
//! configurations that models without such a class bring. What a configuration leaves out has that class's default; what
//! this model format cannot express, and a key that nobody knows, is refused.

mod families;
mod keys;
mod python;
mod quant;
mod shapes;

use super::{Model, ModelFile, Precision, Published};
use keys::Keys;
use moesim_core::diag::unknown;
use moesim_core::{Diag, Result, config};
use serde_json::{Map, Value};
use shapes::Architecture;
use std::path::{Component, Path};

/// A model file from a configuration, and what its reader should know.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The model file, as TOML.
    pub text: String,
    /// What it says.
    pub model: Model,
    /// The `model_type` that was read.
    pub family: String,
    /// What was left out, taken with a loss, or follows from several keys: sentences without full stop.
    pub notes: Vec<String>,
}

/// Keys under which multimodal models have their language model, from the outside in.
const NESTED: [&str; 5] = ["thinker_config", "text_config", "llm_config", "language_config", "llm"];

/// Reads a `config.json`, and files beside it that say how its weights are quantised, and writes the model file that
/// describes the same architecture. `name` names it; by default what the configuration or its folder says.
///
/// # Errors
/// A file that is no configuration, a family that is not known, a key that nobody knows, or an architecture that this
/// format cannot express.
pub fn import_config(path: &Path, name: Option<&str>) -> Result<Imported> {
    let value = python::read(path, "config.json")?;
    let map = value.as_object().cloned().unwrap_or_default();
    let within = || {
        let layers = nested(&map)?;
        let (family, model, notes) = convert(&layers, path, name)?;
        Ok((family, model, notes))
    };
    let (family, file, notes) = within().map_err(|d: Diag| d.file(path))?;
    let text = config::to_toml(&file)?;
    // Whatever the configuration says must also be a valid model.
    let model = Model::from_table(config::table(&text, "config.json")?, &path.display().to_string())?;
    Ok(Imported { text, model, family, notes })
}

/// The configuration and those inside it that lead to the language model, with what stands before their keys.
fn nested(map: &Map<String, Value>) -> Result<Vec<(String, &Map<String, Value>)>> {
    let mut all = vec![(String::new(), map)];
    while let Some((at, outer)) = all.last().cloned() {
        let Some((key, inner)) = NESTED.iter().find_map(|k| Some((k, outer.get(*k)?))) else { break };
        let at = format!("{at}{key}.");
        let map = inner.as_object().ok_or_else(|| {
            Diag::input("is no object of keys").place(at.trim_end_matches('.')).cure("give the config.json of a model")
        })?;
        if all.len() > NESTED.len() {
            return Err(Diag::input("configurations are nested too deep")
                .place(at)
                .cure("give the config.json of a model"));
        }
        all.push((at, map));
    }
    Ok(all)
}

/// Reads the innermost configuration, and around it what is left.
fn convert(
    layers: &[(String, &Map<String, Value>)],
    path: &Path,
    name: Option<&str>,
) -> Result<(String, ModelFile, Vec<String>)> {
    let types: Vec<Keys> = layers.iter().map(|(at, map)| Keys::new(map, at, "configuration")).collect();
    let (inner, outer) = types.split_last().ok_or_else(|| Diag::input("is empty"))?;
    let mut family = inner.text("model_type")?;
    for k in outer.iter().rev() {
        // Some wrappers need what model files cannot express, whatever they wrap.
        match k.text("model_type")? {
            Some(around) => families::refuse_lacking(k, around)?,
            None => continue,
        }
        family = family.or(k.text("model_type")?);
    }
    let family = family.ok_or_else(|| {
        inner.wrong("model_type", "`model_type` is missing").cure("add it, as the model's own configuration has it")
    })?;
    let read = families::find(inner, family)?;
    let keys: Vec<Keys> = layers.iter().map(|(at, map)| Keys::new(map, at, format!("family {family}"))).collect();
    let (k, outer) = keys.split_last().ok_or_else(|| Diag::input("is empty"))?;
    let mut a = (read.read)(k, family)?;
    let (context, said) = shapes::context(k)?;
    a.notes.extend(said);
    let mut tied = a.tied;
    for o in outer.iter().rev() {
        let around = o.bool("tie_word_embeddings")?;
        if let (Some(inside), Some(around)) = (tied, around)
            && inside != around
        {
            a.notes.push(format!("tie_word_embeddings: {inside}, as the text model has it; around it stands {around}"));
        }
        tied = tied.or(around);
    }
    let inside_out: Vec<&Keys> = keys.iter().rev().collect();
    let plain = element(&inside_out)?;
    let mut file = file(&a, named(&inside_out, path, name), tied.unwrap_or(a.tied_by_default), context, plain.clone());
    let model = file.clone().resolve()?;
    let (precision, said) = quant::read(&keys.iter().collect::<Vec<_>>(), path, &model, &plain)?;
    file.precision = precision;
    a.notes.extend(said);
    k.finish(|key| families::harmless(key) || read.harmless.contains(&key))?;
    a.notes.extend(around(layers, outer)?);
    a.notes.extend(other_parts(layers));
    if a.mtp > 0 {
        a.notes.push(format!("{} MTP modules are kept as mtp_layers and count in no total", a.mtp));
    }
    a.notes.dedup();
    Ok((family.to_string(), file, a.notes))
}

/// Keys around a text model must be of the other parts, or say the same as the text model's.
fn around(layers: &[(String, &Map<String, Value>)], outer: &[Keys]) -> Result<Option<String>> {
    let inner = layers.last().map(|l| l.1);
    let mut of_other_parts = Vec::new();
    for k in outer {
        for key in k.names() {
            let same = inner.and_then(|i| i.get(key)).is_some()
                && layers.iter().all(|(_, m)| m.get(key) == inner.and_then(|i| i.get(key)));
            let known = families::harmless(key) || NESTED.contains(&key) || is_glue(key) || same;
            if !known && k.unread().contains(&key) {
                k.finish(|other| other != key)?;
            }
            if is_glue(key) && !families::harmless(key) {
                of_other_parts.push(k.name(key));
            }
        }
    }
    if of_other_parts.is_empty() {
        return Ok(None);
    }
    let more = if of_other_parts.len() > 4 { format!(" and {} more", of_other_parts.len() - 4) } else { String::new() };
    of_other_parts.truncate(4);
    Ok(Some(format!("keys of what joins the parts of the model are left out: {}{more}", of_other_parts.join(", "))))
}

/// Keys that join pictures and sound to a language model.
fn is_glue(key: &str) -> bool {
    const PARTS: [&str; 26] = [
        "vision",
        "image",
        "video",
        "audio",
        "visual",
        "projector",
        "projection",
        "mm_",
        "media",
        "patch",
        "downsample",
        "pixel",
        "select_layer",
        "tile",
        "template",
        "thumbnail",
        "vit",
        "ps_version",
        "speaker",
        "tts",
        "talker",
        "code2wav",
        "spatial_merge",
        "ignore_index",
        "use_backbone_lora",
        "use_llm_lora",
    ];
    PARTS.iter().any(|p| key.contains(p))
        || matches!(
            key,
            "hidden_size"
                | "pad2square"
                | "force_image_size"
                | "position_id_per_seconds"
                | "max_dynamic_patch"
                | "output_attentions"
                | "enable_audio_output"
                | "user_token_id"
                | "candidate_resolutions"
                | "global_view_pos"
                | "tile_tag"
        )
}

/// A word on the parts that are no language model.
fn other_parts(layers: &[(String, &Map<String, Value>)]) -> Option<String> {
    let of = |(at, map): &(String, &Map<String, Value>)| {
        let there = |p: &&&str| map.get(**p).is_some_and(|v| v.as_object().is_some_and(|o| !o.is_empty()));
        families::OTHER_PARTS.iter().filter(there).map(|p| format!("{at}{p}")).collect::<Vec<_>>()
    };
    let parts: Vec<String> = layers.iter().flat_map(of).collect();
    if parts.is_empty() {
        None
    } else {
        Some(format!("left out, because only the language model is described: {}", parts.join(", ")))
    }
}

fn file(a: &Architecture, name: String, tied_embedding: bool, context: Option<u32>, precision: Precision) -> ModelFile {
    ModelFile {
        base: None,
        source: format!("config.json of {name}"),
        name,
        hidden: a.hidden,
        vocabulary: a.vocabulary,
        context,
        tied_embedding,
        mtp_layers: a.mtp,
        decoder: a.decoder.clone(),
        decoder_stack: Vec::new(),
        encoder: None,
        precision,
        published: Published::default(),
    }
}

/// The model's name: the one that was asked for, the one that the configuration says it was loaded by, the file's, or the folder's.
fn named(inside_out: &[&Keys], path: &Path, name: Option<&str>) -> String {
    let said = inside_out.iter().rev().find_map(|k| k.get("_name_or_path")?.as_str()).filter(|p| !p.trim().is_empty());
    // A file that is not called as all configurations are bears a name of its own.
    let own = || Some(path.file_stem()?.to_string_lossy().to_lowercase()).filter(|stem| !stem.starts_with("config"));
    let folder = || std::path::absolute(path).ok()?.parent().and_then(model_of);
    let said = said.and_then(|p| model_of(Path::new(p)));
    let name = name.map(str::to_string).or(said).or_else(own).or_else(folder);
    let name: String = name.unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect();
    if name.is_empty() { "imported".into() } else { name }
}

/// The model that a folder is named after. A cache of the Hub names folders `models--OWNER--MODEL/snapshots/HASH`.
fn model_of(folder: &Path) -> Option<String> {
    let parts: Vec<String> = folder
        .components()
        .filter_map(|c| if let Component::Normal(p) = c { Some(p.to_string_lossy().to_string()) } else { None })
        .collect();
    let cached = parts.iter().rev().find_map(|p| p.strip_prefix("models--"));
    let last = cached.and_then(|p| p.rsplit("--").next()).map(str::to_string).or_else(|| parts.last().cloned())?;
    Some(last.to_lowercase())
}

/// Bits of every element that is not quantised.
fn element(inside_out: &[&Keys]) -> Result<Precision> {
    let mut bits = 16.0;
    for k in inside_out.iter().rev() {
        for key in ["torch_dtype", "dtype"] {
            bits = match k.text(key)? {
                None => continue,
                Some("float32" | "torch.float32") => 32.0,
                Some("float16" | "bfloat16" | "torch.float16" | "torch.bfloat16" | "auto" | "half") => 16.0,
                Some(d) if d.contains("float8") => 8.0,
                Some(other) => {
                    return Err(unknown("element type", other, &["float32", "float16", "bfloat16"]).place(k.name(key)));
                }
            };
        }
    }
    Ok(Precision {
        attention: bits,
        router: bits,
        experts: bits,
        shared: bits,
        dense: bits,
        embedding: bits,
        head: bits,
        kv: bits,
        activation: bits,
        gemm_input: None,
    })
}

#[cfg(test)]
mod tests;
