//! Files and folders that appear complete or not at all, and never in the place of what the user wants to keep.
//!
//! A command that writes holds a [`Claim`] on its output from before it begins: one writer at a time, and nothing that
//! exists is replaced unless the user asked for it. The output itself is an [`AtomicFile`] or an [`AtomicDir`]; the
//! latter leaves a [`Manifest`] of its files, by which a later run tells its own from the user's.

mod claim;
mod dir;
mod file;
mod manifest;
mod rename;

pub use claim::{Claim, clear_partials};
pub use dir::AtomicDir;
pub use file::AtomicFile;
pub use manifest::Manifest;

use crate::diag::{Diag, Result};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Creates a folder and those above it.
///
/// # Errors
/// A file where a folder should be is wrong input; everything else is a failure.
pub fn create_folders(path: &Path) -> Result<()> {
    if let Some(file) = path.ancestors().find(|p| p.symlink_metadata().is_ok() && !p.is_dir()) {
        return Err(Diag::input("is not a folder").file(file).cure("choose another --out"));
    }
    fs::create_dir_all(path).map_err(|e| Diag::cannot_write(path, &e))
}

/// The content hash of an input, as 16 hexadecimal digits of BLAKE3.
pub fn content_hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_string()
}

/// What is written for `target`: where a link points to, so that the link stays; its folder; its name.
fn parts(target: &Path, what: &str) -> Result<(PathBuf, PathBuf, OsString)> {
    let target = if target.is_symlink() && target.exists() {
        target.canonicalize().map_err(|e| Diag::cannot_read(target, &e))?
    } else {
        target.to_path_buf()
    };
    let name = target.file_name().ok_or_else(|| {
        Diag::input(format!("is not a name for an output {what}")).file(&target).cure("choose another --out")
    })?;
    let name = name.to_os_string();
    let folder = match target.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    };
    Ok((target, folder, name))
}

/// The hidden name beside a target under which this process writes it.
fn partial_name(name: &std::ffi::OsStr) -> String {
    format!(".{}.{}.partial", name.to_string_lossy(), std::process::id())
}

/// What came into being under the final name while the output was made is not replaced.
fn appeared(target: &Path) -> Diag {
    Diag::run("appeared while this ran, and is left as it is").file(target).cure("run again with another --out")
}
