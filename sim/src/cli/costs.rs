//! `--costs`.

use clap::ValueEnum;

/// What operations are priced by.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Calibrated kernels where the device or a donor has any.
    Calibrated,
    /// Peaks with assumed fractions everywhere: machines on one basis.
    Roofline,
}

/// The option, for commands that run experiments.
#[derive(Debug, clap::Args)]
pub(super) struct Costs {
    /// What operations are priced by, like --set fidelity.costs=KIND
    #[arg(long, value_enum, value_name = "KIND")]
    costs: Option<Kind>,
}

impl Costs {
    /// The same as an assignment, if the option was given.
    pub(super) fn assignment(&self) -> Option<String> {
        let word = match self.costs? {
            Kind::Calibrated => "calibrated",
            Kind::Roofline => "roofline",
        };
        Some(format!("fidelity.costs={word}"))
    }
}
