//! `--force`: one rule for everything that writes.

use moesim_core::Result;
use moesim_core::output::Claim;
use std::path::Path;

/// What every command that writes takes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Force {
    /// Replace what is there: a file, or of a folder what moesim wrote and nobody changed; all else in it stays
    #[arg(long)]
    force: bool,
}

impl Force {
    /// Whether it was given.
    pub(super) fn given(self) -> bool {
        self.force
    }

    /// The right to write the file `out`, if one is written: asked for before anything runs, held until it is written.
    ///
    /// # Errors
    /// A file that exists without `--force`, no place for one, or another process that writes it.
    pub(super) fn file(self, out: Option<&Path>) -> Result<Option<Claim>> {
        out.map(|out| Claim::file(out, self.force)).transpose()
    }

    /// The right to write the folder `out`; `marker` is a file that only moesim writes.
    ///
    /// # Errors
    /// A folder that is not empty without `--force`, no place for one, or another process that writes it.
    pub(super) fn folder(self, out: Option<&Path>, marker: &str) -> Result<Option<Claim>> {
        out.map(|out| Claim::folder(out, marker, self.force)).transpose()
    }
}
