//! A policy of one's own, with the whole command line: this file is a user's crate.
//!
//! ```text
//! cargo run --example own_policy -- list policies
//! cargo run --example own_policy -- run quickstart --set policy.placement=staggered
//! ```
//!
//! The policy is a placement rule: experts are dealt out one by one, from the next group on in every layer, so that
//! experts which are popular under the same number in many layers do not share a device. Other seams have a trait of
//! their own: `policy::ExecutionPolicy`, `serving::Scheduler`, `serving::LoadBalancer`.

use moesim::Result;
use moesim::registry::{Entry, Extension, Registry};
use moesim::solver::{Homes, Placement, Problem, Solution};

struct Staggered;

impl Placement for Staggered {
    fn place(&self, problem: &Problem) -> Result<Solution> {
        let home = |layer: usize, expert: usize| vec![((expert + layer) % problem.groups) as u32];
        let homes: Homes = (0..problem.layers).map(|l| (0..problem.experts).map(|e| home(l, e)).collect()).collect();
        Ok(homes.into())
    }
}

fn main() -> std::process::ExitCode {
    moesim::cli::main(Registry::builtin().with(Extension::Placement(Entry {
        name: "staggered",
        about: "experts dealt out one by one, from the next group on in every layer",
        make: |_| Ok(Box::new(Staggered)),
    })))
}
