use super::*;
use crate::network::{Bottleneck, Transfer};
use crate::topology::{CrossRail, LinkSpec, Striping, TopologySpec};
use proptest::prelude::*;

fn link(per_s: &str, latency: &str) -> LinkSpec {
    let text = format!(
        "bandwidth = {{ value = \"{per_s}\", origin = \"t\" }}\nlatency = {{ value = \"{latency}\", origin = \"t\" }}\n\
         achievable = {{ value = 0.8, origin = \"t\" }}"
    );
    toml::from_str(&text).expect("a link")
}

fn fabric() -> impl Strategy<Value = TopologySpec> {
    (0..5, 1u32..5, 1u32..5).prop_map(|(kind, nodes, devices_per_node)| {
        let (near, far) = (link("450 GB/s", "1 us"), link("50 GB/s", "4 us"));
        let rail = |cross_rail| TopologySpec::FatTreeRail {
            nodes,
            devices_per_node,
            link: near.clone(),
            nic: far.clone(),
            cross_rail,
            spine_oversubscription: 2.0,
        };
        match kind {
            0 => TopologySpec::Switch { devices: devices_per_node + 1, link: near },
            1 => rail(CrossRail::ScaleUp),
            2 => rail(CrossRail::Spine),
            _ => TopologySpec::Planes {
                nodes,
                devices_per_node,
                planes: 3,
                link: near,
                l2_switches: 2,
                uplink: Some(far),
                striping: Striping::Even,
            },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Sums say what the walk over pairs says: the time to the bit, and every link's bytes; there and back, whether
    /// rows or single transfers were added.
    #[test]
    fn sums_are_the_walk_over_pairs(
        spec in fabric(),
        copies in prop::collection::vec(prop_oneof![Just(0u32), 1u32..4, 1u32..5000], 256),
        by_row in prop::collection::vec(any::<bool>(), 16),
        bytes in 1u64..20_000,
    ) {
        let topology = Arc::new(Topology::build(&spec).unwrap());
        let devices = topology.devices();
        let row = |src: usize| &copies[src * 16..src * 16 + devices];
        let mut sums = Sums::default();
        // What an earlier phase left behind must not matter.
        sums.clear(&topology);
        sums.row(devices - 1, row(0));
        sums.clear(&topology);
        for (src, &whole) in by_row.iter().enumerate().take(devices) {
            if whole {
                sums.row(src, row(src));
            } else {
                row(src).iter().enumerate().for_each(|(dst, &n)| sums.one(src, dst, n));
            }
        }
        sums.done();
        let links = Links::new(&topology).unwrap();
        let mut walk = Bottleneck::new(topology.clone());
        for way in [Way::There, Way::Back] {
            let pairs = (0..devices).flat_map(|src| (0..devices).map(move |dst| (src, dst)));
            let transfers: Vec<Transfer> = pairs
                .map(|(src, dst)| {
                    let (from, to) = if way == Way::There { (src, dst) } else { (dst, src) };
                    Transfer { src: from as u32, dst: to as u32, bytes: u64::from(row(src)[dst]) * bytes }
                })
                .collect();
            let mut carried = [vec![1; topology.links().len()], vec![1; topology.links().len()]];
            let phase = links.phase(&sums, way, bytes, Some(&mut carried[0]));
            let expected = walk.phase(&transfers, Some(&mut carried[1]));
            prop_assert_eq!(&carried[0], &carried[1]);
            prop_assert_eq!(phase.time_s.to_bits(), expected.time_s.to_bits());
            prop_assert_eq!(phase.link.is_some(), expected.link.is_some());
            let leaves = |t: &&Transfer| t.src != t.dst;
            let left: u64 = transfers.iter().filter(leaves).map(|t| t.bytes).sum();
            prop_assert_eq!(sums.total() * bytes, left);
            let crosses = |t: &&Transfer| topology.node_of(t.src as usize) != topology.node_of(t.dst as usize);
            prop_assert_eq!(sums.crossing() * bytes, transfers.iter().filter(crosses).map(|t| t.bytes).sum::<u64>());
        }
    }
}

/// Two devices of a node send more than 32 bits hold to one of another: no sum wraps.
#[test]
fn no_sum_wraps() {
    let topology = Arc::new(
        Topology::build(&TopologySpec::Planes {
            nodes: 2,
            devices_per_node: 2,
            planes: 1,
            link: link("450 GB/s", "1 us"),
            l2_switches: 1,
            uplink: Some(link("50 GB/s", "4 us")),
            striping: Striping::Even,
        })
        .unwrap(),
    );
    let mut sums = Sums::default();
    sums.clear(&topology);
    sums.row(0, &[0, 5, u32::MAX, 7]);
    sums.row(1, &[0, 9, u32::MAX, 0]);
    sums.done();
    let most = u64::from(u32::MAX);
    assert_eq!((sums.total(), sums.crossing()), (2 * most + 12, 2 * most + 7));
    assert_eq!(sums.busiest(Way::There), [5, 2 * most, most + 12]);
    assert_eq!(sums.loads(Way::There).received_across, [0, 0, 2 * most, 7]);
}

/// Paths around a failed link, and meshes, are walked.
#[test]
fn what_carries_no_sums_is_walked() {
    let spec = TopologySpec::FatTreeRail {
        nodes: 2,
        devices_per_node: 2,
        link: link("450 GB/s", "1 us"),
        nic: link("50 GB/s", "4 us"),
        cross_rail: CrossRail::ScaleUp,
        spine_oversubscription: 1.0,
    };
    let whole = Arc::new(Topology::build(&spec).unwrap());
    assert!(Links::new(&whole).is_some());
    let failed = whole.links().iter().find(|l| l.name.contains("rail")).unwrap().name.clone();
    assert!(Links::new(&Arc::new(Topology::with_failed(&spec, &[failed]).unwrap())).is_none());
    let mesh = TopologySpec::Mesh2d { x: 2, y: 2, link: link("450 GB/s", "1 us") };
    assert!(Links::new(&Arc::new(Topology::build(&mesh).unwrap())).is_none());
}
