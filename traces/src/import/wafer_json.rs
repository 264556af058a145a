//! One JSON file a request: a list of steps, step 0 the prefill, each later step one decoded token. A step maps a layer
//! number (a string) to `null` (a dense layer) or to a list, over tokens, of lists of expert ids:
//! `[{"0": null, "1": [[106], [89]]}, {"0": null, "1": [[7]]}]`.
//!
//! The form is that of the public data set of the wafer-scale paper. It has no request numbers and no positions: files
//! are numbered in the order of their paths, positions start at 0. A list shorter than k, or a -1 in it, is missing experts.

use super::{Declared, Importer, Options, SEQUENCE, Sink};
use crate::json;
use crate::trace::{MISSING, Meta, OwnedSequence};
use moesim_core::output::Manifest;
use moesim_core::{Diag, Result, input};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Files of the data set have up to 2 MB; this one is held in memory.
const FILE_BYTES: u64 = 64 << 20;
const DEPTH: usize = 32;

/// See the module.
pub(super) struct WaferJson;

/// Per layer, in the order of the file: over tokens, the ids.
struct Step(Vec<(u32, Option<Vec<Vec<i32>>>)>);

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Layers;
        impl<'de> Visitor<'de> for Layers {
            type Value = Step;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a step: a map from layer number to null or lists of expert ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Step, A::Error> {
                let mut layers = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let layer =
                        key.parse().map_err(|_| A::Error::custom(format!("\"{key:.20}\" is not a layer number")))?;
                    layers.push((layer, map.next_value()?));
                }
                layers.sort_by_key(|l| l.0);
                match layers.windows(2).find(|w| w[0].0 == w[1].0) {
                    Some(w) => Err(A::Error::custom(format!("layer {} is there twice", w[0].0))),
                    None => Ok(Step(layers)),
                }
            }
        }
        d.deserialize_map(Layers)
    }
}

impl Importer for WaferJson {
    fn name(&self) -> &'static str {
        "wafer-json"
    }
    fn description(&self) -> &'static str {
        "JSON, one file a request: a list of steps, each a map from layer to lists of expert ids (a file or a folder)"
    }
    fn detect(&self, path: &Path) -> bool {
        let Ok(files) = files(path) else { return false };
        let mut start = Vec::new();
        let file = files.first().and_then(|p| input::open(p).ok());
        let read = file.and_then(|f| f.take(256).read_to_end(&mut start).ok()).is_some();
        let compact: Vec<u8> = start.into_iter().filter(|b| !b.is_ascii_whitespace()).collect();
        read && compact.starts_with(b"[{\"") && compact.get(3).is_some_and(u8::is_ascii_digit)
    }
    fn import(&self, path: &Path, options: &Options, sink: &mut dyn Sink) -> Result<()> {
        let files = files(path)?;
        let first = files.first().ok_or_else(|| {
            Diag::input("has no .json file").file(path).cure("give a folder with one file a request, or a file")
        })?;
        let meta = describe(&read(first)?, path, options).map_err(|d| d.file(first))?;
        sink.begin(meta.clone())?;
        for (id, file) in files.iter().enumerate() {
            let at = |d: Diag| d.file(file);
            let s = Request { steps: &read(file)?, meta: &meta }.rows(id as u32).map_err(at)?;
            crate::trace::check_rows(&meta, &s.view()).map_err(at)?;
            sink.sequence(&s)?;
        }
        Ok(())
    }
}

/// The files of a request each, sorted by path; links to folders are not followed.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    fn walk(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
        if depth > DEPTH {
            return Err(Diag::input("is nested too deep").file(path).cure("give a folder nearer to the files"));
        }
        for entry in path.read_dir().map_err(|e| Diag::cannot_read(path, &e))? {
            let entry = entry.map_err(|e| Diag::cannot_read(path, &e))?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(|e| Diag::cannot_read(path, &e))?);
            if kind.is_dir() {
                walk(&path, depth + 1, found)?;
            } else if path.ends_with(Manifest::NAME) {
                // What an export lists of its own files.
            } else if path.extension().is_some_and(|e| e == "json") && path.is_file() {
                found.push(path);
            }
        }
        Ok(())
    }
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    walk(path, 0, &mut found)?;
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<Step>> {
    let mut text = Vec::new();
    let file = input::open(path)?;
    BufReader::new(file).take(FILE_BYTES + 1).read_to_end(&mut text).map_err(|e| Diag::cannot_read(path, &e))?;
    if text.len() as u64 > FILE_BYTES {
        return Err(Diag::input("is larger than 64 MiB").file(path).place("size").cure("give one request a file"));
    }
    let steps: Vec<Step> = serde_json::from_slice(&text).map_err(|e| {
        json::broken("list of steps", &e)
            .file(path)
            .cure("write [{\"LAYER\": [[expert, ...], ...] or null, ...}, ...], step 0 the prefill")
    })?;
    if steps.is_empty() {
        return Err(Diag::input("has no steps").file(path).place("1:1").cure("write the prefill as step 0"));
    }
    Ok(steps)
}

/// The trace that the first file promises; k is the model's, the option's, or the longest list of step 0.
fn describe(steps: &[Step], path: &Path, options: &Options) -> Result<Meta> {
    let moe: Vec<_> = steps[0].0.iter().filter_map(|(l, tokens)| Some((*l, tokens.as_ref()?))).collect();
    let longest = || steps.iter().flat_map(|s| s.0.iter().flat_map(|l| l.1.iter().flatten())).map(Vec::len).max();
    let model = options.load_model()?;
    let of_model = model.as_ref().and_then(|m| m.decoder.iter().find_map(|l| l.moe())).map(|m| m.top_k);
    let k = options.k.or(of_model).unwrap_or(longest().unwrap_or(0).try_into().unwrap_or(u32::MAX));
    let layer_numbers = Some(moe.iter().map(|l| l.0).collect());
    options.describe(path, moe.len(), k, Declared { layer_numbers, ..Default::default() })
}

/// One file, in a trace of which other files may have said what it is.
struct Request<'a> {
    steps: &'a [Step],
    meta: &'a Meta,
}

impl Request<'_> {
    fn rows(&self, id: u32) -> Result<OwnedSequence> {
        let mut s = OwnedSequence { id, ..Default::default() };
        for (i, step) in self.steps.iter().enumerate() {
            let rows = self.step(i, step)?;
            if i == 0 {
                s.decode_first_position = (rows.len() / self.meta.width()) as u32;
                s.prefill = rows;
            } else {
                s.decode.extend(rows);
            }
        }
        Ok(s)
    }
    /// The rows of one step: layers of tokens become tokens of layers.
    fn step(&self, number: usize, step: &Step) -> Result<Vec<u16>> {
        let (width, k) = (self.meta.width(), self.meta.k as usize);
        let layers: Vec<_> = step.0.iter().filter_map(|(l, tokens)| Some((*l, tokens.as_ref()?))).collect();
        if !layers.iter().map(|l| l.0).eq(self.meta.layer_numbers.iter().copied()) {
            let found: Vec<u32> = layers.iter().map(|l| l.0).collect();
            let problem = format!("has MoE layers {found:?}, not {:?} as the first file", self.meta.layer_numbers);
            return Err(Diag::input(problem)
                .place(format!("step {number}"))
                .cure("import requests of one model only, with every layer in every step"));
        }
        let tokens = layers.first().map_or(0, |l| l.1.len());
        // Every list has a token's entry in the file, but a token without experts is two bytes there.
        if tokens as u64 * width as u64 > SEQUENCE {
            let problem = format!("has {tokens} tokens, which is more than is read of one sequence");
            return Err(Diag::input(problem).place(format!("step {number}")).cure("split the request"));
        }
        let mut rows = vec![MISSING; tokens * width];
        for (l, (layer, lists)) in layers.iter().enumerate() {
            let place = format!("step {number}, layer {layer}");
            if lists.len() != tokens || (number > 0 && tokens != 1) {
                let expected = if number > 0 { 1 } else { tokens };
                return Err(Diag::input(format!("has {} tokens, not {expected}", lists.len()))
                    .place(place)
                    .cure("give every layer of a step the same tokens, and decode steps one"));
            }
            for (t, ids) in lists.iter().enumerate() {
                let place = || format!("{place}, token {t}");
                if ids.len() > k {
                    return Err(Diag::input(format!("has {} experts; k is {k}", ids.len()))
                        .place(place())
                        .cure("give the model or its k"));
                }
                for (slot, &id) in ids.iter().enumerate() {
                    let known = u16::try_from(id).ok().filter(|id| u32::from(*id) < self.meta.experts);
                    let known = known.or((id == -1).then_some(MISSING));
                    rows[t * width + l * k + slot] = known.ok_or_else(|| {
                        Diag::input(format!("expert {id} of {} does not exist", self.meta.experts))
                            .place(place())
                            .cure("give the model that was traced, or the number of experts")
                    })?;
                }
            }
        }
        Ok(rows)
    }
}
