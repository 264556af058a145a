//! Rows of an iteration's tokens, as far as their gates have spoken.

use super::replay::Segment;
use super::source::Source;

/// The tokens of an iteration, in the order of its batch, with what every MoE layer up to one selected for them.
///
/// Rows are read from the trace when they are asked for: a policy that does not ask pays nothing.
#[derive(Clone, Copy, Debug)]
pub struct Revealed<'a> {
    source: &'a Source,
    segments: &'a [Segment],
    /// The MoE layer whose gate spoke last.
    moe_layer: usize,
}

/// A token of an iteration in one MoE layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token<'a> {
    /// Number of its request, in order of arrival: tokens of one number are of one sequence.
    pub request: u64,
    /// Its position in the sequence, from 0; below `prompt` it is a token of the prompt.
    pub position: u32,
    /// Tokens of the request's prompt.
    pub prompt: u32,
    /// The first device of its attention rank.
    pub device: u32,
    /// Ids of the experts that its gate selected; [`MISSING`](super::replay::MISSING) where it selected fewer than the row has
    /// places.
    pub experts: &'a [u16],
    /// The gate's weight of each, if the trace has weights.
    pub weights: Option<&'a [f32]>,
}

impl<'a> Revealed<'a> {
    /// Of `segments`, up to `moe_layer`.
    pub(crate) fn new(source: &'a Source, segments: &'a [Segment], moe_layer: usize) -> Self {
        Self { source, segments, moe_layer }
    }

    /// MoE layers whose gates have spoken.
    pub fn layers(&self) -> std::ops::Range<usize> {
        0..self.moe_layer + 1
    }

    /// Every token with what MoE layer `moe_layer` selected for it.
    ///
    /// # Panics
    /// If that gate has not spoken yet.
    pub fn tokens(&self, moe_layer: usize) -> impl Iterator<Item = Token<'a>> + use<'a> {
        assert!(moe_layer <= self.moe_layer, "MoE layer {moe_layer} lies ahead");
        let source = self.source;
        self.segments.iter().flat_map(move |s| {
            (s.from..s.from + s.count).map(move |position| {
                let (experts, weights) = source.selected(s.binding, s.prompt, position, moe_layer);
                let (request, prompt, device) = (s.request, s.prompt, s.device);
                Token { request, position, prompt, device, experts, weights }
            })
        })
    }
}
