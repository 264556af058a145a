//! Draws every plot from made-up runs, to look at: `cargo run -p moesim-plot --example gallery -- DIR`.

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use moesim_plot::{Format, write};
use std::path::PathBuf;

fn main() -> Result<(), moesim_core::Diag> {
    let root = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "gallery".into()));
    for (name, size) in [("small", synthetic::SMALL), ("large", synthetic::LARGE)] {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).map_err(|e| moesim_core::Diag::cannot_write(&dir, &e))?;
        synthetic::run(&dir, size);
        for path in write(&dir, &[], &[Format::Svg, Format::Png])? {
            println!("{}", path.display());
        }
    }
    Ok(())
}
