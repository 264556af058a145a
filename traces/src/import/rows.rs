//! Tables of one row a token and layer, whatever they are written in: their columns, and their rows put together to sequences.

use super::{Declared, Options, Phase, SEQUENCE, Sink};
use crate::trace::{LAYERS, Meta, OwnedSequence};
use moesim_core::{Diag, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// (Sequence, phase, position): what identifies a token.
pub(super) type TokenKey = (u32, Phase, u32);

/// Where the columns are.
pub(super) struct Columns {
    pub(super) sequence: usize,
    pub(super) position: usize,
    pub(super) layer: usize,
    pub(super) phase: Option<usize>,
    pub(super) experts: Vec<usize>,
}

fn wrong(problem: impl Into<String>, cure: &str) -> Diag {
    Diag::input(problem).cure(cure)
}

/// What is wrong with the columns.
pub(super) fn wrong_columns(problem: impl Into<String>) -> Diag {
    wrong(
        problem,
        "give a table with the columns sequence,position,layer,expert0,expert1,..., one row a token and layer",
    )
}

/// The columns `PREFIX0`, `PREFIX1`, ... of a table whose columns are `known`.
pub(super) fn numbered(known: &BTreeMap<&str, usize>, prefixes: &[&str]) -> Vec<usize> {
    let find = |i: usize| prefixes.iter().find_map(|p| known.get(&*format!("{p}{i}")).copied());
    (0..known.len()).map_while(find).collect()
}

/// Names of columns, those without a name left out.
pub(super) fn known<'a>(names: impl Iterator<Item = &'a str>) -> Result<BTreeMap<&'a str, usize>> {
    let mut known = BTreeMap::new();
    for (i, name) in names.enumerate().filter(|(_, name)| !name.is_empty()) {
        if known.insert(name, i).is_some() {
            return Err(wrong_columns(format!("has the column `{name:.40}` twice")));
        }
    }
    Ok(known)
}

impl Columns {
    pub(super) fn find(known: &BTreeMap<&str, usize>) -> Result<Self> {
        let find = |names: &[&str]| names.iter().find_map(|n| known.get(n).copied());
        let need =
            |names: &[&str]| find(names).ok_or_else(|| wrong_columns(format!("lacks the column `{}`", names[0])));
        let experts = numbered(known, &["expert", "expert_", "e"]);
        if experts.is_empty() {
            return Err(wrong_columns("lacks the column `expert0`"));
        }
        let is_expert = |name: &str| {
            let digits = name.strip_prefix("expert").map(|d| d.trim_start_matches('_'));
            digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
        };
        if let Some((name, _)) = known.iter().find(|(name, i)| is_expert(name) && !experts.contains(i)) {
            let last = experts.len() - 1;
            let problem = format!("has more columns of experts than expert0 to expert{last}: `{name:.40}`");
            return Err(wrong_columns(problem));
        }
        Ok(Self {
            sequence: need(&["sequence"])?,
            position: need(&["position", "token"])?,
            layer: need(&["layer"])?,
            phase: find(&["phase"]),
            experts,
        })
    }
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
