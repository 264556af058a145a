//! Tables of popularity and co-activation as mbolt publishes them (`coactivation_*.json.gz`, or unpacked): an object with
//! `n_expert_per_layer`, `k` and `layers`, a list of `{"layer": 0, "heat": [...], "pairs": [[i, j, count, ...], ...]}`.
//! `heat` is the tokens that selected each expert; `abs_layer` stands for `layer` where the first layers are dense.
//!
//! The whole table is held in memory: at most 256 MiB of text.

use super::{COUNTS, EXPERTS, ExpertCounts, LAYERS, Reader};
use crate::json;
use flate2::read::MultiGzDecoder;
use moesim_core::{Diag, Result, input};
use serde::Deserialize;
use std::io::{BufReader, Read};
use std::path::Path;

const BYTES: u64 = 256 << 20;

pub(super) struct Coactivation;

#[derive(Deserialize)]
struct PopularityTable {
    model: Option<String>,
    n_expert_per_layer: u32,
    k: Option<u32>,
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    layer: Option<u32>,
    abs_layer: Option<u32>,
    heat: Vec<u64>,
    #[serde(default)]
    pairs: Vec<Pair>,
}

/// (Expert, expert, tokens), whatever follows.
struct Pair(u32, u32, u64);

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> serde::de::Visitor<'de> for Visit {
            type Value = Pair;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a pair [expert, expert, count, ...]")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut s: A) -> std::result::Result<Pair, A::Error> {
                let short = |i| serde::de::Error::invalid_length(i, &"a pair [expert, expert, count, ...]");
                let (i, j) = (s.next_element()?.ok_or_else(|| short(0))?, s.next_element()?.ok_or_else(|| short(1))?);
                let count = s.next_element()?.ok_or_else(|| short(2))?;
                while s.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Pair(i, j, count))
            }
        }
        d.deserialize_seq(Visit)
    }
}

/// The text of a file, unpacked if it is gzip.
fn text(path: &Path) -> Result<Box<dyn Read>> {
    let mut start = [0u8; 2];
    let packed = input::open(path)?.read_exact(&mut start).is_ok() && start == [0x1f, 0x8b];
    let file = BufReader::new(input::open(path)?);
    Ok(if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

impl Reader for Coactivation {
    fn name(&self) -> &'static str {
        "coactivation"
    }
    fn description(&self) -> &'static str {
        "mbolt's popularity and co-activation tables (.json or .json.gz)"
    }
    fn detect(&self, path: &Path) -> bool {
        let mut start = Vec::new();
        let read = path.is_file() && text(path).is_ok_and(|t| t.take(64 << 10).read_to_end(&mut start).is_ok());
        let has = |word: &[u8]| start.windows(word.len()).any(|w| w == word);
        read && start.trim_ascii_start().starts_with(b"{") && has(b"\"n_expert_per_layer\"")
    }
    fn read(&self, path: &Path) -> Result<ExpertCounts> {
        let mut json = Vec::new();
        let bounded = text(path)?.take(BYTES + 1);
        let mut bounded = BufReader::new(bounded);
        bounded
            .read_to_end(&mut json)
            .map_err(|e| Diag::input(format!("ends early or is damaged: {e}")).place("gzip").cure("copy it again"))?;
        if json.len() as u64 > BYTES {
            return Err(Diag::input("is larger than 256 MiB unpacked").place("size").cure("give one model's table"));
        }
        let table: PopularityTable = serde_json::from_slice(&json).map_err(|e| {
            json::broken("table of popularity", &e)
                .cure("write {\"n_expert_per_layer\": 128, \"layers\": [{\"layer\": 0, \"heat\": [...], \"pairs\": [[i, j, count]]}]}")
        })?;
        let experts = table.n_expert_per_layer as usize;
        let mut counts =
            ExpertCounts { model: table.model, experts: table.n_expert_per_layer, k: table.k, ..Default::default() };
        if table.layers.len() > LAYERS || experts == 0 || experts > EXPERTS || table.layers.len() * experts > COUNTS {
            let problem = format!("has {} layers of {experts} experts", table.layers.len());
            return Err(Diag::input(problem).place("layers").cure("give at most 4096 layers of 65534 experts"));
        }
        for (i, layer) in table.layers.into_iter().enumerate() {
            let wrong = |problem: String| Diag::input(problem).place(format!("layers[{i}]")).cure("correct the table");
            let number = layer.abs_layer.or(layer.layer).unwrap_or(i as u32);
            if let Some(last) = counts.layer_numbers.last().filter(|l| **l >= number) {
                return Err(wrong(format!("layer {number} follows layer {last}")));
            }
            if layer.heat.len() != experts {
                return Err(wrong(format!("has heat of {} experts, not {experts}", layer.heat.len())));
            }
            if layer.heat.iter().any(|c| *c >= 1 << 40) {
                return Err(wrong("has heat of 2^40 or more".into()));
            }
            let beyond = |p: &&Pair| {
                let heat = |e: u32| layer.heat.get(e as usize).copied();
                p.0 == p.1 || heat(p.0).zip(heat(p.1)).is_none_or(|(a, b)| p.2 > a.min(b))
            };
            if let Some(p) = layer.pairs.iter().find(beyond) {
                return Err(wrong(format!("the pair [{}, {}, {}] is not of experts so often selected", p.0, p.1, p.2)));
            }
            if layer.heat.iter().all(|c| *c == 0) {
                continue;
            }
            counts.layer_numbers.push(number);
            counts.counts.extend(layer.heat);
            counts.pairs.push(layer.pairs.into_iter().map(|p| (p.0, p.1, p.2)).collect());
        }
        if counts.counts.is_empty() {
            return Err(Diag::input("has no selections").place("layers").cure("give a table with some"));
        }
        if counts.pairs.iter().any(|p| !p.is_empty()) {
            counts.notes.push("rare pairs may be left out of the table".into());
        } else {
            counts.pairs.clear();
        }
        Ok(counts)
    }
}
