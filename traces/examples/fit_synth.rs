//! Fits the synthetic source to a trace and prints the file that the library embeds:
//!
//! `cargo run -p moesim-traces --example fit_synth -- SOURCE MODEL ORIGIN LICENCE > traces/data/gpt-oss-20b.toml`

use moesim_traces::import::{Options, load};
use moesim_traces::synth::Fit;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, model, origin, licence] = &arguments[..] else {
        eprintln!("usage: fit_synth SOURCE MODEL ORIGIN LICENCE");
        return ExitCode::from(2);
    };
    let options = Options {
        model: Some(model.clone()),
        source: Some(origin.clone()),
        licence: Some(licence.clone()),
        ..Default::default()
    };
    match load(Path::new(source), None, &options).and_then(|trace| Fit::of(&trace, 1)?.to_text()) {
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
