//! What every command has of the terminal: how it prints, and whether the user wants it to end.

use clap::ValueEnum;
use moesim_core::{Diag, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
}

/// Prints to standard output; a closed pipe is not an error.
pub(super) fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Diag::run(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Says something beside the results, on standard error.
pub(super) fn note(text: &str) {
    eprintln!("note: {text}");
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether Ctrl-C was pressed, by which commands that called [`stop_when_asked`] stop at the next occasion.
pub(super) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// The first Ctrl-C is left to [`interrupted`], a second one ends the process at once.
pub(super) fn stop_when_asked() {
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
}
