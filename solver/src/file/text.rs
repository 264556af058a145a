//! Text out of files that are not trusted.

use super::placed::too_large;
use super::{CELLS, LAYERS, LISTS};
use moesim_core::{Diag, Result, input};
use std::io::Read;
use std::path::Path;

/// Bytes: 2^24 slots of five digits and a comma, and some more.
const BYTES: u64 = 128 << 20;
/// Lists: a list a device and layer, and what is around them.
const OPEN: usize = 2 * LISTS + 4 * LAYERS;
/// Elements of lists and objects.
const COMMAS: usize = CELLS + 4 * LISTS;

/// The text of a file, of a size that can be parsed without bound on depth of nesting alone: a list takes two bytes in a file
/// and some fifty in memory.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = input::open(path)?.take(BYTES + 1).read_to_end(&mut text);
    read.map_err(|e| Diag::cannot_read(path, &e))?;
    if text.len() as u64 > BYTES {
        return Err(too_large("is larger than 128 MiB".into()));
    }
    let count = |b: u8| text.iter().filter(|x| **x == b).count();
    if count(b'[') + count(b'{') > OPEN || count(b',').max(count(b'\n')) > COMMAS {
        return Err(too_large("has too many lists or numbers".into()));
    }
    Ok(text)
}

/// Whether the first 4 KiB of a file are as `test` says; bytes that are no text become U+FFFD.
pub(super) fn begins(path: &Path, test: impl Fn(&str) -> bool) -> bool {
    let mut start = Vec::new();
    let read = input::open(path).is_ok_and(|f| f.take(4096).read_to_end(&mut start).is_ok());
    read && test(&String::from_utf8_lossy(&start))
}

/// Whether one of `words` is in the first 4 KiB of a file.
pub(super) fn starts_with(path: &Path, words: &[&str]) -> bool {
    begins(path, |start| words.iter().any(|w| start.contains(w)))
}

/// Whether the file has one of these extensions.
pub(super) fn named(path: &Path, extensions: &[&str]) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e))
}

/// A file that is not `what`, and where it ceases to be.
pub(super) fn broken(what: &str, e: &serde_json::Error) -> Diag {
    let (text, place) = (e.to_string(), format!("{}:{}", e.line(), e.column()));
    let words = text.strip_suffix(&format!(" at line {} column {}", e.line(), e.column())).unwrap_or(&text);
    Diag::input(format!("is no {what}: {words}")).place(place)
}
