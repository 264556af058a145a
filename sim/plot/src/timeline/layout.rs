//! Operations sorted into rows and lanes.

use crate::data::RunData;
use moesim_core::diag::{Diag, Result};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

const FILE: &str = "operations.csv";
const COLUMNS: [&str; 7] = ["iteration", "kind", "layer", "device", "start_s", "end_s", "critical"];
/// Of more devices than this those longest on the critical path are shown.
const DEVICES: usize = 32;
/// Operations kept for the picture: 64 MB.
const KEPT: usize = 2_000_000;
/// Lanes of a row: more operations at once are drawn over each other.
const LANES: usize = 3;

/// One operation, or several of one kind too near to be told apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Op {
    /// Index into [`Rows::kinds`].
    pub(super) kind: usize,
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) critical: bool,
}

/// An iteration by rows: the critical path, collectives and host, then devices.
pub(super) struct Rows {
    pub(super) iteration: String,
    pub(super) kinds: Vec<String>,
    pub(super) names: Vec<String>,
    /// By row, in order of start.
    pub(super) ops: Vec<Vec<Op>>,
    /// First start and last end, in seconds.
    pub(super) span: (f64, f64),
    /// Devices in the file, shown or not.
    pub(super) devices: usize,
    /// First start and last end of each MoE layer.
    layers: BTreeMap<u32, (f64, f64)>,
}

/// Reads the first iteration of the run's operations; `None` if there is none.
pub(super) fn read(data: &RunData) -> Result<Option<Rows>> {
    let Some((iteration, devices)) = devices(data)? else { return Ok(None) };
    let mut shown: Vec<&String> = devices.keys().collect();
    shown.sort_by(|a, b| devices[*b].total_cmp(&devices[*a]).then_with(|| natural(a).cmp(&natural(b))));
    shown.truncate(DEVICES);
    shown.sort_by_key(|d| natural(d));
    let row_of: BTreeMap<&str, usize> = shown.iter().enumerate().map(|(i, d)| (d.as_str(), i + 2)).collect();
    let mut names = vec!["critical path".to_string(), "collectives, host".into()];
    names.extend(shown.iter().map(|d| d.to_string()));
    let mut rows = Rows {
        iteration,
        kinds: Vec::new(),
        ops: vec![Vec::new(); names.len()],
        names,
        span: (f64::INFINITY, f64::NEG_INFINITY),
        devices: devices.len(),
        layers: BTreeMap::new(),
    };
    let (mut kept, mut moe) = (0, BTreeSet::new());
    let Some(mut table) = data.table(FILE, &COLUMNS)? else { return Ok(None) };
    while let Some(row) = table.next_row()? {
        if row.text(0) != rows.iteration {
            continue;
        }
        let (start, end) = (row.amount(4)?, row.amount(5)?);
        let end = end.max(start);
        rows.span = (rows.span.0.min(start), rows.span.1.max(end));
        if !row.text(2).is_empty() {
            let layer = row.index(2, 65_536)?;
            if row.text(1) == "experts" {
                moe.insert(layer);
            }
            let span = rows.layers.entry(layer).or_insert((start, end));
            *span = (span.0.min(start), span.1.max(end));
        }
        let critical = row.text(6) == "1";
        let place = if row.text(3).is_empty() { Some(1) } else { row_of.get(row.text(3)).copied() };
        if place.is_none() && !critical {
            continue;
        }
        let kind = rows.kinds.iter().position(|k| k == row.text(1)).unwrap_or_else(|| {
            // Names beyond any sensible count share one place, and so a colour.
            if rows.kinds.len() < 64 {
                rows.kinds.push(row.text(1).to_string());
            }
            rows.kinds.len() - 1
        });
        let op = Op { kind, start, end, critical };
        for row in place.into_iter().chain(critical.then_some(0)) {
            rows.ops[row].push(op);
            kept += 1;
        }
        if kept > KEPT {
            return Err(Diag::input(format!("has more than {KEPT} operations in one iteration"))
                .file(data.dir.join(FILE))
                .cure("record the operations of a smaller deployment, or open timeline.json in Perfetto"));
        }
    }
    for ops in &mut rows.ops {
        ops.sort_by(|a, b| a.start.total_cmp(&b.start).then(b.end.total_cmp(&a.end)));
    }
    rows.layers.retain(|l, _| moe.contains(l));
    Ok(Some(rows))
}

/// The first iteration's name and its devices, each with its seconds on the critical path.
fn devices(data: &RunData) -> Result<Option<(String, BTreeMap<String, f64>)>> {
    let Some(mut table) = data.table(FILE, &COLUMNS)? else { return Ok(None) };
    let mut found: Option<(String, BTreeMap<String, f64>)> = None;
    while let Some(row) = table.next_row()? {
        let (iteration, devices) = found.get_or_insert_with(|| (row.text(0).to_string(), BTreeMap::new()));
        if row.text(0) != iteration || row.text(3).is_empty() {
            continue;
        }
        let lasts = (row.amount(5)? - row.amount(4)?).max(0.0);
        let critical = if row.text(6) == "1" { lasts } else { 0.0 };
        match devices.get_mut(row.text(3)) {
            Some(sum) => *sum += critical,
            None => drop(devices.insert(row.text(3).to_string(), critical)),
        }
    }
    Ok(found)
}

/// A key that sorts `gpu2` before `gpu10`: digits by value, within their length.
fn natural(name: &str) -> Vec<(Reverse<bool>, usize, &str)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        let part = if digits { part.trim_start_matches('0') } else { part };
        parts.push((Reverse(digits), if digits { part.len() } else { 0 }, part));
        rest = after;
    }
    parts
}

impl Rows {
    /// What the zoom shows: its title and its span, the first two MoE layers; `None` where that is the whole iteration.
    pub(super) fn zoom(&self) -> Option<(String, (f64, f64))> {
        let mut layers = self.layers.iter();
        let (first, a) = layers.next()?;
        let (title, span) = match layers.next() {
            Some((second, b)) => {
                (format!("the first two MoE layers: {first} and {second}"), (a.0.min(b.0), a.1.max(b.1)))
            }
            None => (format!("the MoE layer {first}"), *a),
        };
        let whole = self.span.1 - self.span.0;
        (span.1 > span.0 && span.1 - span.0 < 0.9 * whole).then_some((title, span))
    }
}

/// Where an operation stands in its row: the lane, and into how many lanes the row is parted there.
pub(super) type Lane = (usize, usize);

/// Parts operations, in order of start, that overlap into lanes; one that is alone takes the whole row. Those of one
/// kind less than `narrow` seconds apart in a lane are merged.
pub(super) fn lanes(ops: &[Op], narrow: f64) -> Vec<(Op, Lane)> {
    let mut placed: Vec<(Op, Lane)> = Vec::new();
    // The operations that overlap, directly or through others: where they begin in `placed`, when their lanes are free.
    let (mut group, mut free): (usize, Vec<f64>) = (0, Vec::new());
    for op in ops {
        // Rounding of the file's decimals is no overlap.
        let start = op.start + narrow * 0.5;
        if free.iter().all(|&end| end <= start) {
            if let [_] = free[..]
                && let Some((before, _)) = placed.last_mut()
                && (before.kind, before.critical) == (op.kind, op.critical)
                && op.start - before.end < narrow
            {
                before.end = before.end.max(op.end);
                free[0] = before.end;
                continue;
            }
            close(&mut placed[group..], free.len());
            (group, free) = (placed.len(), Vec::new());
        }
        let lane = match free.iter().position(|&end| end <= start) {
            Some(lane) => lane,
            None if free.len() < LANES => {
                free.push(0.0);
                free.len() - 1
            }
            None => LANES - 1,
        };
        free[lane] = free[lane].max(op.end);
        placed.push((*op, (lane, 1)));
    }
    close(&mut placed[group..], free.len());
    placed
}

/// Tells a finished group how many lanes it has.
fn close(group: &mut [(Op, Lane)], lanes: usize) {
    group.iter_mut().for_each(|op| op.1.1 = lanes.max(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_part_what_overlaps_and_merge_what_is_near() {
        let op = |kind, start, end| Op { kind, start, end, critical: false };
        let ops = [op(0, 0.0, 1.0), op(1, 0.5, 2.0), op(0, 1.01, 2.0), op(2, 2.0, 3.0), op(2, 3.01, 4.0)];
        let overlapping = [(ops[0], (0, 2)), (ops[1], (1, 2)), (ops[2], (0, 2))];
        let placed = lanes(&ops, 0.1);
        assert_eq!(placed[..3], overlapping);
        assert_eq!(placed[3..], [(op(2, 2.0, 4.0), (0, 1))]);
    }

    #[test]
    fn names_sort_by_number() {
        let mut names = ["gpu10", "gpu2", "cpu", "gpu2b", "10", "9", "gpu02"];
        names.sort_by(|a, b| natural(a).cmp(&natural(b)).then(a.cmp(b)));
        assert_eq!(names, ["9", "10", "cpu", "gpu02", "gpu2", "gpu2b", "gpu10"]);
    }
}
