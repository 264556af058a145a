//! `moesim calibrate`: measurements on this machine, profiles from measurements, and how far they are off.

mod cells;
mod check;
mod compare;
mod driven;
mod fit;
mod harvest;
mod input;
mod measure;

use crate::registry::Registry;
use moesim_core::Result;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Time kernels on this machine: experts, products, memory, over shapes of models
    Measure(measure::Args),
    /// Fit the constants of cost forms to measured times, and write a hardware profile
    Fit(fit::Args),
    /// Compare a profile with measured times: errors, worst rows, pictures
    Check(check::Args),
    /// Put measured kernels beside rooflines and other kernels, and say what an experiment would gain by the fastest
    Compare(compare::Args),
}

pub(super) fn run(command: &Command, registry: &Registry) -> Result<()> {
    match command {
        Command::Measure(a) => measure::run(a, registry),
        Command::Fit(a) => fit::run(a, registry),
        Command::Check(a) => check::run(a),
        Command::Compare(a) => compare::run(a, registry),
    }
}
