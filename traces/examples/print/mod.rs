//! What examples print, and what they exit with.

use moesim_core::Result;
use std::process::ExitCode;

/// Prints a text to standard output, or what went wrong to standard error.
pub fn print(text: Result<String>) -> ExitCode {
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}
