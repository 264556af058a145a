//! What an experiment says of its routing.

use super::source::Missing;
use moesim_traces::Model;
use moesim_traces::synth::Subjects;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where expert selections come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Routing {
    /// Nowhere: the model has no MoE layer.
    #[default]
    None,
    /// A trace in moesim's container (see `moesim trace import`).
    Trace {
        /// The file, relative to the experiment's.
        path: PathBuf,
        /// What stands in for rows that it lacks.
        #[serde(default)]
        missing: Missing,
    },
    /// Generated with the popularity and the next-token overlap of measured models: gpt-oss-20b or, for 64
    /// experts and more, models of that kind.
    Synthetic {
        /// Sequences.
        sequences: u32,
        /// Prompt rows of each.
        #[serde(default)]
        prompt_rows: u32,
        /// Decode rows of each.
        decode_rows: u32,
        /// What they are about: many subjects, or one, whose imbalance is larger.
        #[serde(default)]
        subjects: Subjects,
        /// What stands in for rows beyond these.
        #[serde(default)]
        missing: Missing,
    },
    /// Independent uniform draws, as benchmarks of communication use them; no model routes like this.
    Uniform {
        /// Sequences.
        sequences: u32,
        /// Prompt rows of each.
        #[serde(default)]
        prompt_rows: u32,
        /// Decode rows of each.
        decode_rows: u32,
        /// Groups of consecutive experts that a token's choice is limited by; unless told, one of all.
        #[serde(default = "one_group")]
        groups: u32,
        /// Groups that a token's experts may be in.
        #[serde(default = "one_group")]
        top_groups: u32,
        /// What stands in for rows beyond these.
        #[serde(default)]
        missing: Missing,
    },
}

impl Routing {
    /// What stands in for rows that are lacking.
    pub fn missing(&self) -> Missing {
        match self {
            Self::None => Missing::default(),
            Self::Trace { missing, .. } | Self::Synthetic { missing, .. } | Self::Uniform { missing, .. } => *missing,
        }
    }
}

fn one_group() -> u32 {
    1
}

/// Routing that a run asks for, and what it is drawn for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What the experiment says.
    pub spec: &'a Routing,
    /// The model whose layers route.
    pub model: &'a Model,
    /// Where relative paths start.
    pub base: &'a Path,
    /// The experiment's seed.
    pub seed: u64,
}
