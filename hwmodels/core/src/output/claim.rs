//! One writer at a time, and nothing of the user's replaced unasked.

use super::{Manifest, create_folders, file, parts};
use crate::diag::{Diag, Result};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// The right to write an output, held while its command runs: a lock on a hidden file beside it, which the system takes
/// back when the process ends, however it ends. Without `force` an output that exists is refused.
#[derive(Debug)]
pub struct Claim {
    lock: Option<(File, PathBuf)>,
}

impl Claim {
    /// Claims a file.
    ///
    /// # Errors
    /// Wrong input: a file that exists and `force` is not given, no place for a file. A failure: another process writes
    /// it.
    pub fn file(target: &Path, force: bool) -> Result<Self> {
        let (target, folder) = file::check(target)?;
        let refuse = || match target.symlink_metadata().is_ok() && !force {
            true => Err(Diag::input("exists").file(&target).cure("give --force to replace it, or choose another name")),
            false => Ok(()),
        };
        refuse()?;
        let claim = Self::lock(&target, &folder, false)?;
        refuse()?;
        Ok(claim)
    }

    /// Claims a folder. With `force`, one that moesim wrote is written anew; its `marker` is the file that only moesim
    /// writes, by which a folder without a manifest is known for one of an earlier version.
    ///
    /// # Errors
    /// Wrong input: a folder that is not empty and `force` is not given, one that nothing says moesim's files of, no
    /// place for a folder. A failure: another process writes it.
    pub fn folder(target: &Path, marker: &str, force: bool) -> Result<Self> {
        let (target, parent, name) = parts(target, "folder")?;
        let refuse = || check_folder(&target, marker, force);
        refuse()?;
        create_folders(&parent)?;
        let claim = Self::lock(&target, &parent, false)?;
        // Where names cannot be exchanged in one step, a process that was ended between two leaves the old folder
        // aside.
        let aside = parent.join(format!(".{}.old", name.to_string_lossy()));
        if claim.lock.is_some() && target.symlink_metadata().is_err() && aside.is_dir() {
            fs::rename(&aside, &target).map_err(|e| Diag::cannot_write(&target, &e))?;
        }
        refuse()?;
        Ok(claim)
    }

    /// Claims a folder that several processes write at a time, each its own part; [`Claim::folder`] waits for none of
    /// them and is refused meanwhile.
    ///
    /// # Errors
    /// A failure: a process writes all of it.
    pub fn shared(target: &Path) -> Result<Self> {
        let (target, parent, _) = parts(target, "folder")?;
        create_folders(&parent)?;
        Self::lock(&target, &parent, true)
    }

    fn lock(target: &Path, folder: &Path, shared: bool) -> Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = folder.join(format!(".{name}.lock"));
        loop {
            if path.symlink_metadata().is_ok_and(|m| !m.is_file()) {
                return Err(Diag::input("is in the way of a lock").file(path).cure("move it away"));
            }
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(|e| Diag::cannot_write(&path, &e))?;
            match if shared { file.try_lock_shared() } else { file.try_lock() } {
                // The last holder may have removed the name between opening and locking.
                Ok(()) if is_at(&file, &path) => {
                    if !shared {
                        clear(folder, Some(&name));
                    }
                    return Ok(Self { lock: Some((file, path)) });
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Diag::run("is being written by another moesim")
                        .file(target)
                        .cure("wait until it is done, or choose another --out"));
                }
                // A file system without locks: what is there in the end is still never replaced unasked.
                Err(TryLockError::Error(_)) => return Ok(Self { lock: None }),
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((file, path)) = &self.lock {
            // Of several that share it, the last one removes it.
            if file.try_lock().is_ok() {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Whether the open file still has its name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().is_ok_and(|a| path.symlink_metadata().is_ok_and(|b| same(a, b)))
}

/// Whether the open file still has its name: here open files keep theirs.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

pub(super) fn check_folder(target: &Path, marker: &str, force: bool) -> Result<()> {
    if target.symlink_metadata().is_err() {
        return Ok(());
    }
    if !target.is_dir() {
        return Err(Diag::input("exists and is not a folder").file(target).cure("choose another --out"));
    }
    let mut entries = fs::read_dir(target).map_err(|e| Diag::cannot_read(target, &e))?;
    if entries.next().is_none() {
        return Ok(());
    }
    let ours = target.join(marker).symlink_metadata().is_ok() || target.join(Manifest::NAME).symlink_metadata().is_ok();
    if !force {
        let (what, cure) = match ours {
            true => ("holds results already", "give --force to replace what moesim wrote there"),
            false => ("exists and is not empty", "give --force to write beside what is there"),
        };
        return Err(Diag::input(what).file(target).cure(format!("{cure}, or choose another --out")));
    }
    if ours && Manifest::read(target)?.is_none() {
        return Err(Diag::input(format!(
            "holds {marker} but no {}, which would say what moesim wrote",
            Manifest::NAME
        ))
        .file(target)
        .cure("choose another --out, or move it away"));
    }
    Ok(())
}

/// Removes what processes that were ended have left half written in a folder: nobody may be writing into it.
pub fn clear_partials(folder: &Path) {
    clear(folder, None);
}

/// Removes `.NAME.PROCESS.partial`, of one name or of all.
fn clear(folder: &Path, name: Option<&str>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let parts = found.to_str().and_then(|f| f.strip_prefix('.')?.strip_suffix(".partial")?.rsplit_once('.'));
        let stale = parts.is_some_and(|(own, process)| {
            name.is_none_or(|n| n == own) && !process.is_empty() && process.bytes().all(|b| b.is_ascii_digit())
        });
        if stale {
            let _ = match entry.file_type().is_ok_and(|t| t.is_dir()) {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn one_at_a_time() {
        let tmp = tempfile::tempdir().unwrap();
        let run = tmp.path().join("run");
        for name in [".run.lock", ".run.17.partial", ".runs.17.partial", ".run.x.partial"] {
            fs::write(tmp.path().join(name), "").unwrap();
        }
        let first = Claim::folder(&run, "summary.json", false).unwrap();
        assert_eq!(names(tmp.path()), [".run.lock", ".run.x.partial", ".runs.17.partial"]);
        assert_eq!(Claim::folder(&run, "summary.json", true).unwrap_err().exit_code(), 1);
        assert_eq!(Claim::shared(&run).unwrap_err().exit_code(), 1);
        drop(first);
        let shards = [Claim::shared(&run).unwrap(), Claim::shared(&run).unwrap()];
        assert_eq!(Claim::folder(&run, "summary.json", false).unwrap_err().exit_code(), 1);
        for shard in shards {
            assert!(names(tmp.path()).contains(&".run.lock".to_string()));
            drop(shard);
        }
        assert_eq!(names(tmp.path()), [".run.x.partial", ".runs.17.partial"]);
    }

    #[test]
    fn what_exists_is_refused_unless_forced() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("a.csv");
        Claim::file(&file, false).unwrap();
        fs::write(&file, "1").unwrap();
        assert_eq!(Claim::file(&file, false).unwrap_err().exit_code(), 2);
        assert_eq!(Claim::folder(&file, "summary.json", true).unwrap_err().exit_code(), 2);
        Claim::file(&file, true).unwrap();
        let run = tmp.path().join("run");
        fs::create_dir(&run).unwrap();
        let folder = |force| Claim::folder(&run, "summary.json", force).map(drop).map_err(|d| d.to_string());
        folder(false).unwrap();
        fs::write(run.join("notes.md"), "mine").unwrap();
        assert!(folder(false).unwrap_err().contains("--force") && folder(true).is_ok());
        // A run of an earlier version: nothing tells its files from the user's.
        fs::write(run.join("summary.json"), "{}").unwrap();
        assert!(folder(true).unwrap_err().contains("no manifest.json"));
        assert_eq!(names(tmp.path()), ["a.csv", "run"]);
    }

    #[test]
    fn a_folder_left_aside_comes_back() {
        let tmp = tempfile::tempdir().unwrap();
        let run = tmp.path().join("run");
        fs::create_dir(tmp.path().join(".run.old")).unwrap();
        fs::write(tmp.path().join(".run.old/notes.md"), "mine").unwrap();
        assert_eq!(Claim::folder(&run, "summary.json", false).unwrap_err().exit_code(), 2);
        assert_eq!(names(tmp.path()), ["run"]);
    }
}
