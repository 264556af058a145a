//! The layer in f64, loop by loop as the specification has it.

use super::{Expert, Layer, MISSING, Selections};

/// Outputs `T x H` of tokens `x`.
///
/// Panics on sizes that do not agree and on experts that do not exist.
pub fn layer(layer: &Layer, x: &[f32], s: &Selections) -> Vec<f64> {
    let hidden = layer.hidden;
    layer.experts.iter().chain(layer.shared).for_each(|e| e.check(hidden));
    let tokens = x.len() / hidden;
    assert_eq!(s.experts.len(), tokens * s.top_k, "places");
    let mut out = vec![0.0; x.len()];
    for t in 0..tokens {
        let (x, out) = (&x[t * hidden..(t + 1) * hidden], &mut out[t * hidden..(t + 1) * hidden]);
        for place in t * s.top_k..(t + 1) * s.top_k {
            if s.experts[place] != MISSING {
                add(out, f64::from(s.weights[place]), &expert(&layer.experts[usize::from(s.experts[place])], x));
            }
        }
        layer.shared.iter().for_each(|e| add(out, 1.0, &expert(e, x)));
    }
    out
}

/// What an expert makes of a token.
pub fn expert(e: &Expert, x: &[f32]) -> Vec<f64> {
    let (hidden, inner) = (x.len(), e.intermediate);
    let product = |row: usize| (0..hidden).map(|c| e.first.at(row, c, hidden) * f64::from(x[c])).sum::<f64>();
    let h: Vec<f64> = (0..inner).map(|i| silu(product(i)) * product(inner + i)).collect();
    (0..hidden).map(|row| (0..inner).map(|c| e.second.at(row, c, inner) * h[c]).sum()).collect()
}

fn silu(z: f64) -> f64 {
    z / (1.0 + libm::exp(-z))
}

fn add(out: &mut [f64], weight: f64, y: &[f64]) {
    out.iter_mut().zip(y).for_each(|(o, y)| *o += weight * y);
}
