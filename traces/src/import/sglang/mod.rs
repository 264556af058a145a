//! Recordings of SGLang's expert distribution recorder in the mode `per_token`, written by `torch.save`:
//! `{"records": [...], "last_physical_to_logical_map": [layers, physical experts]}`, one record a forward pass with
//! `positions`, `extend_seq_lens`, `forward_mode` and `topk_ids_of_layer` [layers, tokens, columns].
//!
//! * The ids are physical; the map that was in force at the end of the recording makes them logical. Where SGLang
//!   moved experts meanwhile, earlier records are misread: the file has no more than this. Without a map they are logical.
//!   Maps by model (`model_maps`) are read if there is one.
//! * Layers count from 0 as in the model, dense ones included. MoE layers are those with any id, k is the last
//!   column with any id; -1 is missing.
//! * The records have no requests: see [`requests`]. Sequences are numbered in the order in which they begin.
//! * In a folder, files are read by name. A rank whose records are those of an earlier file is left out: tensor-parallel
//!   ranks all see the same tokens.
//!
//! The file is mapped. Memory is taken by its objects (see [`crate::torch`]), by about 100 bytes a token of one file, and
//! by one sequence.

mod recording;
mod requests;

use super::{Declared, Importer, Options, SEQUENCE, Sink};
use crate::torch::{TorchFile, is_torch};
use crate::trace::{MISSING, Meta, OwnedSequence};
use moesim_core::{Diag, Result};
use recording::Recording;
pub(crate) use recording::{last_map, read_map};
use requests::{Request, join};
use std::path::{Path, PathBuf};

/// See the module.
pub(super) struct Sglang;

impl Importer for Sglang {
    fn name(&self) -> &'static str {
        "sglang"
    }
    fn description(&self) -> &'static str {
        "SGLang expert distribution recorder, mode per_token (a .pt file, or a folder of them, one a rank)"
    }
    fn detect(&self, path: &Path) -> bool {
        files(path).is_ok_and(|f| f.first().is_some_and(|f| is_torch(f)))
    }
    fn import(&self, path: &Path, options: &Options, sink: &mut dyn Sink) -> Result<()> {
        let mut used = Used::default();
        let (mut seen, mut kept) = (Vec::new(), Vec::new());
        for path in files(path)? {
            let file = TorchFile::open(&path)?;
            let recording = Recording::of(&file).map_err(|d| file.at(d))?;
            let hash = used.note(&recording).map_err(|d| file.at(d))?;
            if !seen.contains(&hash) {
                seen.push(hash);
                kept.push(path);
            }
        }
        let meta = used.meta(path, options)?;
        sink.begin(meta.clone())?;
        let mut next = 0;
        for path in kept {
            let file = TorchFile::open(&path)?;
            let at = |d: Diag| file.at(d);
            let recording = Recording::of(&file).map_err(at)?;
            for request in join(&recording.passes().map_err(at)?).map_err(at)? {
                let s = rows(&recording, &request, &meta, next).map_err(at)?;
                next += 1;
                crate::trace::check_rows(&meta, &s.view()).map_err(at)?;
                sink.sequence(&s)?;
            }
        }
        Ok(())
    }
}

/// The file, or those of the folder, by name.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let entries = path.read_dir().map_err(|e| Diag::cannot_read(path, &e))?;
    let is_file = |p: &PathBuf| p.extension().is_some_and(|e| e == "pt") && p.is_file();
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(is_file).collect();
    found.sort();
    let none = || Diag::input("has no .pt file").file(path).cure("give a folder with recordings, or one of them");
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

/// What of the layers, columns and experts is used, over all files.
#[derive(Default)]
struct Used {
    layers: Vec<bool>,
    k: usize,
    /// By the maps.
    experts: Option<u32>,
}

impl Used {
    /// Notes a recording and returns a hash of its positions and ids.
    fn note(&mut self, recording: &Recording) -> Result<blake3::Hash> {
        let mut hash = blake3::Hasher::new();
        let mut bytes = Vec::new();
        self.experts = self.experts.max(recording.experts);
        for (number, r) in recording.records.iter().enumerate() {
            let &[layers, tokens, columns] = &r.ids.shape[..] else { continue };
            if tokens == 0 {
                continue;
            }
            if self.layers.is_empty() {
                self.layers.resize(layers, false);
            }
            if self.layers.len() != layers {
                let problem = format!("has {layers} layers; the records before it have {}", self.layers.len());
                return Err(Diag::input(problem).place(format!("record {number}")).cure("give one model's recordings"));
            }
            bytes.clear();
            bytes.extend(r.positions.iter().flat_map(|p| p.int().unwrap_or(-1).to_le_bytes()));
            for layer in 0..layers {
                for token in 0..tokens {
                    for column in 0..columns {
                        let id = recording.file.integer(r.ids, [layer, token, column]);
                        bytes.extend((id as i32).to_le_bytes());
                        if id != -1 {
                            self.layers[layer] = true;
                            self.k = self.k.max(column + 1);
                        }
                    }
                }
                hash.update(&bytes);
                bytes.clear();
            }
        }
        Ok(hash.finalize())
    }
    fn meta(&self, path: &Path, options: &Options) -> Result<Meta> {
        let used = self.layers.iter().enumerate().filter(|(_, used)| **used);
        let numbers: Vec<u32> = used.map(|(l, _)| l as u32).collect();
        if numbers.is_empty() {
            return Err(super::no_rows(path));
        }
        let k = options.k.unwrap_or(0).max(u32::try_from(self.k).unwrap_or(u32::MAX));
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        // Only the map at the end is in the file.
        let moved = if self.experts.is_some() { "; wrong where experts were moved meanwhile" } else { "" };
        let source = format!("{name} (SGLang recorder; requests joined by their positions{moved})");
        let layers = numbers.len();
        let declared = Declared {
            layer_numbers: Some(numbers),
            experts: self.experts,
            source: Some(source),
            ..Default::default()
        };
        options.describe(path, layers, k, declared)
    }
}

/// The rows of a request.
fn rows(recording: &Recording, request: &Request, meta: &Meta, id: u32) -> Result<OwnedSequence> {
    let ids = request.tokens.len() as u64 * meta.width() as u64;
    if ids > SEQUENCE {
        let problem = format!("a request of {} tokens has more than 1 GiB of ids", request.tokens.len());
        return Err(Diag::input(problem).place("records").cure("record shorter requests"));
    }
    let mut all = Vec::with_capacity(ids as usize);
    for &(record, token) in &request.tokens {
        for layer in &meta.layer_numbers {
            for column in 0..meta.k as usize {
                let id = recording.id(record as usize, [*layer as usize, token as usize, column])?;
                all.push(id.unwrap_or(MISSING));
            }
        }
    }
    let decode = all.split_off(request.prompt * meta.width());
    Ok(OwnedSequence {
        id,
        first_position: request.first,
        prefill: all,
        decode,
        // Below 2^32, as every position is.
        decode_first_position: request.first + request.prompt as u32,
        weights: None,
    })
}

#[cfg(test)]
mod tests;
