//! What each way sends, against a count token by token.

use super::*;
use crate::machine::{Deployment, Machine};
use crate::placing::place;
use crate::routing::{Binding, Missing, Replay, Segment, Source};
use moesim_core::rng::{Stream, below, stream};
use moesim_hwmodels::Hardware;
use moesim_solver::method::cyclic::Cyclic;
use moesim_traces::{Meta, Model, OwnedSequence, Trace};
use rand::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

const TOKENS: u32 = 10;
const K: usize = 4;

/// (Source, destination) and copies.
type Sent = BTreeMap<(u32, u32), u32>;

fn plan(expert_tp: u32) -> Plan {
    let machine = Machine::new(Hardware::load("h800-2x8").unwrap()).unwrap();
    Plan::new(Model::load("gpt-oss-20b").unwrap(), machine, Deployment { expert_tp, ..Deployment::default() }).unwrap()
}

/// Sixteen devices with ten tokens each; what the way sends in layer 3, and (device, experts) of the tokens.
fn send(plan: &Plan, way: &dyn Dispatch) -> (Sent, Sent, Vec<(u32, Vec<u16>)>) {
    send_of(plan, way, &[u64::from(TOKENS); 16])
}

/// The same with `tokens` on each device as far as the way asks how many there are.
fn send_of(plan: &Plan, way: &dyn Dispatch, on: &[u64]) -> (Sent, Sent, Vec<(u32, Vec<u16>)>) {
    let devices = 16;
    let mut draw: Stream = stream(7, "test", 0);
    let rows: Vec<Vec<u16>> = (0..devices * TOKENS)
        .map(|_| {
            let mut row: Vec<u16> = Vec::new();
            for _ in 0..24 {
                let from = row.len();
                while row.len() < from + K {
                    // Half of the experts are never selected.
                    let id = below(draw.next_u64(), 16) as u16;
                    if !row[from..].contains(&id) {
                        row.push(id);
                    }
                }
            }
            row
        })
        .collect();
    let meta = Meta {
        model: "t".into(),
        layer_numbers: (0..24).collect(),
        experts: 32,
        k: K as u32,
        source: "drawn".into(),
        licence: "none".into(),
    };
    let sequence = OwnedSequence { prefill: rows.concat(), ..OwnedSequence::default() };
    let source = Source::new(Arc::new(Trace::from_sequences(meta, vec![sequence]).unwrap()), Missing::Refuse, 1);
    let map = place(plan, &Cyclic, "round-robin").unwrap().counting(&way.counting(plan));
    let mut replay = Replay::new(map);
    let part = |device: u32| Segment {
        request: 0,
        binding: Binding { sequence: 0, offset: 0 },
        prompt: devices * TOKENS,
        from: device * TOKENS,
        count: TOKENS,
        device,
        spread: 1,
        turn: 0,
    };
    replay.load(&source, &(0..devices).map(part).collect::<Vec<_>>());
    let mut legs = Legs::default();
    way.legs(plan, &replay.reveal(3), on, &mut legs);
    let sum = |legs: &mut dyn Iterator<Item = (u32, u32, u32)>| {
        let mut out = Sent::new();
        legs.filter(|l| l.0 != l.1).for_each(|(src, dst, n)| *out.entry((src, dst)).or_default() += n);
        out
    };
    let (reversed, own) = legs.of_combine();
    let back = reversed.iter().map(|l| (l.dst, l.src, l.copies)).chain(own.iter().map(|l| (l.src, l.dst, l.copies)));
    let (out, back) = (sum(&mut legs.of_dispatch().iter().map(|l| (l.src, l.dst, l.copies))), sum(&mut { back }));
    let tokens = rows.iter().enumerate().map(|(t, row)| (t as u32 / TOKENS, row[3 * K..4 * K].to_vec())).collect();
    (out, back, tokens)
}

/// Adds what `of` sends of every token: (source, destination), once each unless `every`.
fn count(tokens: &[(u32, Vec<u16>)], every: bool, of: impl Fn(u32, u16) -> Vec<(u32, u32)>) -> Sent {
    let mut out = Sent::new();
    for (device, experts) in tokens {
        let mut legs: Vec<(u32, u32)> = experts.iter().flat_map(|&e| of(*device, e)).filter(|l| l.0 != l.1).collect();
        if !every {
            legs.sort_unstable();
            legs.dedup();
        }
        legs.into_iter().for_each(|l| *out.entry(l).or_default() += 1);
    }
    out
}

fn reversed(sent: &Sent) -> Sent {
    sent.iter().map(|(&(a, b), &n)| ((b, a), n)).collect()
}

#[test]
fn every_way_sends_what_its_documentation_says() {
    let plan = plan(1);
    // Round robin: expert e on device e mod 16.
    let home = |e: u16| u32::from(e) % 16;
    let (out, back, tokens) = send(&plan, &Flat);
    assert_eq!(out, count(&tokens, false, |d, e| vec![(d, home(e))]));
    assert_eq!(back, reversed(&out));
    let (out, back, tokens) = send(&plan, &PerSelection);
    assert_eq!(out, count(&tokens, true, |d, e| vec![(d, home(e))]));
    assert_eq!(
        out.values().sum::<u32>(),
        tokens.iter().map(|(d, es)| es.iter().filter(|e| home(**e) != *d).count() as u32).sum::<u32>()
    );
    assert_eq!(back, reversed(&out));
    let (out, back, tokens) = send(&plan, &Hierarchical);
    let relayed = |d: u32, e: u16| {
        let (from, to) = (d / 8, home(e) / 8);
        if from == to { vec![(d, home(e))] } else { vec![(d, to * 8 + d % 8), (to * 8 + d % 8, home(e))] }
    };
    // A leg inside the other node may be the same for tokens of several devices there.
    assert_eq!(out, count(&tokens, false, relayed));
    assert_eq!(back, reversed(&out));
    // Once a node over the network, on the sender's own rail.
    let across = out.iter().filter(|((a, b), _)| a / 8 != b / 8);
    assert!(across.clone().all(|((a, b), _)| a % 8 == b % 8));
    let nodes = tokens.iter().filter(|(d, es)| es.iter().any(|e| home(*e) / 8 != d / 8)).count();
    assert_eq!(across.map(|(_, n)| n).sum::<u32>(), nodes as u32);
}

/// All tokens are on one device of the first node and on two of the second: every card of a node sends an equal part, every device gets
/// every token once, and sums take the way back.
#[test]
fn gathered_tokens_cross_over_all_cards() {
    let plan = plan(1);
    let mut on = [0; 16];
    (on[3], on[8], on[9]) = (83, 10, 6);
    let (out, back, _) = send_of(&plan, &AllGather, &on);
    for place in 0..8u32 {
        let first = 83 / 8 + u32::from(place < 83 % 8);
        assert_eq!((out[&(place, 8 + place)], out[&(8 + place, place)]), (first, 2));
    }
    let across = |a: u32, b: u32| a / 8 != b / 8;
    assert!(out.keys().all(|&(a, b)| !across(a, b) || a % 8 == b % 8));
    for device in 0..16u32 {
        let got: u32 = out.iter().filter(|((_, to), _)| *to == device).map(|(_, n)| n).sum();
        assert_eq!(u64::from(got), 99 - on[device as usize], "device {device}");
    }
    assert_eq!(back, reversed(&out));
    // Even tokens stay on their own card's way.
    let (out, ..) = send(&plan, &AllGather);
    assert!(out.iter().filter(|((a, b), _)| across(*a, *b)).all(|((a, b), n)| a % 8 == b % 8 && *n == TOKENS));
}

/// Experts shared by two devices: tokens go to both, results come from one, in turn by source.
#[test]
fn expert_groups_of_several_devices() {
    let plan = plan(2);
    let group = |e: u16| u32::from(e) % 8;
    let (out, back, tokens) = send(&plan, &Flat);
    let both = |d: u32, e: u16| vec![(d, 2 * group(e)), (d, 2 * group(e) + 1)];
    assert_eq!(out, count(&tokens, false, both));
    assert_eq!(back, count(&tokens, false, |d, e| vec![(2 * group(e) + d % 2, d)]));
    let (out, back, tokens) = send(&plan, &Hierarchical);
    let entry = |d: u32, e: u16| if d / 8 == group(e) / 4 { d } else { group(e) / 4 * 8 + d % 8 };
    let over = |d: u32, e: u16| {
        let at = entry(d, e);
        [vec![(d, at)], both(at, e)].concat()
    };
    assert_eq!(out, count(&tokens, false, over));
    let home = |d: u32, e: u16| vec![(2 * group(e) + d % 2, entry(d, e)), (entry(d, e), d)];
    assert_eq!(back, count(&tokens, false, home));
}

#[test]
fn hierarchical_refuses_groups_across_nodes() {
    let plan = plan(16);
    let text = Hierarchical.check(&plan).unwrap_err().to_string();
    assert!(text.contains("lies on several nodes") && text.contains("policy.dispatch"), "{text}");
    assert!(Flat.check(&plan).is_ok());
}
