//! A folder that appears whole or not at all.

use super::claim::check_folder;
use super::manifest::{name_of, walk};
use super::{Manifest, appeared, create_folders, partial_name, parts, rename};
use crate::diag::{Diag, Result};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A folder written under a temporary name beside its final one, which [`AtomicDir::commit`] gives it.
/// Dropped without commit, it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicDir {
    partial: PathBuf,
    target: PathBuf,
    /// Files whose content differs from host to host, so that no hash tells whether they were changed.
    volatile: &'static [&'static str],
    /// Something was there at the start.
    replaces: bool,
    done: bool,
}

impl AtomicDir {
    /// Starts the folder. One that exists is replaced at the end but for the user's files ([`super::Claim`] refuses
    /// it); `marker` is a file that only moesim writes.
    ///
    /// # Errors
    /// Wrong input: something else of that name, or a folder that moesim wrote without a manifest.
    pub fn create(target: &Path, marker: &str) -> Result<Self> {
        let (target, parent, name) = parts(target, "folder")?;
        check_folder(&target, marker, true)?;
        create_folders(&parent)?;
        let partial = parent.join(partial_name(&name));
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir(&partial).map_err(|e| Diag::cannot_write(&partial, &e))?;
        let replaces = fs::read_dir(&target).is_ok_and(|mut d| d.next().is_some());
        Ok(Self { partial, target, volatile: &[], replaces, done: false })
    }
    /// Names files whose content differs from host to host: they are moesim's whatever they hold.
    pub fn volatile(mut self, names: &'static [&'static str]) -> Self {
        self.volatile = names;
        self
    }
    /// Where to write meanwhile.
    pub fn path(&self) -> &Path {
        &self.partial
    }
    /// Gives the folder its final name. What was there before goes, but for files that moesim did not write or that
    /// were changed since: they stay under their names, and a new file of such a name gets another one. Returns a
    /// sentence for each of these.
    ///
    /// # Errors
    /// Something that cannot be read or written, or a folder of that name that came to be meanwhile: either the old
    /// folder is there, or the new one, whole.
    pub fn commit(mut self) -> Result<Vec<String>> {
        let mut own = walk(&self.partial).map_err(|e| Diag::cannot_read(&self.partial, &e))?;
        let old = match self.replaces {
            true => Some(self.keep(&mut own)?),
            false => None,
        };
        let mut manifest = Manifest::default();
        for name in own.iter().map(|p| name_of(p)) {
            match self.volatile.contains(&name.as_str()) {
                true => manifest.add_name(&name),
                false => manifest.add_file(&self.partial, &name)?,
            }
        }
        manifest.write(&self.partial)?;
        let Some(Old { known, notes }) = old else {
            // An empty folder may be in the way, and is replaced.
            return match fs::rename(&self.partial, &self.target) {
                Ok(()) => {
                    self.done = true;
                    Ok(Vec::new())
                }
                Err(_) if fs::read_dir(&self.target).is_ok_and(|mut d| d.next().is_some()) => {
                    Err(appeared(&self.target))
                }
                Err(e) => Err(Diag::cannot_write(&self.target, &e)),
            };
        };
        exchange(&self.partial, &self.target).map_err(|e| Diag::cannot_write(&self.target, &e))?;
        self.done = true;
        discard(&self.partial, &self.target, &known);
        Ok(notes)
    }

    /// Puts what the user has in the old folder into the new one too, by links: until names are exchanged both are
    /// whole. `own` are the new files.
    fn keep(&self, own: &mut [PathBuf]) -> Result<Old> {
        let manifest = Manifest::read(&self.target)?.unwrap_or_default();
        let known: Vec<PathBuf> = walk(&self.target).map_err(|e| Diag::cannot_read(&self.target, &e))?;
        let mut notes = Vec::new();
        for path in known.iter().filter(|p| !manifest.owns(&self.target, &name_of(p))) {
            let (from, to) = (self.target.join(path), self.partial.join(path));
            let in_the_way = path.ancestors().find(|p| match *p == path.as_path() {
                true => to.symlink_metadata().is_ok(),
                false => self.partial.join(p).is_file(),
            });
            if let Some(taken) = in_the_way {
                let new = self.other_name(taken);
                let (a, b) = (self.partial.join(taken), self.partial.join(&new));
                fs::rename(&a, &b).map_err(|e| Diag::cannot_write(&b, &e))?;
                for file in own.iter_mut() {
                    if let Ok(rest) = file.strip_prefix(taken) {
                        *file = if rest.as_os_str().is_empty() { new.clone() } else { new.join(rest) };
                    }
                }
                notes.push(format!(
                    "{} is yours or was changed, and stays; the new one is {}",
                    name_of(taken),
                    name_of(&new)
                ));
            }
            if from.symlink_metadata().is_ok_and(|m| m.is_dir()) {
                fs::create_dir_all(&to).map_err(|e| Diag::cannot_write(&to, &e))?;
                continue;
            }
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).map_err(|e| Diag::cannot_write(folder, &e))?;
            }
            let linked = fs::hard_link(&from, &to).or_else(|e| match e.kind() {
                ErrorKind::CrossesDevices => Err(e),
                _ if from.is_file() => fs::copy(&from, &to).map(drop),
                _ => Err(e),
            });
            linked.map_err(|e| {
                Diag::run(format!("cannot be kept in the new folder: {e}")).file(&from).cure("choose another --out")
            })?;
        }
        Ok(Old { known: known.into_iter().collect(), notes })
    }

    /// `summary.json` as `summary.new.json`, or with the first number that is free in both folders.
    fn other_name(&self, taken: &Path) -> PathBuf {
        let part = |p: Option<&std::ffi::OsStr>| p.map(|s| s.to_string_lossy().into_owned());
        let (stem, extension) = (part(taken.file_stem()).unwrap_or_default(), part(taken.extension()));
        let end = extension.map_or(String::new(), |e| format!(".{e}"));
        let names = (1..).map(|n| if n == 1 { format!("{stem}.new{end}") } else { format!("{stem}.new{n}{end}") });
        let mut paths = names.map(|name| taken.with_file_name(name));
        let manifest = Manifest::read(&self.target).ok().flatten().unwrap_or_default();
        let free = |p: &PathBuf| {
            let there = self.target.join(p).symlink_metadata().is_ok();
            self.partial.join(p).symlink_metadata().is_err() && (!there || manifest.owns(&self.target, &name_of(p)))
        };
        paths.find(free).unwrap_or_default()
    }
}

/// What the old folder held when it was looked through, and what to tell the user of it.
struct Old {
    known: BTreeSet<PathBuf>,
    notes: Vec<String>,
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// Exchanges the names of two folders; where the system cannot, in two steps between which [`super::Claim`] finds the
/// old one aside.
fn exchange(new: &Path, target: &Path) -> std::io::Result<()> {
    match rename::exchange(new, target) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            let name = target.file_name().unwrap_or_default().to_string_lossy();
            let aside = target.with_file_name(format!(".{name}.old"));
            fs::rename(target, &aside)?;
            if let Err(e) = fs::rename(new, target) {
                let _ = fs::rename(&aside, target);
                return Err(e);
            }
            fs::rename(&aside, new)
        }
        other => other,
    }
}

/// Removes the old folder, file by file: what came into it after it was looked through goes to the new one.
fn discard(old: &Path, new: &Path, known: &BTreeSet<PathBuf>) {
    let Ok(found) = walk(old) else { return };
    for path in found {
        let from = old.join(&path);
        if known.contains(&path) {
            let _ = match from.symlink_metadata().is_ok_and(|m| m.is_dir()) {
                true => fs::remove_dir(&from),
                false => fs::remove_file(&from),
            };
        } else {
            let to = new.join(&path);
            let _ = to.parent().map(fs::create_dir_all);
            let _ = rename::to_free_name(&from, &to);
        }
        // Folders go with the last that was in them.
        for folder in path.ancestors().skip(1).take_while(|p| !p.as_os_str().is_empty()) {
            if fs::remove_dir(old.join(folder)).is_err() {
                break;
            }
        }
    }
    let _ = fs::remove_dir(old);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(target: &Path, files: &[(&str, &str)]) -> Result<Vec<String>> {
        let dir = AtomicDir::create(target, "summary.json").unwrap().volatile(&["timing.json"]);
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir.commit()
    }

    fn read(dir: &Path) -> Vec<(String, String)> {
        let files = walk(dir).unwrap().into_iter().filter(|p| p != Path::new(Manifest::NAME));
        files.map(|p| (name_of(&p), fs::read_to_string(dir.join(&p)).unwrap_or_default())).collect()
    }

    fn all(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

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
            write(&target, &[("summary.json", text), (&format!("only{text}"), "x")]).unwrap();
            assert_eq!(read(&target), all(&[(&format!("only{text}"), "x"), ("summary.json", text)]));
        }
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
        let dir = AtomicDir::create(&tmp.path().join("late"), "summary.json").unwrap();
        fs::create_dir(tmp.path().join("late")).unwrap();
        fs::write(tmp.path().join("late/mine"), "x").unwrap();
        assert_eq!(dir.commit().unwrap_err().exit_code(), 1);
        assert_eq!(read(&tmp.path().join("late")), all(&[("mine", "x")]));
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_users_files_stay() {
        let tmp = tempfile::tempdir().unwrap();
        let target = tmp.path().join("run");
        let run = |n: &str| {
            let files = ["a.csv", "b.csv", "plots/p.svg", "summary.json", "timing.json"];
            write(&target, &files.map(|f| (f, n)))
        };
        assert!(run("1").unwrap().is_empty());
        fs::write(target.join("notes.md"), "mine").unwrap();
        fs::write(target.join("plots/q.svg"), "mine").unwrap();
        fs::write(target.join("b.csv"), "edited").unwrap();
        fs::write(target.join("timing.json"), "other").unwrap();
        fs::create_dir(target.join("empty")).unwrap();
        let kept = [("b.csv", "edited"), ("empty", ""), ("notes.md", "mine"), ("plots/q.svg", "mine")];
        for n in ["2", "3"] {
            assert_eq!(run(n).unwrap(), ["b.csv is yours or was changed, and stays; the new one is b.new.csv"]);
            let new = ["a.csv", "b.new.csv", "plots/p.svg", "summary.json", "timing.json"].map(|f| (f, n));
            let mut expected = all(&[&kept[..], &new[..]].concat());
            expected.sort();
            assert_eq!(read(&target), expected);
            assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn files_and_folders_of_one_name() {
        let tmp = tempfile::tempdir().unwrap();
        let target = tmp.path().join("run");
        fs::create_dir_all(target.join("a.csv")).unwrap();
        fs::write(target.join("a.csv/x"), "mine").unwrap();
        fs::write(target.join("plots"), "mine").unwrap();
        write(&target, &[("a.csv", "1"), ("plots/p.svg", "1"), ("summary.json", "1")]).unwrap();
        let expected = [
            ("a.csv/x", "mine"),
            ("a.new.csv", "1"),
            ("plots", "mine"),
            ("plots.new/p.svg", "1"),
            ("summary.json", "1"),
        ];
        assert_eq!(read(&target), all(&expected));
        let names: Vec<String> = Manifest::read(&target).unwrap().unwrap().names().map(str::to_string).collect();
        assert_eq!(names, ["a.new.csv", "plots.new/p.svg", "summary.json"]);
    }

    #[test]
    fn what_comes_late_goes_along() {
        let tmp = tempfile::tempdir().unwrap();
        let (old, new) = (tmp.path().join("old"), tmp.path().join("new"));
        for (dir, name) in [(&old, "a"), (&old, "sub/late"), (&new, "b")] {
            fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            fs::write(dir.join(name), name).unwrap();
        }
        discard(&old, &new, &BTreeSet::from([PathBuf::from("a")]));
        assert!(!old.exists());
        assert_eq!(read(&new), all(&[("b", "b"), ("sub/late", "sub/late")]));
    }
}
