//! The host side: time spent per iteration, memory that experts can be offloaded to, and the way there.

use super::Memory;
use moesim_core::{Bandwidth, Picos, Sourced};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The host of the devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Host time per iteration that devices wait for: scheduling, graph launch, sampling, what is not overlapped.
    pub iteration_overhead: Sourced<Picos>,
    /// Host memory of one node.
    pub memory: Option<Memory>,
    /// The link between host memory and each device; every device has its own.
    pub link: Option<HostLink>,
}

/// One device's link to its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostLink {
    /// Raw bandwidth, one way.
    pub bandwidth: Sourced<Bandwidth>,
    /// Latency of one copy.
    pub latency: Sourced<Picos>,
    /// Fraction of the raw bandwidth that copies reach, in (0, 1].
    pub achievable: Sourced<f64>,
}
