//! Loads of experts as DeepSeek's EPLB takes them (its `weight`): an array [layers, experts], or [steps, layers, experts],
//! which is summed: `.npy`, `.npz` with one such array, a `.pt` with one tensor, JSON (nested lists, or an object with
//! `weight` or `logical_count`, as SGLang's `--init-expert-location` takes it), or CSV without a header, one layer a row.
//!
//! Loads that are no whole numbers are scaled to whole ones, which leaves shares and imbalance as they are. Arrays are
//! streamed; JSON is held in memory, at most 64 MiB of it.

use super::grid::Grid;
use super::{COUNTS, ExpertCounts, LAYERS, Reader};
use crate::csv_lines::{self, broken};
use crate::npy::Header;
use crate::torch::{TorchFile, is_torch};
use moesim_core::{Diag, Result, input};
use serde::Deserialize;
use std::io::{BufReader, Read};
use std::path::Path;

const JSON: u64 = 64 << 20;
/// Bytes of an array in an archive, which may be packed without bound.
const UNPACKED: u64 = 4 << 30;

pub(super) struct Eplb;

impl Reader for Eplb {
    fn name(&self) -> &'static str {
        "eplb"
    }
    fn description(&self) -> &'static str {
        "loads as EPLB takes them, [layers, experts] (.npy, .npz, .pt, .json, .csv)"
    }
    fn detect(&self, path: &Path) -> bool {
        let named = |names: &[&str]| extension(path).is_some_and(|e| names.contains(&e));
        path.is_file() && (named(&["npy", "npz", "json", "csv"]) || is_torch(path))
    }
    fn read(&self, path: &Path) -> Result<ExpertCounts> {
        let grid = match extension(path) {
            Some("npy") => {
                let file = input::open(path)?;
                array(&mut BufReader::new(file))
            }
            Some("npz") => archive(path),
            Some("json") => json(path),
            Some("csv") => csv_rows(path),
            _ => tensor(path),
        };
        grid?.counts(|l| l as u32)
    }
}

/// What the name says that a file is; a table may be packed (packed JSON is co-activations).
fn extension(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    if name.ends_with(".csv.gz") { Some("csv") } else { path.extension()?.to_str() }
}

fn tensor(path: &Path) -> Result<Grid> {
    let file = TorchFile::open(path)?;
    let cure = "save the loads alone, as one tensor [layers, experts]";
    let t = file.tensor(file.root).ok_or_else(|| Diag::input("is no tensor").place("data.pkl").cure(cure))?;
    let mut grid = Grid::new(&t.shape)?;
    file.numbers(t).try_for_each(|n| grid.push(n))?;
    Ok(grid)
}

/// Reads an array in numpy's format to its end.
fn array(r: &mut impl Read) -> Result<Grid> {
    let header = Header::read(r)?;
    let shape: Vec<usize> = header.shape.iter().map(|n| usize::try_from(*n).unwrap_or(usize::MAX)).collect();
    let mut grid = Grid::new(&shape)?;
    let wrong = |problem: String| Diag::input(problem).place("data").cure("it is damaged: copy or save it again");
    let body = header.body().ok_or_else(|| wrong(format!("declares the shape {shape:?}")))?;
    let mut chunk = vec![0u8; 64 << 10];
    let mut left = body;
    while left > 0 {
        // A multiple of every element size.
        let part = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        r.read_exact(&mut chunk[..part]).map_err(|e| wrong(format!("ends early or is damaged: {e}")))?;
        chunk[..part].chunks_exact(header.element.bytes).try_for_each(|raw| grid.push(header.element.number(raw)))?;
        left -= part as u64;
    }
    match r.read(&mut [0; 1]) {
        Ok(0) => Ok(grid),
        _ => Err(wrong("goes on after the declared shape, or is damaged".into())),
    }
}

fn archive(path: &Path) -> Result<Grid> {
    let file = input::open(path)?;
    let broken = |e: zip::result::ZipError| {
        Diag::input(format!("is not a sound archive: {e}")).place("archive").cure("save it again with numpy.savez")
    };
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let mut names: Vec<String> = archive.file_names().filter(|n| n.ends_with(".npy")).map(str::to_string).collect();
    names.sort();
    names.truncate(1000);
    names.retain(|n| {
        let header = archive.by_name(n).map(|m| Header::read(&mut BufReader::new(m)));
        header.is_ok_and(|h| h.is_ok_and(|h| (2..=3).contains(&h.shape.len())))
    });
    let [name] = &names[..] else {
        let problem = format!("has {} arrays [layers, experts], not one", names.len());
        return Err(Diag::input(problem).place("archive").cure("save the loads alone with numpy.savez"));
    };
    let member = archive.by_name(name).map_err(broken)?;
    if member.size() > UNPACKED {
        let problem = format!("`{name:.80}` promises {} bytes", member.size());
        return Err(Diag::input(problem).place("archive").cure("add the steps up before, or save a .npy"));
    }
    array(&mut BufReader::new(member)).map_err(|d| Diag { place: Some(format!("{name:.80}")), ..d })
}

#[derive(Deserialize)]
struct Named {
    #[serde(alias = "logical_count")]
    weight: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct NamedSteps {
    #[serde(alias = "logical_count")]
    weight: Vec<Vec<Vec<f64>>>,
}

fn json(path: &Path) -> Result<Grid> {
    let read = |e: std::io::Error| Diag::cannot_read(path, &e);
    let mut text = Vec::new();
    input::open(path)?.take(JSON + 1).read_to_end(&mut text).map_err(read)?;
    if text.len() as u64 > JSON {
        return Err(Diag::input("is larger than 64 MiB").place("size").cure("save it as .npy"));
    }
    // The message is about the plainer form of a list, or of an object.
    let list = match serde_json::from_slice::<Vec<Vec<f64>>>(&text) {
        Ok(rows) => return steps(&[rows]),
        Err(e) => e,
    };
    let object = match serde_json::from_slice::<Named>(&text) {
        Ok(n) => return steps(&[n.weight]),
        Err(e) => e,
    };
    let first = if text.trim_ascii_start().starts_with(b"{") { object } else { list };
    let many = serde_json::from_slice::<Vec<Vec<Vec<f64>>>>(&text);
    if let Ok(all) = many.or_else(|_| serde_json::from_slice::<NamedSteps>(&text).map(|n| n.weight)) {
        return steps(&all);
    }
    Err(crate::json::broken("list of loads", &first)
        .cure("write [[load, ...], ...], a list of experts for each layer, or an object with it as \"weight\""))
}

fn steps(all: &[Vec<Vec<f64>>]) -> Result<Grid> {
    let layers = all.first().map_or(0, Vec::len);
    let experts = all.first().and_then(|s| s.first()).map_or(0, Vec::len);
    let mut grid = Grid::new(&[layers, experts])?;
    for (s, step) in all.iter().enumerate() {
        if step.len() != layers {
            let problem = format!("step {s} has {} layers, not {layers}", step.len());
            return Err(Diag::input(problem).place(format!("[{s}]")).cure("give every step the same layers"));
        }
        for (l, row) in step.iter().enumerate() {
            if row.len() != experts {
                let problem = format!("has {} experts, not {experts}", row.len());
                let cure = "give every layer the same experts";
                return Err(Diag::input(problem).place(format!("step {s}, layer {l}")).cure(cure));
            }
            row.iter().try_for_each(|x| grid.push(*x))?;
        }
    }
    Ok(grid)
}

fn csv_rows(path: &Path) -> Result<Grid> {
    let mut csv = csv_lines::open(path, csv::ReaderBuilder::new().has_headers(false))?;
    let mut rows: Vec<Vec<f64>> = Vec::new();
    let mut record = csv::ByteRecord::new();
    while csv.read_byte_record(&mut record).map_err(|e| broken(path, &e))? {
        let number = |f: &[u8]| std::str::from_utf8(f).ok()?.trim().parse::<f64>().ok();
        let row: Option<Vec<f64>> = record.iter().map(number).collect();
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |problem: &str| {
            let cure = "write the loads of a layer's experts in a row, without a header";
            Err(Diag::input(problem).place(format!("line {line}")).cure(cure))
        };
        match row {
            _ if rows.len() == LAYERS => return wrong("is a layer beyond 4096"),
            Some(row) if (rows.len() + 1) * row.len() > COUNTS => return wrong("goes beyond 2^24 loads"),
            Some(row) => rows.push(row),
            None => return wrong("has a field that is no number"),
        }
    }
    steps(&[rows])
}
