//! Placements that are there already.

use super::args::{Args, split};
use super::given::Given;
use crate::cli::terminal::{Format, print};
use crate::output::json;
use moesim_core::Result;
use moesim_solver::file::{self, Placed, ReadOptions};
use moesim_solver::{Homes, moves};
use serde::Serialize;
use std::fmt::Write;

/// The placements to judge beside those that are computed.
pub(super) fn files(a: &Args, given: &Given) -> Result<Vec<(String, Homes)>> {
    a.judge.iter().map(|name| Ok((name.clone(), given.homes_of(name)?))).collect()
}

#[derive(Serialize)]
struct Judged {
    placement: String,
    format: &'static str,
    model: Option<String>,
    layers: usize,
    experts: usize,
    devices: usize,
    slots: u64,
    /// Fewest and most experts of a layer on a device.
    per_device: (usize, usize),
    /// Slots beyond one for each expert.
    redundant: u64,
    /// Experts, counted in each layer, that several devices hold.
    replicated: u64,
    /// Most devices that hold one expert.
    most_replicas: usize,
    /// Replicas to load on the way from the first placement of the same shape.
    moves: Option<u64>,
    /// From which.
    moves_from: Option<String>,
    /// Always `no data`: loads need routing of the same model.
    load: &'static str,
    notes: Vec<String>,
}

/// Judges placements by themselves: coverage is checked as they are read.
pub(super) fn alone(a: &Args) -> Result<()> {
    let mut read: Vec<(String, Placed, Homes)> = Vec::new();
    let mut rows = Vec::new();
    for name in &a.judge {
        let (path, array) = split(name);
        let options = ReadOptions { devices: a.devices, array, ..ReadOptions::default() };
        let f = file::read(&path, &options)?;
        let (r, homes) = (f.placed.replicas(), f.placed.homes());
        let same = |p: &Placed| {
            p.layers() == f.placed.layers() && p.experts == f.placed.experts && p.devices() == f.placed.devices()
        };
        let before = read.iter().find(|(_, p, _)| same(p));
        rows.push(Judged {
            placement: name.clone(),
            format: f.format,
            model: f.model.clone(),
            layers: f.placed.layers(),
            experts: f.placed.experts,
            devices: f.placed.devices(),
            slots: r.slots,
            per_device: r.per_device,
            redundant: r.redundant,
            replicated: r.replicated,
            most_replicas: r.most,
            moves: before.map(|(_, _, old)| moves(old, &homes)),
            moves_from: before.map(|(name, ..)| name.clone()),
            load: "no data",
            notes: f.notes.clone(),
        });
        read.push((name.clone(), f.placed, homes));
    }
    match a.format {
        Format::Json => print(&(json(&rows)? + "\n")),
        Format::Table => print(&table(&rows)),
    }
}

fn table(rows: &[Judged]) -> String {
    let short = |name: &str| name.rsplit_once('/').map_or(name, |s| s.1).to_string();
    let width = rows.iter().map(|r| short(&r.placement).chars().count()).max().unwrap_or(9).max(9);
    let mut t = String::new();
    let _ = writeln!(
        t,
        "{:<width$} {:>6} {:>7} {:>7} {:>7} {:>10} {:>9} {:>10} {:>5} {:>9}  load",
        "placement", "layers", "experts", "devices", "slots", "per device", "redundant", "replicated", "most", "moves"
    );
    for r in rows {
        let per = if r.per_device.0 == r.per_device.1 {
            r.per_device.0.to_string()
        } else {
            format!("{}-{}", r.per_device.0, r.per_device.1)
        };
        let moved = r.moves.map_or("-".into(), |m| m.to_string());
        let _ = writeln!(
            t,
            "{:<width$} {:>6} {:>7} {:>7} {:>7} {per:>10} {:>9} {:>10} {:>5} {moved:>9}  {}",
            short(&r.placement),
            r.layers,
            r.experts,
            r.devices,
            r.slots,
            r.redundant,
            r.replicated,
            r.most_replicas,
            r.load
        );
    }
    for r in rows {
        for n in &r.notes {
            let _ = writeln!(t, "note: {}: {n}", short(&r.placement));
        }
    }
    t.push_str("every expert of every layer has a home; moves: replicas to load, from the first placement of the same shape; load: needs routing of the same model (--trace or --counts)\n");
    t
}
