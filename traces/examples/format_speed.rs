//! How fast the formats of traces are: exports a trace and imports it again.
//!
//! `cargo run --release -p moesim-traces --example format_speed -- TRACE.arrow FOLDER`

use moesim_core::Result;
use moesim_traces::Trace;
use moesim_traces::export::exporters;
use moesim_traces::import::{Options, import};
use std::path::Path;
use std::time::Instant;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, folder] = &arguments[..] else {
        eprintln!("format_speed TRACE.arrow FOLDER");
        std::process::exit(2);
    };
    let (trace, folder) = (Trace::open(Path::new(source))?, Path::new(folder));
    let options = Options { experts: Some(trace.meta().experts), ..Default::default() };
    for exporter in exporters() {
        let out = folder.join(exporter.name());
        let start = Instant::now();
        exporter.export(&trace, &out)?;
        let exported = start.elapsed();
        let start = Instant::now();
        let summary = import(&out, Some(exporter.name()), &options, &folder.join("back.arrow"))?;
        let imported = start.elapsed();
        let sizes = |p: &Path| p.metadata().map_or(0, |m| m.len());
        let bytes = match out.read_dir() {
            Ok(files) => files.flatten().map(|f| sizes(&f.path())).sum(),
            Err(_) => sizes(&out),
        };
        let rate = |t: std::time::Duration| bytes as f64 / 1e6 / t.as_secs_f64();
        println!(
            "{}: {} rows, {:.1} MB, export {:.0} MB/s, import {:.0} MB/s",
            exporter.name(),
            summary.rows,
            bytes as f64 / 1e6,
            rate(exported),
            rate(imported)
        );
    }
    Ok(())
}
