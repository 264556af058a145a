//! A CSV table with a header, one row a token and layer: `sequence,position,layer,expert0,expert1,...`.
//!
//! * Rows are sorted by sequence, position and layer; positions of a phase are consecutive; every token has the layers of the
//!   first one. -1 and an empty field are missing experts.
//! * `token` may stand for `position`, `expert_0` for `expert0`. A column `phase` has `prefill` or `decode` (or 0 or 1);
//!   without it the options say which. Other columns are ignored. Fields have no quotes.

use super::{Declared, Importer, Options, Phase, SEQUENCE, Sink};
use crate::csv_lines::{ShortLines, broken};
use crate::trace::{MISSING, Meta, OwnedSequence};
use csv::ByteRecord;
use moesim_core::{Diag, Result, input};
use std::io::Read;
use std::path::Path;

/// As many as a trace can have.
const LAYERS: usize = 4096;

/// See the module.
pub(super) struct CsvRows;

impl Importer for CsvRows {
    fn name(&self) -> &'static str {
        "csv"
    }
    fn description(&self) -> &'static str {
        "CSV, one row a token and layer: sequence,position,layer,expert0,expert1,... and perhaps phase"
    }
    fn detect(&self, path: &Path) -> bool {
        let mut start = Vec::new();
        let read = input::open(path).is_ok_and(|f| f.take(4096).read_to_end(&mut start).is_ok());
        let header = start.split(|b| *b == b'\n').next().unwrap_or_default();
        let has = |name: &[u8]| header.split(|b| *b == b',').any(|c| c.trim_ascii().ends_with(name));
        read && has(b"sequence") && has(b"layer")
    }
    fn import(&self, path: &Path, options: &Options, sink: &mut dyn Sink) -> Result<()> {
        let at = |d: Diag| d.file(path);
        let file = input::open(path)?;
        let lines = ShortLines::new(file);
        let mut csv = csv::ReaderBuilder::new().quoting(false).buffer_capacity(1 << 18).from_reader(lines);
        let header = csv.headers().map_err(|e| broken(path, &e))?;
        let columns = Columns::find(&header.iter().collect::<Vec<_>>(), options).map_err(at)?;
        let mut reader = Rows::new(path, options, sink, columns.experts.len());
        let mut record = ByteRecord::new();
        while csv.read_byte_record(&mut record).map_err(|e| broken(path, &e))? {
            let line = || format!("line {}", record.position().map_or(0, csv::Position::line));
            let row = |reader: &mut Rows| {
                let (token, layer) = columns.token(&record, options.phase)?;
                reader.layer(token, layer)?;
                columns.experts(&record, reader.ids(token.1))
            };
            row(&mut reader).map_err(|d| {
                let place = d.place.map_or_else(line, |p| format!("{}, {p}", line()));
                Diag { place: Some(place), ..d }.file(path)
            })?;
        }
        reader.finish().map_err(at)
    }
}

/// (Sequence, phase, position): what identifies a token.
pub(super) type TokenKey = (u32, Phase, u32);

/// Where the columns are.
struct Columns {
    sequence: usize,
    position: usize,
    layer: usize,
    phase: Option<usize>,
    experts: Vec<usize>,
}

fn wrong(problem: impl Into<String>, cure: &str) -> Diag {
    Diag::input(problem).cure(cure)
}

impl Columns {
    fn find(header: &[&str], options: &Options) -> Result<Self> {
        const CURE: &str = "give a table with the columns sequence,position,layer,expert0,expert1,...";
        let wrong = |problem: String| wrong(problem, CURE).place("line 1");
        let header: Vec<&str> = header.iter().map(|c| c.trim_start_matches('\u{feff}').trim()).collect();
        if let Some(c) = header.iter().enumerate().find(|(i, c)| header[..*i].contains(c)).filter(|c| !c.1.is_empty()) {
            return Err(wrong(format!("has the column `{:.40}` twice", c.1)));
        }
        let find = |names: &[&str]| header.iter().position(|c| names.contains(c));
        let need = |names: &[&str]| find(names).ok_or_else(|| wrong(format!("lacks the column `{}`", names[0])));
        let expert = |i: usize| find(&[&format!("expert{i}"), &format!("expert_{i}")]);
        let experts: Vec<usize> = (0..header.len()).map_while(expert).collect();
        if experts.is_empty() {
            return Err(wrong("lacks the column `expert0`".into()));
        }
        let numbered = |c: &&str| {
            let digits = c.strip_prefix("expert").map(|d| d.trim_start_matches('_'));
            digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
        };
        if header.iter().filter(|c| numbered(c)).count() != experts.len() {
            return Err(wrong(format!("has more columns of experts than expert0 to expert{}", experts.len() - 1)));
        }
        if let Some(k) = options.k.filter(|k| *k as usize != experts.len()) {
            return Err(wrong(format!("has {} columns of experts, not {k}", experts.len())));
        }
        Ok(Self {
            sequence: need(&["sequence"])?,
            position: need(&["position", "token"])?,
            layer: need(&["layer"])?,
            phase: find(&["phase"]),
            experts,
        })
    }
    /// The token of a row, and its layer.
    fn token(&self, record: &ByteRecord, default: Phase) -> Result<(TokenKey, u32)> {
        let count = |column: usize, name: &str| {
            number(&record[column]).ok_or_else(|| {
                let problem = format!("\"{}\" is not a {name} number", shown(&record[column]));
                wrong(problem, "give whole numbers from 0 to 4294967295").place(name)
            })
        };
        let phase = match self.phase.map(|c| record[c].trim_ascii()) {
            None => default,
            Some(b"prefill" | b"0") => Phase::Prefill,
            Some(b"decode" | b"1") => Phase::Decode,
            Some(other) => {
                let problem = format!("\"{}\" is not a phase", shown(other));
                return Err(wrong(problem, "write prefill or decode").place("phase"));
            }
        };
        let token = (count(self.sequence, "sequence")?, phase, count(self.position, "position")?);
        Ok((token, count(self.layer, "layer")?))
    }
    /// Appends the experts of a row.
    fn experts(&self, record: &ByteRecord, ids: &mut Vec<u16>) -> Result<()> {
        for (i, column) in self.experts.iter().enumerate() {
            let field = &record[*column];
            let id = match number(field) {
                Some(id) => u16::try_from(id).ok().filter(|id| *id != MISSING),
                None => matches!(field.trim_ascii(), b"" | b"-1").then_some(MISSING),
            };
            ids.push(id.ok_or_else(|| {
                let problem = format!("\"{}\" is not an expert id", shown(field));
                wrong(problem, "write ids from 0, and -1 for missing").place(format!("expert{i}"))
            })?);
        }
        Ok(())
    }
}

/// A decimal number of 32 bits.
fn number(field: &[u8]) -> Option<u32> {
    let digits = field.trim_ascii();
    if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    u32::try_from(digits.iter().fold(0u64, |n, d| 10 * n + u64::from(d - b'0'))).ok()
}

fn shown(field: &[u8]) -> String {
    String::from_utf8_lossy(field).chars().take(40).flat_map(char::escape_default).collect()
}

/// Rows put together to sequences.
pub(super) struct Rows<'a> {
    path: &'a Path,
    options: &'a Options,
    sink: &'a mut dyn Sink,
    k: usize,
    /// What the source says beside its rows, until it is used.
    pub(super) declared: Declared,
    // Known after the first token, whose layers are collected.
    meta: Option<Meta>,
    layers: Vec<u32>,
    /// Layers of the token that are there already.
    next: usize,
    token: Option<TokenKey>,
    sequence: OwnedSequence,
}

impl<'a> Rows<'a> {
    /// Rows of k experts, into `sink`.
    pub(super) fn new(path: &'a Path, options: &'a Options, sink: &'a mut dyn Sink, k: usize) -> Self {
        Self {
            path,
            options,
            sink,
            k,
            declared: Declared::default(),
            meta: None,
            layers: Vec::new(),
            next: 0,
            token: None,
            sequence: OwnedSequence::default(),
        }
    }
    /// Where the ids of the row go that [`Rows::layer`] went on to.
    pub(super) fn ids(&mut self, phase: Phase) -> &mut Vec<u16> {
        match phase {
            Phase::Prefill => &mut self.sequence.prefill,
            Phase::Decode => &mut self.sequence.decode,
        }
    }
    /// Where its gate weights go, if it has any.
    #[cfg(feature = "parquet")]
    pub(super) fn weights(&mut self) -> &mut Vec<f32> {
        self.sequence.weights.get_or_insert_default()
    }
    /// The end of the rows.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.end_token().and_then(|()| self.end_sequence()).map_err(|d| d.place("end"))
    }
    /// Goes on to a layer of a token; its experts follow.
    pub(super) fn layer(&mut self, token: TokenKey, layer: u32) -> Result<()> {
        if self.token != Some(token) {
            self.end_token()?;
            self.begin_token(token)?;
        }
        let sort = "sort the rows by sequence, position and layer, each once";
        if self.meta.is_none() {
            if let Some(last) = self.layers.last().filter(|l| **l >= layer) {
                return Err(wrong(format!("layer {layer} follows layer {last}"), sort));
            }
            if self.layers.len() == LAYERS {
                return Err(wrong("the first token has more than 4096 layers", "give the MoE layers of one model"));
            }
            self.layers.push(layer);
        } else {
            match self.layers.get(self.next) {
                Some(l) if *l == layer => {}
                Some(l) if layer > *l && self.layers.contains(&layer) => return Err(self.lacks(*l)),
                _ if self.layers[..self.next].contains(&layer) => {
                    return Err(wrong(format!("layer {layer} follows layer {}", self.layers[self.next - 1]), sort));
                }
                _ => return Err(wrong(format!("layer {layer} is not one of the first token's"), sort)),
            }
        }
        self.next += 1;
        Ok(())
    }
    fn begin_token(&mut self, token: TokenKey) -> Result<()> {
        let sort = "sort the rows by sequence, phase and position, without gaps";
        let (sequence, phase, position) = token;
        match self.token {
            Some((s, p, last)) if s == sequence => {
                let follows = if p == phase { last.checked_add(1) == Some(position) } else { last < position };
                if (p == Phase::Decode && phase == Phase::Prefill) || !follows {
                    return Err(wrong(format!("position {position} follows position {last} of sequence {s}"), sort));
                }
            }
            Some((s, ..)) if s > sequence => {
                return Err(wrong(format!("sequence {sequence} follows sequence {s}"), sort));
            }
            Some(_) => self.end_sequence()?,
            None => {}
        }
        self.sequence.id = sequence;
        if self.ids(phase).is_empty() {
            match phase {
                Phase::Prefill => self.sequence.first_position = position,
                Phase::Decode => self.sequence.decode_first_position = position,
            }
        }
        let ids = self.sequence.prefill.len() + self.sequence.decode.len();
        if ids as u64 > SEQUENCE {
            return Err(wrong(format!("sequence {sequence} has more than 1 GiB of ids"), "divide it"));
        }
        self.token = Some(token);
        self.next = 0;
        Ok(())
    }
    fn end_token(&mut self) -> Result<()> {
        let Some(_) = self.token else { return Ok(()) };
        if self.meta.is_none() {
            let declared = Declared { layer_numbers: Some(self.layers.clone()), ..std::mem::take(&mut self.declared) };
            let k = u32::try_from(self.k).unwrap_or(u32::MAX);
            let meta = self.options.describe(self.path, self.layers.len(), k, declared)?;
            self.sink.begin(meta.clone())?;
            self.meta = Some(meta);
            return Ok(());
        }
        self.layers.get(self.next).map_or(Ok(()), |l| Err(self.lacks(*l)))
    }
    fn end_sequence(&mut self) -> Result<()> {
        let s = std::mem::take(&mut self.sequence);
        let Some(meta) = &self.meta else { return Ok(()) };
        crate::trace::check_rows(meta, &s.view())?;
        self.sink.sequence(&s)
    }
    fn lacks(&self, layer: u32) -> Diag {
        let (sequence, _, position) = self.token.unwrap_or((0, Phase::Decode, 0));
        let problem = format!("position {position} of sequence {sequence} lacks layer {layer}");
        wrong(problem, "give every token all layers of the first one, in order")
    }
}
