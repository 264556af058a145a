//! Files of placements: our own, and those that serving engines load, in and out, so that a running deployment can be judged
//! and a computed one deployed.
//!
//! One file a format, behind [`Format`]. `FORMATS.md` beside the crate has the table of keys and of the flags that load
//! them. What a format cannot express is refused with a cure. Layers, devices and slots are counted from 0 in messages.

mod eplb;
mod npy;
mod omni;
mod own;
mod placed;
mod sglang;
mod slots;
mod tensorrt_llm;
mod text;
mod vllm;
mod vllm_ascend;
mod yaml;

pub use placed::{Checked, Placed, Replicas};

use moesim_core::diag::unknown;
use moesim_core::{Diag, Result, input};
use std::path::Path;

/// Bounds on what a file can declare; layers and experts as those of a trace.
const LAYERS: usize = 4096;
const EXPERTS: usize = 65_534;
const DEVICES: usize = 65_536;
/// Devices, counted in each layer.
const LISTS: usize = 1 << 20;
/// Slots, or elements of an array.
const CELLS: usize = 1 << 24;

/// A placement with what a file says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacementFile {
    /// The format that was read; of no effect on what is written.
    pub format: &'static str,
    /// The model, where the file names it.
    pub model: Option<String>,
    /// Numbers of the layers in the model, ascending.
    pub layer_numbers: Vec<u32>,
    /// The placement.
    pub placed: Placed,
    /// What the solver says of it: method, objective, bound, gap. Passed through; only our own format has it.
    pub result: Option<serde_json::Value>,
    /// What a user must know of it.
    pub notes: Vec<String>,
}

/// What the caller knows of a file. What a file contradicts is refused.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions<'a> {
    /// A name of [`formats`]; detected without.
    pub format: Option<&'a str>,
    /// Devices. Maps of slots alone need it.
    pub devices: Option<usize>,
    /// Experts a layer. Where neither this nor the file says, they are those up to the highest id.
    pub experts: Option<usize>,
    /// Numbers of the model's MoE layers, ascending. Files with further layers are cut to these.
    pub layer_numbers: Option<&'a [u32]>,
    /// The array of an archive that has several.
    pub array: Option<String>,
}

/// Reads and writes one format.
pub trait Format: Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What it is and who loads it, in one line.
    fn description(&self) -> &'static str;
    /// Whether `path` looks like this format; reads little.
    fn detect(&self, path: &Path) -> bool;
    /// Reads `path`.
    ///
    /// # Errors
    /// A file that is damaged, lies about itself or holds other data.
    fn read(&self, path: &Path, options: &ReadOptions) -> Result<PlacementFile>;
    /// Writes `path`, whole or not at all.
    ///
    /// # Errors
    /// A placement that the format cannot express; a file that cannot be written.
    fn write(&self, file: &PlacementFile, path: &Path) -> Result<()>;
}

/// All formats; detection asks them in this order.
pub fn formats() -> &'static [&'static dyn Format] {
    &[
        &own::Own,
        &vllm_ascend::VllmAscend,
        &sglang::Sglang,
        &tensorrt_llm::TensorRtLlm,
        &omni::Omni,
        &eplb::Eplb,
        &vllm::Vllm,
    ]
}

fn named(name: &str) -> Result<&'static dyn Format> {
    let names: Vec<&str> = formats().iter().map(|f| f.name()).collect();
    let found = formats().iter().find(|f| f.name() == name);
    found.copied().ok_or_else(|| unknown("placement format", name, &names))
}

/// Reads the placement in `path`: sound, and in layers that are numbered.
///
/// # Errors
/// See [`Format::read`]; a format that is not known; a placement that [`Placed::check`] refuses.
pub fn read(path: &Path, options: &ReadOptions) -> Result<PlacementFile> {
    input::plain(path)?;
    let format = match options.format {
        Some(name) => named(name)?,
        None => formats().iter().copied().find(|f| f.detect(path)).ok_or_else(|| {
            let names: Vec<&str> = formats().iter().map(|f| f.name()).collect();
            let cure = format!("name its format with --format ({})", names.join(", "));
            Diag::input("holds no placement in a known format").file(path).cure(cure)
        })?,
    };
    let whole = |file: PlacementFile| {
        let checked = file.check()?;
        let mut file = PlacementFile { format: format.name(), ..file };
        let found = file.placed.devices();
        if options.devices.is_some_and(|d| d != found) {
            return Err(Diag::input(format!("has {found} devices, not {}", options.devices.unwrap_or_default()))
                .place("devices")
                .cure("give the number of devices that it was made for"));
        }
        if checked.repeated > 0 {
            let n = checked.repeated;
            file.notes
                .push(format!("{n} slots repeat an expert that their device holds already: they balance nothing"));
        }
        Ok(file)
    };
    format.read(path, options).and_then(whole).map_err(|d| d.file(path))
}

/// Writes a placement in the format of this name.
///
/// # Errors
/// See [`Format::write`]; a format that is not known; a placement that [`Placed::check`] refuses.
pub fn write(file: &PlacementFile, format: &str, path: &Path) -> Result<()> {
    let format = named(format)?;
    file.check().and_then(|_| format.write(file, path)).map_err(|d| d.file(path))
}

impl PlacementFile {
    /// Checks the placement, and that every layer has a number of its own.
    ///
    /// # Errors
    /// As [`Placed::check`]; numbers that are not ascending, or not as many as layers.
    pub fn check(&self) -> Result<Checked> {
        let checked = self.placed.check()?;
        let numbers = &self.layer_numbers;
        if numbers.len() != self.placed.layers() {
            let problem = format!("numbers {} layers and places {}", numbers.len(), self.placed.layers());
            return Err(Diag::input(problem).place("layer_numbers").cure("give every layer one number"));
        }
        if let Some(pair) = numbers.windows(2).find(|w| w[0] >= w[1]) {
            let problem = format!("has layer {} behind layer {}", pair[1], pair[0]);
            return Err(Diag::input(problem).place("layer_numbers").cure("number the layers in ascending order"));
        }
        Ok(checked)
    }
}

/// The numbers of layers that a file does not number.
fn numbered(layers: usize, options: &ReadOptions, notes: &mut Vec<String>) -> Result<Vec<u32>> {
    match options.layer_numbers {
        Some(numbers) if numbers.len() == layers => Ok(numbers.to_vec()),
        Some(numbers) => Err(Diag::input(format!("has {layers} layers; the model has {} with experts", numbers.len()))
            .place("layers")
            .cure("name the model that it was made for")),
        None => {
            notes.push("the file does not number its layers: they are counted from 0".into());
            Ok((0..layers as u32).collect())
        }
    }
}

/// Cuts a file that numbers its layers to those that are wanted.
fn cut(mut file: PlacementFile, options: &ReadOptions) -> Result<PlacementFile> {
    let Some(wanted) = options.layer_numbers else { return Ok(file) };
    let mut layers = std::mem::take(&mut file.placed.devices);
    for number in wanted {
        let Ok(at) = file.layer_numbers.binary_search(number) else {
            return Err(Diag::input(format!("has no layer {number}"))
                .place("layers")
                .cure("name the model that it was made for"));
        };
        file.placed.devices.push(std::mem::take(&mut layers[at]));
    }
    let left = file.layer_numbers.len().saturating_sub(wanted.len());
    if left > 0 {
        file.notes.push(format!("{left} layers that are not among the MoE layers asked for are left out"));
    }
    file.layer_numbers = wanted.to_vec();
    Ok(file)
}

/// The number of experts, of a file that says it or not.
fn experts(said: Option<usize>, highest: impl FnOnce() -> Option<u16>, options: &ReadOptions) -> Result<usize> {
    match (said, options.experts) {
        (Some(said), Some(asked)) if said != asked => {
            Err(Diag::input(format!("has {said} experts a layer, not {asked}"))
                .place("experts")
                .cure("name the model that it was made for"))
        }
        (Some(n), _) | (None, Some(n)) => Ok(n),
        (None, None) => Ok(highest().map_or(0, |e| usize::from(e) + 1)),
    }
}

#[cfg(test)]
mod tests;
