//! Is `Flow` what a slow simulation with plain loops gives, and is every rate max-min fair?

use super::*;
use crate::network::{Bottleneck, Reserve};
use crate::topology::tests::link;
use crate::topology::{CrossRail, Striping, TopologySpec};
use proptest::prelude::*;

fn build(spec: &TopologySpec) -> Arc<Topology> {
    Arc::new(Topology::build(spec).unwrap())
}

fn topologies() -> Vec<Arc<Topology>> {
    let planes = |striping| TopologySpec::Planes {
        nodes: 2,
        devices_per_node: 4,
        planes: 2,
        link: link(2.0, 400),
        l2_switches: 1,
        uplink: Some(link(3.0, 300)),
        striping,
    };
    let rail = TopologySpec::FatTreeRail {
        nodes: 2,
        devices_per_node: 4,
        link: link(8.0, 300),
        nic: link(1.0, 2000),
        cross_rail: CrossRail::Spine,
        spine_oversubscription: 2.0,
    };
    let pcie = TopologySpec::Pcie { switches: 2, devices_per_switch: 4, link: link(4.0, 100), uplink: link(4.0, 90) };
    [
        TopologySpec::Switch { devices: 8, link: link(4.0, 500) },
        TopologySpec::FullMesh { devices: 8, link: link(1.0, 500) },
        TopologySpec::Mesh2d { x: 4, y: 2, link: link(5.0, 200) },
        TopologySpec::Torus { dims: vec![2, 4], link: link(3.0, 200) },
        TopologySpec::FullMeshNd { dims: vec![2, 2, 2], links: vec![link(3.0, 10), link(2.0, 20), link(1.0, 30)] },
        planes(Striping::Even),
        planes(Striping::Pair),
        rail,
        pcie,
    ]
    .iter()
    .map(build)
    .collect()
}

/// Max-min rates of the transfers with these paths, in bytes per picosecond: all rise together, a link that is full
/// stops those that cross it. Every round looks at everything.
fn fair(t: &Topology, paths: &[&[u32]]) -> Vec<f64> {
    let mut rates = vec![None; paths.len()];
    while rates.iter().any(Option::is_none) {
        let mut least = (f64::INFINITY, 0);
        for (l, link) in t.links().iter().enumerate() {
            let (mut left, mut open) = (link.bandwidth_per_s / 1e12, 0.0);
            for (path, rate) in paths.iter().zip(&rates).filter(|(p, _)| p.contains(&(l as u32))) {
                match rate {
                    Some(r) => left -= r,
                    None => open += 1.0,
                }
                assert!(!path.is_empty());
            }
            if open > 0.0 && left / open < least.0 {
                least = (left / open, l as u32);
            }
        }
        for (path, rate) in paths.iter().zip(&mut rates) {
            if rate.is_none() && path.contains(&least.1) {
                *rate = Some(least.0);
            }
        }
    }
    rates.into_iter().flatten().collect()
}

/// Ends in picoseconds: at every event all rates anew, and everything moved on.
fn oracle(t: &Topology, transfers: &[Timed]) -> Vec<u64> {
    let path = |x: &Timed| t.path(x.transfer.src as usize, x.transfer.dst as usize);
    let mut left: Vec<f64> = transfers.iter().map(|x| x.transfer.bytes as f64).collect();
    let mut ends: Vec<Option<u64>> = transfers
        .iter()
        .map(|x| (x.transfer.bytes == 0 || x.transfer.src == x.transfer.dst).then_some(x.start.0))
        .collect();
    let mut now = 0u64;
    while ends.iter().any(Option::is_none) {
        let under_way: Vec<usize> =
            (0..transfers.len()).filter(|&i| ends[i].is_none() && transfers[i].start.0 <= now).collect();
        let rates = fair(t, &under_way.iter().map(|&i| path(&transfers[i])).collect::<Vec<_>>());
        let done = |i: usize, rate: f64| now + up(left[i] / rate);
        let first_end = under_way.iter().zip(&rates).map(|(&i, &r)| done(i, r)).min().unwrap_or(u64::MAX);
        let starts = transfers.iter().enumerate().filter(|(i, x)| ends[*i].is_none() && x.start.0 > now);
        let next = starts.map(|(_, x)| x.start.0).min().unwrap_or(u64::MAX).min(first_end);
        let over: Vec<usize> =
            under_way.iter().zip(&rates).filter(|(i, r)| done(**i, **r) <= next).map(|(i, _)| *i).collect();
        for (&i, &rate) in under_way.iter().zip(&rates) {
            left[i] -= rate * (next - now) as f64;
        }
        for i in over {
            ends[i] = Some(next + latency_ps(t, &transfers[i].transfer));
        }
        now = next;
    }
    ends.into_iter().flatten().collect()
}

fn timed(raw: &[(u64, u32, u32, u64)]) -> Vec<Timed> {
    let one = |&(start, src, dst, bytes): &_| Timed {
        start: Picos(start),
        priority: 0,
        transfer: Transfer { src, dst, bytes },
    };
    raw.iter().map(one).collect()
}

/// At every event: no link gives more than it has, and each transfer crosses a full link on which none is faster.
fn check_rates(f: &Flow) {
    let n = f.rate.len();
    let under_way = |i: u32| f.lines.path(i).first().is_some_and(|&l| f.lines.on(l).contains(&i));
    let sum = |l: u32| f.lines.on(l).iter().map(|&i| f.rate[i as usize]).sum::<f64>();
    for l in 0..f.capacity.len() as u32 {
        assert!(sum(l) <= f.capacity[l as usize] * (1.0 + 1e-9), "link {l}: {} of {}", sum(l), f.capacity[l as usize]);
    }
    for i in (0..n as u32).filter(|&i| under_way(i)) {
        let rate = f.rate[i as usize];
        let blocked = f.lines.path(i).iter().any(|&l| {
            sum(l) >= f.capacity[l as usize] * (1.0 - 1e-9)
                && f.lines.on(l).iter().all(|&o| f.rate[o as usize] <= rate * (1.0 + 1e-9))
        });
        assert!(rate > 0.0 && blocked, "transfer {i} at {rate} could be faster");
    }
}

#[test]
fn two_on_a_link_and_one_that_comes_later() {
    // A link of 1 GB/s, 1 B/ns: both at half speed until the third comes at 1 us; latency 1 us.
    let t = build(&TopologySpec::Switch { devices: 4, link: link(1.0, 500) });
    let mut flow = Flow::new(t);
    let mut ends = Vec::new();
    let raw = [(0, 0, 1, 1000), (0, 0, 2, 2000), (1_000_000, 0, 3, 500), (5, 2, 2, 9), (7, 1, 2, 0)];
    let mut bytes = vec![0; 8];
    flow.schedule(&timed(&raw), &mut ends, Some(&mut bytes));
    // At 1 us 500 and 1,500 bytes are left, 500 new: a third each until 2.5 us; then the second alone, 1,000 bytes.
    assert_eq!(ends, [2_500_000 + 1_000_000, 3_500_000 + 1_000_000, 2_500_000 + 1_000_000, 5, 7].map(Picos));
    assert_eq!(bytes, [3500, 0, 0, 1000, 0, 2000, 0, 500]);
    assert_eq!(flow.events(), 4);
}

#[test]
fn what_shares_nothing_is_left_alone() {
    // Pairs on a full mesh: each completion concerns its own link only.
    let t = build(&TopologySpec::FullMesh { devices: 4, link: link(1.0, 0) });
    let mut flow = Flow::new(t);
    let pairs = [Transfer { src: 0, dst: 1, bytes: 100 }, Transfer { src: 2, dst: 3, bytes: 300 }];
    let phase = flow.phase(&pairs, None);
    assert_eq!(phase.time_s, 300e-9);
    assert_eq!(flow.solver.len(), 0);
    assert_eq!(flow.since, [0, 0]);
    assert_eq!(flow.phase(&[], None), Phase::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn flow_is_the_oracle(
        raw in prop::collection::vec((0u64..4_000_000, 0u32..8, 0u32..8, 0u64..4000), 1..24),
        together in any::<bool>(),
        coarse in any::<bool>(),
    ) {
        // Starts and sizes on a grid make events coincide.
        let (a, b) = if coarse { (500_000, 500) } else { (1, 1) };
        let raw: Vec<_> = raw.iter()
            .map(|&(s, src, dst, bytes)| (if together { 0 } else { s / a * a }, src, dst, bytes / b * b)).collect();
        let transfers = timed(&raw);
        for t in topologies() {
            let mut flow = Flow::new(t.clone());
            let mut events = 0;
            flow.run(transfers.len(), |i| (transfers[i].start.0, transfers[i].transfer), |_, f| {
                check_rates(f);
                events += 1;
            });
            let expected = oracle(&t, &transfers);
            // Completions are rounded up; where noise falls on either side of a picosecond the next ones shift with it.
            for (i, (&a, &b)) in flow.ends.iter().zip(&expected).enumerate() {
                prop_assert!(a.abs_diff(b) <= events, "transfer {}: {} against {}", i, a, b);
            }
            for i in 0..expected.len() {
                for j in 0..expected.len() {
                    if expected[i] + 2 * events < expected[j] {
                        prop_assert!(flow.ends[i] < flow.ends[j]);
                    }
                }
            }
        }
    }

    #[test]
    fn laws_of_transfers_that_start_together(
        raw in prop::collection::vec((Just(0u64), 0u32..8, 0u32..8, 0u64..100_000), 1..60),
    ) {
        let timed = timed(&raw);
        let transfers: Vec<Transfer> = timed.iter().map(|t| t.transfer).collect();
        for t in topologies() {
            let links = t.links().len();
            let mut expected = vec![0; links];
            let bound = Bottleneck::new(t.clone()).phase(&transfers, Some(&mut expected)).time_s;
            let mut alone = Vec::new();
            Bottleneck::new(t.clone()).schedule(&timed, &mut alone, None);
            let all: [Box<dyn TransferModel>; 3] = [
                Box::new(Flow::new(t.clone())),
                Box::new(Reserve::new(t.clone(), true)),
                Box::new(Reserve::new(t.clone(), false)),
            ];
            for mut network in all {
                let (mut bytes, mut ends) = (vec![0; links], Vec::new());
                let phase = network.phase(&transfers, Some(&mut bytes));
                prop_assert!(phase.time_s >= bound * (1.0 - 2e-12), "{} below {bound}", phase.time_s);
                prop_assert_eq!(phase.link.is_some(), phase.time_s > 0.0);
                prop_assert_eq!(&bytes, &expected);
                network.schedule(&timed, &mut ends, None);
                prop_assert_eq!(ends.iter().max().copied().unwrap_or_default().seconds(), phase.time_s);
                for (end, alone) in ends.iter().zip(&alone) {
                    // Bytes and latency are rounded up apart.
                    prop_assert!(end.0 + 1 >= alone.0, "{} below {}", end, alone);
                }
            }
        }
    }

    /// Each link of a path serves the bytes of the transfer, whatever its rates were.
    #[test]
    fn bytes_served_are_bytes_sent(
        raw in prop::collection::vec((0u64..1_000_000, 0u32..8, 0u32..8, 0u64..100_000), 1..30),
    ) {
        let transfers = timed(&raw);
        for t in topologies() {
            let mut flow = Flow::new(t.clone());
            let (mut served, mut before) = (vec![0.0; transfers.len()], (0, vec![0.0; transfers.len()]));
            let mut completions = 0;
            flow.run(transfers.len(), |i| (transfers[i].start.0, transfers[i].transfer), |now, f| {
                for (s, r) in served.iter_mut().zip(&before.1) {
                    *s += r * (now - before.0) as f64;
                }
                let rates = (0..f.rate.len() as u32).map(|i| {
                    let on = f.lines.path(i).first().is_some_and(|&l| f.lines.on(l).contains(&i));
                    if on { f.rate[i as usize] } else { 0.0 }
                });
                before = (now, rates.collect());
                completions += 1;
            });
            for (served, x) in served.iter().zip(&transfers) {
                let bytes = if real(&x.transfer) { x.transfer.bytes as f64 } else { 0.0 };
                // Up to a picosecond longer than needed, at 8 GB/s at most.
                prop_assert!(*served >= bytes * (1.0 - 1e-9) && *served <= bytes * (1.0 + 1e-9) + 0.02, "{} of {}", served, bytes);
            }
            prop_assert!(completions as u64 == flow.events());
        }
    }
}

/// Uniform all-to-all where nothing blocks: the bound is exact, and all ends at one event.
#[test]
fn uniform_all_to_all_is_its_bound() {
    let planes = TopologySpec::Planes {
        nodes: 4,
        devices_per_node: 4,
        planes: 7,
        link: link(28.0, 650),
        l2_switches: 4,
        // No latency of its own, so that all paths have the same.
        uplink: Some(link(28.0, 0)),
        striping: Striping::Even,
    };
    for spec in [TopologySpec::Switch { devices: 16, link: link(450.0, 500) }, planes] {
        let t = build(&spec);
        let pairs = (0..16).flat_map(|s| (0..16).map(move |d| Transfer { src: s, dst: d, bytes: 123_457 }));
        let transfers: Vec<Transfer> = pairs.collect();
        let bound = Bottleneck::new(t.clone()).phase(&transfers, None).time_s;
        let mut flow = Flow::new(t);
        let time_s = flow.phase(&transfers, None).time_s;
        assert!((time_s - bound).abs() <= 2e-12, "{time_s} against {bound}");
        assert_eq!(flow.events(), 2);
    }
}
