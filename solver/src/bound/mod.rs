//! What no placement can beat.
//!
//! * [`load()`]: the busiest group of each layer, by counting ([`mod@load`]).
//! * [`traffic()`]: copies, by how many pairs of experts that tokens select together can share a group, and by
//!   columns where groups are few experts ([`mod@traffic`], [`mod@partition`]).

mod exchange;
mod load;
mod partition;
mod traffic;

pub use load::{layer_load, load};
pub use traffic::traffic;

use crate::{Objective, Problem};

/// A bound on the objective of `p`; of a lexicographic one, on its traffic.
pub fn objective(p: &Problem) -> f64 {
    match p.objective {
        Objective::Load => load(p),
        Objective::Traffic | Objective::Lexicographic { .. } => traffic(p),
        Objective::Weighted { traffic: w } => load(p) + w * traffic(p),
        // The mean of the busiest is no less than the busiest of the means.
        Objective::Time => load(p) + p.batches.as_ref().map_or(0.0, |b| exchange::exchanges(p, b)),
    }
}

/// How far a placement's value may be from the best, as a fraction of the bound.
pub fn gap(value: f64, bound: f64) -> f64 {
    if value <= bound {
        0.0
    } else if bound > 0.0 {
        (value - bound) / bound
    } else {
        f64::INFINITY
    }
}
