//! How devices are joined, as data; [`crate::topology`] builds the graph.

use moesim_core::{Bandwidth, Picos, Sourced};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One directed link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// Raw bandwidth, one way.
    pub bandwidth: Sourced<Bandwidth>,
    /// Latency of this link alone; a path's latency is the sum over its links.
    pub latency: Sourced<Picos>,
    /// Cost of sending one message, added to the latency once where a message enters links of this kind.
    pub per_message: Option<Sourced<Picos>>,
    /// Fraction of the raw bandwidth that transfers reach, in (0, 1].
    pub achievable: Sourced<f64>,
}

/// How the devices are joined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum TopologySpec {
    /// One device, no links.
    Single {},
    /// A node with a non-blocking switch: device, switch, device; each direction is its own link.
    Switch {
        /// Number of devices.
        devices: u32,
        /// A device's link to or from the switch.
        link: LinkSpec,
    },
    /// A direct link from every device to every other.
    FullMesh {
        /// Number of devices.
        devices: u32,
        /// The link from one device to another.
        link: LinkSpec,
    },
    /// A mesh of `x` columns and `y` rows, neighbours joined both ways; device = row * x + column. Routing is in
    /// dimension order: along the row first, then along the column.
    #[serde(rename = "mesh2d")]
    Mesh2d {
        /// Columns.
        x: u32,
        /// Rows.
        y: u32,
        /// The link from one device to its neighbour.
        link: LinkSpec,
    },
    /// Nodes with a scale-up switch inside; device i of every node has its network card on rail switch i. Device =
    /// node * devices_per_node + i.
    FatTreeRail {
        /// Number of nodes.
        nodes: u32,
        /// Devices in a node, and so the number of rails.
        devices_per_node: u32,
        /// A device's link to or from its node's scale-up switch.
        link: LinkSpec,
        /// A device's link to or from its rail switch.
        nic: LinkSpec,
        /// How a transfer changes rails.
        #[serde(default)]
        cross_rail: CrossRail,
        /// Bandwidth below a rail switch over its bandwidth towards the spine, at least 1; matters with
        /// `cross_rail = "spine"` only.
        #[serde(default = "non_blocking")]
        spine_oversubscription: f64,
    },
    /// Any graph: devices are named `gpu0`, `gpu1`, ..., every other name is a switch. Routing takes the fewest links;
    /// among equals the links that come first in the file.
    Graph {
        /// Number of devices.
        devices: u32,
        /// What is joined, each edge one link each way.
        edges: Vec<Edge>,
    },
}

fn non_blocking() -> f64 {
    1.0
}

/// How a transfer between nodes reaches a device on another rail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CrossRail {
    /// Over the scale-up switch to the sender's neighbour on the receiver's rail, then along that rail: what NCCL does
    /// when PXN is on, its default since 2.12.
    #[default]
    ScaleUp,
    /// From rail switch to rail switch over the spine.
    Spine,
}

/// One edge of a [`TopologySpec::Graph`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// The two ends, as in `["gpu0", "leaf"]`.
    pub between: [String; 2],
    /// The link of each direction.
    pub link: LinkSpec,
}

impl TopologySpec {
    /// Number of devices; may overflow to `usize::MAX` before the specification is checked.
    pub fn devices(&self) -> usize {
        let product = |a: u32, b: u32| (a as usize).saturating_mul(b as usize);
        match *self {
            Self::Single {} => 1,
            Self::Switch { devices, .. } | Self::FullMesh { devices, .. } | Self::Graph { devices, .. } => {
                devices as usize
            }
            Self::Mesh2d { x, y, .. } => product(x, y),
            Self::FatTreeRail { nodes, devices_per_node, .. } => product(nodes, devices_per_node),
        }
    }
}
