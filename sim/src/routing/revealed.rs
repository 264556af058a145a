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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{Binding, Missing};
    use moesim_traces::{Meta, OwnedSequence, Trace};
    use std::sync::Arc;

    /// Two layers, two experts a token: the row of position p is [p, p + 1, p + 2, p + 3], its weights are a tenth of that.
    fn source() -> Source {
        let meta = Meta {
            model: "t".into(),
            layer_numbers: vec![0, 1],
            experts: 16,
            k: 2,
            source: "by hand".into(),
            licence: "none".into(),
        };
        let ids = |from: u16, to: u16| (from..to).flat_map(|p| p..p + 4);
        let weights = ids(0, 5).map(|id| f32::from(id) / 10.0).collect();
        let sequence = OwnedSequence {
            prefill: ids(0, 3).collect(),
            decode: ids(3, 5).collect(),
            decode_first_position: 3,
            weights: Some(weights),
            ..OwnedSequence::default()
        };
        Source::new(Arc::new(Trace::from_sequences(meta, vec![sequence]).unwrap()), Missing::Refuse, 1)
    }

    #[test]
    fn tokens_have_their_selections_and_weights() {
        let source = source();
        let binding = Binding { sequence: 0, offset: 0 };
        let part = |from, count| Segment { request: 7, binding, prompt: 3, from, count, device: 2, spread: 1, turn: 0 };
        let segments = [part(0, 3), part(4, 1)];
        let rows = Revealed::new(&source, &segments, 1);
        let found: Vec<_> = rows.tokens(1).map(|t| (t.position, t.experts.to_vec(), t.weights.unwrap()[1])).collect();
        let of = |p: u16| (u32::from(p), vec![p + 2, p + 3], f32::from(p + 3) / 10.0);
        assert_eq!(found, [of(0), of(1), of(2), of(4)]);
        let last = rows.tokens(0).last().unwrap();
        assert_eq!((last.request, last.prompt, last.device, last.experts), (7, 3, 2, &[4, 5][..]));
    }

    #[test]
    #[should_panic(expected = "lies ahead")]
    fn later_layers_are_not_visible() {
        let source = source();
        let _ = Revealed::new(&source, &[], 0).tokens(1);
    }
}
