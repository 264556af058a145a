use super::*;
use moesim_traces::{Meta, OwnedSequence, Trace};

/// Two layers of four experts, top-2: tokens with known ways.
fn trace(rows: &[[u16; 4]]) -> Trace {
    let text = || String::from("test");
    let meta = Meta { model: text(), layer_numbers: vec![0, 1], experts: 4, k: 2, source: text(), licence: text() };
    let sequence = OwnedSequence { id: 0, decode: rows.iter().flatten().copied().collect(), ..Default::default() };
    Trace::from_sequences(meta, vec![sequence]).unwrap()
}

fn homes(of: [u32; 4]) -> Homes {
    vec![of.iter().map(|g| vec![*g]).collect(); 2]
}

/// Four devices on two nodes, an expert each; a token of the sequence at home on device 0.
#[test]
fn copies_by_hand() {
    let t = trace(&[[0, 1, 2, 3]]);
    let node_of = [0, 0, 1, 1];
    let of =
        |mode, way| copies(&t, 0..1, &homes([0, 1, 2, 3]), Routes { mode, way, node_of: &node_of }, |_| 0).unwrap();
    // Layer 0 goes to 0 and 1, layer 1 to 2 and 3, and back.
    let all = |a, b, c, d| Copies { dispatch_inside: a, dispatch_across: b, combine_inside: c, combine_across: d };
    assert_eq!(of(Mode::ReturnHome, Way::Flat), all(1, 2, 1, 2));
    // One copy to node 1, where it comes in on device 2, and one on to device 3.
    assert_eq!(of(Mode::ReturnHome, Way::Hierarchical), all(2, 1, 2, 1));
    // It starts on 0 by turn, stays with expert 0, then goes to 2, where the other half is collected.
    assert_eq!(of(Mode::TokenFollows, Way::Flat), all(1, 2, 2, 0));
    // Both experts on one device: one copy, or two.
    let both = |way| {
        copies(&t, 0..1, &homes([1, 1, 1, 1]), Routes { mode: Mode::ReturnHome, way, node_of: &node_of }, |_| 0)
            .unwrap()
    };
    assert_eq!(both(Way::Flat), all(2, 0, 2, 0));
    assert_eq!(both(Way::PerSelection), all(4, 0, 4, 0));
}

/// What the search expects over all homes is the mean of what is counted for each.
#[test]
fn the_expected_cost_is_the_mean_over_homes() {
    let t = trace(&[[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 2, 1]]);
    let node_of = vec![0, 0, 1, 1];
    let homes = homes([0, 2, 2, 3]);
    for way in [Way::Flat, Way::PerSelection, Way::Hierarchical] {
        let rows = Rows::sample(&t, 0..1, 100).unwrap();
        let traffic = Traffic {
            mode: Mode::ReturnHome,
            way,
            inside: [1.0, 10.0],
            across: [100.0, 1000.0],
            node_of: node_of.clone(),
            rows,
            scale: 1.0,
        };
        let cost = |h: u32| {
            let routes = Routes { mode: Mode::ReturnHome, way, node_of: &node_of };
            let c = copies(&t, 0..1, &homes, routes, |_| h).unwrap();
            let [a, b, c, d] =
                [c.dispatch_inside, c.combine_inside, c.dispatch_across, c.combine_across].map(|n| n as f64);
            a + 10.0 * b + 100.0 * c + 1000.0 * d
        };
        let mean = (0..4).map(cost).sum::<f64>() / 4.0;
        assert!((traffic.cost(&homes) - mean).abs() < 1e-9, "{way:?}: {} {mean}", traffic.cost(&homes));
    }
}

#[test]
fn replicas_are_taken_in_turn() {
    let t = trace(&[[0, 1, 0, 1], [0, 1, 0, 1]]);
    let homes: Homes = vec![vec![vec![0, 1], vec![0], vec![0], vec![0]]; 2];
    let routes = Routes { mode: Mode::ReturnHome, way: Way::Flat, node_of: &[0, 0] };
    // Turns 0 and 1: the first token's expert 0 is at home on device 0, the second's on device 1.
    let c = copies(&t, 0..1, &homes, routes, |_| 0).unwrap();
    assert_eq!((c.dispatch_inside, c.combine_inside), (2, 2));
}

#[test]
fn samples_are_spread_over_the_rows() {
    let rows: Vec<[u16; 4]> = (0..100).map(|i| [i % 4, (i + 1) % 4, i % 4, (i + 1) % 4]).collect();
    let t = trace(&rows);
    let s = Rows::sample(&t, 0..1, 10).unwrap();
    assert_eq!(s.tokens(), 10);
    assert_eq!((0..10).map(|t| s.turn(t) / 10).collect::<Vec<_>>(), (0..10).collect::<Vec<u64>>());
    assert_eq!(Rows::sample(&t, 0..1, 1000).unwrap().tokens(), 100);
    for e in 0..4 {
        assert!(s.of(0, e).iter().all(|&t| s.ids(t as usize, 0).contains(&(e as u16))));
    }
}
