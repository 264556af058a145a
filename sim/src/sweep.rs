//! Sweeps: a grid of experiments over any keys.

use crate::experiment::{self, Assignment, Profiles, Resolved};
use crate::metrics::tables::Tables;
use crate::registry::Registry;
use crate::routing::{Cache, Opened, Origin, Routing};
use crate::simulation::Simulation;
use moesim_core::output::content_hash;
use moesim_core::{Diag, Result, config};
use moesim_traces::Trace;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// A sweep file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepFile {
    /// Its name.
    pub name: String,
    /// The experiment that every point changes: a preset or a file, relative to the sweep's.
    pub base: String,
    /// Changes to the base that all points share, by dotted key.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub set: toml::Table,
    /// The axes of the grid, outermost first.
    pub axis: Vec<Axis>,
    /// Columns of the result table: dotted keys of `summary.json`.
    #[serde(default = "metrics")]
    pub metrics: Vec<String>,
    /// The metric that is plotted; the first one unless told.
    #[serde(default)]
    pub plot: Option<String>,
}

/// One axis: either `key` and `values`, or `name` and `points` that each change several keys.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// The dotted key that it changes.
    #[serde(default)]
    pub key: Option<String>,
    /// Its values.
    #[serde(default)]
    #[schemars(with = "Vec<serde_json::Value>")]
    pub values: Vec<toml::Value>,
    /// Its name, if it changes several keys.
    #[serde(default)]
    pub name: Option<String>,
    /// Its points.
    #[serde(default)]
    pub points: Vec<AxisPoint>,
}

/// A point of an axis that changes several keys.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AxisPoint {
    /// Its label in the table and the plot.
    pub label: String,
    /// What it changes, by dotted key.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub set: toml::Table,
}

fn metrics() -> Vec<String> {
    [
        "throughput.output_tokens_per_s",
        "throughput.output_tokens_per_s_per_device",
        "tpot_ms.p50",
        "ttft_ms.p50",
        "imbalance.mean",
        "cache.hit_rate",
        "utilisation.compute",
        "utilisation.memory",
        "utilisation.links",
    ]
    .map(str::to_string)
    .to_vec()
}

/// One cell of the grid.
#[derive(Clone, Debug)]
pub struct Point {
    /// One label an axis.
    pub labels: Vec<String>,
    /// (path, value) assignments, later ones win.
    set: Vec<Assignment>,
}

/// Sweeps that ship inside the binary.
pub const PRESETS: &[(&str, &str)] = &[("machines", include_str!("../presets/machines.toml"))];

/// Most points of a grid.
const MAX_POINTS: usize = 100_000;

/// A sweep ready to run.
pub struct Sweep {
    /// The file.
    pub file: SweepFile,
    /// The grid, last axis fastest.
    pub points: Vec<Point>,
    label: String,
    base: toml::Table,
    dir: PathBuf,
    /// What all points change.
    set: Vec<Assignment>,
    /// Profiles that were read: points share them.
    profiles: Profiles,
    /// Where drawn routing is kept; nowhere unless told.
    pub cache: Cache,
    /// Opened traces by what they depend on: points share them.
    traces: Mutex<BTreeMap<String, Arc<Trace>>>,
}

impl Sweep {
    /// Reads a sweep by preset name or path.
    ///
    /// # Errors
    /// Wrong input, named with file, place and cure.
    pub fn load(name_or_path: &str) -> Result<Self> {
        let preset = PRESETS.iter().find(|p| p.0 == name_or_path);
        let (text, folder) = match preset {
            Some((_, text)) => ((*text).to_string(), PathBuf::from(".")),
            None => experiment::read(name_or_path, &PRESETS.iter().map(|p| p.0).collect::<Vec<_>>())?,
        };
        let file: SweepFile = config::from_toml(&text, name_or_path).map_err(|e| match e.cure.is_empty() {
            true => e.cure("compare with a preset: moesim show machines"),
            false => e,
        })?;
        let base_name = if crate::experiment::PRESETS.iter().any(|p| p.0 == file.base) {
            file.base.clone()
        } else {
            folder.join(&file.base).display().to_string()
        };
        let (label, base, dir) = experiment::tree(&base_name).map_err(|d| d.file(name_or_path).place("base"))?;
        let mut points = grid(&file).map_err(|d| d.file(name_or_path))?;
        // Pictures of every point are for who asks for them: they take many times as long as a small point itself.
        let plots = base.get("output").and_then(|o| o.get("plots")).is_some();
        let plots = (!plots).then(|| (vec!["output".into(), "plots".into()], toml::Value::Boolean(false)));
        let mut set: Vec<Assignment> = file.set.iter().map(|(k, v)| (path(k), v.clone())).collect();
        experiment::anchored(&mut set, &folder, &dir)?;
        points.iter_mut().try_for_each(|p| experiment::anchored(&mut p.set, &folder, &dir))?;
        set.splice(0..0, plots);
        let label = format!("{name_or_path} on {label}");
        Ok(Self {
            file,
            points,
            label,
            base,
            dir,
            set,
            profiles: Profiles::default(),
            cache: Cache::none(),
            traces: Mutex::default(),
        })
    }

    /// Makes an assignment to all points, as if the file's `set` ended with it.
    ///
    /// # Errors
    /// What is no assignment.
    pub fn also(&mut self, assignment: &str) -> Result<()> {
        let (key, value) = config::split_assignment(assignment)?;
        self.file.set.insert(key.join("."), value.clone());
        self.set.push((key, value));
        Ok(())
    }

    /// The metric that is plotted.
    pub fn plotted(&self) -> Option<&str> {
        self.file.plot.as_ref().or(self.file.metrics.first()).map(String::as_str)
    }

    /// A hash of what decides the points: base, changes, axes.
    ///
    /// # Errors
    /// None for our types.
    pub fn identity(&self) -> Result<String> {
        let all = (&self.base, &self.file.set, &self.file.axis);
        let text = serde_json::to_string(&all).map_err(|e| Diag::run(format!("a sweep is not JSON: {e}")))?;
        Ok(content_hash(text.as_bytes()))
    }

    /// Finds what a point's run would refuse before it begins: everything but its routing, which may have to be drawn, and its
    /// requests.
    ///
    /// # Errors
    /// Wrong input, or weights that do not fit.
    pub fn check(&self, point: &Point, registry: &Registry) -> Result<()> {
        let resolved = self.resolve(point)?;
        let mut passed = false;
        let open = || {
            passed = true;
            Err(Diag::run("only checked"))
        };
        let refused = Simulation::new(&resolved, registry, open, Tables::default()).err();
        refused.filter(|_| !passed).map_or(Ok(()), |d| Err(d.file(&resolved.label)))
    }

    /// Names of the axes.
    pub fn keys(&self) -> Vec<String> {
        self.file.axis.iter().map(|a| a.key.clone().or_else(|| a.name.clone()).unwrap_or_default()).collect()
    }

    /// The experiment of a point.
    ///
    /// # Errors
    /// Wrong input.
    pub fn resolve(&self, point: &Point) -> Result<Resolved> {
        let all: Vec<_> = self.set.iter().chain(&point.set).cloned().collect();
        let label = format!("{} [{}]", self.label, point.labels.join(", "));
        experiment::resolve_sharing(&label, self.base.clone(), self.dir.clone(), &all, &self.profiles)
    }

    /// The routing trace of a point, shared with the points that have the same; `say` is told before one is drawn.
    ///
    /// # Errors
    /// As the trace's reader says.
    pub fn trace(&self, resolved: &Resolved, say: &dyn Fn(String)) -> Result<Opened> {
        let x = &resolved.experiment;
        let key = match &x.workload.routing {
            Routing::Trace { path, .. } => format!("{}", resolved.base.join(path).display()),
            Routing::None | Routing::Synthetic { .. } | Routing::Uniform { .. } => {
                format!("{:?} {} {:?}", x.workload.routing, x.seed, x.model)
            }
        };
        let mut traces = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(t) = traces.get(&key) {
            return Ok(Opened { trace: t.clone(), from: Origin::Shared });
        }
        let opened = self.cache.open(resolved.routing(), say)?;
        traces.insert(key, opened.trace.clone());
        Ok(opened)
    }
}

fn path(key: &str) -> Vec<String> {
    key.split('.').map(|s| s.trim().to_string()).collect()
}

fn grid(file: &SweepFile) -> Result<Vec<Point>> {
    let mut points = vec![Point { labels: Vec::new(), set: Vec::new() }];
    if file.axis.is_empty() {
        return Err(Diag::input("a sweep without an axis").place("axis").cure("add [[axis]] with key and values"));
    }
    for (i, axis) in file.axis.iter().enumerate() {
        let choices: Vec<(String, Vec<Assignment>)> = match (&axis.key, &axis.name) {
            (Some(key), None) if axis.points.is_empty() => axis
                .values
                .iter()
                .map(|v| {
                    let label = v.as_str().map_or_else(|| v.to_string(), str::to_string);
                    (label, vec![(path(key), v.clone())])
                })
                .collect(),
            (None, Some(_)) if axis.values.is_empty() => axis
                .points
                .iter()
                .map(|p| (p.label.clone(), p.set.iter().map(|(k, v)| (path(k), v.clone())).collect()))
                .collect(),
            _ => {
                return Err(Diag::input("an axis is neither key and values nor name and points")
                    .place(format!("axis {}", i + 1))
                    .cure("write key = \"..\" and values = [..], or name = \"..\" and points = [{ label, set }]"));
            }
        };
        if choices.is_empty() {
            return Err(Diag::input("an axis without values").place(format!("axis {}", i + 1)).cure("add some"));
        }
        if points.len() * choices.len() > MAX_POINTS {
            return Err(Diag::input(format!("more than {MAX_POINTS} points")).place("axis").cure("split the sweep"));
        }
        points = points
            .iter()
            .flat_map(|p| {
                choices.iter().map(move |(label, set)| {
                    let mut p = p.clone();
                    p.labels.push(label.clone());
                    p.set.extend(set.iter().cloned());
                    p
                })
            })
            .collect();
    }
    Ok(points)
}
