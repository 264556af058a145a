//! What a topology is like, in figures.

use super::Topology;
use std::fmt;

/// Lengths of paths, and bisection.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Number of devices.
    pub devices: usize,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of directed links.
    pub links: usize,
    /// Names of links that do not work.
    pub failed: Vec<String>,
    /// Links of the shortest and of the longest path between two devices; zeros with one device.
    pub hops: (usize, usize),
    /// Mean links of a path, over all pairs of different devices.
    pub mean_hops: f64,
    /// Least and largest latency of a path, in seconds.
    pub latency_s: (f64, f64),
    /// Bytes per second each way between the first and the second half of the devices by number, every device of one
    /// half sending as much to every device of the other, over the paths as routed and at achievable bandwidths. Zero
    /// with one device.
    pub bisection_per_s: f64,
    /// The link that limits it.
    pub bisection_link: Option<u32>,
}

impl Topology {
    /// Walks the paths of all pairs.
    pub fn facts(&self) -> Facts {
        let (n, half) = (self.devices(), self.devices() / 2);
        let (mut hops, mut latency_s, mut total) = ((usize::MAX, 0), (f64::INFINITY, 0.0f64), 0);
        let mut load = vec![0u64; self.links().len()];
        for src in 0..n {
            for dst in (0..n).filter(|&dst| dst != src) {
                let (path, latency) = (self.path(src, dst), self.latency_s(src, dst));
                hops = (hops.0.min(path.len()), hops.1.max(path.len()));
                latency_s = (latency_s.0.min(latency), latency_s.1.max(latency));
                total += path.len();
                if (src < half) != (dst < half) {
                    path.iter().for_each(|&l| load[l as usize] += 1);
                }
            }
        }
        let mut worst = (0.0, None);
        for (id, (link, &pairs)) in self.links().iter().zip(&load).enumerate() {
            let s = pairs as f64 / link.bandwidth_per_s;
            if s > worst.0 {
                worst = (s, Some(id as u32));
            }
        }
        let alone = n < 2;
        Facts {
            devices: n,
            nodes: self.nodes(),
            links: self.links().len(),
            failed: self.links().iter().filter(|l| l.failed).map(|l| l.name.clone()).collect(),
            hops: if alone { (0, 0) } else { hops },
            mean_hops: if alone { 0.0 } else { total as f64 / (n * (n - 1)) as f64 },
            latency_s: if alone { (0.0, 0.0) } else { latency_s },
            bisection_per_s: if alone { 0.0 } else { (half * (n - half)) as f64 / worst.0 },
            bisection_link: worst.1,
        }
    }
}

/// One line each, without an end.
impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let range = |a: String, b: String| if a == b { a } else { format!("{a} to {b}") };
        let (devices, nodes) = (many(self.devices, "device"), many(self.nodes, "node"));
        write!(f, "topology: {devices} in {nodes}, {}", many(self.links, "directed link"))?;
        if self.devices > 1 {
            let hops = range(self.hops.0.to_string(), self.hops.1.to_string());
            let us = |s: f64| format!("{:.2}", s * 1e6);
            let latency = range(us(self.latency_s.0), us(self.latency_s.1));
            write!(f, "\npaths: {hops} links, {:.2} in the mean; latency {latency} us", self.mean_hops)?;
            let rate = rate(self.bisection_per_s);
            write!(f, "\nbisection: {rate} each way between the halves by number, all pairs alike, as routed")?;
        }
        if !self.failed.is_empty() {
            let shown = self.failed.iter().take(20).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = self.failed.len().saturating_sub(20);
            write!(f, "\nfailed links: {shown}")?;
            if more > 0 {
                write!(f, " and {more} more")?;
            }
        }
        Ok(())
    }
}

/// A bandwidth for people.
pub(super) fn rate(per_s: f64) -> String {
    let (value, unit) = if per_s >= 1e12 { (per_s / 1e12, "TB/s") } else { (per_s / 1e9, "GB/s") };
    let digits = if value >= 100.0 { 0 } else { 2 };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::link;
    use super::*;
    use crate::topology::TopologySpec;

    fn facts(spec: &TopologySpec) -> Facts {
        Topology::build(spec).unwrap().facts()
    }

    #[track_caller]
    fn bisection(spec: &TopologySpec, links: f64) {
        let f = facts(spec);
        assert!((f.bisection_per_s / 100e9 - links).abs() < 1e-9, "{f}");
    }

    /// In links of 100 GB/s, by hand.
    #[test]
    fn bisections() {
        let link = || link(100.0, 200);
        bisection(&TopologySpec::Switch { devices: 8, link: link() }, 4.0);
        bisection(&TopologySpec::FullMesh { devices: 8, link: link() }, 16.0);
        // The cut of a mesh has a link a column, of a torus two, of a ring two.
        bisection(&TopologySpec::Mesh2d { x: 4, y: 4, link: link() }, 4.0);
        bisection(&TopologySpec::Torus { dims: vec![4, 4], link: link() }, 8.0);
        bisection(&TopologySpec::Ring { devices: 8, link: link() }, 2.0);
        // Halves along the last dimension: of 2 x 2 planes, each of 16 devices has a link to two others.
        bisection(&TopologySpec::FullMeshNd { dims: vec![4, 4, 4], links: vec![link(); 3] }, 64.0);
        // One uplink a switch.
        bisection(&TopologySpec::Pcie { switches: 2, devices_per_switch: 4, link: link(), uplink: link() }, 1.0);
        bisection(&TopologySpec::Pcie { switches: 4, devices_per_switch: 4, link: link(), uplink: link() }, 2.0);
        // 8 devices of 2 links a node: 16 below, 2 x 4 above each of two nodes.
        let planes = |l2_switches| TopologySpec::Planes {
            nodes: 2,
            devices_per_node: 8,
            planes: 2,
            link: link(),
            l2_switches,
            uplink: Some(link()),
            striping: crate::topology::Striping::Even,
        };
        bisection(&planes(4), 8.0);
        bisection(&planes(8), 16.0);
        bisection(&TopologySpec::Single {}, 0.0);
    }

    #[test]
    fn paths_in_words() {
        let f = facts(&TopologySpec::Mesh2d { x: 3, y: 1, link: link(1500.0, 200) });
        assert_eq!((f.hops, f.latency_s), ((1, 2), (200e-9, 400e-9)));
        assert!((f.mean_hops - 4.0 / 3.0).abs() < 1e-12);
        let text = f.to_string();
        assert!(text.contains("3 devices in 1 node, 4 directed links"), "{text}");
        assert!(text.contains("1 to 2 links, 1.33 in the mean; latency 0.20 to 0.40 us"), "{text}");
        // One device against two over one link: the rate of that link.
        assert!(text.contains("bisection: 1.5 TB/s each way"), "{text}");
        assert_eq!(facts(&TopologySpec::Single {}).to_string(), "topology: 1 device in 1 node, 0 directed links");
    }
}
