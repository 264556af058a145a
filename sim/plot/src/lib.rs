//! Pictures of what moesim wrote: a run directory or the table of a sweep.
//!
//! Pictures are downstream of data: a [`Plot`] reads the files of a finished run ([`RunData`]) and draws SVG; [`png`] renders
//! the same SVG. Equal data give equal bytes, and no font of the system is used: one is embedded.
//!
//! A new plot is one file that implements [`Plot`] and one line in [`builtin`].

mod axis;
mod breakdown;
mod canvas;
mod data;
mod experts;
mod head;
mod heat;
mod latency;
mod number;
mod palette;
mod panels;
mod png;
mod scatter;
mod series;
mod sweep;
mod timeline;
mod utilisation;

pub use data::{CsvRow, CsvTable, RunData};
pub use head::head;
pub use panels::{Panel, PanelLine, panels};
pub use png::png;
pub use scatter::{roofline, scatter};
pub use sweep::{SweepPoint, SweepTable, sweep_plot};

use moesim_core::diag::{Diag, Result, unknown};
use moesim_core::output::AtomicFile;
use std::path::{Path, PathBuf};

/// A picture of a run.
pub trait Plot: Sync {
    /// Its name on the command line, and of its file.
    fn name(&self) -> &'static str;
    /// What it shows, in one line.
    fn about(&self) -> &'static str;
    /// Draws it as SVG, 900 CSS pixels wide; `None` where the run lacks the data.
    ///
    /// # Errors
    /// An input error, with file and row, if the run's files are malformed.
    fn draw(&self, data: &RunData) -> Result<Option<String>>;
}

/// The plots that come with moesim.
pub fn builtin() -> &'static [&'static dyn Plot] {
    &[&latency::Latency, &breakdown::Breakdown, &experts::Experts, &utilisation::Utilisation, &timeline::Timeline]
}

/// A picture's file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Scalable vector graphics.
    Svg,
    /// Pixels, twice the SVG's size.
    Png,
}

impl Format {
    /// The file name's extension.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Png => "png",
        }
    }
}

impl std::str::FromStr for Format {
    type Err = Diag;
    fn from_str(text: &str) -> Result<Self> {
        [Self::Svg, Self::Png]
            .into_iter()
            .find(|f| f.extension() == text)
            .ok_or_else(|| unknown("picture format", text, &["svg", "png"]))
    }
}

/// Draws the plots `names` (all, if empty) of the run in `dir` and writes `dir/plots/NAME.svg` and `.png`; returns the files
/// written, plots in the order of [`builtin`]. A plot whose data the run lacks is left out.
///
/// # Errors
/// An input error for an unknown name, a folder that is no run directory or a malformed table; a run error if a file
/// cannot be written. Files written before the error stay, each whole.
pub fn write(dir: &Path, names: &[String], formats: &[Format]) -> Result<Vec<PathBuf>> {
    let known: Vec<&str> = builtin().iter().map(|p| p.name()).collect();
    if let Some(wrong) = names.iter().find(|n| !known.contains(&n.as_str())) {
        return Err(unknown("plot", wrong, &known));
    }
    let data = RunData::open(dir)?;
    let folder = dir.join("plots");
    let mut written = Vec::new();
    for plot in builtin().iter().filter(|p| names.is_empty() || names.iter().any(|n| n == p.name())) {
        let Some(svg) = plot.draw(&data)? else { continue };
        std::fs::create_dir_all(&folder).map_err(|e| Diag::cannot_write(&folder, &e))?;
        for &format in formats {
            let path = folder.join(plot.name()).with_extension(format.extension());
            match format {
                Format::Svg => AtomicFile::write(&path, svg.as_bytes())?,
                Format::Png => AtomicFile::write(&path, &png(&svg)?)?,
            }
            written.push(path);
        }
    }
    Ok(written)
}
