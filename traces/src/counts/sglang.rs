//! Recordings of SGLang's expert distribution recorder:
//!
//! * modes `stat` and `stat_approx`: `logical_count`, [passes, layers, experts] in a `.pt`, summed over all ranks by SGLang;
//! * modes `per_pass` and `per_token`: `records` with `global_physical_count` [layers, physical experts] of one rank, made
//!   logical by the map at the end of the recording, under either of its names;
//! * before these: a table `layer_id,expert_id,count`.
//!
//! Layers count from 0 as in the model; dense ones have no selections and are left out.

use super::grid::Grid;
use super::{COUNTS, EXPERTS, ExpertCounts, LAYERS, Reader};
use crate::csv_lines::{self, broken};
use crate::import::{last_map, read_map};
use crate::text;
use crate::torch::{TorchFile, is_torch};
use moesim_core::{Diag, Result};
use std::collections::BTreeMap;
use std::path::Path;

const HEADER: &[u8] = b"layer_id,expert_id,count";

pub(super) struct Sglang;

impl Reader for Sglang {
    fn name(&self) -> &'static str {
        "sglang"
    }
    fn description(&self) -> &'static str {
        "SGLang expert distribution recorder, any mode (.pt), or its older layer_id,expert_id,count (.csv)"
    }
    fn detect(&self, path: &Path) -> bool {
        // A file that cannot be read as one of torch's is refused here, with what is wrong with it.
        is_table(path) || (is_torch(path) && TorchFile::open(path).map_or(true, |f| f.tensor(f.root).is_none()))
    }
    fn read(&self, path: &Path) -> Result<ExpertCounts> {
        if is_table(path) {
            return table(path);
        }
        let file = TorchFile::open(path)?;
        if let Some(t) = file.get(file.root, "logical_count").and_then(|t| file.tensor(t)) {
            let mut grid = Grid::new(&t.shape).map_err(|d| d.place("logical_count"))?;
            file.numbers(t).try_for_each(|n| grid.push(n))?;
            return grid.counts(|l| l as u32);
        }
        records(&file)
    }
}

fn records(file: &TorchFile) -> Result<ExpertCounts> {
    let wrong = |problem: String| Diag::input(problem).cure("it is damaged: copy or record it again");
    let list = file.get(file.root, "records").and_then(|r| file.items(r)).ok_or_else(|| {
        Diag::input("has neither logical_count nor records")
            .place("data.pkl")
            .cure("give what SGLang's expert distribution recorder dumped")
    })?;
    let map = last_map(file)?;
    let mut logical: Option<(Vec<u16>, usize)> = None;
    let (mut grid, mut shape, mut bytes) = (None, vec![], 0u64);
    for (i, v) in list.iter().enumerate() {
        let place = format!("record {i}");
        let Some(t) = file.get(*v, "global_physical_count").and_then(|t| file.tensor(t)) else {
            return Err(wrong("has no global_physical_count".into()).place(place));
        };
        // The counts of a record are its own, so there cannot be more than the file has bytes.
        bytes += (t.count() * t.element.bytes) as u64;
        if bytes > file.bytes() || list.len() > file.pickle_bytes() / 32 {
            return Err(wrong("shares its counts with other records".into()).place(place));
        }
        if grid.is_none() {
            let &[layers, physical] = &t.shape[..] else {
                return Err(wrong(format!("has counts of the shape {:?}", t.shape)).place(place));
            };
            logical = map.map(|m| read_map(file, m, layers)).transpose()?;
            let named = logical.as_ref().and_then(|m| m.0.iter().max()).map(|top| usize::from(*top) + 1);
            if logical.as_ref().is_some_and(|m| m.1 != physical) {
                return Err(
                    wrong(format!("has counts of {physical} physical experts; the map has others")).place(place)
                );
            }
            shape.clone_from(&t.shape);
            grid = Some(Grid::new(&[layers, named.unwrap_or(physical)]).map_err(|d| d.place(place.clone()))?);
        }
        if t.shape != shape {
            return Err(wrong(format!("has counts of the shape {:?}, not {shape:?}", t.shape)).place(place));
        }
        let Some(g) = &mut grid else { continue };
        for (i, count) in file.numbers(t).enumerate() {
            let (layer, physical) = (i / shape[1], i % shape[1]);
            let expert = logical.as_ref().map_or(physical, |m| usize::from(m.0[layer * m.1 + physical]));
            g.add(layer, expert, count).map_err(|d| d.place(place.clone()))?;
        }
    }
    let grid = grid.ok_or_else(|| wrong("has no records".into()).place("records"))?;
    let mut counts = grid.counts(|l| l as u32)?;
    counts.notes.push("counts of one rank, which may be all tokens or its own".into());
    if logical.is_some() {
        counts.notes.push("physical experts are mapped by the map at the end of the recording".into());
    }
    Ok(counts)
}

fn is_table(path: &Path) -> bool {
    text::start(path, HEADER.len() as u64).is_some_and(|start| start == HEADER)
}

/// The table has no row for an expert without selections: the number of experts is that of the highest.
fn table(path: &Path) -> Result<ExpertCounts> {
    let mut csv = csv_lines::open(path, &mut csv::ReaderBuilder::new())?;
    let mut found: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    let mut record = csv::ByteRecord::new();
    while csv.read_byte_record(&mut record).map_err(|e| broken(path, &e))? {
        let number = |i: usize, below: u64| {
            let text = std::str::from_utf8(record.get(i).unwrap_or_default()).ok();
            text.and_then(|t| t.trim().parse::<u64>().ok()).filter(|n| *n < below)
        };
        let row = (number(0, LAYERS as u64), number(1, EXPERTS as u64), number(2, 1 << 53));
        let (Some(layer), Some(expert), Some(count)) = row else {
            let line = record.position().map_or(0, csv::Position::line);
            return Err(Diag::input("is no row of layer, expert and count")
                .place(format!("line {line}"))
                .cure("write whole numbers: layers below 4096, experts below 65534"));
        };
        let (cell, cells) = ((layer as usize, expert as usize), found.len());
        let sum = found.entry(cell).or_default();
        *sum = sum.checked_add(count).filter(|s| *s <= 1 << 53 && cells <= COUNTS).ok_or_else(|| {
            let line = record.position().map_or(0, csv::Position::line);
            Diag::input("goes beyond 2^53 selections of an expert, or 2^24 experts")
                .place(format!("line {line}"))
                .cure("record for a shorter time, and one model")
        })?;
    }
    let experts = found.keys().map(|k| k.1 + 1).max().unwrap_or(0);
    let layers = found.keys().map(|k| k.0 + 1).max().unwrap_or(0);
    let mut grid = Grid::new(&[layers, experts])?;
    for ((layer, expert), count) in found {
        grid.add(layer, expert, count as f64)?;
    }
    let mut counts = grid.counts(|l| l as u32)?;
    counts.notes.push(format!("the table lists no unused experts: {experts} experts are those up to the highest"));
    Ok(counts)
}
