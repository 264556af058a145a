//! What a program is good for, by the size of the problem.

use super::{exact, window};
use crate::method::anneal::Anneal;
use crate::method::longest_first::LongestFirst;
use crate::{Needs, Objective, Placement, Problem, Solution};
use moesim_core::Result;

/// The whole problem as one program where it is small enough; else the best heuristic, improved by programs of a few layers where
/// tokens follow. A start is never made worse.
#[derive(Clone, Copy, Debug)]
pub struct Ilp;

impl Placement for Ilp {
    fn place(&self, p: &Problem) -> Result<Solution> {
        let start = match p.objective {
            Objective::Load => LongestFirst.place(p)?,
            _ => Anneal.place(p)?,
        };
        let no_program = p.redundant > 0 && p.objective != Objective::Load && p.traffic.is_some();
        if exact::size(p) <= exact::MOST && !no_program {
            let found = exact::place(p, &start.homes)?;
            // Rounding inside a solver is no better placement.
            let lexicographic = matches!(p.objective, Objective::Lexicographic { .. });
            let better = lexicographic || p.value(&found.homes) < p.value(&start.homes);
            let homes = if better { found.homes } else { start.homes };
            return Ok(Solution { homes, bound: found.bound, cut: found.cut });
        }
        if window::applies(p) {
            return window::improve(p, start);
        }
        Ok(start)
    }
    fn needs(&self) -> Needs {
        Needs::Loads
    }
}
