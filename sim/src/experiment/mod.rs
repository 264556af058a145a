//! Experiments: what is simulated, in one file. [`spec`] has what it can say; here it is read, with all that it names.

pub mod spec;

pub use spec::{CostFidelity, Experiment, Fidelity, Output, Policies, RoutingFidelity, Slo, Window, Workload};

use crate::framework::{self, Framework};
use crate::machine::Habits;
use crate::paths;
use crate::routing::Wanted;
use moesim_core::{Diag, Picos, Result, Sourced, config, diag, input};
use moesim_hwmodels::Hardware;
use moesim_hwmodels::calibrate::profile::Profile;
use moesim_solver::Homes;
use moesim_traces::model::Model;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// An experiment with everything that it names read in.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// As given, with overrides, model and hardware inlined as tables.
    pub experiment: Experiment,
    /// The model.
    pub model: Model,
    /// The hardware.
    pub hardware: Hardware,
    /// The serving engine, if the experiment has one.
    pub engine: Option<Framework>,
    /// Calibrated costs: the profile that the hardware names, and its donors.
    pub profiles: Vec<Arc<Profile>>,
    /// Where relative paths start.
    pub base: PathBuf,
    /// The experiment as the user named it, for messages.
    pub label: String,
    /// Where experts are, instead of what `policy.placement` says: of a placement that is being compared.
    pub homes: Option<Arc<Homes>>,
}

impl Resolved {
    /// The routing that it asks for.
    pub fn routing(&self) -> Wanted<'_> {
        let x = &self.experiment;
        Wanted { spec: &x.workload.routing, model: &self.model, base: &self.base, seed: x.seed }
    }

    /// Host time between two iterations, that devices wait for: the engine's, or what the hardware's file says; none without an engine.
    pub fn host_time(&self) -> Picos {
        let hardware = self.hardware.host.iteration_overhead.value;
        self.engine.as_ref().map_or(Picos::ZERO, |e| e.host_time.as_ref().map_or(hardware, |t| t.value))
    }

    /// Host time to launch one kernel of an iteration with prompts.
    pub fn eager_kernel(&self) -> Picos {
        self.engine.as_ref().and_then(|e| e.eager_kernel.as_ref()).map_or(Picos::ZERO, |t| t.value)
    }

    /// What the engine does its own way in a layer.
    pub fn habits(&self) -> Habits {
        let habits =
            |e: &Framework| Habits { fused: e.fused.value.clone(), rounds_before_gather: e.rounds_before_gather.value };
        self.engine.as_ref().map_or_else(Habits::default, habits)
    }

    /// The file that `policy.placement` names, if it is no plain word: those are methods.
    pub fn placement_file(&self) -> Option<PathBuf> {
        let name = &self.experiment.policy.placement;
        paths::is_placement_file(name).then(|| self.base.join(name))
    }
}

/// Experiments that ship inside the binary.
pub const PRESETS: &[(&str, &str)] = &[("quickstart", include_str!("../../presets/quickstart.toml"))];

/// Reads an experiment by preset name or path, as a tree for overrides: its label, tree and base folder.
///
/// # Errors
/// Neither a preset nor a readable file, or not TOML.
pub fn tree(name_or_path: &str) -> Result<(String, toml::Table, PathBuf)> {
    if let Some((_, text)) = PRESETS.iter().find(|p| p.0 == name_or_path) {
        return Ok((name_or_path.to_string(), config::table(text, name_or_path)?, PathBuf::from(".")));
    }
    let (text, base) = read(name_or_path, &preset_names())?;
    Ok((name_or_path.to_string(), config::table(&text, name_or_path).map_err(example)?, base))
}

/// Experiment and sweep files are written by people.
const MAX_FILE_BYTES: u64 = 16 << 20;

fn preset_names() -> Vec<&'static str> {
    PRESETS.iter().map(|p| p.0).collect()
}

/// The text of a file, and its folder; a plain word that is no file was meant for one of `presets`.
pub(crate) fn read(path: &str, presets: &[&str]) -> Result<(String, PathBuf)> {
    use std::io::Read;
    let p = Path::new(path);
    if !p.exists() && p.extension().is_none() && p.components().count() <= 1 {
        return Err(diag::unknown("preset or file", path, presets));
    }
    let mut text = String::new();
    let file = input::open(p)?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => Diag::input("is not text").file(p).cure("name a file in TOML"),
        _ => Diag::cannot_read(p, &e),
    })?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(Diag::input("is larger than 16 MiB").file(p).cure("name an experiment file in TOML"));
    }
    let base = p.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    Ok((text, base))
}

/// Profiles by name or path, each read once.
#[derive(Debug, Default)]
pub struct Profiles(Mutex<BTreeMap<String, Arc<Profile>>>);

impl Profiles {
    fn load(&self, name: &str) -> Result<Arc<Profile>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(profile) = known.get(name) {
            return Ok(profile.clone());
        }
        let profile = Arc::new(Profile::load(name)?);
        known.insert(name.to_string(), profile.clone());
        Ok(profile)
    }
}

/// Reads an experiment and applies `--set` assignments, whose files are relative to the current folder.
///
/// # Errors
/// Wrong input, named with file, place and cure.
pub fn load(name_or_path: &str, overrides: &[String]) -> Result<Resolved> {
    if overrides.is_empty() && !PRESETS.iter().any(|p| p.0 == name_or_path) {
        // Straight from the text, so that messages name line and column.
        let (text, base) = read(name_or_path, &preset_names())?;
        let experiment = config::from_toml(&text, name_or_path).map_err(example)?;
        return finish(experiment, name_or_path, base, &Profiles::default());
    }
    let (label, table, base) = tree(name_or_path)?;
    let label = if overrides.is_empty() { label } else { format!("{label} (with --set)") };
    let mut set = overrides.iter().map(|o| config::split_assignment(o)).collect::<Result<Vec<_>>>()?;
    anchored(&mut set, Path::new("."), &base)?;
    resolve(&label, table, base, &set)
}

/// A dotted key, split, and its new value.
pub type Assignment = (Vec<String>, toml::Value);

/// Files that assignments from `folder` name, for an experiment whose own are relative to `base`.
///
/// # Errors
/// No current folder.
pub(crate) fn anchored(set: &mut [Assignment], folder: &Path, base: &Path) -> Result<()> {
    if paths::same_folder(folder, base) {
        return Ok(());
    }
    set.iter_mut().try_for_each(|(key, value)| paths::anchor(key, value, folder))
}

/// Applies assignments to a tree and reads what it names.
///
/// # Errors
/// As [`load`].
pub fn resolve(label: &str, table: toml::Table, base: PathBuf, set: &[Assignment]) -> Result<Resolved> {
    resolve_sharing(label, table, base, set, &Profiles::default())
}

/// As [`resolve`], with profiles that were read before.
///
/// # Errors
/// As [`load`].
pub fn resolve_sharing(
    label: &str,
    mut table: toml::Table,
    base: PathBuf,
    set: &[Assignment],
    profiles: &Profiles,
) -> Result<Resolved> {
    for (path, value) in set {
        if path.len() > 1 && (path[0] == "model" || path[0] == "hardware") {
            inline(&mut table, &path[0], &base).map_err(|d| d.file(label))?;
        }
        if path.len() > 2 && path[0] == "policy" {
            as_table(&mut table, &path[1]);
        }
        config::set_path(&mut table, path, value.clone()).map_err(|d| d.file(label))?;
    }
    finish(config::from_table(table, label).map_err(example)?, label, base, profiles)
}

/// What is not even TOML, or not an experiment, has a cure too.
fn example(e: Diag) -> Diag {
    if e.cure.is_empty() { e.cure("compare with a preset: moesim show quickstart") } else { e }
}

fn finish(mut experiment: Experiment, label: &str, base: PathBuf, known: &Profiles) -> Result<Resolved> {
    let model_table = part(&experiment.model, "model", &base).map_err(|d| d.file(label))?;
    let hardware_table = part(&experiment.hardware, "hardware", &base).map_err(|d| d.file(label))?;
    let named = |v: &toml::Value, what: &str| match v {
        toml::Value::String(s) => s.clone(),
        _ => format!("{label}: {what}"),
    };
    let model = Model::from_table(model_table.clone(), &named(&experiment.model, "model"))?;
    let mut hardware = Hardware::from_table(hardware_table.clone(), &named(&experiment.hardware, "hardware"))?;
    experiment.model = toml::Value::Table(model_table);
    experiment.hardware = toml::Value::Table(hardware_table);
    if let (start, Some(end)) = (experiment.window.start, experiment.window.end)
        && end <= start
    {
        return Err(Diag::input("the window ends before it starts")
            .file(label)
            .place("window.end")
            .cure(format!("set it after window.start, which is {start}")));
    }
    if experiment.slo.is_some_and(|s| s.ttft.is_none() && s.tpot.is_none()) {
        return Err(Diag::input("an SLO that promises nothing")
            .file(label)
            .place("slo")
            .cure("set slo.ttft or slo.tpot, or leave the table out"));
    }
    let engine = experiment.engine.as_ref().map(Framework::new).transpose().map_err(|d| d.file(label))?;
    let devices = hardware.devices() as u64;
    let ranks = devices / u64::from(experiment.deployment.attention_tp.max(1));
    let memory = hardware.device.memory.capacity.value;
    if let Some(share) = engine.as_ref().and_then(|e| e.memory_left(memory, devices, ranks)) {
        hardware.device.reserve = Sourced { value: 1.0 - share.value, origin: share.origin };
    }
    experiment.policy.dispatch = framework::dispatch(&experiment.policy.dispatch, engine.as_ref());
    let profiles = profiles(&hardware, &base, known).map_err(|d| d.place("hardware.device.profile"))?;
    Ok(Resolved { experiment, model, hardware, engine, profiles, base, label: label.to_string(), homes: None })
}

/// The profile that the hardware names, and the donors that this one names: each ships, or is a file, beside the one that names it.
/// Donors of donors are not asked.
fn profiles(hardware: &Hardware, base: &Path, known: &Profiles) -> Result<Vec<Arc<Profile>>> {
    let file = |name: &str, folder: &Path| {
        let path = folder.join(name);
        (!paths::profile_ships(name) && path.exists()).then(|| path.display().to_string())
    };
    let Some(name) = &hardware.device.profile else { return Ok(Vec::new()) };
    let own_file = file(name, base);
    let own = known.load(own_file.as_ref().unwrap_or(name))?;
    let beside = own_file.as_deref().and_then(|f| Path::new(f).parent());
    let donor = |name: &String| {
        let found = beside.and_then(|folder| file(name, folder)).or_else(|| file(name, base));
        known.load(found.as_ref().unwrap_or(name))
    };
    let donors = own.donors.iter().map(donor).collect::<Result<Vec<_>>>()?;
    Ok(std::iter::once(own).chain(donors).collect())
}

/// Makes a table of a policy that is given by its name alone, so that it can get settings.
fn as_table(experiment: &mut toml::Table, seam: &str) {
    let policy = experiment.get_mut("policy").and_then(|p| p.get_mut(seam));
    if let Some(policy) = policy
        && let Some(kind) = policy.as_str().map(str::to_string)
    {
        *policy = toml::Value::Table([("kind".to_string(), kind.into())].into_iter().collect());
    }
}

/// Replaces a name by the table that it names.
fn inline(table: &mut toml::Table, what: &str, base: &Path) -> Result<()> {
    if let Some(value) = table.get(what) {
        let inlined = part(value, what, base)?;
        table.insert(what.to_string(), toml::Value::Table(inlined));
    }
    Ok(())
}

/// The table of a model or hardware: given whole, a preset, or a file relative to the experiment's.
fn part(value: &toml::Value, what: &str, base: &Path) -> Result<toml::Table> {
    let name = match value {
        toml::Value::Table(t) => return Ok(t.clone()),
        toml::Value::String(s) => s,
        _ => {
            return Err(Diag::input("is neither a name nor a table").place(what).cure(format!(
                "write a preset's name (see `moesim list {}`)",
                if what == "model" { "models" } else { what }
            )));
        }
    };
    let (preset, names): (_, Vec<&str>) = if what == "model" {
        (moesim_traces::model::preset_text(name), moesim_traces::model::presets().iter().map(|p| p.name).collect())
    } else {
        let presets = moesim_hwmodels::hardware::presets();
        (moesim_hwmodels::hardware::preset_text(name), presets.iter().map(|p| p.name).collect())
    };
    if let Some(text) = preset {
        return config::table(text, name);
    }
    let path = base.join(name);
    if !path.exists() {
        return Err(diag::unknown(&format!("{what} preset or file"), name, &names).place(what));
    }
    let label = path.display().to_string();
    let (text, _) = read(&label, &names)?;
    let preset = if what == "model" { "gpt-oss-20b" } else { "h100-8" };
    let mut table = config::table(&text, &label).map_err(|e| match e.cure.is_empty() {
        true => e.cure(format!("compare with a preset: moesim show {preset}")),
        false => e,
    })?;
    beside(&mut table, Path::new(name), base);
    Ok(table)
}

/// A profile that lies beside the hardware file which names it is named as seen from `base`.
fn beside(hardware: &mut toml::Table, file: &Path, base: &Path) {
    let profile = hardware.get_mut("device").and_then(|d| d.get_mut("profile"));
    let (Some(toml::Value::String(profile)), Some(folder)) = (profile, file.parent()) else { return };
    let path = folder.join(&*profile);
    if !paths::profile_ships(profile) && base.join(&path).exists() {
        *profile = path.display().to_string();
    }
}
