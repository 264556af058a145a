//! The run directory.

use crate::engine::NO_DEVICE;
use crate::experiment::Resolved;
use crate::metrics::summary::Summary;
use crate::metrics::tables::Table;
use crate::paths;
use crate::simulation::Simulation;
use moesim_core::output::content_hash;
use moesim_core::{Diag, Picos, Result, config};
use std::path::Path;

/// The file that marks a folder as ours.
pub const MARKER: &str = "summary.json";

/// Writes everything but the streamed tables, `timing.json` and the plots.
///
/// # Errors
/// A file that cannot be written.
pub fn write(dir: &Path, resolved: &Resolved, s: &mut Simulation, summary: &Summary) -> Result<()> {
    text(&dir.join("experiment.toml"), &experiment(resolved, s.source.trace().hash())?)?;
    devices(dir, s)?;
    links(dir, s)?;
    experts(dir, s)?;
    series(dir, s)?;
    operations(dir, s)?;
    if let Some(timeline) = s.recorder.timeline.take() {
        timeline.write(&dir.join("timeline.json"), &s.plan)?;
    }
    text(&dir.join(MARKER), &(json(summary)? + "\n"))
}

/// Pretty JSON.
///
/// # Errors
/// None for our types.
pub fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|e| Diag::run(format!("cannot be written as JSON: {e}")))
}

/// Writes a small file.
///
/// # Errors
/// A file that cannot be written.
pub fn text(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| Diag::cannot_write(path, &e))
}

/// The experiment with everything inlined, so that `moesim run DIR/experiment.toml` repeats it; above it, what else went
/// in. `routing` is the hash of the routing rows.
///
/// # Errors
/// An arrival log that cannot be read.
pub fn experiment(resolved: &Resolved, routing: &str) -> Result<String> {
    let mut out = format!("# moesim {}. Routing rows: hash {routing}.\n", env!("CARGO_PKG_VERSION"));
    let mut x = resolved.experiment.clone();
    let files = x.workload.arrivals.files(&resolved.base)?;
    if let Some(path) = x.workload.arrivals.path_mut() {
        absolute(path, &resolved.base.join(&*path))?;
        let read = |f: &std::path::PathBuf| {
            moesim_core::input::plain(f)?;
            std::fs::read(f).map_err(|e| Diag::cannot_read(f, &e))
        };
        let mut hashes = files.iter().map(|f| Ok(content_hash(&read(f)?))).collect::<Result<Vec<_>>>()?;
        // Of a folder, the hash of its files' hashes.
        let hash = if hashes.len() == 1 { hashes.remove(0) } else { content_hash(hashes.concat().as_bytes()) };
        out += &format!("# Arrivals: {}, hash {hash}.\n", path.display());
    }
    if let crate::routing::Routing::Trace { path, .. } = &mut x.workload.routing {
        let file = resolved.base.join(&*path);
        absolute(path, &file)?;
    }
    if let Some(file) = resolved.placement_file() {
        let mut path = file.clone();
        absolute(&mut path, &file)?;
        moesim_core::input::plain(&file)?;
        let bytes = std::fs::read(&file).map_err(|e| Diag::cannot_read(&file, &e))?;
        out += &format!("# Placement: {}, hash {}.\n", path.display(), content_hash(&bytes));
        x.policy.placement = path.display().to_string();
    }
    if let Some(toml::Value::String(profile)) = x.hardware.get_mut("device").and_then(|d| d.get_mut("profile")) {
        let file = resolved.base.join(&*profile);
        if !paths::profile_ships(profile) && file.exists() {
            *profile = paths::absolute(&file)?;
        }
    }
    Ok(out + &config::to_toml(&x)?)
}

/// Paths are relative to the file that names them, and this copy lies elsewhere.
fn absolute(path: &mut std::path::PathBuf, file: &Path) -> Result<()> {
    *path = paths::absolute(file)?.into();
    Ok(())
}

fn over(amount: f64, peak: f64) -> f64 {
    if peak > 0.0 { amount / peak } else { 0.0 }
}

fn devices(dir: &Path, s: &Simulation) -> Result<()> {
    let (r, m) = (&s.recorder, &s.plan.machine);
    let span = r.end.seconds();
    let header =
        "device,flop,memory_bytes,busy_s,busy_fraction,compute_utilisation,memory_utilisation,memory_peak_bytes";
    let mut t = Table::create(&dir.join("devices.csv"), header)?;
    for d in 0..m.devices() {
        let (busy, bytes) = (r.lane_busy[m.compute[d].0 as usize], r.channel_bytes[m.memory[d].0 as usize]);
        let peak = m.hardware.device.memory.bandwidth.value.per_second();
        t.cell(format_args!("gpu{d}"));
        t.cell(r.flop[d]);
        t.cell(bytes);
        t.seconds(Picos(busy));
        t.cell(over(busy as f64 / 1e12, span));
        t.cell(over(r.lane_at_peak[m.compute[d].0 as usize] as f64 / 1e12 * m.gpu.share(), span));
        t.cell(over(bytes as f64, peak * span));
        t.cell(s.weight_bytes + s.ranks[d / s.plan.ranks.tp].kv.peak());
        t.end_row();
    }
    t.finish()
}

fn links(dir: &Path, s: &Simulation) -> Result<()> {
    let topology = &s.plan.machine.topology;
    let span = s.recorder.end.seconds();
    let mut t = Table::create(&dir.join("links.csv"), "link,from,to,bytes,utilisation")?;
    for (l, &bytes) in topology.links().iter().zip(&s.network.link_bytes) {
        let (from, to) = l.name.split_once('>').unwrap_or((&l.name, ""));
        t.cell(&l.name);
        t.cell(from);
        t.cell(to);
        t.cell(bytes);
        t.cell(over(bytes as f64, l.raw_bandwidth_per_s * span));
        t.end_row();
    }
    t.finish()
}

fn experts(dir: &Path, s: &Simulation) -> Result<()> {
    let totals = s.replay.totals();
    let map = s.replay.map();
    let experts = totals.len() / s.plan.moe_layers.len().max(1);
    let mut t = Table::create(&dir.join("experts.csv"), "layer,expert,assignments,devices")?;
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
        let ids = s.plan.model.decoder[layer].moe().map_or(0, |m| m.ids() as usize);
        for (e, on) in homes.iter().enumerate().take(ids) {
            t.cell(layer);
            t.cell(e);
            t.cell(totals[l * experts + e]);
            t.cell(on);
            t.end_row();
        }
    }
    t.finish()
}

fn series(dir: &Path, s: &Simulation) -> Result<()> {
    let (r, m) = (&s.recorder, &s.plan.machine);
    let mut header = String::from("start_s,width_s");
    // Column name and what a fully used bin of one second would hold.
    let mut peaks: Vec<f64> = Vec::new();
    let mut column = |name: String, peak: f64| {
        header.push(',');
        header.push_str(&name);
        peaks.push(peak);
    };
    let devices = || 0..m.devices();
    for what in [("busy", m.compute.len()), ("pim-busy", m.pim_lane.len())] {
        (0..what.1).for_each(|d| column(format!("gpu{d} {}", what.0), 1e12));
    }
    let raw = m.hardware.device.memory.bandwidth.value.per_second();
    devices().for_each(|d| column(format!("gpu{d} memory"), raw));
    if let Some(p) = &m.hardware.device.pim {
        devices().for_each(|d| column(format!("gpu{d} pim-memory"), p.bandwidth.value.per_second()));
    }
    if let Some(l) = &m.hardware.host.link {
        devices().for_each(|d| column(format!("gpu{d} host-link"), l.bandwidth.value.per_second()));
    }
    m.topology.links().iter().for_each(|l| column(format!("link {}", l.name), l.raw_bandwidth_per_s));
    let mut t = Table::create(&dir.join("series.csv"), &header)?;
    let width = r.series.width();
    for (i, row) in r.series.rows().enumerate() {
        let start = Picos(i as u64 * width);
        // The last bin ends with the run.
        let span = r.end.since(start).0.min(width);
        t.seconds(start);
        t.seconds(Picos(span));
        for (sum, peak) in row.iter().zip(&peaks) {
            t.cell(format_args!("{:.6}", over(*sum, peak * Picos(span).seconds())));
        }
        t.end_row();
    }
    t.finish()
}

fn operations(dir: &Path, s: &Simulation) -> Result<()> {
    let r = &s.recorder;
    let header = "iteration,operation,kind,layer,device,start_s,end_s,bound,critical";
    let mut t = Table::create(&dir.join("operations.csv"), header)?;
    for k in &r.kept {
        t.cell(r.kept_iteration);
        t.cell(k.operation);
        t.cell(k.kind.name());
        t.cell(k.layer);
        if k.device == NO_DEVICE {
            t.cell("")
        } else {
            t.cell(k.device)
        }
        t.seconds(k.start);
        t.seconds(k.end);
        t.cell(k.bound.name());
        t.cell(u8::from(k.critical));
        t.end_row();
    }
    t.finish()
}
