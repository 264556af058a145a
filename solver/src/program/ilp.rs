//! What a program is good for, by the size of the problem.

use super::exact;
use crate::method::anneal::Anneal;
use crate::method::eplb::Eplb;
use crate::method::longest_first::LongestFirst;
use crate::{Needs, Objective, Placement, Problem, Solution};
use moesim_core::Result;

/// The whole problem as one program where it is small enough; else the best heuristic, which no program improved in the time that
/// one has: [`super::window`] has been tried on 24 layers of 32 experts. A start is never made worse.
#[derive(Clone, Copy, Debug)]
pub struct Ilp;

impl Placement for Ilp {
    fn place(&self, p: &Problem) -> Result<Solution> {
        let (start, method) = match p.objective {
            Objective::Load => balanced(p)?,
            _ => (Anneal.place(p)?, "anneal"),
        };
        let size = exact::size(p);
        let lacks = if size > exact::MOST {
            Some(format!("{size} variables"))
        } else if p.objective == Objective::Time && !exact::has_batches(p) {
            Some("none for the time of such exchanges".to_string())
        } else if p.redundant > 0 && p.objective != Objective::Load && p.traffic.is_some() {
            Some("none for traffic with redundant experts".to_string())
        } else {
            None
        };
        if let Some(lacks) = lacks {
            return Ok(Solution { ran: Some(format!("{method}: no program, {lacks}")), ..start });
        }
        let found = exact::place(p, &start.homes)?;
        // Rounding inside a solver is no better placement.
        let lexicographic = matches!(p.objective, Objective::Lexicographic { .. });
        let better = lexicographic || p.value(&found.homes) < p.value(&start.homes);
        let homes = if better { found.homes } else { start.homes };
        let after = if better { "" } else { " found nothing better" };
        let ran = Some(format!("{method}, program of {size} variables{after}"));
        Ok(Solution { homes, bound: found.bound, cut: found.cut, ran })
    }
    fn needs(&self) -> Needs {
        Needs::Loads
    }
}

/// The better of longest first and the load balancer of DeepSeek.
fn balanced(p: &Problem) -> Result<(Solution, &'static str)> {
    let mut best = (LongestFirst.place(p)?, "longest-first");
    for hierarchical in [false, true] {
        let Ok(other) = (Eplb { hierarchical }).place(p) else { continue };
        if p.check_homes(&other.homes).is_ok() && p.load(&other.homes) < p.load(&best.0.homes) {
            best = (other, "eplb");
        }
    }
    Ok(best)
}
