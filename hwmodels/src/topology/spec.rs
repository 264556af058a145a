//! How devices are joined, as data, of which [`super::Topology`] builds the graph.

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
    /// A ring: every device joined to the next, the last to the first. Routing takes the shorter way round.
    Ring {
        /// Number of devices.
        devices: u32,
        /// The link from one device to its neighbour.
        link: LinkSpec,
    },
    /// A mesh of any number of dimensions whose rows are closed to rings (two dimensions: a 2D torus). The first
    /// dimension counts fastest: device = c0 + d0 * (c1 + d1 * c2 ...). Routing is in dimension order, each the shorter
    /// way round.
    Torus {
        /// Devices along each dimension, as in `[16, 16]`.
        dims: Vec<u32>,
        /// The link from one device to its neighbour.
        link: LinkSpec,
    },
    /// A full mesh along every dimension (UB-Mesh, arXiv 2503.20377): each device has a direct link to every device
    /// that differs in one coordinate. Devices count as in a torus. Routing is in dimension order, one link a
    /// dimension.
    FullMeshNd {
        /// Devices along each dimension, as in `[8, 8, 4]`.
        dims: Vec<u32>,
        /// The link of each dimension, in the same order.
        links: Vec<LinkSpec>,
    },
    /// One host: devices in groups behind PCIe switches, and these under a root complex. Transfers between groups share
    /// the uplinks; they are oversubscribed where `devices_per_switch` links are faster than one uplink.
    Pcie {
        /// Number of PCIe switches.
        switches: u32,
        /// Devices behind each.
        devices_per_switch: u32,
        /// A device's link to or from its switch.
        link: LinkSpec,
        /// A switch's link to or from the root complex.
        uplink: LinkSpec,
    },
    /// Planes of switches: every device has a link into each plane; a plane has one level-1 switch a node, and above
    /// these level-2 switches. Device = node * devices_per_node + i. Planes are alike, and so is what is above a
    /// level-1 switch.
    ///
    /// With `striping = "even"` a transfer's bytes are spread evenly over all planes and over the level-2 switches, so
    /// that each carries the same: the planes are then one network with the sum of their bandwidths, which is how they
    /// are built here. With `striping = "pair"` planes are built one by one and the transfers from one device to
    /// another keep to plane (source + destination) modulo planes; inside a plane they are spread over the level-2
    /// switches.
    Planes {
        /// Number of nodes.
        nodes: u32,
        /// Devices in a node.
        devices_per_node: u32,
        /// Number of planes.
        planes: u32,
        /// A device's link to or from its node's level-1 switch of one plane.
        link: LinkSpec,
        /// Level-2 switches of one plane; nothing with one node.
        #[serde(default)]
        l2_switches: u32,
        /// A level-1 switch's link to or from one level-2 switch of its plane; nothing with one node. Planes are
        /// oversubscribed where `devices_per_node` links are faster than `l2_switches` uplinks.
        uplink: Option<LinkSpec>,
        /// Which planes a transfer takes.
        #[serde(default)]
        striping: Striping,
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

/// Which planes a transfer takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Striping {
    /// All, evenly.
    #[default]
    Even,
    /// One, by source and destination.
    Pair,
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
        let product = |dims: &[u32]| dims.iter().fold(1usize, |n, &d| n.saturating_mul(d as usize));
        match self {
            Self::Single {} => 1,
            Self::Switch { devices, .. }
            | Self::FullMesh { devices, .. }
            | Self::Ring { devices, .. }
            | Self::Graph { devices, .. } => *devices as usize,
            Self::Mesh2d { x, y, .. } => product(&[*x, *y]),
            Self::Torus { dims, .. } | Self::FullMeshNd { dims, .. } => product(dims),
            Self::Pcie { switches, devices_per_switch, .. } => product(&[*switches, *devices_per_switch]),
            Self::FatTreeRail { nodes, devices_per_node, .. } | Self::Planes { nodes, devices_per_node, .. } => {
                product(&[*nodes, *devices_per_node])
            }
        }
    }

    /// Number of nodes: parts inside which devices are joined by a scale-up network.
    pub fn nodes(&self) -> usize {
        match self {
            Self::FatTreeRail { nodes, .. } | Self::Planes { nodes, .. } => *nodes as usize,
            _ => 1,
        }
    }

    /// Every link that the file describes, with its place.
    pub(crate) fn link_specs(&self) -> Vec<(String, &LinkSpec)> {
        let at = |name: &str, link| (format!("topology.{name}"), link);
        match self {
            Self::Single {} => Vec::new(),
            Self::Switch { link, .. }
            | Self::FullMesh { link, .. }
            | Self::Ring { link, .. }
            | Self::Torus { link, .. }
            | Self::Mesh2d { link, .. } => vec![at("link", link)],
            Self::FullMeshNd { links, .. } => {
                links.iter().enumerate().map(|(i, l)| at(&format!("links.{i}"), l)).collect()
            }
            Self::FatTreeRail { link, nic, .. } => vec![at("link", link), at("nic", nic)],
            Self::Pcie { link, uplink, .. } => vec![at("link", link), at("uplink", uplink)],
            Self::Planes { link, uplink, .. } => {
                std::iter::once(at("link", link)).chain(uplink.iter().map(|l| at("uplink", l))).collect()
            }
            Self::Graph { edges, .. } => {
                edges.iter().enumerate().map(|(i, e)| at(&format!("edges.{i}.link"), &e.link)).collect()
            }
        }
    }
}
