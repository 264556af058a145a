//! Parquet, with the cargo feature `parquet`: a file with one row a token and layer ([`long`]), or a folder of FLAME-MoE's
//! routing traces, one file a layer ([`flame`]).

#[cfg(feature = "parquet")]
mod file;
#[cfg(feature = "parquet")]
mod flame;
#[cfg(feature = "parquet")]
mod long;
#[cfg(feature = "parquet")]
mod table;
#[cfg(feature = "parquet")]
mod thrift;

use super::{Importer, Options, Sink};
use moesim_core::{Diag, Result, input};
use std::io::Read;
use std::path::{Path, PathBuf};

/// See the module.
pub(super) struct Parquet;

impl Importer for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
    }
    fn description(&self) -> &'static str {
        "Parquet, one row a token and layer: sequence,position,layer,expert0,expert1,... and perhaps phase; or a folder of \
         FLAME-MoE's routing traces, one file a layer (a feature of the build)"
    }
    fn detect(&self, path: &Path) -> bool {
        if path.is_dir() {
            return layer_files(path).is_ok_and(|f| !f.is_empty());
        }
        let mut start = [0; 4];
        input::open(path).is_ok_and(|mut f| f.read_exact(&mut start).is_ok()) && &start == b"PAR1"
    }
    #[cfg(feature = "parquet")]
    fn import(&self, path: &Path, options: &Options, sink: &mut dyn Sink) -> Result<()> {
        if path.is_dir() {
            return flame::import(path, &layer_files(path)?, options, sink);
        }
        long::import(path, options, sink)
    }
    #[cfg(not(feature = "parquet"))]
    fn import(&self, path: &Path, _: &Options, _: &mut dyn Sink) -> Result<()> {
        Err(lacking().file(path))
    }
}

/// A flat table in Parquet, of whatever columns, as CSV text with a line of names.
///
/// # Errors
/// A build without the feature `parquet`, a file that cannot be decoded, columns that are neither numbers nor text.
#[cfg(feature = "parquet")]
pub fn table_as_csv(path: &Path) -> Result<Vec<u8>> {
    table::csv(path)
}

/// See the other build's.
///
/// # Errors
/// Always: this build lacks the feature `parquet`.
#[cfg(not(feature = "parquet"))]
pub fn table_as_csv(path: &Path) -> Result<Vec<u8>> {
    Err(lacking().file(path))
}

/// The build has no Parquet.
#[cfg(not(feature = "parquet"))]
pub(crate) fn lacking() -> Diag {
    Diag::input("this build of moesim lacks Parquet")
        .cure("build it with `cargo build --release -p moesim --features parquet`")
}

/// The files `layer_NN.parquet` of a folder with their numbers, ascending.
fn layer_files(folder: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let entries = folder.read_dir().map_err(|e| Diag::cannot_read(folder, &e))?;
    let number = |p: &PathBuf| p.file_name()?.to_str()?.strip_prefix("layer_")?.strip_suffix(".parquet")?.parse().ok();
    let mut found: Vec<(u32, PathBuf)> =
        entries.flatten().map(|e| e.path()).filter_map(|p| Some((number(&p)?, p))).collect();
    found.sort();
    Ok(found)
}

#[cfg(all(test, feature = "parquet"))]
mod tests;
