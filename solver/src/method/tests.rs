use super::*;
use crate::Placement;
use proptest::prelude::*;

fn all() -> Vec<(&'static str, Box<dyn Placement>)> {
    vec![
        ("contiguous", Box::new(contiguous::Contiguous)),
        ("round-robin", Box::new(cyclic::Cyclic)),
        ("random", Box::new(random::Random)),
        ("longest-first", Box::new(longest_first::LongestFirst)),
        ("eplb", Box::new(eplb::Eplb { hierarchical: true })),
        ("duplicate", Box::new(duplicate::Duplicate)),
    ]
}

#[test]
fn every_expert_has_one_home_and_groups_are_even() {
    let rules: [&dyn Placement; 3] = [&contiguous::Contiguous, &cyclic::Cyclic, &home_die::HomeDie];
    for rule in rules {
        for (experts, groups) in [(32, 8), (32, 25), (128, 25), (5, 8), (256, 1)] {
            let homes = rule.place(&Problem::even(2, experts, groups)).unwrap().homes;
            let mut load = vec![0; groups];
            for e in &homes[1] {
                assert_eq!(e.len(), 1);
                load[e[0] as usize] += 1;
            }
            let (least, most) = (load.iter().min().unwrap(), load.iter().max().unwrap());
            assert!(most - least <= 1, "{experts} on {groups}: {load:?}");
        }
    }
}

#[test]
fn the_wafers_rule_as_published() {
    let homes = home_die::HomeDie.place(&Problem::even(1, 32, 25)).unwrap().homes;
    // One expert a die, the seven left over from die 25 mod 25 = 0 on.
    assert_eq!((homes[0][24][0], homes[0][25][0], homes[0][31][0]), (24, 0, 6));
}

proptest! {
    /// Whatever the shape, what a method places is within the limits, and no better than the bound.
    #[test]
    fn placements_are_within_limits(
        experts in 1usize..40,
        groups in 1usize..12,
        more in 0usize..20,
        loads in proptest::collection::vec(0u32..1000, 40),
    ) {
        let most = experts * (groups - 1);
        let mut p = Problem::even(1, experts, groups).with_redundant(more.min(most));
        p.tokens = loads[..experts].iter().map(|n| f64::from(*n)).collect();
        prop_assert!(p.check().is_ok());
        for (name, method) in all() {
            let Ok(s) = method.place(&p) else {
                prop_assert!(name == "eplb" && !p.equal_slots(), "{} refused", name);
                continue;
            };
            prop_assert!(p.check_homes(&s.homes).is_ok(), "{}: {:?}", name, p.check_homes(&s.homes));
            let bound = crate::bound::load(&p);
            prop_assert!(p.load(&s.homes) >= bound * (1.0 - 1e-9), "{}: {} below {}", name, p.load(&s.homes), bound);
        }
    }
}
