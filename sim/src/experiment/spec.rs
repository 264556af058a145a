//! What an experiment file can say.

use crate::engine::Execution;
use crate::framework::EngineSettings;
use crate::machine::Deployment;
use crate::network::NetworkFidelity;
use crate::policy::{CacheFraction, Choice};
use crate::replacement::Replacement;
use crate::routing::Routing;
use moesim_core::Picos;
use moesim_hwmodels::Hardware;
use moesim_traces::arrivals::ArrivalSpec;
use moesim_traces::model::ModelFile;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An experiment file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Its name, in every output.
    pub name: String,
    /// Seed of every random stream.
    #[serde(default = "one")]
    pub seed: u64,
    /// What comes in.
    pub workload: Workload,
    /// Ranks and limits.
    #[serde(default)]
    pub deployment: Deployment,
    /// The serving engine: its kernels, its host time. Without it the fastest measured kernels run, in CUDA graphs, and no host time passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineSettings>,
    /// Policies by name, with their settings.
    #[serde(default)]
    pub policy: Policies,
    /// How finely is simulated.
    #[serde(default)]
    pub fidelity: Fidelity,
    /// What is measured.
    #[serde(default)]
    pub window: Window,
    /// What is promised; without it there is no goodput.
    #[serde(default)]
    pub slo: Option<Slo>,
    /// What is written.
    #[serde(default)]
    pub output: Output,
    /// The model: a preset's name, a file, or a whole model table.
    #[schemars(schema_with = "name_or::<ModelFile>")]
    pub model: toml::Value,
    /// The hardware: a preset's name, a file, or a whole hardware table.
    #[schemars(schema_with = "name_or::<Hardware>")]
    pub hardware: toml::Value,
}

fn one() -> u64 {
    1
}

fn name_or<T: JsonSchema>(g: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let table = g.subschema_for::<T>();
    schemars::json_schema!({ "anyOf": [{ "type": "string" }, table] })
}

/// Requests and their routing.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// When requests come, and how long they are.
    pub arrivals: ArrivalSpec,
    /// Which experts their tokens select; models without MoE layers have none.
    #[serde(default)]
    pub routing: Routing,
}

/// Which policies a run uses, by name, with their settings: `execution = "on-demand"`, or a table
/// `[policy.execution]` with `kind = "on-demand"` and what that policy can be told (`moesim show on-demand`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policies {
    /// Where experts live: a method by name, or a file with a placement, relative to the experiment's: our own, or what a serving
    /// engine loads.
    pub placement: String,
    /// The setting of this name of the execution policy, as older files have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_fraction: Option<CacheFraction>,
    /// How a layer's experts are executed.
    pub execution: Choice,
    /// How tokens travel to their experts and back; `auto`: as the engine's framework has it, else `flat`.
    pub dispatch: Choice,
    /// How batches are formed.
    pub scheduler: Choice,
    /// Which rank a request goes to.
    pub load_balancer: Choice,
    /// Experts that move while the run serves; without it they stay where `placement` puts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Replacement>,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            placement: "contiguous".into(),
            cache_fraction: None,
            execution: Choice::named("expert-parallel"),
            dispatch: Choice::named(Choice::AUTO),
            scheduler: Choice::named("chunked-prefill"),
            load_balancer: Choice::named("least-loaded"),
            replacement: None,
        }
    }
}

/// How finely is simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fidelity {
    /// Operations: `op` or `phase`, with the same outcome.
    pub execution: Execution,
    /// Collectives: `bottleneck`, `flow`, `reserve` or `reserve-head-of-line`.
    pub network: NetworkFidelity,
    /// Selections: `exact`, every token of every layer replayed.
    pub routing: RoutingFidelity,
    /// Costs of operations: `calibrated`, by kernels that were measured on the device or a donor where there are any, or `roofline`,
    /// peaks with assumed fractions everywhere, so that all machines stand on one basis.
    pub costs: CostFidelity,
}

/// Fidelity of costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CostFidelity {
    /// Measured kernels where there are any.
    #[default]
    Calibrated,
    /// Peaks with assumed fractions.
    Roofline,
}

/// Fidelity of routing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RoutingFidelity {
    /// Every token of every layer.
    #[default]
    Exact,
}

/// The measurement window: requests that arrive in it count for percentiles, tokens that appear in it for rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Window {
    /// Warm-up before it.
    pub start: Picos,
    /// Its end; without it, the end of the run (drain included).
    pub end: Option<Picos>,
}

/// A service-level objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// Most time to the first token.
    pub ttft: Option<Picos>,
    /// Most time per output token after the first.
    pub tpot: Option<Picos>,
}

/// What is written to the run directory beside the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Output {
    /// One row an iteration in `iterations.csv`.
    pub iterations: bool,
    /// Draw the plots.
    pub plots: bool,
}

impl Default for Output {
    fn default() -> Self {
        Self { iterations: true, plots: true }
    }
}
