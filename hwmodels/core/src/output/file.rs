//! A file that appears whole or not at all.

use super::{appeared, partial_name, parts, rename};
use crate::diag::{Diag, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A file written under a temporary name beside its final one and renamed by [`AtomicFile::commit`].
/// Dropped without commit, it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    partial: PathBuf,
    target: PathBuf,
    /// There is a file already, which is replaced at the end.
    replaces: bool,
    done: bool,
}

impl AtomicFile {
    /// Starts the file; [`AtomicFile::path`] is where to write. A file that is there already is replaced in the end
    /// ([`super::Claim`] refuses it); one that comes to be meanwhile is not.
    ///
    /// # Errors
    /// Wrong input: no name for a file, or a folder that is none.
    pub fn create(target: &Path) -> Result<Self> {
        let (target, folder) = check(target)?;
        let name = target.file_name().unwrap_or_default();
        let partial = folder.join(partial_name(name));
        let replaces = target.symlink_metadata().is_ok();
        Ok(Self { partial, target, replaces, done: false })
    }
    /// Writes `bytes` whole over whatever file is there: of files that are moesim's alone.
    ///
    /// # Errors
    /// As [`AtomicFile::create`], and a failure to write.
    pub fn replace(target: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = Self::create(target)?;
        file.replaces = true;
        fs::write(file.path(), bytes).map_err(|e| Diag::cannot_write(target, &e))?;
        file.commit()
    }
    /// Where to write meanwhile.
    pub fn path(&self) -> &Path {
        &self.partial
    }
    /// Gives the file its final name.
    ///
    /// # Errors
    /// A failure to rename it, or a file of that name that came to be meanwhile.
    pub fn commit(mut self) -> Result<()> {
        let renamed = match self.replaces {
            true => fs::rename(&self.partial, &self.target),
            false => rename::to_free_name(&self.partial, &self.target),
        };
        renamed.map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => appeared(&self.target),
            _ => Diag::cannot_write(&self.target, &e),
        })?;
        self.done = true;
        Ok(())
    }
    /// Writes `bytes` whole.
    ///
    /// # Errors
    /// As [`AtomicFile::create`] and [`AtomicFile::commit`].
    pub fn write(target: &Path, bytes: &[u8]) -> Result<()> {
        let file = Self::create(target)?;
        fs::write(file.path(), bytes).map_err(|e| Diag::cannot_write(target, &e))?;
        file.commit()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// The target and its folder, if a file can be there.
pub(super) fn check(target: &Path) -> Result<(PathBuf, PathBuf)> {
    let (target, folder, _) = parts(target, "file")?;
    if target.is_dir() {
        return Err(Diag::input("is a folder, not a file").file(target).cure("choose another output name"));
    }
    if target.exists() && !target.is_file() {
        return Err(Diag::input("is no plain file").file(target).cure("choose another output name"));
    }
    if !folder.is_dir() {
        return Err(Diag::input("is no folder").file(folder).cure("make it, or choose another output name"));
    }
    Ok((target, folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_appears_meanwhile_stays() {
        let tmp = tempfile::tempdir().unwrap();
        let target = tmp.path().join("a.csv");
        AtomicFile::write(&target, b"1").unwrap();
        AtomicFile::write(&target, b"2").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"2");
        let other = tmp.path().join("b.csv");
        let file = AtomicFile::create(&other).unwrap();
        fs::write(file.path(), "ours").unwrap();
        fs::write(&other, "mine").unwrap();
        assert_eq!(file.commit().unwrap_err().exit_code(), 1);
        assert_eq!(fs::read(&other).unwrap(), b"mine");
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_and_devices_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let (file, link) = (tmp.path().join("file"), tmp.path().join("link"));
        fs::write(&file, "1").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        AtomicFile::write(&link, b"2").unwrap();
        assert!(link.is_symlink() && fs::read(&file).unwrap() == b"2");
        assert_eq!(AtomicFile::create(Path::new("/dev/null")).unwrap_err().exit_code(), 2);
    }
}
