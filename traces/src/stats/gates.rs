//! Gate weights of a trace.

use crate::trace::{MISSING, Trace};
use serde::Serialize;

/// Gate weights by rank: the largest of a token and layer, the second, and so on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gates {
    /// Means over rows and layers.
    pub by_rank: Vec<f64>,
    /// Means over rows, by layer.
    pub layers: Vec<Vec<f64>>,
}

impl Gates {
    /// Of a trace that has weights. A missing expert counts as one of weight 0.
    pub fn of(trace: &Trace) -> Option<Self> {
        if !trace.has_weights() || trace.rows() == 0 {
            return None;
        }
        let (layers, k) = (trace.layers(), trace.k());
        let mut sums = vec![vec![0.0; k]; layers];
        let mut one = Vec::with_capacity(k);
        for i in 0..trace.sequences() {
            let s = trace.sequence(i);
            for (ids, weights) in [(s.prefill, s.prefill_weights), (s.decode, s.decode_weights)] {
                let weights = weights.unwrap_or_default();
                for (at, (ids, weights)) in ids.chunks_exact(k).zip(weights.chunks_exact(k)).enumerate() {
                    one.clear();
                    let known = ids.iter().zip(weights).map(|(id, w)| if *id == MISSING { 0.0 } else { f64::from(*w) });
                    one.extend(known);
                    one.sort_by(|a, b| b.total_cmp(a));
                    sums[at % layers].iter_mut().zip(&one).for_each(|(s, w)| *s += w);
                }
            }
        }
        let rows = trace.rows() as f64;
        sums.iter_mut().flatten().for_each(|s| *s /= rows);
        let by_rank = (0..k).map(|r| sums.iter().map(|l| l[r]).sum::<f64>() / layers as f64).collect();
        Some(Self { by_rank, layers: sums })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Meta, OwnedSequence};

    #[test]
    fn means_are_by_rank() {
        let meta = Meta {
            model: "m".into(),
            layer_numbers: vec![0, 1],
            experts: 4,
            k: 2,
            source: "s".into(),
            licence: "l".into(),
        };
        let weights = vec![0.25, 0.75, 1.0, 0.5, 0.5, 0.5, 0.75, 0.25];
        let one = |weights| {
            let s = OwnedSequence {
                prefill: vec![0, 1, 2, MISSING],
                decode: vec![0, 1, 2, 3],
                decode_first_position: 1,
                weights,
                ..Default::default()
            };
            Trace::from_sequences(meta.clone(), vec![s]).unwrap()
        };
        let gates = Gates::of(&one(Some(weights))).unwrap();
        // The weight of the missing expert is none.
        assert_eq!(gates.layers, [[0.625, 0.375], [0.875, 0.125]]);
        assert_eq!(gates.by_rank, [0.75, 0.25]);
        assert_eq!(Gates::of(&one(None)), None);
    }
}
