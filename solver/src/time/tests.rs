use super::*;
use crate::method::anneal;
use crate::traffic::Rows;
use crate::{Objective, Placement, Problem, method};

fn problem(mode: Mode, way: Way) -> Problem {
    // Two layers of eight experts, top-2, on four groups of two nodes: pairs of neighbours are selected together.
    let row = |i: u64| {
        let a = (i * 7 % 8) as u16;
        vec![a, a ^ 1, (a + 2) % 8, (a + (i % 3) as u16 + 3) % 8]
    };
    let rows = Rows::new(2, 2, 8, (0..96).map(|i| (i, row(i))));
    let mut p = Problem::even(2, 8, 4);
    p.node_of = vec![0, 0, 1, 1];
    for t in 0..96u64 {
        row(t).iter().enumerate().for_each(|(i, e)| p.tokens[i / 2 * 8 + usize::from(*e)] += 1.0);
    }
    let traffic = Arc::new(Traffic {
        mode,
        way,
        inside: [1e-3, 2e-3],
        across: [5e-3, 9e-3],
        node_of: p.node_of.clone(),
        rows,
        scale: 1.0,
    });
    p.batches = Some(Arc::new(Batches::new(
        traffic.clone(),
        16.0,
        8,
        Curve::through(vec![(0.0, 0.0), (1.0, 1.0), (9.0, 2.0)]),
    )));
    (p.traffic, p.objective) = (Some(traffic), Objective::Time);
    p
}

const KINDS: [(Mode, Way); 5] = [
    (Mode::ReturnHome, Way::Flat),
    (Mode::ReturnHome, Way::PerSelection),
    (Mode::ReturnHome, Way::Hierarchical),
    (Mode::TokenFollows, Way::Flat),
    (Mode::TokenFollows, Way::PerSelection),
];

/// What a search believes of its steps is what the placement is worth.
#[test]
fn steps_add_up() {
    for (mode, way) in KINDS {
        let p = problem(mode, way);
        let start = method::random::Random.place(&p).unwrap().homes;
        let (found, believed) = anneal::traced(&p, start.clone());
        let (before, after) = (p.value(&start), p.value(&found));
        assert!((before + believed - after).abs() < 1e-9, "{mode:?} {way:?}: {before} + {believed} is not {after}");
        assert!(after < before, "{mode:?} {way:?}: {after} {before}");
        let bound = crate::bound::objective(&p);
        assert!(bound > 0.0 && bound <= after, "{mode:?} {way:?}: bound {bound} of {after}");
    }
}

/// Sixteen tokens on two groups of one node: all of them have an expert on group 0, none on group 1.
#[test]
fn a_batch_by_hand() {
    let rows = Rows::new(1, 1, 2, (0..64).map(|i| (i, vec![0])));
    let mut p = Problem::even(1, 2, 2);
    let traffic = Arc::new(Traffic {
        mode: Mode::ReturnHome,
        way: Way::Flat,
        inside: [1.0, 3.0],
        across: [0.0; 2],
        node_of: vec![0, 0],
        rows,
        scale: 1.0,
    });
    let b = Batches::new(traffic, 16.0, 2, Curve::tokens());
    p.objective = Objective::Time;
    // Sixteen tokens computed; half of them arrive from the other group, and go back.
    assert_eq!(b.value(&p.speed, &vec![vec![vec![0], vec![1]]]), 16.0 + 8.0 * (1.0 + 3.0));
    assert_eq!((b.batches, b.scale), (4, 1.0));
}
