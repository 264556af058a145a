use super::*;
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
    let edge = |a: &str, b: &str| crate::topology::Edge { between: [a.into(), b.into()], link: link(1.0, 1) };
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
fn rings_and_tori_go_the_shorter_way_round() {
    let ring = |devices| Topology::build(&TopologySpec::Ring { devices, link: link(100.0, 200) }).unwrap();
    let t = ring(6);
    assert_eq!((t.links().len(), t.nodes()), (12, 1));
    assert_eq!(names(&t, 1, 0), ["gpu1>gpu0"]);
    assert_eq!(names(&t, 0, 4), ["gpu0>gpu5", "gpu5>gpu4"]);
    // Three away both ways: up from even devices, down from odd ones.
    assert_eq!(names(&t, 0, 3), ["gpu0>gpu1", "gpu1>gpu2", "gpu2>gpu3"]);
    assert_eq!(names(&t, 1, 4), ["gpu1>gpu0", "gpu0>gpu5", "gpu5>gpu4"]);
    assert_eq!((ring(1).links().len(), ring(2).links().len(), ring(3).links().len()), (0, 2, 6));
    let torus =
        |dims: &[u32]| Topology::build(&TopologySpec::Torus { dims: dims.into(), link: link(100.0, 200) }).unwrap();
    let t = torus(&[5, 4]);
    assert_eq!((t.devices(), t.links().len()), (20, 4 * 20));
    // Along the row round the edge, then up the column: (0, 0) to (4, 3).
    assert_eq!(names(&t, 0, 19), ["gpu0>gpu4", "gpu4>gpu19"]);
    let around = |a: usize, b: usize, d: usize| a.abs_diff(b).min(d - a.abs_diff(b));
    for src in 0..20 {
        for dst in 0..20 {
            assert_eq!(t.path(src, dst).len(), around(src % 5, dst % 5, 5) + around(src / 5, dst / 5, 4));
        }
    }
    // Uniform traffic loads all links along a dimension alike.
    let t = torus(&[4, 4, 2]);
    assert_eq!(t.links().len(), 32 * (2 + 2 + 1));
    let mut load = vec![0; t.links().len()];
    (0..32)
        .flat_map(|s| (0..32).map(move |d| (s, d)))
        .flat_map(|(s, d)| t.path(s, d))
        .for_each(|&l| load[l as usize] += 1);
    assert!(load.iter().all(|&n| n == 16), "{load:?}");
}

#[test]
fn a_full_mesh_of_dimensions_takes_a_link_each() {
    let spec = |dims: &[u32], links: usize| TopologySpec::FullMeshNd {
        dims: dims.into(),
        links: vec![link(50.0, 100); links],
    };
    let t = Topology::build(&spec(&[8, 8, 4], 3)).unwrap();
    assert_eq!((t.devices(), t.links().len()), (256, 256 * (7 + 7 + 3)));
    assert_eq!(names(&t, 0, 255), ["gpu0>gpu7", "gpu7>gpu63", "gpu63>gpu255"]);
    for (src, dst) in [(0, 1), (200, 13), (77, 255), (255, 0)] {
        let differ = [(1, 8), (8, 8), (64, 4)].iter().filter(|(s, d)| src / s % d != dst / s % d).count();
        assert_eq!(t.path(src, dst).len(), differ);
    }
    for wrong in [spec(&[8, 8], 3), spec(&[], 0), spec(&[1; 17], 17), spec(&[8, 0], 2), spec(&[u32::MAX; 4], 4)] {
        let e = Topology::build(&wrong).unwrap_err();
        assert!(e.place.is_some() && !e.cure.is_empty(), "{e}");
    }
}

#[test]
fn pcie_groups_share_their_uplinks() {
    let spec = |switches| TopologySpec::Pcie {
        switches,
        devices_per_switch: 4,
        link: link(64.0, 500),
        uplink: link(64.0, 300),
    };
    let t = Topology::build(&spec(2)).unwrap();
    assert_eq!((t.devices(), t.links().len(), t.nodes()), (8, 16 + 4, 1));
    assert_eq!(names(&t, 0, 3), ["gpu0>pcie0", "pcie0>gpu3"]);
    assert_eq!(names(&t, 1, 6), ["gpu1>pcie0", "pcie0>root", "root>pcie1", "pcie1>gpu6"]);
    assert!((t.latency_s(1, 6) - 1.6e-6).abs() < 1e-15);
    assert_eq!(Topology::build(&spec(1)).unwrap().links().len(), 8);
}

#[test]
fn planes_are_one_network_or_each_its_own() {
    let spec = |nodes, planes, l2_switches, uplink, striping| TopologySpec::Planes {
        nodes,
        devices_per_node: 4,
        planes,
        link: link(25.0, 500),
        l2_switches,
        uplink,
        striping,
    };
    use crate::topology::Striping::{Even, Pair};
    let t = Topology::build(&spec(3, 2, 2, Some(link(20.0, 300)), Even)).unwrap();
    assert_eq!((t.devices(), t.nodes(), t.links().len()), (12, 3, 24 + 6));
    assert_eq!(names(&t, 0, 3), ["gpu0>node0", "node0>gpu3"]);
    assert_eq!(names(&t, 0, 11), ["gpu0>node0", "node0>l2", "l2>node2", "node2>gpu11"]);
    // 2 x 25 GB/s a device; 2 planes x 2 switches x 20 GB/s a node, for 4 devices: 2.5 times oversubscribed.
    let bandwidths: Vec<f64> = t.path(0, 11).iter().map(|&l| t.links()[l as usize].bandwidth_per_s / 1e9).collect();
    assert_eq!(bandwidths, [50.0, 80.0, 80.0, 50.0]);
    let t = Topology::build(&spec(3, 2, 2, Some(link(20.0, 300)), Pair)).unwrap();
    assert_eq!(t.links().len(), 2 * (24 + 6));
    assert_eq!(names(&t, 0, 3), ["gpu0>node0.plane1", "node0.plane1>gpu3"]);
    assert_eq!(names(&t, 1, 11)[1..3], ["node0.plane0>l2.plane0", "l2.plane0>node2.plane0"]);
    for wrong in [
        spec(3, 0, 2, Some(link(20.0, 300)), Even),
        spec(3, 2, 0, Some(link(20.0, 300)), Even),
        spec(3, 2, 2, None, Pair),
    ] {
        let e = Topology::build(&wrong).unwrap_err();
        assert!(e.place.is_some() && !e.cure.is_empty(), "{e}");
    }
    assert_eq!(Topology::build(&spec(1, 18, 0, None, Even)).unwrap().links().len(), 8);
}

#[test]
fn ways_around_failed_links() {
    let failed = |spec: &TopologySpec, names: &[&str]| {
        Topology::with_failed(spec, &names.iter().map(|n| n.to_string()).collect::<Vec<_>>())
    };
    let mesh = TopologySpec::Mesh2d { x: 3, y: 3, link: link(10.0, 100) };
    let t = failed(&mesh, &["gpu0>gpu1"]).unwrap();
    // Pairs that the link does not concern keep their way; the others take the fewest links, the first in order.
    assert_eq!(names(&t, 1, 0), ["gpu1>gpu0"]);
    assert_eq!(names(&t, 0, 1), ["gpu0>gpu3", "gpu3>gpu4", "gpu4>gpu1"]);
    assert_eq!(names(&t, 0, 2), ["gpu0>gpu3", "gpu3>gpu4", "gpu4>gpu5", "gpu5>gpu2"]);
    assert_eq!(names(&t, 0, 4), ["gpu0>gpu3", "gpu3>gpu4"]);
    assert_eq!(t.links().iter().filter(|l| l.failed).count(), 1);
    let used = |t: &Topology, name: &str| (0..81).any(|p| names(t, p / 9, p % 9).contains(&name));
    assert!(!used(&t, "gpu0>gpu1") && used(&Topology::build(&mesh).unwrap(), "gpu0>gpu1"));
    let e = failed(&mesh, &["gpu0>gpu1", "gpu0>gpu3"]).unwrap_err();
    assert!(e.problem.contains("no path from gpu0 to gpu1") && e.place.as_deref() == Some("failed_links"), "{e}");
    let e = failed(&mesh, &["gpu1>gpu4", "gpu0>gp1"]).unwrap_err();
    assert!(e.place.as_deref() == Some("failed_links.1") && e.cure.contains("\"gpu0>gpu1\""), "{e}");
    assert!(failed(&TopologySpec::Single {}, &["x"]).unwrap_err().cure.contains("leave it out"));
    // A device behind a switch has no other way; a plane has another.
    assert!(failed(&TopologySpec::Switch { devices: 4, link: link(1.0, 1) }, &["gpu2>switch"]).is_err());
    let planes = TopologySpec::Planes {
        nodes: 1,
        devices_per_node: 4,
        planes: 2,
        link: link(25.0, 500),
        l2_switches: 0,
        uplink: None,
        striping: crate::topology::Striping::Pair,
    };
    let t = failed(&planes, &["gpu0>node0.plane1"]).unwrap();
    assert_eq!(names(&t, 0, 1), ["gpu0>node0.plane0", "node0.plane0>gpu1"]);
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

/// Every device that is drawn, every link as often as it should be, and well-formed text from any name.
#[test]
fn pictures() {
    let svg = |spec: &TopologySpec| Topology::build(spec).unwrap().svg("a <name> & \u{1}", spec);
    let count = |svg: &str, what: &str| svg.matches(what).count();
    let mesh = svg(&TopologySpec::Mesh2d { x: 3, y: 2, link: link(10.0, 100) });
    // 7 edges and the legend's line; 6 devices and the background.
    assert_eq!((count(&mesh, "<path"), count(&mesh, "<rect")), (7 + 1, 6 + 1));
    assert!(mesh.contains("a &lt;name&gt; &amp; <") && mesh.contains("14 links of 10 GB/s one way, 0.10 us"), "{mesh}");
    let torus = svg(&TopologySpec::Torus { dims: vec![3, 3], link: link(10.0, 100) });
    assert_eq!(count(&torus, "<path"), 18 + 1);
    let full = svg(&TopologySpec::FullMesh { devices: 8, link: link(10.0, 100) });
    assert_eq!(count(&full, "<path"), 28 + 1);
    let planes = TopologySpec::Planes {
        nodes: 48,
        devices_per_node: 16,
        planes: 7,
        link: link(28.0, 650),
        l2_switches: 16,
        uplink: Some(link(28.0, 400)),
        striping: crate::topology::Striping::Even,
    };
    // A node of 16 and its switch, six boxes of a node, one of the rest, level 2; two classes of links.
    let planes = svg(&planes);
    assert_eq!((count(&planes, "<rect"), count(&planes, "<path")), (1 + 16 + 1 + 6 + 1 + 1, 16 + 1 + 7 + 2));
    assert!(planes.contains("+41 nodes"), "{planes}");
    let mesh = TopologySpec::Mesh2d { x: 3, y: 3, link: link(10.0, 100) };
    let t = Topology::with_failed(&mesh, &["gpu0>gpu1".into()]).unwrap();
    assert!(t.svg("x", &mesh).contains("stroke-dasharray"));
    svg(&TopologySpec::Single {});
}
