//! The graph while it is being built: vertices, and links with ids in the order of their making.

use super::LinkSpec;
use petgraph::graph::{DiGraph, NodeIndex};
use std::fmt;

/// A vertex of a topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vertex {
    /// A device, by number.
    Device(u32),
    /// A switch, by name.
    Switch(String),
}

impl fmt::Display for Vertex {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Device(n) => write!(f, "gpu{n}"),
            Self::Switch(name) => f.write_str(name),
        }
    }
}

/// What a link belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkKind {
    /// Inside a node, a mesh or a wafer.
    ScaleUp,
    /// Between nodes: network cards, rail switches, the spine.
    ScaleOut,
}

/// A directed link.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// `from>to`, as in `gpu3>switch`.
    pub name: String,
    /// What it belongs to.
    pub kind: LinkKind,
    /// What transfers reach, in bytes per second.
    pub bandwidth_per_s: f64,
    /// The raw rate, in bytes per second.
    pub raw_bandwidth_per_s: f64,
    /// Seconds from end to end.
    pub latency_s: f64,
    /// Seconds that sending a message into links of this kind costs.
    pub per_message_s: f64,
    /// Whether it does not work; no path has it.
    pub failed: bool,
    /// The vertex it leaves.
    pub from: u32,
    /// The vertex it enters.
    pub to: u32,
}

/// A graph under construction.
#[derive(Debug)]
pub(super) struct Wiring {
    pub(super) graph: DiGraph<Vertex, ()>,
    pub(super) links: Vec<Link>,
}

impl Wiring {
    /// A graph of devices without links; a device's vertex has the device's number.
    pub(super) fn devices(count: usize) -> Self {
        let mut graph = DiGraph::with_capacity(count, 0);
        for device in 0..count as u32 {
            graph.add_node(Vertex::Device(device));
        }
        Self { graph, links: Vec::new() }
    }

    pub(super) fn switch(&mut self, name: impl Into<String>) -> u32 {
        self.graph.add_node(Vertex::Switch(name.into())).index() as u32
    }

    /// Adds the link from one vertex to another, and gives its id.
    pub(super) fn link(&mut self, from: u32, to: u32, spec: &LinkSpec, kind: LinkKind) -> u32 {
        self.trunk(from, to, spec, kind, 1.0)
    }

    /// As [`Wiring::link`], with `width` times the bandwidth.
    pub(super) fn trunk(&mut self, from: u32, to: u32, spec: &LinkSpec, kind: LinkKind, width: f64) -> u32 {
        let (a, b) = (NodeIndex::new(from as usize), NodeIndex::new(to as usize));
        self.graph.add_edge(a, b, ());
        let raw = spec.bandwidth.value.per_second() * width;
        self.links.push(Link {
            name: format!("{}>{}", self.graph[a], self.graph[b]),
            kind,
            bandwidth_per_s: raw * spec.achievable.value,
            raw_bandwidth_per_s: raw,
            latency_s: spec.latency.value.seconds(),
            per_message_s: spec.per_message.as_ref().map_or(0.0, |p| p.value.seconds()),
            failed: false,
            from,
            to,
        });
        self.links.len() as u32 - 1
    }
}
