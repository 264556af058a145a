//! Files that `torch.save` writes since PyTorch 1.6: an archive of stored members, `NAME/data.pkl` with the objects and
//! `NAME/data/KEY` with the bytes of each storage.
//!
//! The file is mapped; of tensors only what is read is touched. The objects take memory of their own, at most a
//! few times [`PICKLE`].

mod pickle;

use crate::numbers::Element;
use moesim_core::{Diag, Result, input};
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

pub(crate) use pickle::Value;

/// Bytes of `data.pkl`: the positions of about 10 million tokens.
const PICKLE: usize = 64 << 20;
/// Members of the archive, three for each forward pass of a recording.
const MEMBERS: usize = 4 << 20;

/// An open file.
pub(crate) struct TorchFile {
    path: PathBuf,
    map: memmap2::Mmap,
    pickle: Range<usize>,
    objects: pickle::Objects,
    /// What was saved.
    pub(crate) root: Value,
}

/// A view of a storage. Every element lies inside the file, and there are no more elements than the storage has.
#[derive(Debug)]
pub(crate) struct Tensor {
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    strides: Vec<usize>,
    /// The file's bytes from the first element on.
    bytes: Range<usize>,
}

/// Whether `path` looks like a file of `torch.save`, old or new, sound or not.
pub(crate) fn is_torch(path: &Path) -> bool {
    let mut start = [0u8; 4];
    let read = input::open(path).is_ok_and(|mut f| f.read_exact(&mut start).is_ok());
    let named = path.extension().is_some_and(|e| e == "pt" || e == "pth");
    let archive = || input::open(path).ok().and_then(|f| zip::ZipArchive::new(std::io::BufReader::new(f)).ok());
    path.is_file()
        && (named || (read && &start == b"PK\x03\x04" && archive().is_some_and(|a| data_pkl(a.file_names()).is_some())))
}

fn data_pkl<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names.filter(|n| n.split_once('/').is_some_and(|(_, rest)| rest == "data.pkl")).min()
}

impl TorchFile {
    /// Opens a file and reads its objects, but no tensor.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let read = |e: std::io::Error| Diag::cannot_read(path, &e);
        let at = |d: Diag| d.file(path);
        let file = input::open(path)?;
        let info = file.metadata().map_err(read)?;
        if info.len() == 0 {
            return Err(at(Diag::input("is empty").cure("give a file that torch.save wrote")));
        }
        let map = crate::map::map(&file).map_err(read)?;
        let members = Members::of(&map).map_err(at)?;
        let pickle = members.pickle.clone();
        let (objects, root) =
            pickle::read(&map[pickle.clone()], &|key, element, count| members.storage(key, element, count))
                .map_err(at)?;
        Ok(Self { path: path.to_path_buf(), map, pickle, objects, root })
    }
    /// The bytes of the file: what a tensor's bytes, all added up, cannot exceed unless some are counted twice.
    pub(crate) fn bytes(&self) -> u64 {
        self.map.len() as u64
    }
    /// The bytes of its objects.
    pub(crate) fn pickle_bytes(&self) -> usize {
        self.pickle.len()
    }
    /// The value of a key, if `v` is a dictionary that has it.
    pub(crate) fn get(&self, v: Value, key: &str) -> Option<Value> {
        let Value::Dict(d) = v else { return None };
        let pickle = &self.map[self.pickle.clone()];
        let is = |k: &Value| k.text(pickle) == Some(key.as_bytes());
        self.objects.dicts[d as usize].iter().rev().find(|e| is(&e.0)).map(|e| e.1)
    }
    /// The items of a list or tuple.
    /// The value of a dictionary that has one entry.
    pub(crate) fn only(&self, v: Value) -> Option<Value> {
        let Value::Dict(d) = v else { return None };
        match &self.objects.dicts[d as usize][..] {
            [(_, value)] => Some(*value),
            _ => None,
        }
    }
    pub(crate) fn items(&self, v: Value) -> Option<&[Value]> {
        match v {
            Value::List(l) => Some(&self.objects.lists[l as usize]),
            _ => None,
        }
    }
    /// The tensor, if `v` is one.
    pub(crate) fn tensor(&self, v: Value) -> Option<&Tensor> {
        match v {
            Value::Tensor(t) => Some(&self.objects.tensors[t as usize]),
            _ => None,
        }
    }
    /// The element at an index of as many dimensions as the tensor has, as an integer.
    pub(crate) fn integer(&self, t: &Tensor, index: [usize; 3]) -> i128 {
        let offset = index.iter().zip(&t.strides).map(|(i, s)| i * s).sum::<usize>();
        t.element.integer(self.raw(t, offset))
    }
    /// All elements in C order.
    pub(crate) fn numbers<'a>(&'a self, t: &'a Tensor) -> impl Iterator<Item = f64> + 'a {
        self.elements(t).map(|raw| t.element.number(raw))
    }
    /// The bytes of all elements in C order.
    pub(crate) fn elements<'a>(&'a self, t: &'a Tensor) -> impl Iterator<Item = &'a [u8]> + 'a {
        (0..t.count()).map(move |mut i| {
            let mut offset = 0;
            for (size, stride) in t.shape.iter().zip(&t.strides).rev() {
                offset += i % size * stride;
                i /= size;
            }
            self.raw(t, offset)
        })
    }
    fn raw(&self, t: &Tensor, offset: usize) -> &[u8] {
        let start = t.bytes.start + offset * t.element.bytes;
        &self.map[start..start + t.element.bytes]
    }
    /// Names the file.
    pub(crate) fn at(&self, d: Diag) -> Diag {
        d.file(&self.path)
    }
}

impl Tensor {
    /// Elements.
    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }
    /// A view of a storage's bytes, checked.
    fn new(
        storage: Range<usize>,
        element: Element,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<Self> {
        let wrong = |problem: String| Err(Diag::input(problem).cure("it is damaged: copy or save it again"));
        let held = storage.len() / element.bytes;
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(offset, |at, (size, stride)| at.checked_add(size.saturating_sub(1).checked_mul(*stride)?));
        let start = offset.checked_mul(element.bytes).and_then(|o| storage.start.checked_add(o));
        match (count, last, start) {
            _ if shape.len() != strides.len() => {
                wrong(format!("a tensor has the shape {shape:?} and strides {strides:?}"))
            }
            (Some(0), ..) => Ok(Self { element, shape, strides, bytes: 0..0 }),
            (Some(n), Some(last), Some(start)) if n <= held && last < held => {
                Ok(Self { element, shape, strides, bytes: start..storage.end })
            }
            _ => wrong(format!(
                "a tensor of shape {shape:?}, strides {strides:?} and offset {offset} does not fit its storage of {held}"
            )),
        }
    }
}

/// The members of the archive.
struct Members {
    pickle: Range<usize>,
    storages: HashMap<String, Range<usize>>,
}

impl Members {
    fn of(map: &[u8]) -> Result<Self> {
        // The magic number of the format before 1.6, as a pickled long, behind the protocol.
        let wrong = |problem: String, cure: &str| Diag::input(problem).place("archive").cure(cure);
        if map.starts_with(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.") {
            return Err(wrong(
                "is in the format of PyTorch before 1.6".into(),
                "load it and save it again with torch.save of a newer PyTorch",
            ));
        }
        let broken = |e: zip::result::ZipError| {
            wrong(format!("is not a sound archive of torch.save: {e}"), "copy or save it again")
        };
        let mut archive = zip::ZipArchive::new(Cursor::new(map)).map_err(broken)?;
        if archive.len() > MEMBERS {
            return Err(wrong(format!("has {} members", archive.len()), "record for a shorter time"));
        }
        let main = data_pkl(archive.file_names()).map(str::to_string);
        let main = main.ok_or_else(|| wrong("has no data.pkl".into(), "give a file that torch.save wrote"))?;
        let folder = main.strip_suffix("data.pkl").unwrap_or_default().to_string();
        let data = format!("{folder}data/");
        let (mut pickle, mut storages) = (None, HashMap::new());
        for i in 0..archive.len() {
            let member = archive.by_index_raw(i).map_err(broken)?;
            let name = member.name();
            let key = name.strip_prefix(&data);
            let big_endian = || {
                let order = format!("{folder}byteorder");
                name == order
            };
            if name != main && key.is_none() && !big_endian() {
                continue;
            }
            if member.compression() != zip::CompressionMethod::Stored {
                return Err(wrong(
                    format!("the member `{name:.80}` is compressed"),
                    "load it and save it again with torch.save, which stores its members",
                ));
            }
            let start = member.data_start().and_then(|s| usize::try_from(s).ok());
            let size = usize::try_from(member.size()).ok();
            let end = start.zip(size).and_then(|(s, n)| s.checked_add(n)).filter(|e| *e <= map.len());
            let (Some(start), Some(end)) = (start, end) else {
                return Err(wrong(format!("the member `{name:.80}` goes on behind the end"), "copy or save it again"));
            };
            match key {
                Some(key) => {
                    storages.insert(key.to_string(), start..end);
                }
                None if name == main => pickle = Some(start..end),
                None if &map[start..end] == b"little" => {}
                None => {
                    return Err(wrong(
                        "was saved on a big-endian machine".into(),
                        "save it again on a little-endian machine",
                    ));
                }
            }
        }
        let pickle = pickle.ok_or_else(|| wrong("has no data.pkl".into(), "give a file that torch.save wrote"))?;
        if pickle.len() > PICKLE {
            let problem =
                format!("has {} MB of objects beside its tensors; 64 MiB is the most", pickle.len() / 1_000_000);
            return Err(wrong(problem, "record for a shorter time, or save tensors where there are lists"));
        }
        Ok(Self { pickle, storages })
    }
    /// The bytes of a storage of so many elements.
    fn storage(&self, key: &[u8], element: Element, count: usize) -> Result<Range<usize>> {
        let shown = String::from_utf8_lossy(&key[..key.len().min(40)]).into_owned();
        let wrong = |problem: String| Diag::input(problem).cure("it is damaged: copy or save it again");
        let found = std::str::from_utf8(key).ok().and_then(|k| self.storages.get(k));
        let range = found.ok_or_else(|| wrong(format!("the storage `{shown}` is not in the archive")))?;
        if count.checked_mul(element.bytes) != Some(range.len()) {
            let problem = format!("the storage `{shown}` has {} bytes, not {count} elements", range.len());
            return Err(wrong(problem));
        }
        Ok(range.clone())
    }
}

#[cfg(test)]
mod tests;
