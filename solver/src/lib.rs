//! Expert placement and replication.
//!
//! * [`Problem`]: experts with loads, groups with slots, memory and speed, limits, and what is wanted least.
//! * [`Placement`]: a way to place, one file each in [`method`]; [`program`] has those that solve integer programs.
//! * [`traffic`]: what tokens cost on their ways, in the mode that a deployment runs.
//! * [`time`]: what iterations take, with the busiest group of every batch.
//! * [`bound`]: what no placement can beat, so that every result comes with a gap.
//! * [`file`]: placements in files, our own and those of serving engines.

pub mod bound;
pub mod curve;
pub mod file;
mod linear;
pub mod method;
mod problem;
pub mod program;
mod search;
pub mod time;
pub mod traffic;
mod watch;

pub use curve::Curve;
pub use problem::{Effort, Objective, Pin, Problem, moves};
pub use watch::Watch;

use moesim_core::Result;

/// `[layer][expert]`: the groups that hold a replica, at least one, none twice. The tokens of an expert with several are
/// dealt to them in turn, by sequence and position, in ascending order of groups, in which they are listed.
pub type Homes = Vec<Vec<Vec<u32>>>;

/// A placement, and what its method knows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// Where every expert is.
    pub homes: Homes,
    /// What no placement can beat, if the method proved more than [`bound`] does.
    pub bound: Option<f64>,
    /// The clock cut the search, so that another run may end elsewhere.
    pub cut: bool,
    /// What ran, where the method's name does not say it: a program that was solved, or what stood in for one, and why.
    pub ran: Option<String>,
}

impl From<Homes> for Solution {
    fn from(homes: Homes) -> Self {
        Self { homes, bound: None, cut: false, ran: None }
    }
}

/// What a method has to know beside the numbers of experts and groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: a rule that an experiment can name.
    Nothing,
    /// How loaded experts are.
    Loads,
    /// Which experts tokens selected together.
    Rows,
}

/// A way to place experts.
///
/// * Every expert of every layer gets at least one home, none twice on a group.
/// * The same problem gives the same placement, unless the clock cuts the search.
pub trait Placement {
    /// Places every expert of every layer.
    ///
    /// # Errors
    /// What it cannot place.
    fn place(&self, problem: &Problem) -> Result<Solution>;
    /// What it has to know.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }
}
