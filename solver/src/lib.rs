//! Expert placement and replication.
//!
//! A [`Placement`] rule says, for every MoE layer and expert, which expert-parallel groups hold a replica.
//! One rule a file: [`contiguous`], [`round_robin`], [`home_die`]. Programs, bounds and placement files come with the
//! placement solver.

pub mod contiguous;
pub mod file;
pub mod home_die;
pub mod round_robin;

use moesim_core::Result;

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    /// MoE layers.
    pub layers: usize,
    /// Experts a layer.
    pub experts: usize,
    /// Expert-parallel groups (devices, unless experts are split).
    pub groups: usize,
}

/// `[layer][expert]`: the groups that hold a replica, at least one, none twice.
pub type Homes = Vec<Vec<Vec<u32>>>;

/// A rule that places experts.
pub trait Placement {
    /// Places every expert of every layer.
    ///
    /// # Errors
    /// What the rule cannot place.
    fn place(&self, problem: &Problem) -> Result<Homes>;
}

/// The same group for an expert in every layer.
fn everywhere(problem: &Problem, group: impl Fn(usize) -> usize) -> Homes {
    let layer: Vec<Vec<u32>> = (0..problem.experts).map(|e| vec![group(e) as u32]).collect();
    vec![layer; problem.layers]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expert_has_one_home_and_groups_are_even() {
        let rules: [&dyn Placement; 3] = [&contiguous::Contiguous, &round_robin::RoundRobin, &home_die::HomeDie];
        for rule in rules {
            for (experts, groups) in [(32, 8), (32, 25), (128, 25), (5, 8), (256, 1)] {
                let homes = rule.place(&Problem { layers: 2, experts, groups }).unwrap();
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
        let homes = home_die::HomeDie.place(&Problem { layers: 1, experts: 32, groups: 25 }).unwrap();
        // One expert a die, the seven left over from die 25 mod 25 = 0 on.
        assert_eq!((homes[0][24][0], homes[0][25][0], homes[0][31][0]), (24, 0, 6));
    }
}
