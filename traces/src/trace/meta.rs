//! What describes a trace, and a sequence by itself.

use super::Sequence;
use moesim_core::{Diag, Result};
use serde::{Deserialize, Serialize};

/// An expert that is not there: the router chose fewer, or the record lacks it.
pub const MISSING: u16 = 0xFFFF;

/// Bounds on what a file can declare: as many layers and experts as a model file can.
pub(crate) const LAYERS: usize = 4096;
const EXPERTS: u32 = 65_534;
/// A row must be a length that Arrow can state.
const WIDTH: u64 = 1 << 24;
/// Experts of all layers: counts of them take 128 MiB.
const COUNTS: u64 = 1 << 24;

/// What describes a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// The model whose router chose.
    pub model: String,
    /// The numbers of its MoE layers, ascending.
    pub layer_numbers: Vec<u32>,
    /// Routed experts a layer.
    pub experts: u32,
    /// Experts chosen for a token.
    pub k: u32,
    /// Where the selections come from.
    pub source: String,
    /// The licence of the data.
    pub licence: String,
}

impl Meta {
    /// Selections a row: layers x k.
    pub fn width(&self) -> usize {
        self.layer_numbers.len() * self.k as usize
    }
    /// Refuses what no model has. Widths and counts are in range afterwards.
    pub fn check(&self) -> Result<()> {
        let wrong = |place: &str, problem: String, cure: &str| Err(Diag::input(problem).place(place).cure(cure));
        let layers = self.layer_numbers.len();
        if layers == 0 || layers > LAYERS {
            return wrong("layers", format!("{layers} MoE layers are out of range"), "give from 1 to 4096");
        }
        if let Some(l) = self.layer_numbers.windows(2).find(|w| w[0] >= w[1]) {
            return wrong(
                "layers",
                format!("layer {} comes after layer {}", l[1], l[0]),
                "list them ascending, once each",
            );
        }
        if self.experts == 0 || self.experts > EXPERTS {
            return wrong("experts", format!("{} experts are out of range", self.experts), "give from 1 to 65534");
        }
        if self.k == 0 || self.k > self.experts {
            let problem = format!("k = {} of {} experts is out of range", self.k, self.experts);
            return wrong("k", problem, "give at least 1 and at most the number of experts");
        }
        if layers as u64 * u64::from(self.experts) > COUNTS {
            let problem = format!("{layers} layers x {} experts are too many", self.experts);
            return wrong("experts", problem, "give at most 2^24");
        }
        if layers as u64 * u64::from(self.k) > WIDTH {
            return wrong("k", format!("{layers} layers x {} experts a row are too many", self.k), "give at most 2^24");
        }
        Ok(())
    }
}

/// A sequence by itself, to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnedSequence {
    /// Its number, ascending over a trace.
    pub id: u32,
    /// Position of the first prefill row; without prefill rows, not used.
    pub first_position: u32,
    /// Expert ids of the prefill rows, `rows x width`.
    pub prefill: Vec<u16>,
    /// Expert ids of the decode rows.
    pub decode: Vec<u16>,
    /// Position of the first decode row; without decode rows, not used.
    pub decode_first_position: u32,
    /// Gate weights of the prefill rows followed by the decode rows, parallel to the ids; all sequences have them or none.
    pub weights: Option<Vec<f32>>,
}

impl OwnedSequence {
    /// The same, borrowed.
    pub fn view(&self) -> Sequence<'_> {
        let split = |w: &Vec<f32>| w.len().min(self.prefill.len());
        Sequence {
            id: self.id,
            first_position: self.first_position,
            prefill: &self.prefill,
            decode: &self.decode,
            decode_first_position: self.decode_first_position,
            prefill_weights: self.weights.as_ref().map(|w| &w[..split(w)]),
            decode_weights: self.weights.as_ref().map(|w| &w[split(w)..]),
        }
    }
    /// (Prefill rows, decode rows), if it fits `width` and may follow the sequence `previous` in a trace that has gate
    /// weights or not.
    pub(super) fn check(&self, width: usize, previous: Option<u32>, weights: bool) -> Result<(u32, u32)> {
        let wrong =
            |problem: String, cure: &str| Err(Diag::input(problem).place(format!("sequence {}", self.id)).cure(cure));
        if previous.is_some_and(|p| p >= self.id) {
            return wrong(format!("follows sequence {}", previous.unwrap_or(0)), "give ascending sequence numbers");
        }
        let (prefill, decode) = (self.prefill.len(), self.decode.len());
        if prefill % width != 0 || decode % width != 0 || prefill + decode == 0 {
            return wrong(
                format!("{prefill} prefill and {decode} decode selections are not rows of {width}"),
                "give whole rows, at least one",
            );
        }
        if self.weights.is_some() != weights || self.weights.as_ref().is_some_and(|w| w.len() != prefill + decode) {
            return wrong(
                "gate weights do not match the selections".into(),
                "give one each in every sequence, or none",
            );
        }
        let (prefill, decode) = ((prefill / width) as u64, (decode / width) as u64);
        let prefill_end = u64::from(self.first_position) + prefill;
        let decode_end = u64::from(self.decode_first_position) + decode;
        if prefill_end.max(decode_end) > u64::from(u32::MAX) {
            return wrong("positions exceed 2^32 - 1".into(), "give smaller first positions");
        }
        if prefill > 0 && decode > 0 && u64::from(self.decode_first_position) < prefill_end {
            let at = self.decode_first_position;
            return wrong(format!("decoding starts at position {at}, inside the prompt"), "start it after the prompt");
        }
        Ok((prefill as u32, decode as u32))
    }
}
