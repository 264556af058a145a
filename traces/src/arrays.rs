//! Arrays of whole numbers out of other tools' files: numpy's `.npy` and `.npz`, tensors of `torch.save`.
//!
//! For readers of what is neither a trace nor counts. Elements may be of any numeric type as long as each is a whole
//! number; the caller bounds how many there are, before any is read.

use crate::npy::Header;
use crate::numbers::Element;
use crate::torch::{TorchFile, is_torch};
use moesim_core::diag::unknown;
use moesim_core::{Diag, Result, input};
use std::io::{BufReader, Read};
use std::path::Path;

/// Arrays of an archive that are looked at.
const MEMBERS: usize = 1000;

/// An array in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Its name in the archive or dictionary, if it has one.
    pub name: Option<String>,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements in C order.
    pub data: Vec<i64>,
}

/// Which array is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// Its name, where a file has several.
    pub name: Option<&'a str>,
    /// What the array is, for messages: "a map [layers, slots]".
    pub what: &'a str,
    /// Its number of dimensions.
    pub dimensions: usize,
    /// The most elements.
    pub most: usize,
}

impl Want<'_> {
    /// The number of elements of a shape, if it is one that is wanted.
    fn count(&self, shape: &[usize]) -> Result<usize> {
        let wrong = |problem: String| Err(Diag::input(problem).place("shape").cure(format!("give {}", self.what)));
        if shape.len() != self.dimensions {
            return wrong(format!("has the shape {shape:?}, not {} dimensions", self.dimensions));
        }
        match shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) {
            Some(0) => wrong(format!("has the shape {shape:?}: it is empty")),
            Some(n) if n <= self.most => Ok(n),
            _ => wrong(format!("has the shape {shape:?}; {} elements are the most", self.most)),
        }
    }
}

/// Whether `path` looks like a file of `torch.save`, old or new, sound or not.
pub fn is_tensor_file(path: &Path) -> bool {
    is_torch(path)
}

/// Whether `path` is a `.npy` or `.npz` with an array of this many dimensions; reads little. One that cannot be read counts as
/// such, so that its reader says what is wrong with it.
pub fn is_numpy(path: &Path, dimensions: usize) -> bool {
    let Ok(file) = input::open(path) else { return false };
    let mut file = BufReader::new(file);
    match path.extension().and_then(|e| e.to_str()) {
        Some("npy") => Header::read(&mut file).map_or(true, |h| h.shape.len() == dimensions),
        Some("npz") => {
            zip::ZipArchive::new(file).map_or(true, |mut a| members(&mut a).iter().any(|m| m.1.len() == dimensions))
        }
        _ => false,
    }
}

/// Reads a `.npy`, or one array of a `.npz`. Of several with the wanted dimensions, one must be named.
///
/// # Errors
/// A file that is damaged, has no such array or another shape, or an element that is no whole number.
pub fn numpy(path: &Path, want: &Want) -> Result<Array> {
    let at = |d: Diag| d.file(path);
    let file = BufReader::new(input::open(path)?);
    if path.extension().is_some_and(|e| e == "npz") { archive(file, want) } else { array(file, want) }.map_err(at)
}

fn array(mut r: impl Read, want: &Want) -> Result<Array> {
    let header = Header::read(&mut r)?;
    let shape = sizes(&header);
    let count = want.count(&shape)?;
    let wrong = |problem: String| Diag::input(problem).place("data").cure("it is damaged: copy or save it again");
    let mut data = Vec::new();
    let mut chunk = vec![0u8; 64 << 10];
    let mut left = count;
    while left > 0 {
        let part = left.min(chunk.len() / header.element.bytes);
        let bytes = &mut chunk[..part * header.element.bytes];
        r.read_exact(bytes).map_err(|e| wrong(format!("ends early or is damaged: {e}")))?;
        for raw in bytes.chunks_exact(header.element.bytes) {
            data.push(whole(header.element, raw).map_err(|d| d.place(format!("element {}", data.len())))?);
        }
        left -= part;
    }
    match r.read(&mut [0; 1]) {
        Ok(0) => Ok(Array { name: None, shape, data }),
        _ => Err(wrong("goes on after the declared shape, or is damaged".into())),
    }
}

fn sizes(header: &Header) -> Vec<usize> {
    header.shape.iter().map(|n| usize::try_from(*n).unwrap_or(usize::MAX)).collect()
}

fn whole(element: Element, raw: &[u8]) -> Result<i64> {
    let wrong = |shown: String| {
        Diag::input(format!("{shown} is no whole number within 2^53")).cure("save whole numbers, as integers")
    };
    if element.is_integer() {
        let value = element.integer(raw);
        return i64::try_from(value).map_err(|_| wrong(value.to_string()));
    }
    let value = element.number(raw);
    let exact = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
    if exact { Ok(value as i64) } else { Err(wrong(value.to_string())) }
}

type Archive<R> = zip::ZipArchive<R>;

/// Names, without `.npy`, and shapes of an archive's arrays, by name.
fn members<R: Read + std::io::Seek>(archive: &mut Archive<R>) -> Vec<(String, Vec<usize>)> {
    let mut names: Vec<String> = archive.file_names().filter(|n| n.ends_with(".npy")).map(str::to_string).collect();
    names.sort();
    names.truncate(MEMBERS);
    let shape = |n: String| {
        let header = Header::read(&mut BufReader::new(archive.by_name(&n).ok()?)).ok()?;
        Some((n.strip_suffix(".npy")?.to_string(), sizes(&header)))
    };
    names.into_iter().filter_map(shape).collect()
}

fn archive<R: Read + std::io::Seek>(r: R, want: &Want) -> Result<Array> {
    let broken = |e: zip::result::ZipError| {
        Diag::input(format!("is not a sound archive: {e}")).place("archive").cure("save it again with numpy.savez")
    };
    let mut archive = Archive::new(r).map_err(broken)?;
    let all = members(&mut archive);
    let fitting: Vec<&str> =
        all.iter().filter(|m| m.1.len() == want.dimensions).map(|m| m.0.as_str()).take(50).collect();
    let name = match want.name {
        Some(name) => {
            let name = name.strip_suffix(".npy").unwrap_or(name);
            let found = all.iter().find(|m| m.0 == name).map(|m| m.0.as_str());
            found.ok_or_else(|| unknown("array of the archive", name, &fitting).place("archive"))?
        }
        None => match fitting[..] {
            [only] => only,
            [] => {
                let problem = format!("has no array of {} dimensions", want.dimensions);
                return Err(Diag::input(problem).place("archive").cure(format!("give {}", want.what)));
            }
            _ => {
                let problem = format!("has {} arrays of {} dimensions", fitting.len(), want.dimensions);
                let cure = format!("name the array to read with --array: {}", fitting.join(", "));
                return Err(Diag::input(problem).place("archive").cure(cure));
            }
        },
    }
    .to_string();
    let member = archive.by_name(&format!("{name}.npy")).map_err(broken)?;
    let read = array(BufReader::new(member), want);
    let found = read.map_err(|d| {
        let place = d.place.as_ref().map_or(format!("{name:.80}"), |p| format!("{name:.80}, {p}"));
        Diag { place: Some(place), ..d }
    })?;
    Ok(Array { name: Some(name), ..found })
}

/// Reads a tensor of `torch.save`: what was saved, or the value of the first of `keys` that a saved dictionary has.
///
/// # Errors
/// As [`numpy`].
pub fn tensor(path: &Path, keys: &[&str], want: &Want) -> Result<Array> {
    let file = TorchFile::open(path)?;
    let found = keys.iter().find_map(|k| Some((*k, file.tensor(file.get(file.root, k)?)?)));
    let found = found.map(|(k, t)| (Some(k), t)).or_else(|| Some((None, file.tensor(file.root)?)));
    let (name, t) = found.ok_or_else(|| {
        let problem = format!("is no tensor, and has none as {}", keys.join(" or "));
        file.at(Diag::input(problem).place("data.pkl").cure(format!("save {} alone, as one tensor", want.what)))
    })?;
    let count = want.count(&t.shape).map_err(|d| file.at(d))?;
    let mut data = Vec::with_capacity(count);
    for raw in file.elements(t) {
        data.push(whole(t.element, raw).map_err(|d| file.at(d.place(format!("element {}", data.len()))))?);
    }
    Ok(Array { name: name.map(str::to_string), shape: t.shape.clone(), data })
}

/// Whether a file of `torch.save` is a tensor, or a dictionary with one of `keys`, of this many dimensions.
pub fn has_tensor(path: &Path, keys: &[&str], dimensions: usize) -> bool {
    TorchFile::open(path).is_ok_and(|f| {
        let inside = keys.iter().find_map(|k| f.tensor(f.get(f.root, k)?));
        let found = if keys.is_empty() { f.tensor(f.root) } else { inside };
        found.is_some_and(|t| t.shape.len() == dimensions)
    })
}

#[cfg(test)]
mod tests;
