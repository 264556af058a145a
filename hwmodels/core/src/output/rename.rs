//! Names that change in one step.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Gives the two names each other's content, in one step where the system can.
#[cfg(target_os = "linux")]
pub(super) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

/// Gives the two names each other's content, in one step where the system can.
#[cfg(not(target_os = "linux"))]
pub(super) fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Gives `from` the name `to`, which must be free.
pub(super) fn to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    match without_replacing(from, to) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists && from.is_file() => {
            // File systems without such a call: a link is refused as well where there is something.
            match fs::hard_link(from, to) {
                Ok(()) => fs::remove_file(from),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(e),
                Err(_) if to.symlink_metadata().is_ok() => Err(ErrorKind::AlreadyExists.into()),
                Err(_) => fs::rename(from, to),
            }
        }
        other => other,
    }
}

#[cfg(target_os = "linux")]
fn without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

#[cfg(not(target_os = "linux"))]
fn without_replacing(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}
