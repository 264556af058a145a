//! Expert statistics of TensorRT-LLM, token by token: a folder with `rank*_raw.safetensors`, each with one array
//! `ITERATION_LAYER` [tokens, k] of what that rank's tokens selected, and `meta_info.json`.
//!
//! * The files have no requests and no positions: the tokens of a rank in an iteration become a sequence, which is
//!   what ran together, not what belongs together. They are numbered by iteration, then rank.
//! * With TensorRT-LLM's load balancer the ids are expert slots, and `num_experts` counts slots.
//! * `rank*.safetensors` alone are counts, which [`crate::counts`] reads.
//!
//! Files are mapped; one sequence is held in memory, and what the headers say (below 100 MB a file).

use super::{Declared, Importer, Options, SEQUENCE, Sink};
use crate::json;
use crate::numbers::{Element, Kind};
use crate::trace::{Meta, OwnedSequence};
use moesim_core::{Diag, Result, input};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

const META_BYTES: u64 = 1 << 20;
/// Ranks, all of whose files stay open as maps.
const RANKS: usize = 4096;

/// See the module.
pub(super) struct TensorRtLlm;

/// `meta_info.json`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct MetaInfo {
    pub(crate) num_experts: u32,
    pub(crate) num_experts_per_token: u32,
}

/// What a folder of statistics has.
pub(crate) struct Folder {
    path: PathBuf,
    pub(crate) meta: MetaInfo,
    /// `rank*.safetensors`, by rank.
    pub(crate) counts: Vec<PathBuf>,
    /// `rank*_raw.safetensors`, by rank.
    raw: Vec<PathBuf>,
}

impl Importer for TensorRtLlm {
    fn name(&self) -> &'static str {
        "tensorrt-llm"
    }
    fn description(&self) -> &'static str {
        "TensorRT-LLM expert statistics, a folder with rank*_raw.safetensors and meta_info.json"
    }
    fn detect(&self, path: &Path) -> bool {
        path.join("meta_info.json").is_file()
    }
    fn import(&self, path: &Path, options: &Options, sink: &mut dyn Sink) -> Result<()> {
        let folder = Folder::open(path)?;
        if folder.raw.is_empty() {
            let problem = if folder.counts.is_empty() {
                "has no rank*_raw.safetensors"
            } else {
                "has counts alone, which are no trace"
            };
            return Err(Diag::input(problem).file(path).place("folder").cure("read counts with `moesim trace counts`"));
        }
        // (Iteration, rank) -> layers; the headers alone are read.
        let mut batches: BTreeMap<(u64, usize), BTreeMap<u32, usize>> = BTreeMap::new();
        for (rank, file) in folder.raw.iter().enumerate() {
            folder.tensors(file, |name, t| {
                let (iteration, layer) = key(name)?;
                drop(integers(&t)?);
                let found = t.shape().to_vec();
                let &[tokens, _] = &found[..] else {
                    return Err(Diag::input(format!("has the shape {found:?}, not [tokens, k]")).cure("copy it again"));
                };
                batches.entry((iteration, rank)).or_default().insert(layer, tokens);
                Ok(())
            })?;
        }
        batches.retain(|_, layers| layers.values().any(|tokens| *tokens > 0));
        let Some(layers) = batches.values().next() else { return Err(super::no_rows(path)) };
        let numbers: Vec<u32> = layers.keys().copied().collect();
        for ((iteration, rank), l) in &batches {
            let same = l.values().min() == l.values().max();
            if !l.keys().copied().eq(numbers.iter().copied()) || !same {
                let problem = format!("iteration {iteration} lacks layers or tokens that others have");
                return Err(Diag::input(problem).file(&folder.raw[*rank]).place("header").cure("record it again"));
            }
        }
        let meta = folder.describe(path, &numbers, options)?;
        sink.begin(meta.clone())?;
        let maps = folder.raw.iter().map(|f| open(f)).collect::<Result<Vec<_>>>()?;
        let files: Vec<_> = maps.iter().zip(&folder.raw).map(|(m, f)| parse(m, f)).collect::<Result<_>>()?;
        for (id, (iteration, rank)) in batches.into_keys().enumerate() {
            let at = |d: Diag| d.file(&folder.raw[rank]);
            let decode = rows(&files[rank], iteration, &meta).map_err(at)?;
            let s = OwnedSequence { id: id as u32, decode, ..Default::default() };
            crate::trace::check_rows(&meta, &s.view()).map_err(at)?;
            sink.sequence(&s)?;
        }
        Ok(())
    }
}

/// The rows of one rank's iteration: layers of tokens become tokens of layers.
fn rows(file: &SafeTensors, iteration: u64, meta: &Meta) -> Result<Vec<u16>> {
    let (k, width) = (meta.k as usize, meta.width());
    let mut rows = Vec::new();
    for (l, layer) in meta.layer_numbers.iter().enumerate() {
        let name = format!("{iteration}_{layer}");
        let wrong =
            |problem: String| Diag::input(problem).place(name.clone()).cure("it is damaged: copy or record it again");
        let t = file.tensor(&name).map_err(|e| wrong(e.to_string()))?;
        let &[tokens, columns] = t.shape() else { return Err(wrong(format!("has the shape {:?}", t.shape()))) };
        if columns != k || (tokens * width) as u64 > SEQUENCE {
            return Err(wrong(format!("has the shape {:?}; k is {k}, and 1 GiB of ids the most", t.shape())));
        }
        rows.resize(tokens * width, crate::trace::MISSING);
        for (i, id) in integers(&t)?.enumerate() {
            if id != -1 {
                let id = u16::try_from(id).map_err(|_| wrong(format!("{id} is not an expert id")))?;
                rows[i / k * width + l * k + i % k] = id;
            }
        }
    }
    Ok(rows)
}

/// (Iteration, layer) of an array's name.
pub(crate) fn key(name: &str) -> Result<(u64, u32)> {
    let parts = name.split_once('_').and_then(|(i, l)| Some((i.parse().ok()?, l.parse().ok()?)));
    parts.ok_or_else(|| {
        Diag::input("is not named ITERATION_LAYER").cure("give what TensorRT-LLM wrote to EXPERT_STATISTIC_PATH")
    })
}

/// The elements of an array of integers, in C order.
pub(crate) fn integers<'a>(t: &TensorView<'a>) -> Result<impl Iterator<Item = i128> + use<'a>> {
    let element = match t.dtype() {
        Dtype::U8 => Element::new(Kind::Unsigned, 1),
        Dtype::I8 => Element::new(Kind::Signed, 1),
        Dtype::U16 => Element::new(Kind::Unsigned, 2),
        Dtype::I16 => Element::new(Kind::Signed, 2),
        Dtype::U32 => Element::new(Kind::Unsigned, 4),
        Dtype::I32 => Element::new(Kind::Signed, 4),
        Dtype::U64 => Element::new(Kind::Unsigned, 8),
        Dtype::I64 => Element::new(Kind::Signed, 8),
        other => return Err(Diag::input(format!("has elements of type {other:?}, not integers")).cure("copy it again")),
    };
    Ok(t.data().chunks_exact(element.bytes).map(move |raw| element.integer(raw)))
}

fn open(path: &Path) -> Result<memmap2::Mmap> {
    let read = |e: std::io::Error| Diag::cannot_read(path, &e);
    let file = input::open(path)?;
    if file.metadata().map_err(read)?.len() == 0 {
        return Err(Diag::input("is empty").file(path).cure("copy it again"));
    }
    crate::map::map(&file).map_err(read)
}

fn parse<'a>(map: &'a memmap2::Mmap, path: &Path) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(map).map_err(|e| {
        let words: String = e.to_string().chars().take(200).flat_map(char::escape_default).collect();
        Diag::input(format!("is no sound safetensors file: {words}")).file(path).place("header").cure("copy it again")
    })
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = path.join("meta_info.json");
        let mut text = Vec::new();
        let reader = input::open(&file)?;
        reader.take(META_BYTES).read_to_end(&mut text).map_err(|e| Diag::cannot_read(&file, &e))?;
        let meta: MetaInfo = serde_json::from_slice(&text).map_err(|e| {
            json::broken("meta_info.json of TensorRT-LLM", &e)
                .file(&file)
                .cure("write {\"num_experts\": 256, \"num_experts_per_token\": 8}")
        })?;
        let entries = path.read_dir().map_err(|e| Diag::cannot_read(path, &e))?;
        let (mut counts, mut raw) = (Vec::new(), Vec::new());
        for entry in entries.flatten() {
            let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
            let rank = name.strip_prefix("rank").and_then(|n| n.strip_suffix(".safetensors"));
            let number = |r: &str| r.parse::<u32>().ok();
            if let Some(n) = rank.and_then(number) {
                counts.push((n, path));
            } else if let Some(n) = rank.and_then(|r| r.strip_suffix("_raw")).and_then(number) {
                raw.push((n, path));
            }
        }
        if counts.len().max(raw.len()) > RANKS {
            return Err(Diag::input("has files of more than 4096 ranks").file(path).cure("give one recording"));
        }
        counts.sort();
        raw.sort();
        let paths = |list: Vec<(u32, PathBuf)>| list.into_iter().map(|f| f.1).collect();
        Ok(Self { path: path.to_path_buf(), meta, counts: paths(counts), raw: paths(raw) })
    }
    /// Calls `f` with every array of a file, by name.
    pub(crate) fn tensors(&self, file: &Path, mut f: impl FnMut(&str, TensorView) -> Result<()>) -> Result<()> {
        let map = open(file)?;
        let parsed = parse(&map, file)?;
        let mut names = parsed.names();
        names.sort_unstable();
        for name in names {
            let shown = || name.chars().take(40).flat_map(char::escape_default).collect::<String>();
            let t = parsed.tensor(name).map_err(|e| Diag::input(e.to_string()).file(file).place(shown()))?;
            f(name, t).map_err(|d| d.file(file).place(shown()))?;
        }
        Ok(())
    }
    fn describe(&self, path: &Path, layers: &[u32], options: &Options) -> Result<Meta> {
        let name = self.path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let declared = Declared {
            layer_numbers: Some(layers.to_vec()),
            experts: Some(self.meta.num_experts),
            source: Some(format!(
                "{name} (TensorRT-LLM statistics; a sequence is a rank's iteration; with its load balancer, \
                 ids are expert slots)"
            )),
            ..Default::default()
        };
        options.describe(path, layers.len(), self.meta.num_experts_per_token, declared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::load;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/tensorrt_llm");

    #[test]
    fn selections_of_safetensors() {
        let t = load(Path::new(GOLDEN), None, &Options::default()).unwrap();
        assert_eq!((&t.meta().layer_numbers[..], t.experts(), t.k(), t.sequences()), (&[3, 10][..], 4, 2, 4));
        assert!(
            t.meta()
                .source
                .ends_with("a sequence is a rank's iteration; with its load balancer, ids are expert slots)")
        );
        for (i, (step, rank)) in [(5, 0), (5, 1), (6, 0), (6, 1)].into_iter().enumerate() {
            let row = |t: u16| [3, 10].into_iter().flat_map(move |l| [0, 1].map(|c| (rank + step + t + l + c) % 4));
            assert_eq!(t.sequence(i).decode, (0..3 - rank).flat_map(row).collect::<Vec<u16>>());
        }
    }

    #[test]
    fn bad_folders() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let refused = |word: &str| {
            let e = load(dir.path(), Some("tensorrt-llm"), &Options::default()).unwrap_err();
            let text = e.to_string();
            assert!(text.contains(word) && e.exit_code() == 2 && !e.cure.is_empty() && e.place.is_some(), "{text}");
        };
        let golden = |name: &str| std::fs::read(Path::new(GOLDEN).join(name)).unwrap();
        std::fs::write(at("meta_info.json"), "{\"num_experts\": -4}").unwrap();
        refused("meta_info.json: 1:");
        std::fs::write(at("meta_info.json"), golden("meta_info.json")).unwrap();
        std::fs::write(at("rank0.safetensors"), golden("rank0.safetensors")).unwrap();
        refused("has counts alone");
        let raw = golden("rank0_raw.safetensors");
        let swap = |from: &str, to: &str| {
            let mut bytes = raw.clone();
            let hits: Vec<usize> =
                (0..bytes.len() - from.len()).filter(|i| bytes[*i..].starts_with(from.as_bytes())).collect();
            assert!(!hits.is_empty(), "{from}");
            hits.into_iter().for_each(|i| bytes[i..i + to.len()].copy_from_slice(to.as_bytes()));
            bytes
        };
        for (bytes, word) in [
            (raw[..raw.len() - 3].to_vec(), "no sound safetensors"),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff{}".to_vec(), "no sound safetensors"),
            (golden("rank0.safetensors"), "not [tokens, k]"),
            (swap("6_10", "6_11"), "lacks layers"),
            (swap("6_10", "None"), "ITERATION_LAYER"),
            (swap("\"I32\"", "\"F32\""), "not integers"),
        ] {
            std::fs::write(at("rank0_raw.safetensors"), bytes).unwrap();
            refused(word);
        }
        std::fs::write(at("rank0_raw.safetensors"), &raw).unwrap();
        std::fs::write(at("meta_info.json"), "{\"num_experts\": 3, \"num_experts_per_token\": 2}").unwrap();
        refused("expert 3 of 3");
        std::fs::write(at("meta_info.json"), "{\"num_experts\": 4, \"num_experts_per_token\": 3}").unwrap();
        refused("k is 3");
    }
}
