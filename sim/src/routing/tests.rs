//! Counts against a count written from the documentation, token by token.

use super::*;
use crate::routing::replay::MISSING;
use moesim_traces::{Meta, OwnedSequence, Trace};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A token with a row of its own and behind it one whose row is drawn: the former takes the last place of their expert.
#[test]
fn drawn_rows_are_counted_in_the_order_of_the_batch() {
    let meta = Meta {
        model: "t".into(),
        layer_numbers: vec![0],
        experts: 2,
        k: 1,
        source: "by hand".into(),
        licence: "none".into(),
    };
    let sequence = OwnedSequence { decode: vec![0], decode_first_position: 1, ..OwnedSequence::default() };
    let source = Source::new(Arc::new(Trace::from_sequences(meta, vec![sequence]).unwrap()), Missing::Draw, 1);
    let shape = LayerShape { capacity: Some(Capacity { per_token: 0.5, padded: false }), ..LayerShape::default() };
    let mut replay = Replay::new(SlotMap::shaped(&[vec![vec![0], vec![1]]], &[shape], 2, 2));
    let part = |from, device| Segment {
        request: 0,
        binding: Binding { sequence: 0, offset: 0 },
        prompt: 1,
        from,
        count: 1,
        device,
        spread: 1,
        turn: 0,
    };
    let came = replay.load(&source, &[part(1, 0), part(0, 1)]);
    assert_eq!((came.traced, came.drawn, replay.selections().dropped), (1, 1, 1));
    let routing = replay.reveal(0);
    assert_eq!((routing.tokens_between(0, 0), routing.tokens_between(1, 0)), (1, 0));
}

const GROUPS: usize = 3;
const DEVICES: usize = 3;

/// Layers of up to eight experts, some with replicas, and what else a layer can have.
fn layer() -> impl Strategy<Value = (Vec<Vec<u32>>, LayerShape)> {
    let homes = prop::sample::subsequence(vec![0u32, 1, 2], 1..=3);
    let capacity = prop::option::of((0.05..1.5f64).prop_map(|per_token| Capacity { per_token, padded: false }));
    (1usize..=4, prop::collection::vec(homes, 2), 0usize..3, prop::sample::select(vec![0, 1, 2]), capacity).prop_map(
        |(pairs, two, zero_compute, expert_groups, capacity)| {
            let homes: Vec<Vec<u32>> = two.iter().cycle().take(2 * pairs).cloned().collect();
            // Of 2, 4, 6 or 8 experts, two groups are halves.
            (homes, LayerShape { zero_compute, expert_groups, capacity })
        },
    )
}

/// What one layer should count, by the documentation of [`LayerShape`].
#[derive(Debug, Default, PartialEq)]
struct Naive {
    /// Tokens by (expert, group).
    experts: BTreeMap<(usize, u32), u32>,
    /// Different tokens by (source device, group).
    pairs: BTreeMap<(u32, u32), u32>,
    /// Different tokens by (group, group of experts).
    parts: BTreeMap<(u32, usize), u32>,
    /// Selections by (source device, group), and different tokens by (source device, node): groups 0 and 2 are on node 0.
    selections: BTreeMap<(u32, u32), u32>,
    nodes: BTreeMap<(u32, u32), u32>,
}

const NODES: [u32; GROUPS] = [0, 1, 0];

fn naive(homes: &[Vec<u32>], shape: &LayerShape, rows: &[(u32, Vec<u16>)], sum: &mut Selections) -> Naive {
    let mut out = Naive::default();
    let mut taken = vec![0; homes.len()];
    let limit = shape.capacity.map_or(u32::MAX, |c| c.of(rows.len() as u64));
    for (position, (device, ids)) in rows.iter().enumerate() {
        let (mut to, mut common) = (BTreeSet::new(), BTreeSet::new());
        for &id in ids {
            let e = usize::from(id);
            if id == MISSING {
                sum.absent += 1;
            } else if e >= homes.len() {
                sum.zero_compute += 1;
            } else if taken[e] == limit {
                sum.dropped += 1;
            } else {
                sum.computed += 1;
                taken[e] += 1;
                let group = homes[e][position % homes[e].len()];
                *out.experts.entry((e, group)).or_default() += 1;
                to.insert(group);
                *out.selections.entry((*device, group)).or_default() += 1;
                if shape.expert_groups > 0 {
                    common.insert((group, e * shape.expert_groups / homes.len()));
                }
            }
        }
        let nodes: BTreeSet<u32> = to.iter().map(|g| NODES[*g as usize]).collect();
        nodes.into_iter().for_each(|n| *out.nodes.entry((*device, n)).or_default() += 1);
        to.into_iter().for_each(|g| *out.pairs.entry((*device, g)).or_default() += 1);
        common.into_iter().for_each(|p| *out.parts.entry(p).or_default() += 1);
    }
    out
}

/// A layer of which no group has two slots: an expert with a replica, or up to three with a home each.
fn lone() -> impl Strategy<Value = (Vec<Vec<u32>>, LayerShape)> {
    let homes = prop_oneof![
        Just(vec![vec![2], vec![0, 1]]),
        Just(vec![vec![0, 2]]),
        Just((0..GROUPS as u32).map(|g| vec![g]).collect::<Vec<_>>()).prop_shuffle(),
    ];
    (homes, 0usize..2).prop_map(|(homes, expert_groups)| (homes, LayerShape { expert_groups, ..LayerShape::default() }))
}

proptest! {
    #[test]
    fn counts_are_those_of_the_documentation(
        layers in prop_oneof![prop::collection::vec(layer(), 1..4), prop::collection::vec(lone(), 1..4)],
        draws in prop::collection::vec(prop::collection::vec(any::<u16>(), 9), 1..40),
        cut in 0usize..40, counting in 0usize..3, shift in 0u32..3,
    ) {
        const K: usize = 3;
        let ids = layers.iter().map(|(h, s)| h.len() + s.zero_compute).max().unwrap();
        // Rows of ids that each layer has, none twice, some missing.
        let row = |draw: &Vec<u16>| -> Vec<u16> {
            let layer = |(l, (homes, shape)): (usize, &(Vec<Vec<u32>>, LayerShape))| {
                let n = (homes.len() + shape.zero_compute) as u16;
                let mut row: Vec<u16> = Vec::new();
                for d in &draw[l * K..(l + 1) * K] {
                    let id = if d % 5 == 0 || row.contains(&(d % n)) { MISSING } else { d % n };
                    row.push(id);
                }
                row
            };
            layers.iter().enumerate().flat_map(layer).collect()
        };
        let rows: Vec<Vec<u16>> = draws.iter().map(row).collect();
        let meta = Meta {
            model: "t".into(),
            layer_numbers: (0..layers.len() as u32).collect(),
            experts: ids.max(K) as u32,
            k: K as u32,
            source: "drawn".into(),
            licence: "none".into(),
        };
        let sequence = OwnedSequence { prefill: rows.concat(), ..OwnedSequence::default() };
        let source = Source::new(Arc::new(Trace::from_sequences(meta, vec![sequence]).unwrap()), Missing::Refuse, 1);
        let (homes, shapes): (Vec<_>, Vec<_>) = layers.iter().cloned().unzip();
        let counting = [Counting::Groups, Counting::Nodes { of: NODES.to_vec() }, Counting::Selections][counting].clone();
        let map = |homes: &[Vec<Vec<u32>>]| SlotMap::shaped(homes, &shapes, GROUPS, DEVICES).counting(&counting);
        // Before, every other layer was elsewhere, with one replica an expert.
        let elsewhere = |(l, homes): (usize, &Vec<Vec<u32>>)| match l % 2 {
            0 => homes.iter().map(|on| vec![(on[0] + shift) % GROUPS as u32]).collect(),
            _ => homes.clone(),
        };
        let before: Vec<Vec<Vec<u32>>> = homes.iter().enumerate().map(elsewhere).collect();
        let mut replay = Replay::new(map(&before));
        let (n, cut) = (rows.len() as u32, (cut % rows.len()) as u32);
        let part = |from, count, device, spread| Segment {
            request: 0,
            binding: Binding { sequence: 0, offset: 0 }, prompt: n, from, count, device, spread, turn: 0,
        };
        // The first tokens on device 0, the others dealt over devices 1 and 2.
        let segments = [part(0, cut, 0, 1), part(cut, n - cut, 1, 2)];
        replay.load(&source, &segments);
        replay.retire();
        let once = replay.totals();
        let history = replay.history().to_vec();
        replay.place(map(&homes));
        prop_assert_eq!(&replay.totals(), &once);
        // A replica that stays keeps its history, one that came has none yet.
        let stride = map(&before).slots();
        for (l, layer) in homes.iter().enumerate() {
            for (e, on) in layer.iter().enumerate() {
                let at = |map: &SlotMap, g: u32| map.group_slots(l, g as usize).find(|s| map.expert(l, *s) == e);
                for &g in on {
                    let now = replay.history()[l * replay.map().slots() + at(replay.map(), g).unwrap()];
                    let was = at(&map(&before), g).map_or(0, |s| history[l * stride + s]);
                    prop_assert_eq!(now, was, "layer {} expert {} group {}", l, e, g);
                }
            }
        }
        let came = replay.load(&source, &segments);
        let device = |t: u32| if t < cut { 0 } else { 1 + (t - cut) % 2 };
        let mut sum = Selections::default();
        for (l, (homes, shape)) in layers.iter().enumerate() {
            let of = |(t, row): (usize, &Vec<u16>)| (device(t as u32), row[l * K..(l + 1) * K].to_vec());
            let rows: Vec<_> = rows.iter().enumerate().map(of).collect();
            let mut expected = naive(homes, shape, &rows, &mut sum);
            let routing = replay.reveal(l);
            let mut found = Naive::default();
            for g in 0..GROUPS {
                for (slot, &n) in routing.group_slots(g).zip(routing.group_tokens(g)).filter(|(_, n)| **n > 0) {
                    found.experts.insert((routing.expert(slot), g as u32), n);
                }
                for s in 0..DEVICES {
                    let n = routing.tokens_between(s, g);
                    if n > 0 {
                        found.pairs.insert((s as u32, g as u32), n);
                    }
                }
                // Common parts of a group in the order of their groups of experts.
                let mut held: Vec<usize> = routing.group_slots(g).map(|s| routing.expert(s)).collect();
                held.iter_mut().for_each(|e| *e = *e * shape.expert_groups / homes.len());
                held.dedup();
                let held = if shape.expert_groups > 0 { held } else { Vec::new() };
                prop_assert_eq!(held.len(), routing.part_tokens(g).len());
                for (part, &n) in held.iter().zip(routing.part_tokens(g)).filter(|(_, n)| **n > 0) {
                    found.parts.insert((g as u32, *part), n);
                }
            }
            let counted = match counting {
                Counting::Groups => BTreeMap::new(),
                Counting::Nodes { .. } => std::mem::take(&mut expected.nodes),
                Counting::Selections => std::mem::take(&mut expected.selections),
            };
            let more = (0..DEVICES).flat_map(|s| routing.counted(s).iter().enumerate().map(move |(i, n)| ((s as u32, i as u32), *n)));
            prop_assert_eq!(more.filter(|m| m.1 > 0).collect::<BTreeMap<_, _>>(), counted, "layer {}", l);
            (expected.nodes, expected.selections) = Default::default();
            prop_assert_eq!(found, expected, "layer {}", l);
        }
        prop_assert_eq!(replay.selections(), sum);
        prop_assert_eq!((replay.assigned(), came.total()), (sum.routed(), sum.routed()));
        replay.retire();
        prop_assert_eq!(replay.totals().iter().sum::<u64>(), 2 * (sum.computed + sum.zero_compute));
        prop_assert_eq!(replay.totals(), once.iter().map(|n| 2 * n).collect::<Vec<_>>());
    }
}
