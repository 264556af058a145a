//! Which files of a folder moesim wrote, and with what content.

use super::{AtomicFile, content_hash};
use crate::diag::{Diag, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A longer manifest is not one of ours.
const MAX_BYTES: u64 = 64 << 20;

/// Names of the files that were written into a folder, with the hashes of their content: what has another content is
/// the user's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// By the path in the folder, with `/`; without a hash where the content differs from host to host.
    files: BTreeMap<String, Option<String>>,
}

impl Manifest {
    /// The file's name.
    pub const NAME: &str = "manifest.json";

    /// The manifest of a folder; `None` if there is none.
    ///
    /// # Errors
    /// A file of that name which is no manifest is wrong input.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(Self::NAME);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let mut text = Vec::new();
        let file = crate::input::open(&path)?.take(MAX_BYTES + 1);
        std::io::BufReader::new(file).read_to_end(&mut text).map_err(|e| Diag::cannot_read(&path, &e))?;
        let read = (text.len() as u64 <= MAX_BYTES).then(|| serde_json::from_slice(&text).ok()).flatten();
        read.map(Some).ok_or_else(|| {
            Diag::input("is no manifest that moesim wrote")
                .file(path)
                .cure("choose another --out, or move the folder away")
        })
    }

    /// Adds or replaces a file, by its path in the folder.
    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        self.files.insert(name.to_string(), Some(content_hash(bytes)));
    }

    /// Adds a file that is on disk.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn add_file(&mut self, dir: &Path, name: &str) -> Result<()> {
        let path = dir.join(name);
        let hash = hash_file(&path).map_err(|e| Diag::cannot_read(&path, &e))?;
        self.files.insert(name.to_string(), Some(hash));
        Ok(())
    }

    /// Adds a file that is known by its name alone: its content differs from host to host.
    pub(super) fn add_name(&mut self, name: &str) {
        self.files.insert(name.to_string(), None);
    }

    /// Whether the file of this name in `dir` is as it was written, and so not the user's.
    pub fn owns(&self, dir: &Path, name: &str) -> bool {
        let path = dir.join(name);
        let plain = path.symlink_metadata().is_ok_and(|m| m.is_file());
        plain
            && match self.files.get(name) {
                Some(Some(hash)) => hash_file(&path).is_ok_and(|h| h == *hash),
                Some(None) => true,
                None => name == Self::NAME,
            }
    }

    /// The name itself if `dir` has no such file of the user's, else one beside it: `sweep.csv` as `sweep.new.csv`, or
    /// with the first number that is free.
    pub fn free_name(&self, dir: &Path, name: &str) -> String {
        let (stem, end) = name.rsplit_once('.').map_or((name, String::new()), |(s, e)| (s, format!(".{e}")));
        let numbered = (2..).map(|n| format!("{stem}.new{n}{end}"));
        let mut names = [name.to_string(), format!("{stem}.new{end}")].into_iter().chain(numbered);
        let free = |n: &String| dir.join(n).symlink_metadata().is_err() || self.owns(dir, n);
        names.find(free).unwrap_or_default()
    }

    /// Removes the files of `dir` that are as they were written, and folders that are empty then; the manifest stays
    /// with files of the user's.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove(&self, dir: &Path) -> Result<()> {
        for name in self.names().filter(|n| self.owns(dir, n)) {
            let path = dir.join(name);
            std::fs::remove_file(&path).map_err(|e| Diag::cannot_write(&path, &e))?;
            for folder in Path::new(name).ancestors().skip(1).take_while(|p| !p.as_os_str().is_empty()) {
                let _ = std::fs::remove_dir(dir.join(folder));
            }
        }
        if std::fs::read_dir(dir).is_ok_and(|d| d.flatten().all(|e| e.file_name() == Self::NAME)) {
            let _ = std::fs::remove_file(dir.join(Self::NAME));
            let _ = std::fs::remove_dir(dir);
        }
        Ok(())
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Writes it into `dir`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Diag::run(format!("no manifest: {e}")))?;
        AtomicFile::replace(&dir.join(Self::NAME), (text + "\n").as_bytes())
    }
}

/// The content hash of a file, which is streamed.
fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_hex()[..16].to_string()),
            n => hasher.update(&buffer[..n]),
        };
    }
}

/// Every file below `dir`, and every empty folder, by its path in it; links are not followed.
pub(super) fn walk(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(at) = open.pop() {
        let before = found.len() + open.len();
        for entry in std::fs::read_dir(dir.join(&at))? {
            let entry = entry?;
            let path = at.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                true => open.push(path),
                false => found.push(path),
            }
        }
        if before == found.len() + open.len() && !at.as_os_str().is_empty() {
            found.push(at);
        }
    }
    found.sort();
    Ok(found)
}

/// A path in the folder as a manifest has it, with `/`. A name that is not Unicode is none of ours.
pub(super) fn name_of(path: &Path) -> String {
    path.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_changed_file_is_the_users() {
        let tmp = tempfile::tempdir().unwrap();
        let mut m = Manifest::default();
        for name in ["a", "b"] {
            fs::write(tmp.path().join(name), name).unwrap();
            m.add(name, name.as_bytes());
        }
        m.add_name("timing.json");
        m.write(tmp.path()).unwrap();
        fs::write(tmp.path().join("b"), "B").unwrap();
        fs::write(tmp.path().join("timing.json"), "1 s").unwrap();
        let m = Manifest::read(tmp.path()).unwrap().unwrap();
        let owns = |name| m.owns(tmp.path(), name);
        assert!(owns("a") && !owns("b") && !owns("c") && owns("timing.json") && owns(Manifest::NAME));
        fs::write(tmp.path().join(Manifest::NAME), "{\"name\": \"a web page\"}").unwrap();
        assert_eq!(Manifest::read(tmp.path()).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn empty_folders_are_found() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("plots/more")).unwrap();
        fs::create_dir(tmp.path().join("empty")).unwrap();
        fs::write(tmp.path().join("plots/more/a"), "").unwrap();
        assert_eq!(walk(tmp.path()).unwrap(), [Path::new("empty"), Path::new("plots/more/a")]);
    }
}
