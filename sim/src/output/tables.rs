//! Tables that are written once a run is over.

use crate::engine::NO_DEVICE;
use crate::metrics::Ended;
use crate::metrics::tables::{CsvFile, Decimal, Fixed, RowTable, Seconds};
use moesim_core::{Picos, Result};
use serde::Serialize;
use std::path::Path;

/// Writes all of them.
pub(super) fn write(dir: &Path, s: &Ended) -> Result<()> {
    devices(dir, s)?;
    links(dir, s)?;
    experts(dir, s)?;
    series(dir, s)?;
    operations(dir, s)
}

fn over(amount: f64, peak: f64) -> f64 {
    if peak > 0.0 { amount / peak } else { 0.0 }
}

#[derive(Default, Serialize)]
struct DeviceRow {
    device: String,
    flop: u128,
    memory_bytes: u128,
    busy_s: Seconds,
    busy_fraction: Decimal,
    compute_utilisation: Decimal,
    memory_utilisation: Decimal,
    memory_peak_bytes: u64,
}

fn devices(dir: &Path, s: &Ended) -> Result<()> {
    let (served, m) = (&s.totals.served, &s.plan.machine);
    let span = s.totals.end.seconds();
    let peak = m.hardware.device.memory.bandwidth.value.per_second();
    let mut t = RowTable::create(&dir.join("devices.csv"))?;
    for d in 0..m.devices() {
        let (lane, channel) = (m.compute[d].0 as usize, m.memory[d].0 as usize);
        let (busy, bytes) = (served.lane_busy[lane], served.channel_bytes[channel]);
        t.row(&DeviceRow {
            device: format!("gpu{d}"),
            flop: served.flop[d],
            memory_bytes: bytes,
            busy_s: Picos(busy).into(),
            busy_fraction: over(busy as f64 / 1e12, span).into(),
            compute_utilisation: over(served.lane_at_peak[lane] as f64 / 1e12 * m.gpu.share(), span).into(),
            memory_utilisation: over(bytes as f64, peak * span).into(),
            memory_peak_bytes: s.weight_bytes + s.ranks[d / s.plan.ranks.tp].kv.peak(),
        });
    }
    t.finish()
}

#[derive(Default, Serialize)]
struct LinkRow<'a> {
    link: &'a str,
    from: &'a str,
    to: &'a str,
    bytes: u64,
    utilisation: Decimal,
}

fn links(dir: &Path, s: &Ended) -> Result<()> {
    let span = s.totals.end.seconds();
    let mut t = RowTable::create(&dir.join("links.csv"))?;
    for (l, &bytes) in s.plan.machine.topology.links().iter().zip(&s.network.link_bytes) {
        let (from, to) = l.name.split_once('>').unwrap_or((&l.name, ""));
        let utilisation = over(bytes as f64, l.raw_bandwidth_per_s * span).into();
        t.row(&LinkRow { link: &l.name, from, to, bytes, utilisation });
    }
    t.finish()
}

#[derive(Default, Serialize)]
struct ExpertRow {
    layer: usize,
    expert: usize,
    assignments: u64,
    devices: String,
}

fn experts(dir: &Path, s: &Ended) -> Result<()> {
    let totals = s.replay.totals();
    let map = s.replay.map();
    let experts = totals.len() / s.plan.moe_layers.len().max(1);
    let mut t = RowTable::create(&dir.join("experts.csv"))?;
    for (l, &layer) in s.plan.moe_layers.iter().enumerate() {
        let mut homes = vec![String::new(); experts];
        for g in 0..map.groups() {
            for slot in map.group_slots(l, g) {
                let on = &mut homes[map.expert(l, slot)];
                for d in s.plan.ranks.group_devices(g) {
                    *on += &format!("{}{d}", if on.is_empty() { "" } else { " " });
                }
            }
        }
        for (expert, devices) in homes.into_iter().enumerate().take(s.plan.moe(l).ids() as usize) {
            t.row(&ExpertRow { layer, expert, assignments: totals[l * experts + expert], devices });
        }
    }
    t.finish()
}

/// Utilisation over time; the machine says which columns there are.
fn series(dir: &Path, s: &Ended) -> Result<()> {
    let m = &s.plan.machine;
    // Name, and what a fully used bin of one second would hold; in the order of the recorder's rows.
    let mut columns: Vec<(String, f64)> = Vec::new();
    let devices = || 0..m.devices();
    for (what, lanes) in [("busy", m.compute.len()), ("pim-busy", m.pim_lane.len())] {
        columns.extend((0..lanes).map(|d| (format!("gpu{d} {what}"), 1e12)));
    }
    let raw = m.hardware.device.memory.bandwidth.value.per_second();
    columns.extend(devices().map(|d| (format!("gpu{d} memory"), raw)));
    if let Some(p) = &m.hardware.device.pim {
        columns.extend(devices().map(|d| (format!("gpu{d} pim-memory"), p.bandwidth.value.per_second())));
    }
    if let Some(l) = &m.hardware.host.link {
        columns.extend(devices().map(|d| (format!("gpu{d} host-link"), l.bandwidth.value.per_second())));
    }
    columns.extend(m.topology.links().iter().map(|l| (format!("link {}", l.name), l.raw_bandwidth_per_s)));
    let mut t = CsvFile::create(&dir.join("series.csv"))?;
    t.record(["start_s", "width_s"].into_iter().chain(columns.iter().map(|c| c.0.as_str())));
    let (series, end) = (&s.totals.series, s.totals.end);
    for (i, row) in series.rows().enumerate() {
        let start = Picos(i as u64 * series.width());
        // The last bin ends with the run.
        let span = Picos(end.since(start).0.min(series.width()));
        let share = |(sum, c): (&f64, &(String, f64))| Fixed::<6>::from(over(*sum, c.1 * span.seconds())).to_string();
        let times = [start, span].map(|t| Seconds::from(t).to_string());
        t.record(times.into_iter().chain(row.iter().zip(&columns).map(share)));
    }
    t.finish()
}

#[derive(Default, Serialize)]
struct OperationRow {
    iteration: u64,
    operation: u32,
    kind: &'static str,
    layer: u16,
    device: Option<u32>,
    start_s: Seconds,
    end_s: Seconds,
    bound: &'static str,
    critical: u8,
}

fn operations(dir: &Path, s: &Ended) -> Result<()> {
    let sample = &s.totals.sample;
    let mut t = RowTable::create(&dir.join("operations.csv"))?;
    for k in &sample.operations {
        t.row(&OperationRow {
            iteration: sample.iteration,
            operation: k.operation,
            kind: k.kind.name(),
            layer: k.layer,
            device: Some(k.device).filter(|d| *d != NO_DEVICE),
            start_s: k.start.into(),
            end_s: k.end.into(),
            bound: k.bound.name(),
            critical: u8::from(k.critical),
        });
    }
    t.finish()
}
