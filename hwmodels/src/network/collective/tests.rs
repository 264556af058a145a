use super::*;
use crate::network::{Bottleneck, Flow, Reserve};
use crate::topology::Topology;
use crate::topology::tests::link;
use crate::topology::{CrossRail, TopologySpec};
use proptest::prelude::*;
use std::sync::Arc;

fn switch(devices: u32) -> Arc<Topology> {
    Arc::new(Topology::build(&TopologySpec::Switch { devices, link: link(100.0, 500) }).unwrap())
}

fn rails() -> Arc<Topology> {
    let (link, nic) = (link(200.0, 500), link(50.0, 1000));
    Arc::new(
        Topology::build(&TopologySpec::FatTreeRail {
            nodes: 3,
            devices_per_node: 4,
            link,
            nic,
            cross_rail: CrossRail::Spine,
            spine_oversubscription: 1.0,
        })
        .unwrap(),
    )
}

fn fidelities(t: &Arc<Topology>) -> [Box<dyn TransferModel>; 3] {
    [Box::new(Bottleneck::new(t.clone())), Box::new(Flow::new(t.clone())), Box::new(Reserve::new(t.clone(), true))]
}

#[track_caller]
fn takes(c: &Collective, t: &Arc<Topology>, s: f64) {
    for mut network in fidelities(t) {
        let time_s = c.time(&mut *network, Effort::NONE, None).time_s;
        // Every step is rounded up to picoseconds.
        assert!((time_s - s).abs() < 1e-10, "{time_s} against {s} in {network:?}");
    }
}

/// On a switch of 100 GB/s links with 1 us from device to device.
#[test]
fn closed_forms() {
    let t = switch(8);
    let all: Vec<u32> = (0..8).collect();
    takes(&Collective::point_to_point(1, 5, 1_000_000), &t, 1e-5 + 1e-6);
    takes(&Collective::allreduce_ring(&all, 8_000_000), &t, 14.0 * (1e-5 + 1e-6));
    takes(&Collective::allgather_ring(&all, 8_000_000), &t, 7.0 * (1e-5 + 1e-6));
    takes(&Collective::reduce_scatter_ring(&all, 8_000_000), &t, 7.0 * (1e-5 + 1e-6));
    // Each link once and an eighth more, two latencies.
    takes(&Collective::allreduce_in_switch(&t, &all, 8_000_000).unwrap(), &t, 9e-5 + 2e-6);
    for c in [Collective::allreduce_ring(&all[..1], 8), Collective::allreduce_ring(&[], 8)] {
        takes(&c, &t, 0.0);
    }
    assert_eq!(Collective::allreduce_in_switch(&rails(), &[0, 4], 8).map(|c| c.bytes()), Some(2 * 2 * 6));
    assert_eq!(Collective::allreduce_in_switch(&rails(), &[0, 1, 4], 8), None);
    let mesh = Topology::build(&TopologySpec::Mesh2d { x: 3, y: 1, link: link(1.0, 1) }).unwrap();
    assert_eq!(Collective::allreduce_in_switch(&mesh, &[0, 2], 8), None);
}

/// The chunks of both trees go up and come down, each edge once a chunk and direction.
#[test]
fn double_trees_move_twice_the_bytes() {
    for n in 2..20u32 {
        let devices: Vec<u32> = (0..n).collect();
        let c = Collective::allreduce_double_tree(&devices, 4000, 5);
        // Two trees of n - 1 edges, both ways, five chunks of 400 bytes.
        assert_eq!(c.bytes(), 2 * u64::from(n - 1) * 2 * 5 * 400);
        assert_eq!(c.steps().count() as u32, 2 * n.ilog2() - 1 + 5);
        // No device sends more than four chunks in a step, which full bandwidth asks of an even number.
        let most = |pick: fn(&Transfer) -> u32| {
            c.steps()
                .map(|(s, _)| (0..n).map(|d| s.iter().filter(|t| pick(t) == d).count()).max().unwrap())
                .max()
                .unwrap()
        };
        assert!(most(|t| t.src) <= if n % 2 == 0 { 4 } else { 6 }, "{n}");
        assert!(most(|t| t.dst) <= if n % 2 == 0 { 4 } else { 6 }, "{n}");
    }
    // With many chunks twice the bytes over the link; with one, latencies alone are fewer than a ring's.
    let (t, all) = (switch(16), (0..16).collect::<Vec<_>>());
    let time = |c: Collective| c.time(&mut Bottleneck::new(t.clone()), Effort::NONE, None).time_s;
    let (many, ring) =
        (time(Collective::allreduce_double_tree(&all, 1 << 30, 1000)), time(Collective::allreduce_ring(&all, 1 << 30)));
    assert!((many / ring - 2.0 / (2.0 * 15.0 / 16.0)).abs() < 0.07, "{many} {ring}");
    assert!(
        time(Collective::allreduce_double_tree(&all, 1000, 1)) < time(Collective::allreduce_ring(&all, 1000)) / 3.0
    );
}

#[test]
fn effort_is_paid_by_step_and_message() {
    let t = switch(4);
    let c = Collective::allreduce_ring(&[0, 1, 2, 3], 4_000_000);
    let effort = Effort { step_s: 3e-6, reached: &|bytes| if bytes < 2_000_000 { 0.5 } else { 1.0 } };
    for mut network in fidelities(&t) {
        let mut bytes = vec![0; 8];
        let phase = c.time(&mut *network, effort, Some(&mut bytes));
        assert!((phase.time_s - 6.0 * (3e-6 + 2e-5 + 1e-6)).abs() < 1e-10, "{phase:?}");
        // Links carry what is sent, however slowly.
        assert_eq!(bytes, [6_000_000; 8]);
    }
}

#[test]
fn relays_change_rails_inside_nodes() {
    let one = [Transfer { src: 1, dst: 6, bytes: 100 }, Transfer { src: 0, dst: 6, bytes: 10 }];
    let steps = |relay| {
        let c = Collective::all_to_all_hierarchical(&rails(), &one, relay);
        c.steps().map(|(t, _)| t.to_vec()).collect::<Vec<_>>()
    };
    let t = |src, dst, bytes| Transfer { src, dst, bytes };
    assert_eq!(steps(Relay::Sender), [vec![t(0, 2, 10), t(1, 2, 100)], vec![t(2, 6, 110)]]);
    assert_eq!(steps(Relay::Receiver), [vec![t(0, 4, 10), t(1, 5, 100)], vec![t(4, 6, 10), t(5, 6, 100)]]);
}

proptest! {
    /// Every byte reaches its receiver: what a device has sent on and taken in differs by its own part.
    #[test]
    fn hierarchical_is_the_same_exchange(
        raw in prop::collection::vec((0u32..12, 0u32..12, 0u64..1000), 0..60),
    ) {
        let transfers: Vec<Transfer> = raw.iter().map(|&(src, dst, bytes)| Transfer { src, dst, bytes }).collect();
        let t = rails();
        let balance = |c: &Collective| {
            let mut net = vec![0i64; 12];
            for t in c.steps().flat_map(|s| s.0) {
                net[t.src as usize] -= t.bytes as i64;
                net[t.dst as usize] += t.bytes as i64;
            }
            net
        };
        let flat = Collective::all_to_all(&transfers);
        let across = |c: &Collective| -> u64 {
            c.steps().flat_map(|s| s.0).filter(|t| t.src / 4 != t.dst / 4).map(|t| t.bytes).sum()
        };
        for relay in [Relay::Sender, Relay::Receiver] {
            let c = Collective::all_to_all_hierarchical(&t, &transfers, relay);
            prop_assert_eq!(balance(&c), balance(&flat));
            prop_assert_eq!(across(&c), across(&flat));
            // Between nodes everything stays on its rail.
            prop_assert!(c.steps().flat_map(|s| s.0).all(|t| t.src / 4 == t.dst / 4 || t.src % 4 == t.dst % 4));
        }
    }
}
