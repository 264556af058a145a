//! Progress on standard error, when it is a terminal.

use crate::simulation::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// A line that says how far a run is.
#[derive(Clone, Debug)]
pub(super) struct ProgressLine {
    bar: ProgressBar,
}

impl ProgressLine {
    /// Hidden if `quiet` or if standard error is no terminal.
    pub(super) fn new(quiet: bool) -> Self {
        let bar = ProgressBar::new_spinner();
        if quiet || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else {
            bar.set_style(ProgressStyle::default_spinner());
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar }
    }
    /// Says where the run is.
    pub(super) fn at(&self, p: &Progress) {
        if !self.bar.is_hidden() {
            self.bar.set_message(format!(
                "{:.1} s simulated, {} iterations, {} of {} requests done",
                p.now.seconds(),
                p.iterations,
                p.finished,
                p.admitted
            ));
        }
    }
    /// Says something else.
    pub(super) fn say(&self, text: String) {
        self.bar.set_message(text);
    }
    /// Wipes the line.
    pub(super) fn done(&self) {
        self.bar.finish_and_clear();
    }
}
