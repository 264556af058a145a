//! How finely collectives are simulated.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Fidelity of collectives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkFidelity {
    /// The larger of the most loaded link and the slowest transfer: a lower bound.
    #[default]
    Bottleneck,
    /// Transfers share links max-min fairly, event by event.
    Flow,
    /// A transfer holds all links of its path; later ones go ahead where their links are free.
    Reserve,
    /// As `reserve`, but none goes ahead of an earlier one with which it shares a link.
    ReserveHeadOfLine,
}
