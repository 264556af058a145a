//! Topologies: a directed graph of devices, switches and links, and a path for every pair of devices.
//!
//! [`TopologySpec`] says how devices are joined. One file per kind builds the graph and states its routing rule;
//! [`Topology::build`] walks the rule once for every pair and keeps the paths in compressed rows, so that asking for a
//! path is an index.

mod fabric;
mod facts;
mod failed;
mod full_mesh;
mod graph;
mod mesh2d;
mod pcie;
mod picture;
mod planes;
mod rail;
mod spec;
mod switch;
mod torus;
mod wiring;

pub use fabric::Fabric;
pub(crate) use fabric::Loads;
pub use facts::Facts;
pub use spec::{CrossRail, Edge, LinkSpec, Striping, TopologySpec};
pub use wiring::{Link, LinkKind, Vertex};

use moesim_core::{Diag, Result};
use petgraph::graph::DiGraph;
use std::collections::HashMap;
use wiring::Wiring;

/// No machine that we know of has more devices.
const MAX_DEVICES: usize = 65_536;
/// Links of the largest graph: a full mesh of 1,024 devices.
const MAX_LINKS: usize = 1 << 20;
/// Pairs of devices in the routing table (4,096 devices, 128 MiB).
const MAX_PAIRS: usize = 1 << 24;
/// Links in all paths of the routing table together (256 MiB).
const MAX_HOPS: usize = 1 << 26;

/// Dimensions of a torus or full mesh: two devices along each are more than the table of pairs holds.
const MAX_DIMS: usize = 16;

/// A topology with a path for every pair of devices.
#[derive(Clone, Debug)]
pub struct Topology {
    graph: DiGraph<Vertex, ()>,
    links: Vec<Link>,
    devices: usize,
    devices_per_node: usize,
    /// Row-major by (source, destination), one more at the end.
    routes: Vec<Route>,
    hops: Vec<u32>,
    /// What [`Route::class`] points to, by rising latency: few, so that they stay in the nearest cache.
    classes: Vec<PathClass>,
    /// How its links follow from sums, if they do.
    fabric: Option<Fabric>,
}

/// Where a pair's links start in `hops` (they end where the next pair's start), and its class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) start: u32,
    pub(crate) class: u32,
}

/// What paths have in common: latency, and seconds per byte on their slowest link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PathClass {
    pub(crate) latency_s: f64,
    pub(crate) s_per_byte: f64,
}

/// What a builder hands over: the graph, and the links of a path, appended.
struct Plan {
    wiring: Wiring,
    devices: usize,
    devices_per_node: usize,
    route: RouteRule,
}

/// Appends the links from one device to another; called for different devices only, sources in order.
type RouteRule = Box<dyn FnMut(usize, usize, &mut Vec<u32>)>;

impl Topology {
    /// Builds the graph and the routing table, every link working.
    ///
    /// # Errors
    /// As [`Topology::with_failed`].
    pub fn build(spec: &TopologySpec) -> Result<Self> {
        Self::with_failed(spec, &[])
    }

    /// Builds the graph and the routing table. Where a path by the rule has a link of `failed` (names as in
    /// [`Link::name`]), the pair takes the path with the fewest links that work, among equals the links with the least
    /// ids; devices forward where that is so.
    ///
    /// # Errors
    /// No devices, more than 65,536, more links or paths than the tables may hold, a pair of devices without a path, or
    /// a name that does not exist; the place is `failed_links` or a key under `topology`.
    pub fn with_failed(spec: &TopologySpec, failed: &[String]) -> Result<Self> {
        let devices = spec.devices();
        limit("devices", "has no devices", devices, MAX_DEVICES)?;
        limit("pairs of devices", "has no devices", devices.saturating_mul(devices), MAX_PAIRS)?;
        let plan = match spec {
            TopologySpec::Single {} => switch::single(),
            TopologySpec::Switch { devices, link } => switch::plan(*devices, link),
            TopologySpec::FullMesh { devices, link } => full_mesh::plan(&[*devices], std::slice::from_ref(link))?,
            TopologySpec::FullMeshNd { dims, links } => full_mesh::plan(dims, links)?,
            TopologySpec::Ring { devices, link } => torus::plan(&[*devices], link)?,
            TopologySpec::Torus { dims, link } => torus::plan(dims, link)?,
            TopologySpec::Pcie { switches, devices_per_switch, link, uplink } => {
                pcie::plan(*switches, *devices_per_switch, link, uplink)
            }
            TopologySpec::Planes { nodes, devices_per_node, planes, link, l2_switches, uplink, striping } => {
                let above = planes::Above { l2_switches: *l2_switches, uplink: uplink.as_ref() };
                planes::plan(*nodes, *devices_per_node, *planes, link, above, *striping)?
            }
            TopologySpec::Mesh2d { x, y, link } => mesh2d::plan(*x, *y, link),
            TopologySpec::FatTreeRail { nodes, devices_per_node, link, nic, cross_rail, spine_oversubscription } => {
                rail::plan(*nodes, *devices_per_node, link, nic, *cross_rail, *spine_oversubscription)?
            }
            TopologySpec::Graph { devices, edges } => graph::plan(*devices, edges)?,
        };
        let fabric = if failed.is_empty() { Fabric::of(spec) } else { None };
        Ok(Self { fabric, ..Self::from_plan(failed::around(plan, failed)?)? })
    }

    fn from_plan(plan: Plan) -> Result<Self> {
        let Plan { wiring: Wiring { graph, links }, devices, devices_per_node, mut route } = plan;
        let (mut routes, mut hops) = (Vec::with_capacity(devices * devices + 1), Vec::new());
        let (mut classes, mut known, mut last) = (Vec::new(), HashMap::new(), (0, None));
        for src in 0..devices {
            for dst in 0..devices {
                let start = hops.len();
                if src != dst {
                    route(src, dst, &mut hops);
                }
                let path = &hops[start..];
                if src != dst && path.is_empty() {
                    let problem = format!("there is no path from gpu{src} to gpu{dst}");
                    let (place, cure) = match links.iter().any(|l| l.failed) {
                        true => ("failed_links", "leave a way for every device"),
                        false => ("topology", "join them with an edge or a switch"),
                    };
                    return Err(Diag::input(problem).place(place).cure(cure));
                }
                debug_assert!(joins(&links, path, src, dst), "route from {src} to {dst}: {path:?}");
                limit("links in all paths", "", hops.len().max(1), MAX_HOPS)?;
                let class = class_of(&links, &hops[start..]);
                if last.1 != Some(class) {
                    let bits = (class.latency_s.to_bits(), class.s_per_byte.to_bits());
                    let id = *known.entry(bits).or_insert_with(|| {
                        classes.push(class);
                        classes.len() as u32 - 1
                    });
                    last = (id, Some(class));
                }
                let class = last.0;
                routes.push(Route { start: start as u32, class });
            }
        }
        routes.push(Route { start: hops.len() as u32, class: 0 });
        hops.shrink_to_fit();
        let classes = sort_classes(classes, &mut routes);
        Ok(Self { graph, links, devices, devices_per_node, routes, hops, classes, fabric: None })
    }

    /// Number of devices.
    pub fn devices(&self) -> usize {
        self.devices
    }

    /// Every directed link; a link's id is its index.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The link ids from `src` to `dst` in order; empty if they are the same. Both are below [`Topology::devices`].
    pub fn path(&self, src: usize, dst: usize) -> &[u32] {
        let at = self.pair(src, dst);
        &self.hops[self.routes[at].start as usize..self.routes[at + 1].start as usize]
    }

    /// Seconds from `src` to `dst` for a message without payload: the sum of the links' latencies, and the per-message
    /// cost at the first link of each kind of link in a row (a forwarded message is sent anew).
    pub fn latency_s(&self, src: usize, dst: usize) -> f64 {
        self.class(src, dst).latency_s
    }

    /// The node that a device is in: devices of one node share a scale-up network.
    pub fn node_of(&self, device: usize) -> usize {
        device / self.devices_per_node
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.devices / self.devices_per_node
    }

    /// How the bytes of links follow from sums over transfers; nothing on other topologies, nor where links have
    /// failed.
    pub fn fabric(&self) -> Option<&Fabric> {
        self.fabric.as_ref()
    }

    /// The graph; the index of an edge is the id of its link, the index of a device's vertex is the device.
    pub fn graph(&self) -> &DiGraph<Vertex, ()> {
        &self.graph
    }

    pub(crate) fn class(&self, src: usize, dst: usize) -> PathClass {
        self.classes[self.routes[self.pair(src, dst)].class as usize]
    }

    pub(crate) fn tables(&self) -> (&[Route], &[u32], &[PathClass]) {
        (&self.routes, &self.hops, &self.classes)
    }

    fn pair(&self, src: usize, dst: usize) -> usize {
        assert!(src < self.devices && dst < self.devices, "devices {src} and {dst} of {}", self.devices);
        src * self.devices + dst
    }
}

/// Sorts by latency, so that the least class of several paths has the least latency, and renumbers the routes.
fn sort_classes(classes: Vec<PathClass>, routes: &mut [Route]) -> Vec<PathClass> {
    let mut order: Vec<usize> = (0..classes.len()).collect();
    order.sort_by(|&a, &b| classes[a].latency_s.total_cmp(&classes[b].latency_s));
    let mut rank = vec![0; classes.len()];
    order.iter().enumerate().for_each(|(new, &old)| rank[old] = new as u32);
    routes.iter_mut().for_each(|r| r.class = rank[r.class as usize]);
    order.into_iter().map(|old| classes[old]).collect()
}

/// Latency and slowest link of a path.
fn class_of(links: &[Link], path: &[u32]) -> PathClass {
    let (mut latency_s, mut s_per_byte, mut kind) = (0.0, 0.0f64, None);
    for link in path.iter().map(|&id| &links[id as usize]) {
        latency_s += link.latency_s;
        if kind.replace(link.kind) != Some(link.kind) {
            latency_s += link.per_message_s;
        }
        s_per_byte = s_per_byte.max(1.0 / link.bandwidth_per_s);
    }
    PathClass { latency_s, s_per_byte }
}

/// Whether `path` leads from `src` to `dst` without a gap.
fn joins(links: &[Link], path: &[u32], src: usize, dst: usize) -> bool {
    let end = path.iter().try_fold(src as u32, |at, &id| {
        let link = &links[id as usize];
        (link.from == at).then_some(link.to)
    });
    end == Some(dst as u32)
}

/// Refuses none, zeros and more dimensions than anything has.
fn check_dims(dims: &[u32]) -> Result<()> {
    if dims.is_empty() || dims.len() > MAX_DIMS {
        return Err(Diag::input(format!("has {} dimensions", dims.len()))
            .place("topology.dims")
            .cure(format!("write 1 to {MAX_DIMS} numbers of devices, as in [8, 8, 4]")));
    }
    Ok(())
}

/// Refuses zero and more than `max` of `what`.
fn limit(what: &str, none: &str, count: usize, max: usize) -> Result<()> {
    match count {
        0 => Err(Diag::input(none).place("topology").cure("write at least 1 device")),
        n if n > max => Err(Diag::input(format!("has {n} {what}, more than {max}"))
            .place("topology")
            .cure("describe fewer devices")),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
