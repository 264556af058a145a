//! Fits the synthetic source to a trace and prints the file that the library embeds:
//!
//! `cargo run -p moesim-traces --example fit_synth -- SOURCE MODEL ORIGIN LICENCE > traces/data/gpt-oss-20b.toml`

mod print;

use moesim_traces::import::{Options, load};
use moesim_traces::synth::Fit;
use print::print;
use std::path::Path;
use std::process::ExitCode;

const HEAD: &str = "# An expert-selection trace in few figures, from which synthetic routers are drawn. Written by the example fit_synth.\n";

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
    print(load(Path::new(source), None, &options).and_then(|trace| Fit::of(&trace, 1)?.to_text(HEAD)))
}
