//! Experts dealt out in a random order, another one in each layer.

use crate::search::Layer;
use crate::{Placement, Problem, Solution};
use moesim_core::{Result, rng};
use rand::Rng;

/// See the module's documentation. Redundant replicas go to experts drawn at random.
#[derive(Clone, Copy, Debug)]
pub struct Random;

impl Placement for Random {
    fn place(&self, p: &Problem) -> Result<Solution> {
        let layer = |l: usize| {
            let mut draws = rng::stream(p.seed, "placement-random", l as u64);
            let mut n = vec![1usize; p.experts];
            for _ in 0..p.redundant {
                let mut e = rng::below(draws.next_u64(), p.experts as u64) as usize;
                while n[e] == p.groups {
                    e = (e + 1) % p.experts;
                }
                n[e] += 1;
            }
            // Loads drawn anew stand for an order.
            let mut drawn = Problem { pins: p.pins.clone(), ..Problem::even(1, p.experts, p.groups) };
            drawn.slots = vec![p.slots[l].clone()];
            drawn.pins = p.pins.iter().filter(|q| q.layer == l).map(|q| crate::Pin { layer: 0, ..*q }).collect();
            (drawn.node_of, drawn.expert_groups) = (p.node_of.clone(), p.expert_groups);
            drawn.tokens =
                (0..p.experts).map(|e| n[e] as f64 * (1 + rng::below(draws.next_u64(), 1 << 20)) as f64).collect();
            let mut state = Layer::empty(&drawn, 0);
            if state.deal(&n) { Ok(state.homes) } else { Err(p.refuse("random", "found no slot for an expert")) }
        };
        Ok((0..p.layers).map(layer).collect::<Result<Vec<_>>>()?.into())
    }
}
