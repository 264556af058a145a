//! The folder of a sweep: what it holds, and whose it is.
//!
//! `sweep.toml` says which sweep it is of, `points/NNNN` are run directories, `sweep.csv` and the pictures come at the end.

use super::args::Args;
use crate::cli::terminal::note;
use crate::sweep::Sweep;
use moesim_core::output::{AtomicFile, Claim, Manifest, clear_partials, create_folders};
use moesim_core::{Diag, Result, config};
use std::path::{Path, PathBuf};

/// The file that says of which sweep a folder is.
const IDENTITY: &str = "sweep.toml";
/// The folder of the points, by which a sweep's folder is known.
const POINTS: &str = "points";

/// The directory of a point.
pub(super) fn point(out: &Path, index: usize) -> PathBuf {
    out.join(POINTS).join(format!("{index:04}"))
}

/// Makes the folder ready, and claims it: empty, or of this very sweep with `--resume` or `--shard`. With `--force` what an earlier
/// sweep wrote there goes before the first point runs.
pub(super) fn prepare(out: &Path, args: &Args, sweep: &Sweep) -> Result<Claim> {
    let text = identity(sweep)?;
    let goes_on = args.resume || args.shard.is_some();
    let claim = match args.shard {
        Some(_) => Claim::shared(out)?,
        None => Claim::folder(out, POINTS, goes_on || args.force.given()).map_err(|d| match same(out, &text) {
            Ok(true) => d.cure("give --resume to go on with it, --force to begin anew, or choose another --out"),
            _ => d,
        })?,
    };
    let taken = std::fs::read_dir(out).is_ok_and(|mut d| d.next().is_some());
    if goes_on && taken && !same(out, &text)? {
        return Err(Diag::input(format!(
            "is not of this sweep and version, as the first line of its {IDENTITY} would say"
        ))
        .file(out)
        .cure("choose another --out"));
    }
    if goes_on && out.is_file() {
        return Err(Diag::input("exists and is not a folder").file(out).cure("choose another --out"));
    }
    if args.force.given() {
        clear(out)?;
    }
    let points = out.join(POINTS);
    create_folders(&points)?;
    if args.resume {
        clear_partials(&points);
    }
    // Shards write the same.
    if !same(out, &text)? {
        write(out, &[(IDENTITY, text.as_bytes())])?.iter().for_each(|n| note(n));
    }
    Ok(claim)
}

/// What `sweep.toml` says; its first line decides.
fn identity(sweep: &Sweep) -> Result<String> {
    let (version, hash) = (env!("CARGO_PKG_VERSION"), sweep.identity()?);
    Ok(format!("# moesim {version}. Points: hash {hash}.\n{}", config::to_toml(&sweep.file)?))
}

/// Whether the folder is of the sweep with this text.
fn same(out: &Path, text: &str) -> Result<bool> {
    let path = out.join(IDENTITY);
    if path.symlink_metadata().is_err() {
        return Ok(false);
    }
    let mut first = String::new();
    let file = std::io::BufReader::new(moesim_core::input::open(&path)?);
    let read = std::io::BufRead::read_line(&mut std::io::Read::take(file, 1 << 10), &mut first);
    Ok(read.is_ok() && text.lines().next() == Some(first.trim_end()))
}

/// Removes what an earlier sweep wrote.
fn clear(out: &Path) -> Result<()> {
    for entry in std::fs::read_dir(out.join(POINTS)).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove(&entry.path())?;
        }
    }
    clear_partials(&out.join(POINTS));
    let _ = std::fs::remove_dir(out.join(POINTS));
    remove(out)
}

/// Removes the files of a folder that are as moesim wrote them, and the folder if nothing is left.
fn remove(dir: &Path) -> Result<()> {
    let Some(manifest) = Manifest::read(dir)? else { return Ok(()) };
    manifest.remove(dir)
}

/// Writes files of the sweep beside its points, and their names into its manifest. What the user has under such a name stays, and
/// the new file gets another one: a sentence for each of these.
pub(super) fn write(out: &Path, files: &[(&str, &[u8])]) -> Result<Vec<String>> {
    let mut manifest = Manifest::read(out)?.unwrap_or_default();
    let before = manifest.clone();
    let (mut named, mut notes) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let own = manifest.free_name(out, name);
        if own != *name {
            notes.push(format!("{name} is yours or was changed, and stays; the new one is {own}"));
        }
        manifest.add(&own, bytes);
        named.push((out.join(own), bytes));
    }
    // Names first: what is in no manifest is the user's.
    if manifest != before {
        manifest.write(out)?;
    }
    for (path, bytes) in named {
        AtomicFile::replace(&path, bytes)?;
    }
    Ok(notes)
}
