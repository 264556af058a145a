//! Files and folders that appear complete or not at all.

use crate::diag::{Diag, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder written under a temporary name beside its final one and renamed by [`AtomicDir::commit`].
/// Dropped without commit, it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicDir {
    partial: PathBuf,
    target: PathBuf,
    marker: &'static str,
    done: bool,
}

impl AtomicDir {
    /// Starts the folder. An existing `target` is replaced at the end if it is empty or holds `marker`
    /// (a file that only we write); anything else is refused now.
    pub fn create(target: &Path, marker: &'static str) -> Result<Self> {
        let replaceable =
            |p: &Path| p.join(marker).is_file() || fs::read_dir(p).is_ok_and(|mut entries| entries.next().is_none());
        if target.symlink_metadata().is_ok() && !(target.is_dir() && replaceable(target)) {
            return Err(Diag::input("exists and is not a folder that moesim wrote")
                .file(target)
                .cure("choose another --out, or move it away"));
        }
        let name = target.file_name().ok_or_else(|| {
            Diag::input("is not a name for an output folder").file(target).cure("choose another --out")
        })?;
        let parent = match target.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        create_folders(&parent)?;
        let partial = parent.join(format!(".{}.{}.partial", name.to_string_lossy(), std::process::id()));
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir(&partial).map_err(|e| Diag::cannot_write(&partial, &e))?;
        Ok(Self { partial, target: target.to_path_buf(), marker, done: false })
    }
    /// Where to write meanwhile.
    pub fn path(&self) -> &Path {
        &self.partial
    }
    /// Gives the folder its final name.
    pub fn commit(mut self) -> Result<()> {
        debug_assert!(self.partial.join(self.marker).exists(), "the marker file is written before the commit");
        let old = self.partial.with_extension("old");
        if self.target.exists() {
            fs::rename(&self.target, &old).map_err(|e| Diag::cannot_write(&self.target, &e))?;
        }
        fs::rename(&self.partial, &self.target).map_err(|e| Diag::cannot_write(&self.target, &e))?;
        self.done = true;
        let _ = fs::remove_dir_all(&old);
        Ok(())
    }
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

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

/// A file written under a temporary name beside its final one and renamed by [`AtomicFile::commit`].
#[derive(Debug)]
pub struct AtomicFile {
    partial: PathBuf,
    target: PathBuf,
    done: bool,
}

impl AtomicFile {
    /// Starts the file; [`AtomicFile::path`] is where to write.
    pub fn create(target: &Path) -> Result<Self> {
        if target.is_dir() {
            return Err(Diag::input("is a folder, not a file").file(target).cure("choose another output name"));
        }
        let name = target.file_name().ok_or_else(|| {
            Diag::input("is not a name for an output file").file(target).cure("choose another output name")
        })?;
        if let Some(folder) = target.parent().filter(|p| !p.as_os_str().is_empty() && !p.is_dir()) {
            return Err(Diag::input("is not a folder").file(folder).cure("make it, or choose another output name"));
        }
        let partial = target.with_file_name(format!(".{}.{}.partial", name.to_string_lossy(), std::process::id()));
        Ok(Self { partial, target: target.to_path_buf(), done: false })
    }
    /// Where to write meanwhile.
    pub fn path(&self) -> &Path {
        &self.partial
    }
    /// Gives the file its final name.
    pub fn commit(mut self) -> Result<()> {
        fs::rename(&self.partial, &self.target).map_err(|e| Diag::cannot_write(&self.target, &e))?;
        self.done = true;
        Ok(())
    }
    /// Writes `bytes` whole.
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

/// The content hash of an input, as 16 hexadecimal digits of BLAKE3.
pub fn content_hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let tmp = tempfile::tempdir().unwrap();
        let target = tmp.path().join("run");
        {
            let dir = AtomicDir::create(&target, "summary.json").unwrap();
            fs::write(dir.path().join("summary.json"), "1").unwrap();
        }
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
        for text in ["1", "2"] {
            let dir = AtomicDir::create(&target, "summary.json").unwrap();
            fs::write(dir.path().join("summary.json"), text).unwrap();
            dir.commit().unwrap();
            assert_eq!(fs::read_to_string(target.join("summary.json")).unwrap(), text);
        }
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
        fs::write(tmp.path().join("mine"), "x").unwrap();
        assert_eq!(AtomicDir::create(tmp.path(), "summary.json").unwrap_err().exit_code(), 2);
    }
}
