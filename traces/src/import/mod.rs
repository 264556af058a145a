//! Importers of expert-selection traces: one file a format, behind [`Importer`].

mod csv_rows;
mod id_lists;
mod json_lines;
mod npz;
mod parquet;
mod rows;
mod sglang;
pub(crate) mod tensorrt_llm;
mod vllm;
mod wafer_json;

use crate::model::{Model, Moe, presets};
use crate::trace::{LAYERS, Meta, OwnedSequence, Summary, Trace, Writer};
use moesim_core::diag::unknown;
use moesim_core::{Diag, Result, input};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[cfg(not(feature = "parquet"))]
pub(crate) use parquet::lacking;
pub use parquet::table_as_csv;
pub(crate) use sglang::{last_map, read_map};

/// Ids of one sequence, which is held in memory: 1 GiB.
const SEQUENCE: u64 = 1 << 29;

/// Reads one format.
///
/// * `import` calls [`Sink::begin`] once, then [`Sink::sequence`] with ascending numbers.
/// * It holds one sequence in memory at a time, and believes no length that the source declares.
pub trait Importer: Sync {
    /// Its name, for `--format`.
    fn name(&self) -> &'static str;
    /// What it reads, in one line.
    fn description(&self) -> &'static str;
    /// Whether `path` looks like this format; cheap, reads little.
    fn detect(&self, path: &Path) -> bool;
    /// Reads `path` into `sink`.
    fn import(&self, path: &Path, options: &Options, sink: &mut dyn Sink) -> Result<()>;
}

/// All importers; detection asks them in this order.
pub fn importers() -> &'static [&'static dyn Importer] {
    &[
        &npz::Npz,
        &parquet::Parquet,
        &sglang::Sglang,
        &tensorrt_llm::TensorRtLlm,
        &vllm::Vllm,
        &wafer_json::WaferJson,
        &json_lines::JsonLines,
        &csv_rows::CsvRows,
    ]
}

/// Where an importer puts what it reads.
pub trait Sink {
    /// What follows are sequences of this trace.
    fn begin(&mut self, meta: Meta) -> Result<()>;
    /// The next sequence.
    fn sequence(&mut self, s: &OwnedSequence) -> Result<()>;
}

/// Whether rows without a mark of their own are prompt or output tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Prompt tokens.
    Prefill,
    /// Output tokens.
    #[default]
    Decode,
}

/// What the source does not say.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The array of an archive; default `expert_ids`, or the only one with three or four dimensions.
    pub array: Option<String>,
    /// A model preset or file, which sets experts and layer numbers and must agree in layers and k; or, if `experts` is
    /// given too, any name.
    pub model: Option<String>,
    /// Routed experts a layer, zero-compute ones included; of layers that differ, the most.
    pub experts: Option<u32>,
    /// Experts a token, where the source leaves it open; else it must agree.
    pub k: Option<u32>,
    /// Numbers of the MoE layers, which must agree with the source's and the model's; default those, or 0, 1, 2, ...
    pub layer_numbers: Option<Vec<u32>>,
    /// Where the selections come from; default the name of the file.
    pub source: Option<String>,
    /// The licence of the data; default `unknown`.
    pub licence: Option<String>,
    /// The phase of rows without a mark.
    pub phase: Phase,
}

/// What a source says of itself. Options that say otherwise are refused, except for the three labels, which they replace.
#[derive(Default)]
struct Declared {
    layer_numbers: Option<Vec<u32>>,
    experts: Option<u32>,
    model: Option<String>,
    source: Option<String>,
    licence: Option<String>,
}

impl Options {
    /// The model, if one is named; a name that is no model is a mere label once the number of experts is given.
    fn load_model(&self) -> Result<Option<Model>> {
        match self.model.as_deref().map(Model::load) {
            Some(Err(_)) if self.experts.is_some() => Ok(None),
            other => other.transpose(),
        }
    }
    /// Describes a source of so many layers and of k experts a token, which says this of itself.
    fn describe(&self, path: &Path, layers: usize, k: u32, declared: Declared) -> Result<Meta> {
        // A shape may declare any number where it declares no tokens.
        if layers > LAYERS {
            let d = Diag::input(format!("{layers} MoE layers are out of range")).file(path).place("layers");
            return Err(d.cure("give from 1 to 4096"));
        }
        let model = self.load_model()?;
        let from_model = model.as_ref().map(|m| m.moe_layers().iter().map(|l| *l as u32).collect::<Vec<_>>());
        // As a trace of it has them: all ids that a gate can select, and the most of all layers.
        let most = |n: fn(&Moe) -> u32| {
            let layers = model.as_ref().map(|m| m.decoder.iter().filter_map(|l| l.moe()));
            layers.and_then(|l| l.map(n).max())
        };
        let moe = most(Moe::ids).zip(most(|m| m.top_k));
        let disagree = |what: &str, found: String, name: &str, expected: String| {
            let problem = format!("has {found} {what}; {name} has {expected}");
            Err(Diag::input(problem)
                .file(path)
                .place(what)
                .cure("name the model that was traced, or correct the options"))
        };
        if let (Some(m), Some(expected), Some((ids, top_k))) = (&model, &from_model, moe) {
            if layers != expected.len() {
                return disagree("MoE layers", layers.to_string(), &m.name, expected.len().to_string());
            }
            if let Some(n) = declared.layer_numbers.as_ref().filter(|n| *n != expected) {
                return disagree("layer numbers", format!("{n:?}"), &m.name, format!("{expected:?}"));
            }
            if k != top_k {
                return disagree("experts a token", k.to_string(), &m.name, top_k.to_string());
            }
            if let Some(e) = self.experts.or(declared.experts).filter(|e| *e != ids) {
                return disagree("experts", e.to_string(), &m.name, ids.to_string());
            }
        }
        if let Some(given) = self.k.filter(|given| *given != k) {
            return disagree("experts a token", k.to_string(), "the option", given.to_string());
        }
        let known = declared.layer_numbers.as_ref().or(from_model.as_ref());
        if let (Some(known), Some(given)) = (known, self.layer_numbers.as_ref().filter(|n| Some(*n) != known)) {
            return disagree("layer numbers", format!("{known:?}"), "the option", format!("{given:?}"));
        }
        if let (Some(found), Some(given)) = (declared.experts, self.experts.filter(|e| Some(*e) != declared.experts)) {
            return disagree("experts", found.to_string(), "the option", given.to_string());
        }
        let experts = self.experts.or(declared.experts).or(moe.map(|m| m.0)).ok_or_else(|| {
            let names: Vec<&str> = presets().iter().map(|p| p.name).collect();
            let cure = format!("give --experts, or --model ({})", names.join(", "));
            Diag::input("does not say how many experts a layer has").file(path).place("experts").cure(cure)
        })?;
        let numbers = declared.layer_numbers.or_else(|| self.layer_numbers.clone()).or(from_model);
        let layer_numbers = numbers.unwrap_or_else(|| (0..layers as u32).collect());
        if layer_numbers.len() != layers {
            let given = layer_numbers.len();
            return disagree("MoE layers", layers.to_string(), "the option", format!("{given} layer numbers"));
        }
        let unknown = || "unknown".to_string();
        let file_name = || path.file_name().map_or_else(unknown, |n| n.to_string_lossy().into_owned());
        let meta = Meta {
            model: model.map(|m| m.name).or(self.model.clone()).or(declared.model).unwrap_or_else(unknown),
            layer_numbers,
            experts,
            k,
            source: self.source.clone().or(declared.source).unwrap_or_else(file_name),
            licence: self.licence.clone().or(declared.licence).unwrap_or_else(unknown),
        };
        meta.check().map_err(|d| d.file(path))?;
        Ok(meta)
    }
}

/// Finds the importer: by name, or by looking at the source.
fn importer(source: &Path, format: Option<&str>) -> Result<&'static dyn Importer> {
    let names: Vec<&str> = importers().iter().map(|i| i.name()).collect();
    if !source.is_dir() {
        input::plain(source)?;
    }
    match format {
        Some(name) => {
            importers().iter().find(|i| i.name() == name).copied().ok_or_else(|| unknown("trace format", name, &names))
        }
        None => importers().iter().find(|i| i.detect(source)).copied().ok_or_else(|| {
            let cure = format!("name its format with --format ({})", names.join(", "));
            Diag::input("is not in a known trace format").file(source).cure(cure)
        }),
    }
}

/// Imports `source` into the trace file `out`; `format` is a name of [`importers`], or detected.
pub fn import(source: &Path, format: Option<&str>, options: &Options, out: &Path) -> Result<Summary> {
    let mut sink = ToFile { path: out.to_path_buf(), source: source.to_path_buf(), writer: None };
    importer(source, format)?.import(source, options, &mut sink)?;
    let writer = sink.writer.ok_or_else(|| no_rows(source))?;
    writer.finish().map_err(|d| if d.class == moesim_core::diag::Class::Input { no_rows(source) } else { d })
}

/// Imports `source` into memory.
pub fn load(source: &Path, format: Option<&str>, options: &Options) -> Result<Trace> {
    let mut sink = ToMemory::default();
    importer(source, format)?.import(source, options, &mut sink).map_err(|d| d.file(source))?;
    let meta = sink.meta.filter(|_| !sink.sequences.is_empty()).ok_or_else(|| no_rows(source))?;
    Trace::from_sequences(meta, sink.sequences).map_err(|d| d.file(source))
}

fn no_rows(source: &Path) -> Diag {
    Diag::input("has no rows").file(source).place("end").cure("give a source that has some")
}

struct ToFile {
    path: PathBuf,
    source: PathBuf,
    writer: Option<Writer>,
}

impl Sink for ToFile {
    fn begin(&mut self, meta: Meta) -> Result<()> {
        self.writer = Some(Writer::create(&self.path, meta)?);
        Ok(())
    }
    fn sequence(&mut self, s: &OwnedSequence) -> Result<()> {
        // What is wrong with a sequence is the source's fault, not that of the file being written.
        let blame = |d: Diag| Diag { file: Some(self.source.display().to_string()), ..d };
        let wrong = |d: Diag| if d.exit_code() == 2 { blame(d) } else { d };
        self.writer.as_mut().map_or(Ok(()), |w| w.push_sequence(s)).map_err(wrong)
    }
}

#[derive(Default)]
struct ToMemory {
    meta: Option<Meta>,
    sequences: Vec<OwnedSequence>,
}

impl Sink for ToMemory {
    fn begin(&mut self, meta: Meta) -> Result<()> {
        self.meta = Some(meta);
        Ok(())
    }
    fn sequence(&mut self, s: &OwnedSequence) -> Result<()> {
        // As a writer does.
        self.meta.as_ref().map_or(Ok(()), |m| crate::trace::check_rows(m, &s.view()))?;
        self.sequences.push(s.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
