//! Importance matrices of llama.cpp in GGUF: how often each expert's matrix was multiplied, in the arrays
//! `blk.LAYER.ffn_(gate|up|gate_up|down)_exps.weight.counts` [experts, 1] of f32.
//!
//! The reader of GGUF (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>) is our own, because the crates that
//! read it believe the lengths that a file declares, or bring a tensor library; of the file it touches the header and these
//! arrays. The older `.dat` has one count for all experts of a layer, so it is refused.

use super::grid::Grid;
use super::{ExpertCounts, LAYERS, Reader};
use moesim_core::{Diag, Result, input};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Names and texts; real ones are below 1 KB.
const TEXT: u64 = 1 << 20;
/// Depth of arrays in arrays.
const DEPTH: usize = 4;
/// The parts of a layer's experts, all of which see the same tokens.
const PARTS: [&str; 4] = ["ffn_gate_exps", "ffn_gate_up_exps", "ffn_up_exps", "ffn_down_exps"];

pub(super) struct Imatrix;

impl Reader for Imatrix {
    fn name(&self) -> &'static str {
        "imatrix"
    }
    fn description(&self) -> &'static str {
        "llama.cpp importance matrix with counts for each expert (.gguf)"
    }
    fn detect(&self, path: &Path) -> bool {
        let mut start = Vec::new();
        let read = input::open(path).is_ok_and(|f| f.take(16).read_to_end(&mut start).is_ok());
        read && (start.starts_with(b"GGUF") || is_legacy(&start))
    }
    fn read(&self, path: &Path) -> Result<ExpertCounts> {
        let read = |e: std::io::Error| Diag::cannot_read(path, &e);
        let file = input::open(path)?;
        let map = crate::map::map(&file).map_err(read)?;
        if is_legacy(&map) {
            return Err(Diag::input(
                "is an importance matrix in the older format, which has no counts for each expert",
            )
            .place("header")
            .cure("write it anew with llama-imatrix --output-format gguf"));
        }
        let tensors = tensors(&map)?;
        counts(&map, &tensors)
    }
}

/// An importance matrix of before GGUF: entries, length of the first name, `blk.` or `output`.
fn is_legacy(start: &[u8]) -> bool {
    start.get(8..12).is_some_and(|n| n == b"blk." || n == b"outp") && start.get(7) == Some(&0)
}

/// An array of a layer's part: (its place in the file, elements).
type Found = BTreeMap<(u32, usize), (usize, usize)>;

fn counts(map: &[u8], found: &Found) -> Result<ExpertCounts> {
    let last = found.keys().map(|k| k.0).max().ok_or_else(|| {
        Diag::input("has no counts of experts")
            .place("tensors")
            .cure("give an importance matrix of a mixture-of-experts model, from llama.cpp of July 2025 or later")
    })?;
    let experts = found.values().map(|f| f.1).max().unwrap_or(0);
    if let Some((key, f)) = found.iter().find(|f| f.1.1 != experts) {
        let problem = format!("has {} counts, where others have {experts}", f.1);
        let cure = "compute it again from the model: a matrix that was loaded from the older format has no counts";
        return Err(Diag::input(problem).place(format!("blk.{}.{}", key.0, PARTS[key.1])).cure(cure));
    }
    let mut grid = Grid::new(&[last as usize + 1, experts])?;
    let (mut differ, mut rounded) = (false, false);
    let mut before: Option<(u32, &[u8])> = None;
    for ((layer, part), (start, n)) in found {
        let bytes = &map[*start..*start + 4 * *n];
        if let Some((l, first)) = before.filter(|b| b.0 == *layer) {
            differ |= first != bytes;
            before = Some((l, first));
            continue;
        }
        before = Some((*layer, bytes));
        for (e, raw) in bytes.chunks_exact(4).enumerate() {
            let count = f32::from_le_bytes(raw.try_into().unwrap_or_default());
            rounded |= count >= 16_777_216.0;
            let at = |d: Diag| d.place(format!("blk.{layer}.{}, expert {e}", PARTS[*part]));
            grid.add(*layer as usize, e, count.into()).map_err(|d| Diag { place: None, ..d }).map_err(at)?;
        }
    }
    let mut counts = grid.counts(|l| l as u32)?;
    if differ {
        counts
            .notes
            .push("parts of a layer have other counts: those of its first part (gate, up, down) are taken".into());
    }
    if rounded {
        counts.notes.push("counts of 2^24 and more are rounded in the file (f32)".into());
    }
    Ok(counts)
}

/// Reads the header: where the counts of experts are.
fn tensors(map: &[u8]) -> Result<Found> {
    let mut r = Header { map, at: 4 };
    let mut inner = || -> Result<Found> {
        let version = r.u32()?;
        if !(2..=3).contains(&version) {
            return Err(wrong(format!("is GGUF of version {version}, not 2 or 3")));
        }
        let (tensors, entries) = (r.u64()?, r.u64()?);
        let (mut alignment, mut imatrix) = (32u64, false);
        for _ in 0..entries {
            let key = r.text()?;
            let kind = r.u32()?;
            match (key, kind) {
                (b"general.alignment", 4) => alignment = r.u32()?.into(),
                (b"general.type", 8) => imatrix = r.text()? == b"imatrix",
                _ => r.skip_value(kind, 0)?,
            }
        }
        if !imatrix {
            return Err(wrong("is GGUF, but no importance matrix".into()));
        }
        let mut found = BTreeMap::new();
        for _ in 0..tensors {
            let key = std::str::from_utf8(r.text()?).ok().and_then(expert_counts);
            let dimensions = r.u32()?;
            let mut count = Some(1u64);
            for _ in 0..dimensions.min(5) {
                let d = r.u64()?;
                count = count.and_then(|c| c.checked_mul(d));
            }
            let (kind, offset) = (r.u32()?, r.u64()?);
            let (Some(key), Some(count)) = (key, count) else { continue };
            if kind != 0 || dimensions > 4 {
                return Err(wrong(format!("the counts of blk.{} are no f32 array", key.0)));
            }
            found.insert(key, (offset, count));
        }
        if !alignment.is_power_of_two() {
            return Err(wrong(format!("has the alignment {alignment}")));
        }
        let data = (r.at as u64).next_multiple_of(alignment);
        let place = |(key, (offset, count)): ((u32, usize), (u64, u64))| {
            let start = data.checked_add(offset);
            let end = count.checked_mul(4).and_then(|n| start?.checked_add(n)).filter(|e| *e <= map.len() as u64);
            let (Some(start), Some(_)) = (start, end) else {
                return Err(wrong(format!("the counts of blk.{} lie behind the end", key.0)));
            };
            Ok((key, (start as usize, count as usize)))
        };
        found.into_iter().map(place).collect()
    };
    let found = inner();
    let at = r.at;
    found.map_err(|d| d.place(format!("byte {at}")))
}

/// (Layer, index of the part) of the name of an array of counts.
fn expert_counts(name: &str) -> Option<(u32, usize)> {
    let (layer, part) = name.strip_prefix("blk.")?.strip_suffix(".weight.counts")?.split_once('.')?;
    let layer = layer.parse().ok().filter(|l| *l < LAYERS as u32)?;
    Some((layer, PARTS.iter().position(|p| *p == part)?))
}

fn wrong(problem: String) -> Diag {
    Diag::input(problem).cure("give an importance matrix that llama-imatrix wrote, or copy it again")
}

/// The header, read from its start. Everything read moves on by at least a byte, so lengths cannot lie for long.
struct Header<'a> {
    map: &'a [u8],
    at: usize,
}

impl<'a> Header<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        let bytes = end.and_then(|end| self.map.get(self.at..end)).ok_or_else(|| wrong("ends early".into()))?;
        self.at += bytes.len();
        Ok(bytes)
    }
    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default()))
    }
    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().unwrap_or_default()))
    }
    fn text(&mut self) -> Result<&'a [u8]> {
        let n = self.u64()?;
        if n > TEXT { Err(wrong(format!("has a text of {n} bytes"))) } else { self.take(n) }
    }
    fn skip_value(&mut self, kind: u32, depth: usize) -> Result<()> {
        let size = |kind| match kind {
            0 | 1 | 7 => Some(1u64),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            _ => None,
        };
        match (kind, size(kind)) {
            (_, Some(n)) => _ = self.take(n)?,
            (8, _) => _ = self.text()?,
            (9, _) if depth < DEPTH => {
                let (kind, n) = (self.u32()?, self.u64()?);
                match size(kind) {
                    Some(each) => _ = self.take(n.saturating_mul(each))?,
                    None => (0..n).try_for_each(|_| self.skip_value(kind, depth + 1))?,
                }
            }
            (9, _) => return Err(wrong(format!("has arrays in arrays, more than {DEPTH} deep"))),
            _ => return Err(wrong(format!("has a value of the unknown type {kind}"))),
        }
        Ok(())
    }
}
