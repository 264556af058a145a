//! SGLang's initial expert location: JSON `{"physical_to_logical_map": [[expert, ...], ...]}`, a row for every layer of the
//! model, dense ones included, and a column for every slot; slots of a device are consecutive. Loaded by
//! `--init-expert-location FILE.json` with `--ep-num-redundant-experts` the slots beyond one an expert. No other key may be
//! beside the map, as SGLang passes all of them on.
//!
//! A row that is not placed (a dense layer's) is written as SGLang would begin: slot i holds expert i modulo the experts.
//! Read besides: the same in a file of `torch.save`, and the map that a recording of SGLang's expert distribution recorder
//! (modes `per_pass` and `per_token`) ends with, which is how a running server stands.
//!
//! Facts from sgl-project/sglang, `python/sglang/srt/eplb/expert_location.py` and `expert_distribution.py` (2025); rows are
//! `num_hidden_layers` in `get_model_config_for_expert_location` of its models.

use super::{Format, LAYERS, PlacementFile, ReadOptions, cut, own, placed, slots, text};
use moesim_core::output::AtomicFile;
use moesim_core::{Diag, Result};
use moesim_traces::arrays;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::fmt::Write;
use std::path::Path;

pub(super) struct Sglang;

#[derive(Deserialize)]
struct File {
    physical_to_logical_map: Option<Vec<Vec<u16>>>,
    logical_count: Option<IgnoredAny>,
}

impl Format for Sglang {
    fn name(&self) -> &'static str {
        "sglang"
    }
    fn description(&self) -> &'static str {
        "SGLang's --init-expert-location (.json; .pt and recordings can be read): all layers; needs the devices"
    }
    fn detect(&self, path: &Path) -> bool {
        let keyed = || arrays::is_tensor_file(path) && arrays::has_tensor(path, &slots::KEYS, 2);
        text::starts_with(path, &["\"physical_to_logical_map\""]) || keyed()
    }
    fn read(&self, path: &Path, options: &ReadOptions) -> Result<PlacementFile> {
        let rows = if arrays::is_tensor_file(path) {
            slots::of_array(&arrays::tensor(path, &slots::KEYS, &slots::want(None))?)?
        } else {
            let cure = "see FORMATS.md for its key";
            let file: File = serde_json::from_slice(&text::read(path)?)
                .map_err(|e| text::broken("expert location of SGLang", &e).cure(cure))?;
            match file {
                File { physical_to_logical_map: Some(rows), .. } => rows,
                File { logical_count: Some(_), .. } => {
                    let problem = "holds counts, of which SGLang makes a placement when it starts";
                    let cure = "place experts by these counts, or record a running server in the mode per_pass";
                    return Err(Diag::input(problem).place("logical_count").cure(cure));
                }
                File { .. } => return Err(Diag::input("has no physical_to_logical_map").place("keys").cure(cure)),
            }
        };
        let mut notes = Vec::new();
        if options.layer_numbers.is_none() {
            notes.push("a row is a layer of the model: rows of dense layers, if it has any, are among them".into());
        }
        // Bounds before layers are numbered.
        if rows.len() > LAYERS {
            return Err(placed::too_large(format!("has {} layers", rows.len())));
        }
        let placed = slots::place(&rows, options)?;
        let layer_numbers = (0..rows.len() as u32).collect();
        let file = PlacementFile { format: self.name(), model: None, layer_numbers, placed, result: None, notes };
        cut(file, options)
    }
    fn write(&self, file: &PlacementFile, path: &Path) -> Result<()> {
        let p = &file.placed;
        let each = slots::equal(p, "SGLang", true)?;
        if !text::named(path, &["json"]) {
            return Err(Diag::input("is not named .json").cure("SGLang reads text from a .json: name it so"));
        }
        let last = file.layer_numbers.last().map_or(0, |l| *l as usize);
        if last >= LAYERS {
            return Err(placed::too_large(format!("has a layer {last}, and SGLang's map a row for each before it")));
        }
        let mut placed = file.layer_numbers.iter().zip(&p.devices).peekable();
        let unplaced: Vec<u16> = (0..each * p.devices()).map(|s| (s % p.experts) as u16).collect();
        let mut out = String::from("{\"physical_to_logical_map\": [");
        for l in 0..=last {
            let _ = write!(out, "{}\n[", if l == 0 { "" } else { "," });
            match placed.next_if(|(number, _)| **number as usize == l) {
                Some((_, layer)) => own::list(&mut out, slots::row(layer)),
                None => own::list(&mut out, unplaced.iter()),
            }
            out.push(']');
        }
        AtomicFile::write(path, (out + "\n]}\n").as_bytes())
    }
}
