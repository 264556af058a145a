//! Our own format, JSON, version 1:
//!
//! * `format`: `"moesim-placement"`; `version`: 1;
//! * `model`, optional: the model's name;
//! * `experts`, `devices`: how many; `layer_numbers`: the numbers of the layers in the model, ascending;
//! * `layers`: `[layer][device]`, a list of experts in the order of the device's slots;
//! * `result`, optional: what the solver says of it, any JSON of at most 1 MiB.
//!
//! One layer a line, so that two placements can be compared as text. Unknown keys are refused.

use super::{Format, Placed, PlacementFile, ReadOptions, cut, experts, text};
use moesim_core::output::AtomicFile;
use moesim_core::{Diag, Result};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fmt::Write;
use std::path::Path;

const NAME: &str = "moesim-placement";
const RESULT: usize = 1 << 20;

pub(super) struct Own;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    format: String,
    version: u32,
    #[serde(default)]
    model: Option<String>,
    experts: usize,
    devices: usize,
    layer_numbers: Vec<u32>,
    layers: Vec<Vec<Vec<u16>>>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
}

impl Format for Own {
    fn name(&self) -> &'static str {
        "moesim"
    }
    fn description(&self) -> &'static str {
        "our own JSON: [layer][device] -> experts, with what the solver says of it"
    }
    fn detect(&self, path: &Path) -> bool {
        text::starts_with(path, &["\"moesim-placement\""])
    }
    fn read(&self, path: &Path, options: &ReadOptions) -> Result<PlacementFile> {
        let text = text::read(path)?;
        let wrong = |problem: String, place: &str| {
            Diag::input(problem).place(place).cure("write it as the solver does, or export it again")
        };
        let broken = |e: &serde_json::Error| text::broken("placement", e).cure("see FORMATS.md for its keys");
        let file: File = serde_json::from_slice(&text).map_err(|e| broken(&e))?;
        if file.format != NAME || file.version != 1 {
            let problem = format!("is \"{:.40}\" of version {}, not {NAME} of version 1", file.format, file.version);
            return Err(wrong(problem, "format"));
        }
        if let Some(l) = file.layers.iter().position(|l| l.len() != file.devices) {
            let problem = format!("has {} devices, not {}", file.layers[l].len(), file.devices);
            return Err(wrong(problem, &format!("layer {l}")));
        }
        let result = match file.result.map(RawValue::get) {
            Some(r) if r.len() > RESULT => return Err(wrong("is larger than 1 MiB".into(), "result")),
            Some(r) => Some(serde_json::from_str(r).map_err(|e| Diag { place: Some("result".into()), ..broken(&e) })?),
            None => None,
        };
        let placed = Placed { experts: experts(Some(file.experts), || None, options)?, devices: file.layers };
        let read = PlacementFile {
            format: self.name(),
            model: file.model,
            layer_numbers: file.layer_numbers,
            placed,
            result,
            notes: Vec::new(),
        };
        read.check()?;
        cut(read, options)
    }
    fn write(&self, file: &PlacementFile, path: &Path) -> Result<()> {
        AtomicFile::write(path, print(file)?.as_bytes())
    }
}

fn print(file: &PlacementFile) -> Result<String> {
    let p = &file.placed;
    let mut out = format!("{{\n\"format\": \"{NAME}\",\n\"version\": 1,\n");
    let json = |v: &serde_json::Value| v.to_string();
    if let Some(model) = &file.model {
        let _ = writeln!(out, "\"model\": {},", json(&model.as_str().into()));
    }
    let _ = writeln!(out, "\"experts\": {},\n\"devices\": {},", p.experts, p.devices());
    let _ = writeln!(out, "\"layer_numbers\": {},", json(&file.layer_numbers.clone().into()));
    if let Some(result) = &file.result {
        let result = json(result);
        if result.len() > RESULT {
            return Err(Diag::input("is larger than 1 MiB").place("result").cure("say less of the placement"));
        }
        let _ = writeln!(out, "\"result\": {result},");
    }
    out.push_str("\"layers\": [");
    for (l, layer) in p.devices.iter().enumerate() {
        out.push_str(if l == 0 { "\n[" } else { ",\n[" });
        for (d, experts) in layer.iter().enumerate() {
            out.push_str(if d == 0 { "[" } else { ",[" });
            list(&mut out, experts.iter());
            out.push(']');
        }
        out.push(']');
    }
    out.push_str("\n]\n}\n");
    Ok(out)
}

/// Numbers with commas between them.
pub(super) fn list<'a>(out: &mut String, numbers: impl Iterator<Item = &'a u16>) {
    for (i, n) in numbers.enumerate() {
        let _ = write!(out, "{}{n}", if i == 0 { "" } else { "," });
    }
}
