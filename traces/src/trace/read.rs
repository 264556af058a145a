//! Reading a trace: a map of the file, an index of its sequences, ids checked as each sequence is first used.

use super::hash::RowHasher;
use super::index::{self, Entry};
use super::{MISSING, Meta, OwnedSequence, ipc};
use arrow_buffer::{Buffer, ScalarBuffer};
use moesim_core::{Diag, Result, input};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A trace, mapped from a file or held in memory. It can be shared between threads.
pub struct Trace {
    meta: Meta,
    path: Option<PathBuf>,
    batches: Vec<Selections>,
    index: Vec<Entry>,
    rows: u64,
    // One bit a sequence: its ids are known to be good.
    checked: Vec<AtomicU64>,
    hash: OnceLock<String>,
}

#[derive(Clone)]
struct Selections {
    experts: ScalarBuffer<u16>,
    weights: Option<ScalarBuffer<f32>>,
}

/// A sequence of a trace. Rows have `width` expert ids, layer by layer in gate order; position `first_position + i` is row i.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sequence<'a> {
    /// Its number.
    pub id: u32,
    /// Position of the first prefill row.
    pub first_position: u32,
    /// Expert ids of the prefill rows.
    pub prefill: &'a [u16],
    /// Expert ids of the decode rows.
    pub decode: &'a [u16],
    /// Position of the first decode row.
    pub decode_first_position: u32,
    /// Gate weights of the prefill rows, if the trace has any.
    pub prefill_weights: Option<&'a [f32]>,
    /// Gate weights of the decode rows, if the trace has any.
    pub decode_weights: Option<&'a [f32]>,
}

impl Sequence<'_> {
    /// A copy of its own.
    pub fn to_owned(&self) -> OwnedSequence {
        let weights = self.prefill_weights.zip(self.decode_weights).map(|(p, d)| [p, d].concat());
        OwnedSequence {
            id: self.id,
            first_position: self.first_position,
            prefill: self.prefill.to_vec(),
            decode: self.decode.to_vec(),
            decode_first_position: self.decode_first_position,
            weights,
        }
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Trace").field("meta", &self.meta).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Trace {
    /// Opens a trace file. Its structure is checked whole and its small columns are scanned; expert ids are not touched.
    pub fn open(path: &Path) -> Result<Self> {
        let read = |e: std::io::Error| Diag::cannot_read(path, &e);
        let file = input::open(path)?;
        let info = file.metadata().map_err(read)?;
        if info.len() == 0 {
            return Err(Diag::input("is empty").file(path).cure("give a trace file, as `trace import` writes it"));
        }
        let map = crate::map::map(&file).map_err(read)?;
        Self::parse(&Buffer::from(bytes::Bytes::from_owner(map)), path)
    }
    /// A trace out of the bytes of the file `path`.
    pub(super) fn parse(file: &Buffer, path: &Path) -> Result<Self> {
        let parsed = ipc::parse(file).map_err(|d| d.file(path))?;
        let index = index::scan(&parsed.batches).map_err(|d| d.file(path))?;
        let batches =
            parsed.batches.into_iter().map(|b| Selections { experts: b.experts, weights: b.weights }).collect();
        let hash = parsed.hash.map_or_else(OnceLock::new, OnceLock::from);
        Self::assemble(parsed.meta, Some(path), batches, index, hash)
    }
    /// A trace in memory.
    pub fn from_sequences(meta: Meta, sequences: Vec<OwnedSequence>) -> Result<Self> {
        meta.check()?;
        let has_weights = sequences.first().is_some_and(|s| s.weights.is_some());
        let (mut index, mut row, mut previous) = (Vec::with_capacity(sequences.len()), 0, None);
        let total = sequences.iter().map(|s| s.prefill.len() + s.decode.len()).sum();
        let (mut experts, mut weights) = (Vec::with_capacity(total), has_weights.then(Vec::new));
        for s in sequences {
            let (prefill_rows, decode_rows) = s.check(meta.width(), previous, has_weights)?;
            index.push(Entry::new(0, row, &s, prefill_rows, decode_rows));
            experts.extend_from_slice(&s.prefill);
            experts.extend_from_slice(&s.decode);
            if let (Some(all), Some(w)) = (&mut weights, &s.weights) {
                all.extend_from_slice(w);
            }
            row += u64::from(prefill_rows) + u64::from(decode_rows);
            previous = Some(s.id);
        }
        let batch = Selections { experts: experts.into(), weights: weights.map(ScalarBuffer::from) };
        let trace = Self::assemble(meta, None, vec![batch], index, OnceLock::new())?;
        trace.hash();
        Ok(trace)
    }
    fn assemble(
        meta: Meta,
        path: Option<&Path>,
        batches: Vec<Selections>,
        index: Vec<Entry>,
        hash: OnceLock<String>,
    ) -> Result<Self> {
        let path = path.map(Path::to_path_buf);
        let checked = (0..index.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let rows = index.iter().map(|e| u64::from(e.prefill_rows) + u64::from(e.decode_rows)).sum();
        let trace = Self { meta, path, batches, index, rows, checked, hash };
        if trace.index.is_empty() {
            return Err(trace.at(Diag::input("has no rows").cure("import a source that has some")));
        }
        Ok(trace)
    }
    /// The same sequences in another order, without a copy of their rows; `order` names each of `0..sequences()` once. They keep
    /// their ids. Panics if `order` names a sequence that there is not.
    ///
    /// # Errors
    /// No sequence at all.
    pub fn reordered(&self, order: &[usize]) -> Result<Self> {
        let index = order.iter().map(|&i| self.index[i].clone()).collect();
        Self::assemble(self.meta.clone(), self.path.as_deref(), self.batches.clone(), index, OnceLock::new())
    }
    /// What describes it.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }
    /// Number of MoE layers.
    pub fn layers(&self) -> usize {
        self.meta.layer_numbers.len()
    }
    /// Experts chosen for a token and layer.
    pub fn k(&self) -> usize {
        self.meta.k as usize
    }
    /// Routed experts a layer.
    pub fn experts(&self) -> usize {
        self.meta.experts as usize
    }
    /// Ids a row: layers x k.
    pub fn width(&self) -> usize {
        self.meta.width()
    }
    /// Whether its rows have gate weights.
    pub fn has_weights(&self) -> bool {
        self.batches.first().is_some_and(|b| b.weights.is_some())
    }
    /// Number of sequences, at least 1.
    pub fn sequences(&self) -> usize {
        self.index.len()
    }
    /// Number of rows over all sequences.
    pub fn rows(&self) -> u64 {
        self.rows
    }
    /// Sequence `i` of `0..sequences()` (not its id), in O(1). Panics if there is no such sequence.
    pub fn sequence(&self, i: usize) -> Sequence<'_> {
        let e = &self.index[i];
        let (batch, width) = (&self.batches[e.batch as usize], self.meta.width());
        let start = e.row as usize * width;
        let split = start + e.prefill_rows as usize * width;
        let end = split + e.decode_rows as usize * width;
        Sequence {
            id: e.id,
            first_position: e.first_position,
            prefill: &batch.experts[start..split],
            decode: &batch.experts[split..end],
            decode_first_position: e.decode_first_position,
            prefill_weights: batch.weights.as_ref().map(|w| &w[start..split]),
            decode_weights: batch.weights.as_ref().map(|w| &w[split..end]),
        }
    }
    /// The rows of sequence `i`, prompt rows first. Panics if there is no such sequence.
    pub fn rows_of(&self, i: usize) -> &[u16] {
        let e = &self.index[i];
        let start = e.row as usize * self.width();
        let rows = e.prefill_rows as usize + e.decode_rows as usize;
        &self.batches[e.batch as usize].experts[start..start + rows * self.width()]
    }
    /// Checks that every id of sequence `i` is below the number of experts or [`MISSING`], none is twice in a layer of a
    /// row, and every gate weight is finite.
    /// A sequence is checked once, at first use. Panics if there is no such sequence.
    pub fn check_sequence(&self, i: usize) -> Result<()> {
        let (word, bit) = (&self.checked[i / 64], 1 << (i % 64));
        if word.load(Relaxed) & bit == 0 {
            check_rows(&self.meta, &self.sequence(i)).map_err(|d| self.at(d))?;
            word.fetch_or(bit, Relaxed);
        }
        Ok(())
    }
    /// Hash of the rows, 16 hexadecimal digits; a file that lacks it is hashed at the first call.
    pub fn hash(&self) -> &str {
        self.hash.get_or_init(|| self.rows_hash())
    }
    /// Whether the rows still have the hash that the file declares; reads everything.
    pub fn verify(&self) -> Result<()> {
        if self.rows_hash() == self.hash() {
            return Ok(());
        }
        let problem = format!("the rows do not have the hash {} that the file declares", self.hash());
        Err(self.at(Diag::input(problem).place("footer").cure("the file is damaged: import or copy it again")))
    }
    fn rows_hash(&self) -> String {
        let mut h = RowHasher::new();
        (0..self.sequences()).for_each(|i| h.push(&self.sequence(i)));
        h.finish()
    }
    /// Names the trace as the file that is wrong.
    pub(crate) fn at(&self, d: Diag) -> Diag {
        d.file(self.path.as_deref().unwrap_or(Path::new(&self.meta.model)))
    }
}

/// Ids in range, no expert twice in a layer of a row, and gate weights finite.
pub(crate) fn check_rows(meta: &Meta, s: &Sequence) -> Result<()> {
    let place = |row: usize, column: usize, first: u32| {
        let layer = meta.layer_numbers[column / meta.k as usize];
        format!("sequence {}, position {}, layer {layer}", s.id, u64::from(first) + row as u64)
    };
    let experts = meta.experts;
    let width = meta.width();
    for (ids, first) in [(s.prefill, s.first_position), (s.decode, s.decode_first_position)] {
        // One reduction without early exit vectorises; the place is found only when there is one.
        let bad = |id: u16| u32::from(id) >= experts && id != MISSING;
        if ids.iter().fold(false, |any, &id| any | bad(id)) {
            let at = ids.iter().position(|&id| bad(id)).unwrap_or(0);
            return Err(Diag::input(format!("expert {} of {experts} does not exist", ids[at]))
                .place(place(at / width, at % width, first))
                .cure("the experts are numbered from 0: correct the rows or the declared number of experts"));
        }
    }
    // An expert computes a token once, so a replay would count too much. The last (row, layer) that has each expert:
    let k = meta.k as usize;
    let mut last = vec![0u64; if k > 1 { experts as usize } else { 0 }];
    let mut now = 0;
    for (ids, first) in [(s.prefill, s.first_position), (s.decode, s.decode_first_position)] {
        for (i, layer) in ids.chunks_exact(k).enumerate().filter(|_| k > 1) {
            now += 1;
            let mut again = None;
            for &id in layer.iter().filter(|id| **id != MISSING) {
                let seen = &mut last[usize::from(id)];
                if *seen == now {
                    again = Some(id);
                }
                *seen = now;
            }
            if let Some(id) = again {
                return Err(Diag::input(format!("expert {id} is selected twice"))
                    .place(place(i * k / width, i * k % width, first))
                    .cure("give each expert of a layer once, and mark what is missing (-1; 0xFFFF in the container)"));
            }
        }
    }
    let weights = [(s.prefill_weights, s.first_position), (s.decode_weights, s.decode_first_position)];
    for (w, first) in weights {
        let w = w.unwrap_or_default();
        if let Some(at) = w.iter().position(|x| !x.is_finite()) {
            return Err(Diag::input(format!("the gate weight {} is not finite", w[at]))
                .place(place(at / width, at % width, first))
                .cure("write finite gate weights, or none"));
        }
    }
    Ok(())
}
