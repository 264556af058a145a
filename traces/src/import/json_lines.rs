//! JSON lines, one object a sequence:
//! `{"seq": 0, "first_pos": 101, "n_layers": 2, "top_k": 2, "n_experts": 8, "experts": [[3, 1, 0, 7], [3, 5, 2, 6]]}`.
//!
//! * `experts` is [token][layers*k] or [token][layer][k]; -1 and null are missing. Of one phase: `phase` is "prefill" or
//!   "decode", or what the options say.
//! * `prefill` and `decode`, instead, are the rows of both phases; `decode_first_pos` is behind the prompt by default.
//! * `n_layers`, `top_k` and `n_experts` may be left to the options where the rows do not need them; `seq` counts from 0.
//! * `model`, `layer_numbers`, `source` and `licence` of the first line describe the trace. Other keys are ignored.

use super::id_lists::Rows;
use super::{Declared, Importer, Options, Phase, Sink};
use crate::json;
use crate::text::{self, Text};
use crate::trace::{Meta, OwnedSequence};
use moesim_core::{Diag, Result};
use serde::Deserialize;
use std::io::{BufRead, Read};
use std::path::Path;

/// A line is held in memory; a sequence of 128k tokens of 58 layers and top-8 has about 230 MB.
const LINE: u64 = 256 << 20;

/// See the module.
pub(super) struct JsonLines;

impl Importer for JsonLines {
    fn name(&self) -> &'static str {
        "json-lines"
    }
    fn description(&self) -> &'static str {
        "JSON lines, one object a sequence, experts = [token][layers*k] or [token][layer][k]"
    }
    fn detect(&self, path: &Path) -> bool {
        let start = text::start(path, 256).unwrap_or_default();
        let text = start.trim_ascii_start();
        text.strip_prefix(b"{").is_some_and(|t| t.trim_ascii_start().starts_with(b"\""))
    }
    fn import(&self, path: &Path, options: &Options, sink: &mut dyn Sink) -> Result<()> {
        let mut lines = Lines { reader: text::open(path)?, number: 0, text: Vec::new() };
        let (mut meta, mut last): (Option<Meta>, Option<u32>) = (None, None);
        while lines.next().map_err(|d| d.file(path))? {
            let number = lines.number;
            let at = |d: Diag| {
                let place = d.place.map_or_else(|| format!("line {number}"), |p| format!("line {number}, {p}"));
                Diag { place: Some(place), ..d }.file(path)
            };
            let line = Line::parse(&lines.text).map_err(at)?;
            let Some((width, lists)) = line.check().map_err(at)? else { continue };
            let m = match &meta {
                Some(m) => m,
                None => {
                    let m = line.describe(path, options, width, lists).map_err(at)?;
                    sink.begin(m.clone())?;
                    meta.insert(m)
                }
            };
            line.agrees(m, width, lists).map_err(at)?;
            let s = line.sequence(last, options.phase).map_err(at)?;
            crate::trace::check_rows(m, &s.view()).map_err(at)?;
            last = Some(s.id);
            sink.sequence(&s).map_err(|d| if d.exit_code() == 2 { at(d) } else { d })?;
        }
        Ok(())
    }
}

struct Lines {
    reader: Text,
    number: u64,
    text: Vec<u8>,
}

impl Lines {
    /// Reads the next line that is not blank; false at the end.
    fn next(&mut self) -> Result<bool> {
        loop {
            self.number += 1;
            self.text.clear();
            let place = format!("line {}", self.number);
            let wrong = |problem: &str| {
                Err(Diag::input(problem).place(&place).cure("write one JSON object a sequence and line"))
            };
            let failed = |e: std::io::Error| Diag::input(format!("cannot be read: {e}")).cure("check the file");
            // What is no object is refused before it fills the memory.
            let start = self.reader.fill_buf().map_err(|e| failed(e).place(&place))?;
            if start.is_empty() {
                return Ok(false);
            }
            if !matches!(start[0], b'{' | b' ' | b'\t' | b'\r' | b'\n') {
                return wrong("is not a JSON object");
            }
            let mut bounded = (&mut self.reader).take(LINE + 1);
            bounded.read_until(b'\n', &mut self.text).map_err(|e| failed(e).place(&place))?;
            if self.text.len() as u64 > LINE {
                return wrong("is longer than 256 MiB");
            }
            if !self.text.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }
}

/// One sequence as it is written.
#[derive(Deserialize)]
struct Line {
    seq: Option<u32>,
    first_pos: Option<u32>,
    decode_first_pos: Option<u32>,
    n_tokens: Option<u64>,
    n_layers: Option<usize>,
    top_k: Option<u32>,
    n_experts: Option<u32>,
    phase: Option<Phase>,
    experts: Option<Rows>,
    prefill: Option<Rows>,
    decode: Option<Rows>,
    model: Option<String>,
    layer_numbers: Option<Vec<u32>>,
    source: Option<String>,
    licence: Option<String>,
}

fn wrong(problem: impl Into<String>, cure: &str) -> Diag {
    Diag::input(problem).cure(cure)
}

impl Line {
    fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).map_err(|e| {
            Diag::input(json::words(&e))
                .place(format!("column {}", e.column()))
                .cure("write {\"seq\": 0, \"first_pos\": 0, \"experts\": [[expert, ...], ...], ...} in one line")
        })
    }
    fn rows(&self) -> impl Iterator<Item = &Rows> {
        [&self.experts, &self.prefill, &self.decode].into_iter().flatten()
    }
    /// (Ids a token, lists a token where they are nested); nothing of a sequence without tokens.
    fn check(&self) -> Result<Option<(usize, Option<usize>)>> {
        if self.rows().next().is_none() {
            return Err(wrong("has no `experts`", "give experts, or prefill and decode"));
        }
        if self.experts.is_some() && (self.prefill.is_some() || self.decode.is_some()) {
            return Err(wrong("has `experts` beside `prefill` or `decode`", "give the one or the others"));
        }
        let tokens: u64 = self.rows().map(|r| r.tokens).sum();
        if let Some(n) = self.n_tokens.filter(|n| *n != tokens) {
            return Err(wrong(format!("says n_tokens = {n} and has {tokens} tokens"), "correct it: rows are lacking"));
        }
        let mut shapes = self.rows().filter_map(|r| r.shape);
        let Some(shape) = shapes.next() else { return Ok(None) };
        if let Some((width, lists)) = shapes.find(|s| *s != shape) {
            let words = |(width, lists): (usize, Option<usize>)| match lists {
                Some(l) => format!("{width} experts in {l} layers"),
                None => format!("{width} experts"),
            };
            let problem = format!("has {} a prompt token, {} an output token", words(shape), words((width, lists)));
            return Err(wrong(problem, "write both phases alike"));
        }
        Ok(Some(shape))
    }
    /// The trace that the first line promises.
    fn describe(&self, path: &Path, options: &Options, width: usize, lists: Option<usize>) -> Result<Meta> {
        let model = options.load_model()?;
        let of_model = model.as_ref().and_then(|m| m.decoder.iter().find_map(|l| l.moe())).map(|m| m.top_k);
        let k = self.top_k.or(options.k).or(of_model);
        let layers = lists.or(self.n_layers).or_else(|| width.checked_div(usize::try_from(k?).ok()?));
        let layers = layers.ok_or_else(|| {
            wrong(
                "does not say how its experts divide into layers",
                "add n_layers or top_k, or give --top-k or --model",
            )
        })?;
        let k = width.checked_div(layers).unwrap_or(0);
        let (Ok(k), true) = (u32::try_from(k), k * layers == width) else {
            let problem = format!("has {width} experts a token, which are not whole rows of {layers} layers");
            return Err(wrong(problem, "correct n_layers or top_k"));
        };
        let declared = Declared {
            layer_numbers: self.layer_numbers.clone(),
            experts: self.n_experts,
            model: self.model.clone(),
            source: self.source.clone(),
            licence: self.licence.clone(),
        };
        options.describe(path, layers, k, declared)
    }
    /// Whether it is of the same model as the first line.
    fn agrees(&self, m: &Meta, width: usize, lists: Option<usize>) -> Result<()> {
        let layers = m.layer_numbers.len();
        let as_declared = |what: &str, found: Option<u64>, expected: u64| match found.filter(|f| *f != expected) {
            Some(f) => Err(wrong(
                format!("has {what} = {f}; the trace has {expected}"),
                "write sequences of one model, and their true shape",
            )),
            None => Ok(()),
        };
        as_declared("n_layers", self.n_layers.map(|n| n as u64), layers as u64)?;
        as_declared("top_k", self.top_k.map(u64::from), m.k.into())?;
        as_declared("n_experts", self.n_experts.map(u64::from), m.experts.into())?;
        as_declared("layers a token", lists.map(|n| n as u64), layers as u64)?;
        as_declared("experts a token", Some(width as u64), m.width() as u64)
    }
    fn sequence(self, last: Option<u32>, phase: Phase) -> Result<OwnedSequence> {
        let next = last.map_or(Some(0), |l| l.checked_add(1));
        let id =
            self.seq.or(next).ok_or_else(|| wrong("follows sequence 4294967295", "give smaller numbers in seq"))?;
        if let Some(last) = last.filter(|l| *l >= id) {
            return Err(wrong(format!("sequence {id} follows sequence {last}"), "sort the lines by seq, once each"));
        }
        let first = self.first_pos.unwrap_or(0);
        let (prefill, decode) = match (self.experts, self.phase.unwrap_or(phase)) {
            (Some(rows), Phase::Prefill) => (rows, Rows::default()),
            (Some(rows), Phase::Decode) => (Rows::default(), rows),
            (None, _) => (self.prefill.unwrap_or_default(), self.decode.unwrap_or_default()),
        };
        // A prompt that ends beyond 2^32 is refused where the sequence is put.
        let behind = first.saturating_add(u32::try_from(prefill.tokens).unwrap_or(u32::MAX));
        Ok(OwnedSequence {
            id,
            first_position: first,
            prefill: prefill.ids,
            decode: decode.ids,
            decode_first_position: self.decode_first_pos.unwrap_or(behind),
            weights: None,
        })
    }
}
