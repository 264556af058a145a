//! The files of cases.

use super::kernel::KernelCall;
use super::placed::PlacedSpec;
use moesim_core::{Diag, Result, config};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A file of cases: one system.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// The system.
    pub system: String,
    /// Its figures.
    pub case: Vec<Case>,
    /// Calls of single kernels by name, which stand where an experiment may.
    #[serde(default)]
    pub kernels: BTreeMap<String, KernelCall>,
    /// How the experts of experiments are placed, by the experiments' names; those without follow their own policy.
    #[serde(default)]
    pub placements: BTreeMap<String, PlacedSpec>,
    /// Experiments by name; one that `extends` another has only a table `set` of dotted keys beside it.
    #[serde(default)]
    pub experiments: toml::Table,
}

/// A published figure: facts, and how it is simulated or why not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its number.
    pub id: String,
    /// What was measured.
    pub quantity: String,
    /// The published value.
    pub published: f64,
    /// Its unit.
    pub unit: String,
    /// Under which conditions.
    pub config: String,
    /// Where it was published.
    pub source: String,
    /// How well the source was read.
    pub confidence: Source,
    /// The experiment that gives it; of several, the mean of what each gives.
    #[serde(default, deserialize_with = "one_or_more")]
    pub experiment: Vec<String>,
    /// Where in the experiment's summary.
    #[serde(default)]
    pub take: Option<Take>,
    /// The experiment whose value it is divided by, for speed-ups: one for each of `experiment`.
    #[serde(default, deserialize_with = "one_or_more")]
    pub against: Vec<String>,
    /// What the quotient says: itself, how many per cent it is more than one, or less.
    #[serde(default)]
    pub quotient: Quotient,
    /// Where in that one's summary, if it is not the same place.
    #[serde(default)]
    pub take_against: Option<Take>,
    /// The calibration that this figure, or one measured with it, was an input of.
    #[serde(default)]
    pub in_sample: Option<String>,
    /// Why the figure follows from its inputs by arithmetic that the run repeats: agreement proves nothing.
    #[serde(default)]
    pub identity: Option<String>,
    /// Why agreement would be chance: what the run lacks bears on the figure, so that errors must cancel.
    #[serde(default)]
    pub chance: Option<String>,
    /// The number of the figure that this one repeats.
    #[serde(default)]
    pub reprint: Option<String>,
    /// The mechanism that is lacking.
    #[serde(default)]
    pub missing: Option<String>,
    /// The input that is lacking.
    #[serde(default)]
    pub lacks: Option<String>,
    /// Anything a reader must know: approximations, the mechanism behind a miss.
    #[serde(default)]
    pub note: Option<String>,
}

/// What a quotient of two values says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quotient {
    /// Itself.
    #[default]
    Ratio,
    /// Per cent more than one.
    PerCentMore,
    /// Per cent less than one.
    PerCentLess,
}

impl Quotient {
    pub(super) fn of(self, ratio: f64) -> f64 {
        match self {
            Self::Ratio => ratio,
            Self::PerCentMore => 100.0 * (ratio - 1.0),
            Self::PerCentLess => 100.0 * (1.0 - ratio),
        }
    }
}

/// How a published figure was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// In the paper or page itself.
    Seen,
    /// In its abstract.
    Abstract,
    /// In somebody else's words.
    Secondary,
}

/// `scale x (sum of figures) / (product of figures) / per`, figures by dotted path in a summary.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Take {
    /// What is added up; 1 if nothing is named.
    #[serde(default)]
    pub sum: Vec<String>,
    /// What it is divided by.
    #[serde(default)]
    pub over: Vec<String>,
    /// A factor, for units.
    #[serde(default = "one")]
    pub scale: f64,
    /// A divisor: layers, nodes.
    #[serde(default = "one")]
    pub per: f64,
}

fn one() -> f64 {
    1.0
}

/// A name, or a list of names.
fn one_or_more<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        One(String),
        More(Vec<String>),
    }
    Ok(match Names::deserialize(d)? {
        Names::One(name) => vec![name],
        Names::More(names) => names,
    })
}

impl Take {
    /// The value in a summary; what is wrong with the path otherwise.
    pub fn value(&self, summary: &Value) -> std::result::Result<f64, String> {
        let at = |path: &String| {
            let found = path.split('.').try_fold(summary, |v, key| v.get(key));
            found.and_then(Value::as_f64).ok_or_else(|| format!("the summary has no number {path}"))
        };
        let sum = match &self.sum[..] {
            [] => 1.0,
            figures => figures.iter().map(at).sum::<std::result::Result<f64, String>>()?,
        };
        let over = self.over.iter().map(at).product::<std::result::Result<f64, String>>()?;
        Ok(sum / over * self.scale / self.per)
    }
}

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../validation/", $name, ".toml")))),*]
    };
}

/// The files that ship inside the binary.
const FILES: &[(&str, &str)] = embedded![
    "cloudmatrix384",
    "ascend-910c-die",
    "deepep-first-release-h800",
    "deepep-v1-final-h800",
    "deepseek-h800-production",
    "deepseek-tpot-bound",
    "sglang-96xh100",
    "8xh100-sglang",
    "trace-statistics",
    "wafer-scale-gpu",
    "duplex",
    "monde",
    "moe-lens",
    "moetuner",
    "hybrimoe",
    "fmoe-finemoe",
    "offloading-deepseek-v2-lite",
    "adapmoe",
    "mixtral-offloading",
    "moe-gen",
    "towards-moe-deployment",
    "ktransformers",
    "fiddler",
    "adaptive-gating",
    "tutel",
    "scmoe",
    "smile",
    "fsmoe",
    "megascale-moe",
    "moe-parallel-folding",
    "deepspeed-moe",
    "hiermoe",
    "hetumoe",
    "ppmoe",
    "locmoe",
    "deepspeed-ted",
    "semantic-parallelism",
    "moeplusplus",
    "qmoe",
    "mono-internvl-1.5",
    "trimoe",
    "cent",
    "ub-mesh",
];

/// All files by name.
///
/// # Errors
/// None that a user could cause.
pub fn files() -> Result<Vec<(&'static str, CaseFile)>> {
    let read = |(name, text): &(&'static str, &str)| {
        let file: CaseFile = config::from_toml(text, name)?;
        for case in &file.case {
            let ways = [case.take.is_some(), case.missing.is_some(), case.lacks.is_some()];
            let wrong = |problem: &str, cure: &str| {
                Err(Diag::input(problem).file(*name).place(case.id.clone()).cure(cure.to_string()))
            };
            if ways.iter().filter(|w| **w).count() != 1 || case.take.is_some() == case.experiment.is_empty() {
                let problem = "has not exactly one of experiment with take, missing, lacks";
                return wrong(problem, "say how it is simulated");
            }
            if !case.against.is_empty() && case.against.len() != case.experiment.len() {
                return wrong("has not one experiment of `against` for each of `experiment`", "name as many");
            }
        }
        Ok((*name, file))
    };
    FILES.iter().map(read).collect()
}
