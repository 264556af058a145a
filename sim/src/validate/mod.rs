//! Published figures beside simulated ones.
//!
//! A case (`sim/validation`, a file a system) holds a figure with its source and says where the simulated value is found: in
//! the summary of an experiment of the same file, or in what a kernel's profile says of one call. A published figure is never an input of an experiment.

mod case;
mod kernel;
mod placed;
pub mod points;

pub use case::{Case, CaseFile, Quotient, Source, Take, files};
pub use kernel::{KernelCall, KernelTime};
pub use placed::PlacedSpec;

use crate::experiment::{self, Resolved};
use moesim_core::{Diag, Result, config};
use serde::Serialize;
use std::path::PathBuf;

/// Errors up to this count as reproduced.
pub const OK: f64 = 0.10;

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Status {
    /// Within 10 %.
    #[serde(rename = "ok")]
    Ok,
    /// Further off.
    #[serde(rename = "miss")]
    Miss,
    /// The figure, or one like it, was in a calibration's data.
    #[serde(rename = "in sample")]
    InSample,
    /// It follows from its inputs by the arithmetic of the run.
    #[serde(rename = "identity")]
    Identity,
    /// Within 10 %, but by chance.
    #[serde(rename = "chance")]
    Chance,
    /// It repeats another figure, which counts.
    #[serde(rename = "reprint")]
    Reprint,
    /// A mechanism is lacking.
    #[serde(rename = "not modelled yet")]
    NotModelled,
    /// A trace or an unpublished input is lacking.
    #[serde(rename = "no data")]
    NoData,
}

/// A figure, published and simulated.
#[derive(Clone, Debug, Serialize)]
pub struct CaseOutcome {
    /// The figure's number.
    pub id: String,
    /// The system.
    pub system: String,
    /// What was measured.
    pub quantity: String,
    /// In which unit.
    pub unit: String,
    /// The published value.
    pub published: f64,
    /// The simulated value.
    pub simulated: Option<f64>,
    /// Simulated over published, less 1.
    pub relative_error: Option<f64>,
    /// What became of it.
    pub status: Status,
    /// Whether it was in a calibration's data.
    pub in_sample: bool,
    /// `file/experiment` of `sim/validation`; of several, in order, with commas between.
    pub experiment: Option<String>,
    /// What is lacking, or why a figure is missed.
    pub note: Option<String>,
    /// Where it was published.
    pub source: String,
}

/// The experiments that the cases of `file` with these numbers need, in order, each once.
pub fn experiments(file: &CaseFile, wanted: &dyn Fn(&Case) -> bool) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for case in file.case.iter().filter(|c| wanted(c)) {
        for name in case.experiment.iter().chain(&case.against) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names
}

/// What a call of a kernel takes, if `name` is one, as a summary.
///
/// # Errors
/// As [`KernelCall::time`].
pub fn kernel(file: &CaseFile, label: &str, name: &str) -> Result<Option<serde_json::Value>> {
    let Some(call) = file.kernels.get(name) else { return Ok(None) };
    let time = call.time().map_err(|d| d.file(label).place(format!("kernels.{name}")))?;
    serde_json::to_value(time).map(Some).map_err(|e| Diag::run(format!("no summary: {e}")))
}

/// An experiment of a file, ready to run.
///
/// # Errors
/// A name that the file lacks, a chain of `extends` that is too long, and all that is wrong with an experiment.
pub fn resolve(file: &CaseFile, label: &str, name: &str) -> Result<Resolved> {
    let place = |problem: String| Diag::input(problem).file(label).place(format!("experiments.{name}"));
    let mut set = Vec::new();
    let mut at = name.to_string();
    for _ in 0..8 {
        let table = file.experiments.get(&at).and_then(toml::Value::as_table);
        let table = table.ok_or_else(|| place(format!("there is no experiment {at}")).cure("add it to the file"))?;
        let Some(base) = table.get("extends").and_then(toml::Value::as_str) else {
            let mut table = table.clone();
            table.insert("name".into(), toml::Value::String(name.to_string()));
            return experiment::resolve(&format!("{label}/{name}"), table, PathBuf::new(), &set);
        };
        // Assignments of the experiment itself come last.
        let mut own = Vec::new();
        for (key, value) in table.get("set").and_then(toml::Value::as_table).into_iter().flatten() {
            own.push((config::split_assignment(&format!("{key}=0"))?.0, value.clone()));
        }
        set.splice(0..0, own);
        at = base.to_string();
    }
    Err(place("extends too many experiments".into()).cure("name the first one"))
}

/// The outcome of a case; `summary` gives the summary of an experiment as JSON.
///
/// # Errors
/// A path that a summary lacks.
pub fn outcome(
    file: &CaseFile,
    label: &str,
    case: &Case,
    summary: &dyn Fn(&str) -> Option<serde_json::Value>,
) -> Result<CaseOutcome> {
    let here = |problem: String| {
        Diag::input(problem).file(label).place(case.id.clone()).cure("compare `take` with a summary.json")
    };
    let value = |name: &String, take: &Take| -> Result<f64> {
        let summary = summary(name).ok_or_else(|| here(format!("{name} was not run")))?;
        take.value(&summary).map_err(here)
    };
    let one = |take: &Take, i: usize| -> Result<f64> {
        let v = value(&case.experiment[i], take)?;
        let Some(other) = case.against.get(i) else { return Ok(v) };
        Ok(case.quotient.of(v / value(other, case.take_against.as_ref().unwrap_or(take))?))
    };
    let runs = case.experiment.len();
    let mean = |take: &Take| Ok((0..runs).map(|i| one(take, i)).sum::<Result<f64>>()? / runs as f64);
    let simulated = case.take.as_ref().map(mean).transpose()?;
    let relative_error = simulated.map(|s| s / case.published - 1.0);
    let in_sample = case.in_sample.is_some();
    let status = match (relative_error, &case.missing, in_sample) {
        _ if case.reprint.is_some() => Status::Reprint,
        (Some(_), ..) if case.identity.is_some() => Status::Identity,
        (Some(_), _, true) => Status::InSample,
        (Some(e), _, _) if e.abs() <= OK && case.chance.is_some() => Status::Chance,
        (Some(e), _, _) if e.abs() <= OK => Status::Ok,
        (Some(_), _, _) => Status::Miss,
        (None, Some(_), _) => Status::NotModelled,
        (None, None, _) => Status::NoData,
    };
    let reprint = case.reprint.as_ref().map(|id| format!("of {id}"));
    let all = [&case.missing, &case.lacks, &reprint, &case.identity, &case.chance, &case.in_sample, &case.note];
    let note = all.into_iter().flatten().next().cloned();
    Ok(CaseOutcome {
        id: case.id.clone(),
        system: file.system.clone(),
        quantity: case.quantity.clone(),
        unit: case.unit.clone(),
        published: case.published,
        simulated,
        relative_error,
        status,
        in_sample,
        experiment: (runs > 0)
            .then(|| case.experiment.iter().map(|e| format!("{label}/{e}")).collect::<Vec<_>>().join(", ")),
        note,
        source: case.source.clone(),
    })
}

#[cfg(test)]
mod tests;
