//! Draws every plot from made-up runs, to look at: `cargo run -p moesim-plot --example gallery -- DIR`.

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use moesim_plot::{Format, SweepTable, png, sweep_plot, write};
use std::path::PathBuf;

fn main() -> Result<(), moesim_core::Diag> {
    let root = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "gallery".into()));
    for (name, size) in
        [("one", synthetic::ONE), ("small", synthetic::SMALL), ("large", synthetic::LARGE), ("huge", synthetic::HUGE)]
    {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).map_err(|e| moesim_core::Diag::cannot_write(&dir, &e))?;
        synthetic::run(&dir, size);
        for path in write(&dir, &[], &[Format::Svg, Format::Png])? {
            println!("{}", path.display());
        }
    }
    let table = root.join("sweep.csv");
    std::fs::write(&table, synthetic::sweep()).map_err(|e| moesim_core::Diag::cannot_write(&table, &e))?;
    let cases = [
        ("lines", vec!["placement", "batch"], "tpot_ms"),
        ("lines-log", vec!["placement", "batch"], "tokens_per_s"),
        ("lines-units", vec!["placement", "fabric"], "tokens_per_s"),
        ("heat", vec!["fabric", "placement"], "tpot_ms"),
        ("heat-wide", vec!["batch", "placement"], "tokens_per_s"),
        ("bars", vec!["placement"], "tokens_per_s"),
        ("line", vec!["batch"], "tpot_ms"),
    ];
    for (name, keys, metric) in cases {
        let keys: Vec<String> = keys.iter().map(|k| k.to_string()).collect();
        let mut points = SweepTable::from_csv(&table, &keys)?;
        // One value of each key that the picture does not show.
        let mut seen = std::collections::BTreeSet::new();
        points.points.reverse();
        points.points.retain(|p| seen.insert(p.values.clone()));
        let path = root.join(format!("sweep-{name}.png"));
        moesim_core::output::AtomicFile::write(&path, &png(&sweep_plot(&points, metric)?)?)?;
    }
    Ok(())
}
