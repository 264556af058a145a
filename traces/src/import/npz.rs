//! Numpy arrays of expert ids, alone or in an archive: [tokens, layers, k] with an optional index of sequences, or
//! [sequences, tokens, layers, k]. An id of -1 is missing.
//!
//! The index is a JSON list of `{"seq": 0, "offset": 0, "n_tokens": 511, "first_pos": 101}`, found as `index.json` beside the
//! array; other keys are ignored. Without an index, three dimensions are one sequence from position 0; of
//! four, each sequence starts at position 0, and its last rows are padding where all their ids are -1.
//!
//! Gate weights of the same shape come from another array of the archive, `gate_weights`, `weights`, `gates`, `topk_weights`, or
//! `gate_u8`: numbers as they are, unsigned integers as parts of the largest of their type.
//!
//! An array with as many layers as the named model has in all, dense ones included, is cut to its MoE layers.

use super::{Declared, Importer, Options, Phase, SEQUENCE, Sink};
use crate::json;
use crate::npy::Header;
use crate::numbers::{Element, Kind};
use crate::trace::{MISSING, OwnedSequence};
use moesim_core::diag::unknown;
use moesim_core::{Diag, Result, input};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Archives of expert ids shrink by a factor of 2 to 20; one that promises more than this is refused.
const RATIO: u64 = 200;
const INDEX_BYTES: u64 = 256 << 20;
const CHUNK: usize = 1 << 20;

/// See the module.
pub(super) struct Npz;

/// One sequence of the index.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Entry {
    seq: Option<u32>,
    offset: u64,
    n_tokens: u64,
    #[serde(default)]
    first_pos: u32,
}

impl Importer for Npz {
    fn name(&self) -> &'static str {
        "npz"
    }
    fn description(&self) -> &'static str {
        "numpy array [tokens, layers, k] or [sequences, tokens, layers, k] (.npy, .npz, or a folder with one and its index.json)"
    }
    fn detect(&self, path: &Path) -> bool {
        array_file(path).is_ok()
    }
    fn import(&self, path: &Path, options: &Options, sink: &mut dyn Sink) -> Result<()> {
        let path = array_file(path)?;
        let at = |d: Diag| d.file(&path);
        let file = input::open(&path)?;
        let length = file.metadata().map_err(|e| Diag::cannot_read(&path, &e))?.len();
        if length == 0 {
            return Err(at(Diag::input("is empty").cure("give an array of expert ids")));
        }
        let index = read_index(&path.with_file_name("index.json"))?;
        if path.extension().is_some_and(|e| e == "npy") {
            let array = Array { path: &path, options, index };
            return array.import(&mut BufReader::new(file), length, None, sink).map_err(at);
        }
        let broken = |e: zip::result::ZipError| {
            Diag::input(format!("is not a sound archive: {e}"))
                .file(&path)
                .place("archive")
                .cure("save it again with numpy.savez")
        };
        let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(broken)?;
        let name = choose(&mut archive, options).map_err(at)?;
        // Both arrays are read at once, each through an archive of its own.
        let again = BufReader::new(input::open(&path)?);
        let mut other = zip::ZipArchive::new(again).map_err(broken)?;
        let gates = GATES.iter().map(|g| format!("{g}.npy")).find(|g| *g != name && other.index_for_name(g).is_some());
        let member = archive.by_name(&name).map_err(broken)?;
        let size = believed(&member, length).map_err(at)?;
        let array = Array { path: &path, options, index };
        let r = &mut BufReader::new(member);
        let Some(gates) = gates else { return array.import(r, size, None, sink).map_err(|d| at(d.place(name))) };
        let member = other.by_name(&gates).map_err(broken)?;
        let size_of_gates = believed(&member, length).map_err(at)?;
        let mut gate = Gate { r: BufReader::new(member), length: size_of_gates };
        array.import(r, size, Some(&mut gate), sink).map_err(|d| at(d.place(name)))
    }
}

/// Names of arrays of gate weights.
const GATES: [&str; 5] = ["gate_weights", "weights", "gates", "topk_weights", "gate_u8"];

/// Bytes that a member of an archive has, if that can be true.
fn believed<R: Read>(member: &zip::read::ZipFile<'_, R>, length: u64) -> Result<u64> {
    let packed = member.compressed_size().min(length);
    if member.size() <= packed.saturating_mul(RATIO) {
        return Ok(member.size());
    }
    let name = member.name().to_string();
    let problem = format!("`{name}` promises {} bytes out of {packed}", member.size());
    Err(Diag::input(problem).place(name).cure("store it uncompressed with numpy.savez if that is right"))
}

/// An array of gate weights about to be read, and its bytes with its header.
struct Gate<R> {
    r: R,
    length: u64,
}

/// A reader of gate weights behind its header, whatever it reads from.
trait Gates {
    /// Reads the header, which must have this shape.
    fn begin(&mut self, shape: &[u64]) -> Result<Element>;
    /// Skips bytes.
    fn skip(&mut self, bytes: u64) -> Result<()>;
    /// Reads `n` weights.
    fn read(&mut self, n: usize, element: Element) -> Result<Vec<f32>>;
}

impl<R: Read> Gates for Gate<R> {
    fn begin(&mut self, shape: &[u64]) -> Result<Element> {
        let header = Header::read(&mut self.r)?;
        let wrong = |problem: String| {
            let cure = "save as many gate weights as ids, or leave the array out";
            Err(Diag::input(problem).place("gate weights").cure(cure))
        };
        if header.shape != shape {
            return wrong(format!("have the shape {:?}, not {shape:?} as the ids", header.shape));
        }
        if header.element.kind == Kind::Signed {
            return wrong("are signed integers, which say no share".into());
        }
        if header.body() != Some(self.length.saturating_sub(header.bytes)) {
            return wrong(format!("declare the shape {shape:?} but have {} bytes in all", self.length));
        }
        Ok(header.element)
    }
    fn skip(&mut self, bytes: u64) -> Result<()> {
        skip(&mut self.r, bytes)
    }
    fn read(&mut self, n: usize, element: Element) -> Result<Vec<f32>> {
        let most = if element.is_integer() { (u64::MAX >> (64 - 8 * element.bytes as u32)) as f64 } else { 1.0 };
        let (mut left, mut weights) = (n * element.bytes, Vec::new());
        let mut chunk = vec![0u8; CHUNK.min(left)];
        while left > 0 {
            // A chunk is a multiple of every element size.
            let part = &mut chunk[..left.min(CHUNK)];
            self.r.read_exact(part).map_err(|e| truncated(&e))?;
            weights.extend(part.chunks_exact(element.bytes).map(|raw| (element.number(raw) / most) as f32));
            left -= part.len();
        }
        Ok(weights)
    }
}

/// The array of a path: the file itself, or the only archive or array in the folder.
fn array_file(path: &Path) -> Result<PathBuf> {
    let is_array = |p: &Path| p.extension().is_some_and(|e| e == "npz" || e == "npy");
    if !path.is_dir() {
        let wrong = || Diag::input("is not a .npy or .npz file").file(path).cure("give one, or a folder with one");
        return is_array(path).then(|| path.to_path_buf()).ok_or_else(wrong);
    }
    let entries = path.read_dir().map_err(|e| Diag::cannot_read(path, &e))?;
    let mut arrays: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| is_array(p) && p.is_file()).collect();
    match (arrays.pop(), arrays.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => {
            Err(Diag::input("has no .npz or .npy file").file(path).cure("give a folder with one, or the file"))
        }
        _ => Err(Diag::input("has several .npz or .npy files").file(path).cure("give one of the files itself")),
    }
}

fn read_index(path: &Path) -> Result<Option<Vec<Entry>>> {
    if !path.exists() {
        return Ok(None);
    }
    let file = input::open(path)?;
    let entries: Vec<Entry> = serde_json::from_reader(BufReader::new(file.take(INDEX_BYTES))).map_err(|e| {
        json::broken("index of sequences", &e)
            .file(path)
            .cure("write a list of {\"seq\", \"offset\", \"n_tokens\", \"first_pos\"}")
    })?;
    Ok(Some(entries))
}

type Archive = zip::ZipArchive<BufReader<File>>;

/// The member to read: the array asked for, `expert_ids`, or the only one with three or four dimensions.
fn choose(archive: &mut Archive, options: &Options) -> Result<String> {
    let mut names: Vec<String> = archive.file_names().filter(|n| n.ends_with(".npy")).map(str::to_string).collect();
    names.sort();
    let wanted = options.array.as_deref().unwrap_or("expert_ids");
    if let Some(found) = names.iter().find(|n| n.strip_suffix(".npy") == Some(wanted)) {
        return Ok(found.clone());
    }
    let short: Vec<&str> = names.iter().take(50).filter_map(|n| n.strip_suffix(".npy")).collect();
    if let Some(wanted) = &options.array {
        return Err(unknown("array of the archive", wanted, &short).place("archive"));
    }
    let cubic = |n: &&String| {
        archive.by_name(n).is_ok_and(|m| {
            Header::read(&mut BufReader::new(m))
                .and_then(Header::integers)
                .is_ok_and(|h| (3..=4).contains(&h.shape.len()))
        })
    };
    let mut found = names.iter().take(1000).filter(cubic);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) => Err(Diag::input("has no array of integers with three or four dimensions")
            .place("archive")
            .cure("save the expert ids, [tokens, layers, k], with numpy.savez")),
        _ => Err(Diag::input("has several arrays of three or four dimensions")
            .place("archive")
            .cure(format!("name the array to read with --array: {}", short.join(", ")))),
    }
}

/// An array about to be read.
struct Array<'a> {
    path: &'a Path,
    options: &'a Options,
    index: Option<Vec<Entry>>,
}

impl Array<'_> {
    /// Streams the array in `r`, which has `length` bytes with its header, one sequence at a time.
    fn import(&self, r: &mut impl Read, length: u64, gates: Option<&mut dyn Gates>, sink: &mut dyn Sink) -> Result<()> {
        let header = Header::read(r)?.integers()?;
        let (count, each, layers, k) = match header.shape[..] {
            [tokens, layers, k] => (None, tokens, layers, k),
            [sequences, tokens, layers, k] => (Some(sequences), tokens, layers, k),
            _ => {
                return Err(Diag::input(format!("has the shape {:?}", header.shape))
                    .place("header")
                    .cure("give an array [tokens, layers, k] or [sequences, tokens, layers, k]"));
            }
        };
        if count.is_some() && self.index.is_some() {
            return Err(Diag::input("has a dimension of sequences and an index.json beside it")
                .place("header")
                .cure("move one of them away"));
        }
        let body = header.body().filter(|b| *b == length.saturating_sub(header.bytes)).ok_or_else(|| {
            Diag::input(format!("declares the shape {:?} but has {length} bytes in all", header.shape))
                .place("header")
                .cure("it is damaged or truncated: copy or save it again")
        })?;
        let (Ok(layers), Ok(k)) = (usize::try_from(layers), u32::try_from(k)) else {
            return Err(Diag::input(format!("has the shape {:?}", header.shape)).place("header").cure("correct it"));
        };
        let moe = self.moe_layers(layers)?;
        let kept = moe.as_ref().map_or(layers, Vec::len);
        let meta = self.options.describe(self.path, kept, k, Declared::default())?;
        // The body's size did not overflow.
        let width = layers * k as usize;
        let row = (width * header.element.bytes) as u64;
        let mut gates = match gates {
            Some(g) => Some((g.begin(&header.shape)?, g)),
            None => None,
        };
        sink.begin(meta.clone())?;
        // The body's size did not overflow.
        let tokens = count.unwrap_or(1) * each;
        // A shape may have any number of empty sequences.
        let regular = (0..if each == 0 { 0 } else { count.unwrap_or(1) }).map(|i| Entry {
            seq: None,
            offset: i * each,
            n_tokens: each,
            first_pos: 0,
        });
        let listed = self.index.iter().flatten().copied();
        let entries: Box<dyn Iterator<Item = Entry>> =
            if self.index.is_some() { Box::new(listed) } else { Box::new(regular) };
        let mut at = 0;
        for (i, e) in entries.enumerate() {
            let end = e.offset.checked_add(e.n_tokens).filter(|end| e.offset >= at && *end <= tokens);
            let Some(end) = end else {
                let problem =
                    format!("tokens {} + {} do not lie after token {at} and before {tokens}", e.offset, e.n_tokens);
                let index = self.path.with_file_name("index.json");
                return Err(Diag::input(problem)
                    .file(index)
                    .place(format!("entry {i}"))
                    .cure("list sequences in array order"));
            };
            if e.n_tokens.saturating_mul(width as u64) > SEQUENCE {
                let problem = format!("sequence {i} has {} tokens, more than 1 GiB of ids", e.n_tokens);
                return Err(Diag::input(problem).place(format!("entry {i}")).cure("divide it by an index.json"));
            }
            skip(r, (e.offset - at) * row)?;
            let mut ids = self.ids(r, &header, &e, width)?;
            let mut weights = None;
            if let Some((element, gates)) = &mut gates {
                gates.skip((e.offset - at) * (width * element.bytes) as u64)?;
                weights = Some(gates.read(ids.len(), *element)?);
            }
            if let Some(moe) = &moe {
                ids = of_layers(&ids, moe, (width, k as usize));
                weights = weights.map(|w| of_layers(&w, moe, (width, k as usize)));
            }
            at = end;
            if count.is_some() {
                let padding = ids.rchunks_exact(meta.width()).take_while(|row| row.iter().all(|id| *id == MISSING));
                ids.truncate(ids.len() - padding.count() * meta.width());
                weights.iter_mut().for_each(|w| w.truncate(ids.len()));
            }
            if ids.is_empty() {
                continue;
            }
            let id = e.seq.unwrap_or(i as u32);
            let s = match self.options.phase {
                Phase::Decode => {
                    OwnedSequence { decode_first_position: e.first_pos, decode: ids, ..Default::default() }
                }
                Phase::Prefill => OwnedSequence { first_position: e.first_pos, prefill: ids, ..Default::default() },
            };
            sink.sequence(&OwnedSequence { id, weights, ..s })?;
        }
        // To the end, where an archive checks its checksum.
        skip(r, body - at * row)?;
        let rest = r.read(&mut [0; 1]).map_err(|e| truncated(&e))?;
        if rest > 0 {
            return Err(Diag::input("goes on after the declared shape").place("end").cure("save it again"));
        }
        Ok(())
    }
    /// The MoE layers of an array that has all layers of the model, dense ones too: vLLM fills those with 0.
    fn moe_layers(&self, layers: usize) -> Result<Option<Vec<usize>>> {
        let model = self.options.load_model()?;
        let all = model.filter(|m| m.decoder.len() == layers && m.moe_layers().len() < layers);
        Ok(all.map(|m| m.moe_layers().to_vec()))
    }
    /// The ids of one entry; memory grows with what is really there.
    fn ids(&self, r: &mut impl Read, header: &Header, e: &Entry, width: usize) -> Result<Vec<u16>> {
        let mut left = e.n_tokens as usize * width * header.element.bytes;
        let (mut ids, mut chunk) = (Vec::new(), vec![0u8; CHUNK.min(left)]);
        while left > 0 {
            // A chunk is a multiple of every element size.
            let part = &mut chunk[..left.min(CHUNK)];
            r.read_exact(part).map_err(|e| truncated(&e))?;
            let before = ids.len();
            header.element.ids(part, &mut ids).map_err(|(i, value)| {
                let (token, column) = ((before + i) / width, (before + i) % width);
                Diag::input(format!("{value} is not an expert id"))
                    .place(format!("token {}, column {column} of {width}", e.offset + token as u64))
                    .cure("write ids from 0, and -1 for missing")
            })?;
            left -= part.len();
        }
        Ok(ids)
    }
}

/// The columns of these layers, of rows of all layers.
fn of_layers<T: Copy>(rows: &[T], layers: &[usize], (width, k): (usize, usize)) -> Vec<T> {
    rows.chunks_exact(width).flat_map(|row| layers.iter().flat_map(|l| &row[l * k..(l + 1) * k])).copied().collect()
}

fn skip(r: &mut impl Read, bytes: u64) -> Result<()> {
    let done = std::io::copy(&mut r.take(bytes), &mut std::io::sink()).map_err(|e| truncated(&e))?;
    if done == bytes { Ok(()) } else { Err(truncated(&std::io::ErrorKind::UnexpectedEof.into())) }
}

fn truncated(e: &std::io::Error) -> Diag {
    Diag::input(format!("ends early or is damaged: {e}")).place("data").cure("copy or save it again")
}
