//! Is the bottleneck bound what its closed forms say, and a bound?

use moesim_core::{Bandwidth, Picos, Sourced};
use moesim_hwmodels::topology::{CrossRail, LinkSpec, TopologySpec};
use moesim_hwmodels::{Bottleneck, Phase, Topology, Transfer};
use proptest::prelude::*;
use std::sync::Arc;

fn link(gb_per_s: f64, ns: u64) -> LinkSpec {
    LinkSpec {
        bandwidth: Sourced::user(Bandwidth::from_per_second(gb_per_s * 1e9)),
        latency: Sourced::user(Picos(ns * 1000)),
        per_message: Some(Sourced::user(Picos(700_000))),
        achievable: Sourced::user(0.8),
    }
}

fn network(spec: &TopologySpec) -> Bottleneck {
    Bottleneck::new(Arc::new(Topology::build(spec).unwrap()))
}

fn switch(devices: u32) -> Bottleneck {
    network(&TopologySpec::Switch { devices, link: link(450.0, 500) })
}

fn mesh(x: u32, y: u32) -> Bottleneck {
    network(&TopologySpec::Mesh2d { x, y, link: link(1700.0, 200) })
}

fn rail(cross_rail: CrossRail) -> Bottleneck {
    let (link, nic) = (link(200.0, 500), link(50.0, 1000));
    network(&TopologySpec::FatTreeRail {
        nodes: 2,
        devices_per_node: 4,
        link,
        nic,
        cross_rail,
        spine_oversubscription: 2.0,
    })
}

fn name(n: &Bottleneck, phase: Phase) -> &str {
    &n.topology().links()[phase.link.unwrap() as usize].name
}

#[track_caller]
fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-12 * b.abs(), "{a} against {b}");
}

#[test]
fn one_transfer() {
    let mut n = switch(8);
    let mut bytes = vec![0; 16];
    let phase = n.phase(&[Transfer { src: 2, dst: 5, bytes: 1 << 30 }], Some(&mut bytes));
    close(phase.time_s, (1u64 << 30) as f64 / 360e9 + 1.7e-6);
    assert_eq!(name(&n, phase), "gpu2>switch");
    let loaded: Vec<usize> = (0..16).filter(|&l| bytes[l] > 0).collect();
    assert_eq!((loaded, bytes[4]), (vec![4, 11], 1 << 30));
}

#[test]
fn nothing_to_send() {
    let mut n = switch(8);
    let nothing = [Transfer { src: 0, dst: 1, bytes: 0 }, Transfer { src: 3, dst: 3, bytes: 99 }];
    assert_eq!(n.phase(&nothing, None), Phase { time_s: 0.0, link: None });
    assert_eq!(n.phase(&[], None), Phase::default());
}

#[test]
fn uniform_all_to_all_on_a_switch() {
    let mut n = switch(8);
    let all: Vec<Transfer> = (0..64).map(|i| Transfer { src: i / 8, dst: i % 8, bytes: 1_000_000 }).collect();
    // Twice, since a call must leave nothing behind.
    for _ in 0..2 {
        let mut bytes = vec![0; 16];
        let phase = n.phase(&all, Some(&mut bytes));
        close(phase.time_s, 7e6 / 360e9 + 1.7e-6);
        assert!(bytes.iter().all(|&b| b == 7_000_000), "{bytes:?}");
    }
}

#[test]
fn incast_binds_on_the_receiver() {
    let mut n = switch(4);
    let incast: Vec<Transfer> = (0..3).map(|src| Transfer { src, dst: 3, bytes: 500_000 }).collect();
    let phase = n.phase(&incast, None);
    close(phase.time_s, 1.5e6 / 360e9 + 1.7e-6);
    assert_eq!(name(&n, phase), "switch>gpu3");
}

#[test]
fn corner_to_corner_on_a_mesh() {
    let mut n = mesh(5, 5);
    let phase = n.phase(&[Transfer { src: 0, dst: 24, bytes: 1_000_000 }], None);
    close(phase.time_s, 1e6 / 1360e9 + 8.0 * 200e-9 + 0.7e-6);
    // A short path on the loaded link lowers its bound, not that of the long transfer alone.
    let both = [Transfer { src: 0, dst: 24, bytes: 1_000_000 }, Transfer { src: 0, dst: 1, bytes: 1_000_000 }];
    let phase = n.phase(&both, None);
    close(phase.time_s, (2e6 / 1360e9 + 200e-9 + 0.7e-6f64).max(1e6 / 1360e9 + 1.6e-6 + 0.7e-6));
}

#[test]
fn forwarding_over_the_node_pays_two_messages() {
    let one = [Transfer { src: 0, dst: 5, bytes: 1_000_000 }];
    let mut n = rail(CrossRail::ScaleUp);
    let phase = n.phase(&one, None);
    close(phase.time_s, 1e6 / 40e9 + 2.0 * (0.5e-6 + 1e-6 + 0.7e-6));
    assert_eq!(name(&n, phase), "gpu1>rail1");
    let mut n = rail(CrossRail::Spine);
    let phase = n.phase(&one, None);
    close(phase.time_s, 1e6 / 40e9 + 4.0 * 1e-6 + 0.7e-6);
    assert_eq!(name(&n, phase), "gpu0>rail0");
}

#[test]
fn ring_all_reduce() {
    let n = switch(8);
    let ring: Vec<u32> = (0..8).collect();
    let phase = n.allreduce_ring(&ring, 8e6);
    close(phase.time_s, 2.0 * 7.0 / 8.0 * 8e6 / 360e9 + 14.0 * 1.7e-6);
    assert_eq!(n.allreduce_ring(&[3], 8e6), Phase::default());
    assert_eq!(n.allreduce_ring(&[], 8e6), Phase::default());
    close(n.ring(&ring).allgather(8e6).time_s, phase.time_s / 2.0);
    // In a row of a mesh the way back passes every link of its direction once: no link is shared, the latency is long.
    let phase = mesh(4, 1).allreduce_ring(&[0, 1, 2, 3], 4e6);
    close(phase.time_s, 1.5 * 4e6 / 1360e9 + 6.0 * (3.0 * 200e-9 + 0.7e-6));
    // Interleaved, two edges of the ring share the link in the middle.
    close(mesh(4, 1).ring(&[0, 2, 1, 3]).s_per_byte, 2.0 / 1360e9);
}

/// The bound as its definition states it, in the plainest form.
fn by_definition(n: &Bottleneck, transfers: &[Transfer]) -> f64 {
    let t = n.topology();
    let real: Vec<_> = transfers.iter().filter(|x| x.bytes > 0 && x.src != x.dst).collect();
    let path = |x: &Transfer| t.path(x.src as usize, x.dst as usize);
    let latency = |x: &Transfer| t.latency_s(x.src as usize, x.dst as usize);
    let links = (0..t.links().len() as u32).filter_map(|l| {
        let on: Vec<_> = real.iter().filter(|x| path(x).contains(&l)).collect();
        let least = on.iter().map(|x| latency(x)).reduce(f64::min)?;
        Some(on.iter().map(|x| x.bytes).sum::<u64>() as f64 / t.links()[l as usize].bandwidth_per_s + least)
    });
    let alone = real.iter().map(|x| {
        let slowest = path(x).iter().map(|&l| t.links()[l as usize].bandwidth_per_s).fold(f64::INFINITY, f64::min);
        x.bytes as f64 / slowest + latency(x)
    });
    links.chain(alone).fold(0.0, f64::max)
}

proptest! {
    #[test]
    fn the_bound_is_its_definition_and_monotone(
        raw in prop::collection::vec((0u32..8, 0u32..8, 0u64..1 << 24), 0..80),
        more in prop::collection::vec(0u64..1 << 20, 80),
    ) {
        let full = network(&TopologySpec::FullMesh { devices: 8, link: link(64.0, 1000) });
        for mut n in [switch(8), full, mesh(4, 2), rail(CrossRail::ScaleUp), rail(CrossRail::Spine)] {
            let transfers: Vec<Transfer> = raw.iter().map(|&(src, dst, bytes)| Transfer { src, dst, bytes }).collect();
            let mut bytes = vec![0; n.topology().links().len()];
            let phase = n.phase(&transfers, Some(&mut bytes));
            let expected = by_definition(&n, &transfers);
            prop_assert!((phase.time_s - expected).abs() <= 1e-12 * expected);
            prop_assert_eq!(phase.link.is_some(), phase.time_s > 0.0);
            // Bytes are conserved: as many as the paths have links.
            let hops = |t: &Transfer| n.topology().path(t.src as usize, t.dst as usize).len() as u64;
            prop_assert_eq!(bytes.iter().sum::<u64>(), transfers.iter().map(|t| t.bytes * hops(t)).sum::<u64>());
            for t in &transfers {
                prop_assert!(phase.time_s >= n.phase(std::slice::from_ref(t), None).time_s);
            }
            // More bytes in transfers that are there anyway.
            let larger: Vec<Transfer> = transfers.iter().zip(&more)
                .map(|(t, m)| Transfer { bytes: if t.bytes > 0 { t.bytes + m } else { 0 }, ..*t }).collect();
            prop_assert!(n.phase(&larger, None).time_s >= phase.time_s);
        }
    }
}
