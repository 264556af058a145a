//! Tables of measurements that the user names, read with what else their schema needs.

use crate::cli::terminal::Format;
use moesim_core::{Diag, Result};
use moesim_hwmodels::calibrate::data::llmservingsim::Served;
use moesim_hwmodels::calibrate::data::{MeasurementTable, infersim};
use moesim_hwmodels::calibrate::device;
use moesim_hwmodels::calibrate::measured::Measured;
use moesim_hwmodels::calibrate::profile::DataFile;
use moesim_hwmodels::calibrate::schema::{self, Context};
use moesim_hwmodels::{Hardware, form};
use moesim_traces::Model;
use moesim_traces::import::table_as_csv;
use moesim_traces::model::Heads;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// The measurements that `fit`, `check` and `compare` read.
#[derive(Debug, clap::Args)]
pub(super) struct Input {
    /// Measurements: CSV, plain or gzip, or Parquet (a feature of the build); several files of one schema are read as
    /// one
    #[arg(required = true)]
    pub(super) data: Vec<PathBuf>,
    /// What the files hold: measured, fused-moe, gemm, infersim-gemm, infersim-attention, llmservingsim-dense, llmservingsim-attention,
    /// llmservingsim-moe, attention, latent-attention, dense-gemm, custom-all-reduce, nccl, deepep-low-latency, deepep-normal,
    /// fused-exchange [default: by the columns]
    #[arg(long, value_name = "NAME")]
    pub(super) schema: Option<String>,
    /// Columns of another name, as in --map gpu=device,ms=latency_ms
    #[arg(long, value_name = "THEIRS=OURS", value_delimiter = ',')]
    pub(super) map: Vec<String>,
    /// The device, for files that do not name it
    #[arg(long, value_name = "NAME")]
    pub(super) device: Option<String>,
    /// The hardware with the device's peaks: a preset or a file [default: by the device's name]
    #[arg(long, value_name = "PRESET|FILE")]
    pub(super) hardware: Option<String>,
    /// The model that was served, for tables of a served model's layers: a preset or a file
    #[arg(long, value_name = "PRESET|FILE")]
    pub(super) model: Option<String>,
    /// Only kernel families with this in their name
    #[arg(long, value_name = "TEXT")]
    pub(super) family: Option<String>,
    /// How to print the errors
    #[arg(long, value_enum, default_value = "table")]
    pub(super) format: Format,
}

/// What `calibrate` read from its files: kernels to fit, the files themselves, and the hardware whose peaks bound them.
pub(super) struct Read {
    pub(super) kernels: Vec<Box<dyn Measured>>,
    pub(super) files: Vec<DataFile>,
    /// The hardware whose peaks were taken.
    pub(super) hardware: String,
}

pub(super) fn read(a: &Input) -> Result<Read> {
    let split = |m: &String| {
        let pair = m.split_once('=').map(|(theirs, ours)| (theirs.trim().to_string(), ours.trim().to_string()));
        pair.ok_or_else(|| Diag::input(format!("--map {m} has no =")).cure("write THEIRS=OURS"))
    };
    let map = a.map.iter().map(split).collect::<Result<Vec<_>>>()?;
    let tables = a.data.iter().map(|d| MeasurementTable::read_or(d, &map, table_as_csv)).collect::<Result<Vec<_>>>()?;
    let schema = match &a.schema {
        Some(name) => name.as_str(),
        None => {
            let found = tables.iter().map(schema::detect).collect::<Result<Vec<_>>>()?;
            if let Some(i) = found.iter().position(|s| *s != found[0]) {
                let problem = format!("is a table of {}, the first file of {}", found[i], found[0]);
                return Err(Diag::input(problem).file(&a.data[i]).cure("give tables of one schema at a time"));
            }
            found[0]
        }
    };
    let given = a.hardware.as_deref().map(Hardware::load).transpose()?;
    let known = RefCell::new(Vec::<(String, Hardware)>::new());
    let with = |name: &str, use_it: &dyn Fn(&Hardware) -> Result<()>| -> Result<()> {
        if let Some(h) = &given {
            return use_it(h);
        }
        if known.borrow().iter().all(|(n, _)| n != name) {
            let hardware = device::hardware(name).map_err(|d| d.file(&a.data[0]))?;
            known.borrow_mut().push((name.to_string(), hardware));
        }
        known.borrow().iter().filter(|(n, _)| n == name).try_for_each(|(_, h)| use_it(h))
    };
    let peaks = |name: &str, precision: &str| -> Result<form::Peaks> {
        let out = RefCell::new(None);
        with(name, &|h| {
            *out.borrow_mut() = Some(device::peaks(&h.device, precision)?);
            Ok(())
        })?;
        Ok(out.into_inner().expect("set where nothing failed"))
    };
    let links = |name: &str| -> Result<form::LinkPeaks> {
        let out = RefCell::new(None);
        with(name, &|h| {
            *out.borrow_mut() = Some(device::links(h)?);
            Ok(())
        })?;
        Ok(out.into_inner().expect("set where nothing failed"))
    };
    let folder = a.data.iter().find_map(|d| Some((d, infersim::folders(d)?.device)));
    let named = a.device.clone().or_else(|| given.as_ref().map(|h| h.device.name.clone()));
    let named = match (named, folder) {
        (None, Some((_, device))) => Some(device),
        // A folder of another device is a slip; --device says that it is none.
        (Some(named), Some((path, device))) if a.device.is_none() && !names(&named, &device) => {
            return Err(Diag::input(format!("was measured on {device}, as its folder says, not on {named}"))
                .file(path)
                .cure(format!("give the --hardware that was measured, or --device {device:?} if it is")));
        }
        (named, _) => named,
    };
    let model = a.model.as_deref().map(Model::load).transpose()?;
    let served = match (&model, &named) {
        (Some(model), Some(device)) => Some(served(model, device)?),
        _ => None,
    };
    let context = Context { device: named.as_deref(), peaks: &peaks, links: &links, served };
    let mut kernels = schema::read(schema, &tables, &context)?;
    if let Some(text) = &a.family {
        kernels.retain(|k| k.names()[1].contains(text.as_str()));
    }
    if kernels.is_empty() {
        let problem =
            a.family.as_ref().map_or("has no kernel".into(), |f| format!("no kernel family has {f:?} in its name"));
        return Err(Diag::input(problem).file(&a.data[0]).cure("leave --family out to see all"));
    }
    let hardware = match &given {
        Some(h) => h.name.clone(),
        None => known.borrow().first().map_or_else(String::new, |(_, h)| h.name.clone()),
    };
    let file =
        |(path, table): (&PathBuf, &MeasurementTable)| DataFile { name: file_name(path), hash: table.hash.clone() };
    Ok(Read { kernels, files: a.data.iter().zip(&tables).map(file).collect(), hardware })
}

/// Whether a device's name has this word, in capitals or not.
fn names(device: &str, word: &str) -> bool {
    let device = device.to_lowercase();
    device.split(|c: char| !c.is_alphanumeric()).any(|part| part == word.to_lowercase())
}

/// What tables of a served model's layers leave out.
fn served<'a>(model: &Model, device: &'a str) -> Result<Served<'a>> {
    let wrong = |problem: &str| Diag::input(format!("{} {problem}", model.name)).place("--model");
    let attention = model.decoder.first().map(|l| l.attention.heads);
    let Some(Heads::Gqa { heads, kv_heads, head_dim }) = attention else {
        return Err(wrong("has no grouped-query attention").cure("name the model that was measured"));
    };
    let moe = model.decoder.iter().find_map(|l| l.moe());
    let moe = moe.ok_or_else(|| wrong("has no experts").cure("name the model that was measured"))?;
    Ok(Served {
        device,
        precision: if model.precision.experts > 8.5 { "bf16" } else { "fp8" },
        hidden: model.hidden.into(),
        heads: [heads, kv_heads, head_dim].map(f64::from),
        vocabulary: model.vocabulary.into(),
        experts: [moe.top_k, moe.expert_intermediate].map(f64::from),
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}
