use super::*;
use crate::hardware::{CrossRail, LinkSpec};
use moesim_core::{Bandwidth, Picos, Sourced};

pub(crate) fn link(gb_per_s: f64, ns: u64) -> LinkSpec {
    LinkSpec {
        bandwidth: Sourced::user(Bandwidth::from_per_second(gb_per_s * 1e9)),
        latency: Sourced::user(Picos(ns * 1000)),
        per_message: None,
        achievable: Sourced::user(1.0),
    }
}

fn names(t: &Topology, src: usize, dst: usize) -> Vec<&str> {
    t.path(src, dst).iter().map(|&l| t.links()[l as usize].name.as_str()).collect()
}

#[test]
fn a_switch_is_two_links_away() {
    let mut spec = link(100.0, 500);
    spec.achievable.value = 0.5;
    spec.per_message = Some(Sourced::user(Picos(2_000_000)));
    let t = Topology::build(&TopologySpec::Switch { devices: 8, link: spec }).unwrap();
    assert_eq!((t.devices(), t.nodes(), t.links().len(), t.graph().node_count()), (8, 1, 16, 9));
    assert_eq!(names(&t, 3, 5), ["gpu3>switch", "switch>gpu5"]);
    assert!(names(&t, 3, 3).is_empty());
    assert_eq!((t.links()[0].bandwidth_per_s, t.links()[0].raw_bandwidth_per_s), (50e9, 100e9));
    // Two latencies, one message.
    assert!((t.latency_s(3, 5) - 3e-6).abs() < 1e-15);
    assert_eq!(t.latency_s(3, 3), 0.0);
}

#[test]
fn a_full_mesh_is_one_link_away() {
    let t = Topology::build(&TopologySpec::FullMesh { devices: 8, link: link(64.0, 500) }).unwrap();
    assert_eq!(t.links().len(), 56);
    for (src, dst) in [(0, 7), (7, 0), (3, 4), (4, 3)] {
        assert_eq!(names(&t, src, dst), [format!("gpu{src}>gpu{dst}")]);
    }
}

#[test]
fn a_mesh_routes_x_then_y() {
    let t = Topology::build(&TopologySpec::Mesh2d { x: 5, y: 4, link: link(1700.0, 200) }).unwrap();
    assert_eq!(t.links().len(), 2 * (4 * 4 + 5 * 3));
    assert_eq!(names(&t, 0, 7), ["gpu0>gpu1", "gpu1>gpu2", "gpu2>gpu7"]);
    assert_eq!(names(&t, 7, 0), ["gpu7>gpu6", "gpu6>gpu5", "gpu5>gpu0"]);
    // Every path has as many links as the Manhattan distance, each 200 ns.
    for src in 0..20 {
        for dst in 0..20 {
            let hops = (src % 5usize).abs_diff(dst % 5) + (src / 5usize).abs_diff(dst / 5);
            assert_eq!(t.path(src, dst).len(), hops);
            assert!((t.latency_s(src, dst) - 200e-9 * hops as f64).abs() < 1e-15);
        }
    }
}

#[test]
fn rails_are_reached_through_the_node_or_the_spine() {
    let spec = |cross_rail| {
        let mut nic = link(50.0, 2000);
        nic.per_message = Some(Sourced::user(Picos(1_000_000)));
        let (nodes, devices_per_node) = (4, 8);
        let link = link(200.0, 500);
        TopologySpec::FatTreeRail { nodes, devices_per_node, link, nic, cross_rail, spine_oversubscription: 2.0 }
    };
    let t = Topology::build(&spec(CrossRail::ScaleUp)).unwrap();
    assert_eq!((t.devices(), t.nodes(), t.node_of(7), t.node_of(8)), (32, 4, 0, 1));
    assert_eq!(names(&t, 1, 5), ["gpu1>node0", "node0>gpu5"]);
    assert_eq!(names(&t, 1, 25), ["gpu1>rail1", "rail1>gpu25"]);
    assert_eq!(names(&t, 1, 26), ["gpu1>node0", "node0>gpu2", "gpu2>rail2", "rail2>gpu26"]);
    assert!((t.latency_s(1, 26) - 6e-6).abs() < 1e-15 && (t.latency_s(1, 5) - 1e-6).abs() < 1e-15);
    let t = Topology::build(&spec(CrossRail::Spine)).unwrap();
    assert_eq!(names(&t, 1, 26), ["gpu1>rail1", "rail1>spine", "spine>rail2", "rail2>gpu26"]);
    // Four cards of 50 GB/s below a rail switch, half of that above it.
    assert_eq!(t.links()[t.path(1, 26)[1] as usize].bandwidth_per_s, 100e9);
}

#[test]
fn a_graph_takes_the_fewest_links_and_the_first_in_the_file() {
    let edge = |a: &str, b: &str| crate::hardware::Edge { between: [a.into(), b.into()], link: link(1.0, 1) };
    let edges = vec![edge("gpu0", "b"), edge("gpu0", "a"), edge("a", "gpu1"), edge("b", "gpu1"), edge("gpu1", "gpu2")];
    let t = Topology::build(&TopologySpec::Graph { devices: 3, edges: edges.clone() }).unwrap();
    assert_eq!(names(&t, 0, 2), ["gpu0>b", "b>gpu1", "gpu1>gpu2"]);
    assert_eq!(names(&t, 2, 1), ["gpu2>gpu1"]);
    let refused = |devices, edges| Topology::build(&TopologySpec::Graph { devices, edges }).unwrap_err().to_string();
    assert!(refused(4, edges.clone()).contains("no path from gpu0 to gpu3"));
    assert!(refused(2, edges.clone()).contains("there is no \"gpu2\""));
    assert!(refused(3, vec![edge("a", "a")]).contains("to itself"));
    assert!(refused(3, vec![edge("gpu0", "a"), edge("a", "gpu0")]).contains("twice"));
}

#[test]
fn tables_without_bound_are_refused() {
    let big = |devices| TopologySpec::Switch { devices, link: link(1.0, 1) };
    let mesh = |x, y| TopologySpec::Mesh2d { x, y, link: link(1.0, 1) };
    for spec in [big(0), big(70_000), big(u32::MAX), mesh(u32::MAX, u32::MAX), mesh(3, 0), big(5000)] {
        let e = Topology::build(&spec).unwrap_err();
        assert!(e.place.is_some() && !e.cure.is_empty() && e.exit_code() == 2, "{e}");
    }
    assert_eq!(Topology::build(&TopologySpec::Single {}).unwrap().devices(), 1);
}
