use super::*;
use crate::time::Batches;
use crate::traffic::{Mode, Rows, Traffic, Way};
use crate::{Curve, Homes, Objective, Pin, Placement, Problem, bound, moves};
use proptest::prelude::*;
use std::sync::Arc;

/// Every placement within the limits, by going through all of them.
fn brute(p: &Problem, each: &mut dyn FnMut(&Homes)) {
    // Sets of groups as bits.
    let cells = p.layers * p.experts;
    let mut set = vec![1u32; cells];
    let all = 1u32 << p.groups;
    loop {
        let homes: Homes = set
            .chunks(p.experts)
            .map(|l| l.iter().map(|s| (0..p.groups as u32).filter(|g| s >> g & 1 == 1).collect()).collect())
            .collect();
        let few = homes.iter().all(|l| l.iter().map(Vec::len).sum::<usize>() <= p.replicas());
        if few && p.check_homes(&homes).is_ok() {
            each(&homes);
        }
        let Some(i) = (0..cells).find(|&i| set[i] + 1 < all) else { return };
        set[i] += 1;
        set[..i].fill(1);
    }
}

/// The least value of the objective.
fn least(p: &Problem) -> Option<f64> {
    let mut best: Option<f64> = None;
    let keep = |best: &mut Option<f64>, v: f64| *best = Some(best.map_or(v, |b: f64| b.min(v)));
    if let Objective::Lexicographic { slack } = p.objective {
        let mut load = None;
        brute(p, &mut |h| keep(&mut load, p.load(h)));
        let most = load? * (1.0 + slack) * (1.0 + 1e-9);
        brute(p, &mut |h| {
            if p.load(h) <= most {
                keep(&mut best, p.traffic_cost(h))
            }
        });
    } else {
        brute(p, &mut |h| keep(&mut best, p.value(h)));
    }
    best
}

#[derive(Clone, Debug)]
struct Small {
    experts: usize,
    groups: usize,
    layers: usize,
    redundant: usize,
    loads: Vec<u32>,
    rows: Vec<Vec<u16>>,
    objective: usize,
    mode: Mode,
    way: Way,
    nodes: bool,
    extra: usize,
}

fn small() -> impl Strategy<Value = Small> {
    let shape = (2usize..5, 1usize..4, 1usize..3, 0usize..2, 0usize..5, 0usize..6);
    let kind = (any::<bool>(), 0usize..3, any::<bool>());
    let data = (
        proptest::collection::vec(0u32..20, 8),
        proptest::collection::vec(proptest::collection::vec(0u16..4, 4), 1..7),
    );
    (shape, kind, data).prop_map(|((experts, groups, layers, redundant, objective, extra), kind, (loads, rows))| {
        Small {
            experts,
            groups,
            // Two layers of four on three groups are 10^6 placements with replicas.
            layers: if redundant > 0 || groups == 3 && experts > 3 { 1 } else { layers },
            redundant: redundant.min(experts * (groups - 1)),
            loads,
            rows,
            objective,
            mode: if kind.0 { Mode::TokenFollows } else { Mode::ReturnHome },
            way: match (kind.1, kind.0) {
                (0, _) => Way::PerSelection,
                (1, false) => Way::Hierarchical,
                _ => Way::Flat,
            },
            nodes: kind.2,
            extra,
        }
    })
}

fn problem(s: &Small) -> Problem {
    let mut p = Problem::even(s.layers, s.experts, s.groups).with_redundant(s.redundant);
    p.tokens = s.loads[..s.layers * s.experts].iter().map(|n| f64::from(*n)).collect();
    if s.nodes && s.groups == 2 {
        p.node_of = vec![0, 1];
    }
    let k = 2.min(s.experts);
    let row = |r: &Vec<u16>| -> Vec<u16> {
        // Two different experts a layer.
        let pair = |l: usize| {
            let a = r[2 * l] % s.experts as u16;
            let b = r[2 * l + 1] % s.experts as u16;
            [a, if a == b { (b + 1) % s.experts as u16 } else { b }]
        };
        (0..s.layers).flat_map(pair).collect()
    };
    let rows = Rows::new(s.layers, k, s.experts, s.rows.iter().map(row).enumerate().map(|(i, r)| (i as u64, r)));
    p.traffic = Some(Arc::new(Traffic {
        mode: s.mode,
        way: s.way,
        inside: [1.0, 2.0],
        across: [5.0, 9.0],
        node_of: p.node_of.clone(),
        rows,
        scale: 1.0,
    }));
    p.objective = match s.objective {
        0 => Objective::Load,
        1 => Objective::Traffic,
        2 => Objective::Weighted { traffic: 0.5 },
        3 if s.mode == Mode::ReturnHome => Objective::Time,
        _ => Objective::Lexicographic { slack: 0.1 },
    };
    if p.redundant > 0 {
        p.objective = Objective::Load;
    }
    if let (Objective::Time, Some(t)) = (p.objective, &p.traffic) {
        let kernel = Curve::through(vec![(0.0, 0.0), (1.0, 4.0), (3.0, 5.0), (9.0, 20.0)]);
        p.batches = Some(Arc::new(Batches::new(t.clone(), 2.0, s.experts, kernel)));
    }
    match s.extra {
        1 => p.pins = vec![Pin { layer: 0, expert: 0, group: s.groups - 1 }],
        2 => p.speed = (0..s.groups).map(|g| 1.0 + g as f64).collect(),
        3 if s.nodes && s.groups == 2 && s.experts.is_multiple_of(2) && s.redundant == 0 => p.expert_groups = 2,
        4 => {
            let from = crate::method::contiguous::Contiguous.place(&p).unwrap().homes;
            p.from = Some((Arc::new(from), 2));
        }
        5 => p.slots.iter_mut().for_each(|l| l[0] += 1),
        _ => {}
    }
    p.effort.steps = 100_000;
    p
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// On small problems the program finds what going through all placements finds, for every objective, mode and limit; and no
    /// bound is above it.
    #[test]
    fn brute_force_agrees(s in small()) {
        let p = problem(&s);
        prop_assume!(p.check().is_ok());
        let Some(least) = least(&p) else { return Ok(()) };
        let found = Ilp.place(&p).unwrap();
        prop_assert!(p.check_homes(&found.homes).is_ok(), "{:?}", p.check_homes(&found.homes));
        let value = p.value(&found.homes);
        prop_assert!((value - least).abs() <= 1e-6 * (1.0 + least), "found {} of {}", value, least);
        let bounds = [bound::objective(&p), found.bound.unwrap_or(0.0)];
        prop_assert!(bounds.iter().all(|b| *b <= least * (1.0 + 1e-6) + 1e-9), "{:?} above {}", bounds, least);
        if let Some((from, most)) = &p.from {
            prop_assert!(moves(from, &found.homes) <= *most);
        }
    }
}

/// A search that stops early says how good it was to whoever looks on, and how far it came.
#[test]
fn a_search_is_looked_at_and_ended() {
    use std::sync::Mutex;
    #[derive(Debug, Default)]
    struct Seen(Mutex<(f64, u64, u64)>, u64);
    impl crate::Watch for Seen {
        fn begins(&self, value: f64, steps: u64) {
            let mut s = self.0.lock().unwrap();
            (s.0, s.2) = (value, steps);
        }
        fn at(&self, steps: u64, change: f64) -> bool {
            let mut s = self.0.lock().unwrap();
            (s.0, s.1) = (s.0 + change, s.1 + steps);
            s.1 < self.1
        }
    }
    let mut p = Problem::even(3, 12, 4);
    p.tokens = (0..36).map(|i| f64::from((i * 37) % 101)).collect();
    p.effort.steps = 1000;
    let alone = crate::method::anneal::Anneal.place(&p).unwrap();
    for most in [u64::MAX, 500] {
        let seen = Arc::new(Seen(Mutex::default(), most));
        p.watch = Some(seen.clone());
        let found = crate::method::anneal::Anneal.place(&p).unwrap();
        let (value, steps, of) = *seen.0.lock().unwrap();
        assert!((value - p.value(&found.homes)).abs() < 1e-9 * value, "{value}");
        assert_eq!(of, 3000);
        if most == u64::MAX {
            assert_eq!((steps, &found.homes), (3000, &alone.homes));
        } else {
            assert!((500..900).contains(&steps), "{steps}");
        }
    }
}

/// The more rows a step looks at, the fewer steps by default; never more than a search of loads takes.
#[test]
fn steps_are_fewer_where_each_takes_long() {
    let with = |rows: u64, redundant: usize| {
        let mut p = Problem::even(24, 32, 16).with_redundant(redundant);
        let ids = |t: u64| (0..24 * 4).map(|i| ((t * 7 + i * 5) % 32) as u16).collect();
        let rows = Rows::new(24, 4, 32, (0..rows).map(|t| (t, ids(t))));
        let t = Traffic {
            mode: Mode::ReturnHome,
            way: Way::Flat,
            inside: [1.0; 2],
            across: [1.0; 2],
            node_of: p.node_of.clone(),
            rows,
            scale: 1.0,
        };
        (p.traffic, p.objective) = (Some(Arc::new(t)), Objective::Traffic);
        p
    };
    assert_eq!(with(10, 0).affordable_steps(), 20_000);
    // 4 x 8192 x 4 / 32 tokens and 16 groups, in each of 24 layers, of 2.5 x 10^8.
    assert_eq!(with(8192, 16).affordable_steps(), 250_000_000 / (24 * (4096 + 16)));
    assert_eq!(with(400_000, 0).affordable_steps(), 500);
    let loads = Problem { objective: Objective::Load, ..with(400_000, 0) };
    assert_eq!(loads.affordable_steps(), 20_000);
}

#[test]
fn what_ran_is_named() {
    let mut p = Problem::even(2, 4, 2);
    p.tokens = (0..8).map(f64::from).collect();
    let ran = |p: &Problem| Ilp.place(p).unwrap().ran.unwrap();
    // 2 x 4 experts on 2 groups, and who has how many: 2 x 4 x 3.
    assert!(ran(&p).starts_with("longest-first, program of 24 variables"), "{}", ran(&p));
    let rows = Rows::new(2, 1, 4, (0..8).map(|t| (t, vec![(t % 4) as u16, (t / 2 % 4) as u16])));
    p.traffic = Some(Arc::new(Traffic {
        mode: Mode::ReturnHome,
        way: Way::Flat,
        inside: [1.0; 2],
        across: [1.0; 2],
        node_of: vec![0; 2],
        rows,
        scale: 1.0,
    }));
    p.objective = Objective::Traffic;
    assert!(ran(&p).starts_with("anneal, program of 56 variables"), "{}", ran(&p));
    let redundant =
        Problem { traffic: p.traffic.clone(), objective: Objective::Traffic, ..p.clone().with_redundant(2) };
    assert_eq!(ran(&redundant), "anneal: no program, none for traffic with redundant experts");
    let mut large = Problem::even(40, 64, 8);
    large.tokens = (0..40 * 64).map(|i| f64::from(i % 97)).collect();
    assert!(ran(&large).ends_with(": no program, 23040 variables"), "{}", ran(&large));
    let two = |p: &Problem| crate::program::stages::TwoStage.place(p).unwrap().ran;
    p.objective = Objective::Load;
    assert_eq!(two(&p), None);
    let few = Problem { node_of: vec![0; 8], ..Problem::even(2, 4, 8) };
    let few = Problem {
        traffic: Some(Arc::new(Traffic { node_of: vec![0; 8], ..(**p.traffic.as_ref().unwrap()).clone() })),
        ..few
    };
    assert_eq!(two(&few).unwrap(), "first stage longest-first: no program, fewer experts than devices");
}
