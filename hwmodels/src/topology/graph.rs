//! Any graph that a user draws. Routing: fewest links; among equals the links that come first in the file.

use super::wiring::{LinkKind, Wiring};
use super::{Edge, MAX_LINKS, Plan, Vertex, limit};
use moesim_core::{Diag, Result};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use std::collections::{HashMap, HashSet, VecDeque};

pub(super) fn plan(devices: u32, edges: &[Edge]) -> Result<Plan> {
    limit("links", "", (2 * edges.len()).max(1), MAX_LINKS)?;
    let mut wiring = Wiring::devices(devices as usize);
    let (mut switches, mut seen) = (HashMap::new(), HashSet::new());
    for (i, edge) in edges.iter().enumerate() {
        let place = format!("topology.edges.{i}.between");
        let [a, b] = &edge.between;
        let mut end = |name: &str| match name.strip_prefix("gpu").map(str::parse::<u32>) {
            Some(Ok(d)) if d < devices => Ok(d),
            Some(Ok(_)) => Err(Diag::input(format!("there is no \"{name}\""))
                .place(&place)
                .cure(format!("devices are gpu0 to gpu{}", devices - 1))),
            _ if name.trim().is_empty() => {
                Err(Diag::input("an end has no name").place(&place).cure("write as in [\"gpu0\", \"leaf\"]"))
            }
            _ => Ok(*switches.entry(name.to_string()).or_insert_with(|| wiring.switch(name))),
        };
        let (from, to) = (end(a)?, end(b)?);
        if from == to || !seen.insert((from.min(to), from.max(to))) {
            let problem = if from == to { "joins a vertex to itself" } else { "is there twice" };
            return Err(Diag::input(format!("the edge of \"{a}\" and \"{b}\" {problem}"))
                .place(&place)
                .cure("leave it out; parallel links are one link with their bandwidths' sum"));
        }
        wiring.link(from, to, &edge.link, LinkKind::ScaleUp);
        wiring.link(to, from, &edge.link, LinkKind::ScaleUp);
    }
    let n = devices as usize;
    let graph = wiring.graph.clone();
    // Breadth first from one source at a time: the link by which each vertex was reached.
    let (mut reached, mut of) = (Vec::new(), usize::MAX);
    let route = move |src: usize, dst: usize, path: &mut Vec<u32>| {
        if of != src {
            (reached, of) = (breadth_first(&graph, n, src, |_| true), src);
        }
        walk_back(&graph, &reached, dst, path);
    };
    Ok(Plan { wiring, devices: n, devices_per_node: n, route: Box::new(route) })
}

/// The link by which each vertex is first reached from `src` over links that `works`, in rounds of one link more and in
/// the order of their ids; ends when all of the first `devices` vertices are.
pub(super) fn breadth_first(
    graph: &DiGraph<Vertex, ()>,
    devices: usize,
    src: usize,
    works: impl Fn(u32) -> bool,
) -> Vec<Option<u32>> {
    let mut reached = vec![None; graph.node_count()];
    let mut queue = VecDeque::from([NodeIndex::new(src)]);
    let (mut out, mut left) = (Vec::new(), devices - 1);
    while let Some(at) = queue.pop_front().filter(|_| left > 0) {
        out.clear();
        out.extend(graph.edges(at).map(|e| (e.id().index() as u32, e.target())));
        out.sort_unstable();
        for &(edge, to) in out.iter().filter(|e| works(e.0)) {
            if to.index() != src && reached[to.index()].is_none() {
                reached[to.index()] = Some(edge);
                left -= usize::from(to.index() < devices);
                queue.push_back(to);
            }
        }
    }
    reached
}

/// Appends the links from the source of `reached` to `dst`; nothing if it was not reached.
pub(super) fn walk_back(graph: &DiGraph<Vertex, ()>, reached: &[Option<u32>], dst: usize, path: &mut Vec<u32>) {
    let (start, mut at) = (path.len(), NodeIndex::new(dst));
    while let Some(edge) = reached[at.index()] {
        path.push(edge);
        let Some((from, _)) = graph.edge_endpoints(edge.into()) else { break };
        at = from;
    }
    path[start..].reverse();
}
