//! The run directory: `experiment.toml`, `summary.json`, and the tables of [`tables`].

mod tables;

use crate::experiment::{Experiment, Policies, Resolved};
use crate::metrics::{Ended, Summary};
use crate::paths;
use moesim_core::output::content_hash;
use moesim_core::{Diag, Result, config};
use std::path::Path;

/// The file that marks a folder as ours.
pub const MARKER: &str = "summary.json";

/// Writes everything but the streamed tables, `timing.json` and the plots.
///
/// # Errors
/// A file that cannot be written.
pub fn write(dir: &Path, resolved: &Resolved, s: &Ended, summary: &Summary) -> Result<()> {
    text(&dir.join("experiment.toml"), &experiment(resolved, &s.experiment.policy, s.trace.hash())?)?;
    tables::write(dir, s)?;
    if let Some(timeline) = &s.totals.sample.timeline {
        timeline.write(&dir.join("timeline.json"), s.plan)?;
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
/// in. `policies`: with their settings; `routing`: the hash of the routing rows.
///
/// # Errors
/// An arrival log that cannot be read.
pub fn experiment(resolved: &Resolved, policies: &Policies, routing: &str) -> Result<String> {
    let mut out = format!("# moesim {}. Routing rows: hash {routing}.\n", env!("CARGO_PKG_VERSION"));
    let mut x = Experiment { policy: policies.clone(), ..resolved.experiment.clone() };
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
