//! Files mapped into memory.

use std::fs::File;

/// The bytes of a file, read as they are touched.
pub(crate) fn map(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the map is read only. As for every mapped file, a process that truncates it meanwhile ends us with a
    // signal, and one that rewrites it changes what was checked; users index by it with bounds checks.
    unsafe { memmap2::Mmap::map(file) }
}
