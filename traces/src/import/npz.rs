//! Numpy arrays of expert ids, alone or in an archive: [tokens, layers, k] with an optional index of sequences, or
//! [sequences, tokens, layers, k]. An id of -1 is missing.
//!
//! The index is a JSON list of `{"seq": 0, "offset": 0, "n_tokens": 511, "first_pos": 101}`, found as `index.json` beside the
//! array; other keys are ignored. Without an index, three dimensions are one sequence from position 0; of
//! four, each sequence starts at position 0, and its last rows are padding where all their ids are -1.
//!
//! An array with as many layers as the named model has in all, dense ones included, is cut to its MoE layers.

use super::{Declared, Importer, Options, Phase, SEQUENCE, Sink};
use crate::json;
use crate::npy::Header;
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
            return Array { path: &path, options, index }.import(&mut BufReader::new(file), length, sink).map_err(at);
        }
        let broken = |e: zip::result::ZipError| {
            Diag::input(format!("is not a sound archive: {e}"))
                .file(&path)
                .place("archive")
                .cure("save it again with numpy.savez")
        };
        let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(broken)?;
        let name = choose(&mut archive, options).map_err(at)?;
        let member = archive.by_name(&name).map_err(broken)?;
        let packed = member.compressed_size().min(length);
        if member.size() > packed.saturating_mul(RATIO) {
            let problem = format!("`{name}` promises {} bytes out of {packed}", member.size());
            return Err(at(Diag::input(problem)
                .place(name)
                .cure("store it uncompressed with numpy.savez if that is right")));
        }
        let size = member.size();
        Array { path: &path, options, index }
            .import(&mut BufReader::new(member), size, sink)
            .map_err(|d| at(d.place(name)))
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
    fn import(&self, r: &mut impl Read, length: u64, sink: &mut dyn Sink) -> Result<()> {
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
            if let Some(moe) = &moe {
                let k = k as usize;
                let rows = ids.chunks_exact(width);
                ids = rows.flat_map(|row| moe.iter().flat_map(|l| &row[l * k..(l + 1) * k])).copied().collect();
            }
            at = end;
            if count.is_some() {
                let padding = ids.rchunks_exact(meta.width()).take_while(|row| row.iter().all(|id| *id == MISSING));
                ids.truncate(ids.len() - padding.count() * meta.width());
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
            sink.sequence(&OwnedSequence { id, ..s })?;
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

fn skip(r: &mut impl Read, bytes: u64) -> Result<()> {
    let done = std::io::copy(&mut r.take(bytes), &mut std::io::sink()).map_err(|e| truncated(&e))?;
    if done == bytes { Ok(()) } else { Err(truncated(&std::io::ErrorKind::UnexpectedEof.into())) }
}

fn truncated(e: &std::io::Error) -> Diag {
    Diag::input(format!("ends early or is damaged: {e}")).place("data").cure("copy or save it again")
}
