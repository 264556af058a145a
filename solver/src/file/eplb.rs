//! DeepSeek's EPLB: `phy2log` (`physical_to_logical_map`), integers [layers, slots], the expert in each slot. Slots of a
//! device are consecutive, so that the number of devices must be given. EPLB counts MoE layers only, and may put two
//! replicas of an expert on one device.
//!
//! Read: `.npy`, an array of an `.npz`, a tensor of `torch.save` (alone or under one of the keys above), `.json` (nested
//! lists), `.csv` without a header. Written: `.npy` (int64, as EPLB's tensor has it), `.json`, `.csv`.
//!
//! Facts from deepseek-ai/EPLB, `eplb.py` (2025).

use super::{Format, PlacementFile, ReadOptions, npy, numbered, own, slots, text};
use moesim_core::output::AtomicFile;
use moesim_core::{Diag, Result};
use moesim_traces::arrays;
use std::path::Path;

pub(super) struct Eplb;

impl Format for Eplb {
    fn name(&self) -> &'static str {
        "eplb"
    }
    fn description(&self) -> &'static str {
        "EPLB's physical-to-logical map [layers, slots] (.npy, .json, .csv; .npz and .pt can be read); needs the devices"
    }
    fn detect(&self, path: &Path) -> bool {
        match path.extension().and_then(|e| e.to_str()) {
            Some("npy" | "npz") => arrays::is_numpy(path, 2),
            Some("json") => text::begins(path, |s| s.split_ascii_whitespace().collect::<String>().starts_with("[[")),
            Some("csv") => text::begins(path, |s| s.lines().next().is_some_and(|l| numbers(l).is_some())),
            _ => arrays::is_tensor_file(path) && arrays::has_tensor(path, &[], 2),
        }
    }
    fn read(&self, path: &Path, options: &ReadOptions) -> Result<PlacementFile> {
        let want = slots::want(options.array.as_deref());
        let rows = match path.extension().and_then(|e| e.to_str()) {
            Some("npy" | "npz") => slots::of_array(&arrays::numpy(path, &want)?)?,
            Some("json") => json(&text::read(path)?)?,
            Some("csv") => csv(&text::read(path)?)?,
            _ => slots::of_array(&arrays::tensor(path, &slots::KEYS, &want)?)?,
        };
        unnumbered(self.name(), &rows, options)
    }
    fn write(&self, file: &PlacementFile, path: &Path) -> Result<()> {
        let p = &file.placed;
        let each = slots::equal(p, "EPLB's map", true)?;
        let bytes = match path.extension().and_then(|e| e.to_str()) {
            Some("npy") => {
                let all = p.devices.iter().flat_map(|l| slots::row(l)).copied();
                npy::array(&[p.layers(), p.devices() * each], 8, all)
            }
            Some("json") => lists(file).into_bytes(),
            Some("csv") => {
                let mut out = String::new();
                for layer in &p.devices {
                    own::list(&mut out, slots::row(layer));
                    out.push('\n');
                }
                out.into_bytes()
            }
            _ => {
                let cure = "name it .npy, .json or .csv; torch.from_numpy makes a tensor of an array";
                return Err(Diag::input("has no name that says how to write it").cure(cure));
            }
        };
        AtomicFile::write(path, &bytes)
    }
}

/// A file of rows whose layers have no numbers.
pub(super) fn unnumbered(format: &'static str, rows: &[Vec<u16>], options: &ReadOptions) -> Result<PlacementFile> {
    let mut notes = Vec::new();
    let layer_numbers = numbered(rows.len(), options, &mut notes)?;
    let placed = slots::place(rows, options)?;
    Ok(PlacementFile { format, model: None, layer_numbers, placed, result: None, notes })
}

/// Rows as nested lists.
pub(super) fn json(text: &[u8]) -> Result<Vec<Vec<u16>>> {
    serde_json::from_slice(text).map_err(|e| {
        text::broken("map from slots to experts", &e)
            .cure("write [[expert, ...], ...], the experts of each layer's slots")
    })
}

/// Rows as nested lists, a layer a line.
pub(super) fn lists(file: &PlacementFile) -> String {
    let mut out = String::from("[");
    for (l, layer) in file.placed.devices.iter().enumerate() {
        out.push_str(if l == 0 { "\n[" } else { ",\n[" });
        own::list(&mut out, slots::row(layer));
        out.push(']');
    }
    out + "\n]\n"
}

fn numbers(line: &str) -> Option<Vec<u16>> {
    line.split(',').map(|f| f.trim().parse().ok()).collect()
}

fn csv(text: &[u8]) -> Result<Vec<Vec<u16>>> {
    let wrong = |l: usize, problem: &str| {
        let cure = "write the experts of a layer's slots in a row, without a header";
        Diag::input(problem).place(format!("line {}", l + 1)).cure(cure)
    };
    let text = std::str::from_utf8(text).map_err(|_| wrong(0, "is not UTF-8 text"))?;
    let row = |(l, line): (usize, &str)| numbers(line).ok_or_else(|| wrong(l, "has a field that is no expert"));
    text.lines().enumerate().map(row).collect()
}
