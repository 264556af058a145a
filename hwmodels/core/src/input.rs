//! Input files, none of which is trusted.

use crate::diag::{Diag, Result};
use std::fs::File;
use std::path::Path;

/// Opens a file to read. What is no plain file is refused before it is opened, because a pipe without a writer would
/// keep its reader waiting for ever, and a device may have no end.
///
/// # Errors
/// A folder, a pipe, a device, or a file that cannot be opened.
pub fn open(path: impl AsRef<Path>) -> Result<File> {
    let path = path.as_ref();
    plain(path)?;
    File::open(path).map_err(|e| Diag::cannot_read(path, &e))
}

/// Refuses what is no plain file, as [`open`] does.
///
/// # Errors
/// As [`open`].
pub fn plain(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let info = path.metadata().map_err(|e| Diag::cannot_read(path, &e))?;
    if info.is_file() {
        return Ok(());
    }
    Err(if info.is_dir() {
        Diag::input("is a folder, not a file").file(path).cure("give a file in it, or check the path")
    } else {
        Diag::input("is a pipe or a device, not a file").file(path).cure("save what it gives to a file, and give that")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x"), "1").unwrap();
        open(dir.path().join("x")).unwrap();
        for (path, word) in [
            (dir.path().to_path_buf(), "is a folder, not a file"),
            (dir.path().join("absent"), "no such file"),
            #[cfg(unix)]
            ("/dev/zero".into(), "is a pipe or a device"),
        ] {
            let e = open(&path).unwrap_err();
            let text = e.to_string();
            assert!(text.contains(word) && e.exit_code() == 2 && e.file.is_some() && !e.cure.is_empty(), "{text}");
        }
    }
}
