//! Routers as bytes, so that one that was drawn need not be drawn again.

use super::router::{Layer, Mix};
use super::{Fit, Router, SynthSpec};
use crate::import::Phase;
use crate::trace::Trace;
use moesim_core::Result;

/// Draws a trace from a router that [`Router::drawn`] gave for this specification and seed.
///
/// # Errors
/// A shape that is out of range.
pub fn synthesize_with(router: &Router, fit: &Fit, spec: &SynthSpec, seed: u64) -> Result<Trace> {
    let meta = spec.meta(fit, seed);
    spec.check(&meta)?;
    let shapes: Vec<(u32, u32, u32)> = (0..spec.sequences).map(|id| (id, spec.prompt_rows, spec.decode_rows)).collect();
    Trace::from_sequences(meta, router.sequences(seed, &shapes))
}

impl Router {
    /// All of it, little-endian: experts, k, topics, layers, and which rows are invented (0 none, 1 prompts, 2 outputs) as u32; the shares of the topics as
    /// f64; then layer by layer the five weights of the mix, alpha, and each table with its length before it, as f32.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let invented = self.invented.map_or(0, |p| if p == Phase::Prefill { 1 } else { 2 });
        let head = [self.experts, self.k, self.shares.len(), self.layers.len(), invented];
        head.iter().for_each(|n| out.extend((*n as u32).to_le_bytes()));
        self.shares.iter().for_each(|s| out.extend(s.to_le_bytes()));
        for l in &self.layers {
            l.mix.weights().iter().chain([&l.alpha]).for_each(|x| out.extend(x.to_le_bytes()));
            for table in [&l.topics, &l.bias, &l.prompt, &l.next, &l.pair] {
                out.extend((table.len() as u32).to_le_bytes());
                table.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
        }
        out
    }

    /// What [`Router::to_bytes`] gave; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut at = bytes;
        let [experts, k, topics, layers, invented] = numbers(&mut at, 5, u32::from_le_bytes)?.try_into().ok()?;
        let shares = numbers(&mut at, topics as usize, f64::from_le_bytes)?;
        let experts = experts as usize;
        let invented = *[None, Some(Phase::Prefill), Some(Phase::Decode)].get(invented as usize)?;
        let mut router = Self { layers: Vec::new(), experts, k: k as usize, shares, invented };
        for _ in 0..layers {
            let [a, b, c, d, e, alpha] = numbers(&mut at, 6, f32::from_le_bytes)?.try_into().ok()?;
            let mut table = |whole: usize| {
                let n = *numbers(&mut at, 1, u32::from_le_bytes)?.first()? as usize;
                let fits = n == whole || n == 0;
                fits.then(|| numbers(&mut at, n, f32::from_le_bytes)).flatten()
            };
            let square = experts.checked_mul(experts)?;
            let (topics, bias) = (table(experts.checked_mul(topics as usize)?)?, table(experts)?);
            let (prompt, next, pair) = (table(experts)?, table(square)?, table(square)?);
            router.layers.push(Layer { topics, mix: Mix::new([a, b, c, d, e]), alpha, bias, prompt, next, pair });
        }
        at.is_empty().then_some(router)
    }
}

/// The next `n` numbers of `N` bytes each.
fn numbers<T, const N: usize>(at: &mut &[u8], n: usize, of: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (own, rest) = at.split_at_checked(n.checked_mul(N)?)?;
    *at = rest;
    own.chunks_exact(N).map(|c| c.try_into().ok().map(&of)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Subjects, fitted, synthesize};
    use super::*;

    #[test]
    fn a_router_out_of_bytes_draws_the_same() {
        let (fit, layer_numbers) = (fitted(16).unwrap(), vec![0, 1, 2]);
        let spec = SynthSpec {
            model: "t".into(),
            layer_numbers,
            experts: 16,
            k: 2,
            sequences: 4,
            prompt_rows: 5,
            decode_rows: 20,
            subjects: Subjects::Many,
        };
        let bytes = Router::drawn(&fit, &spec, 7).to_bytes();
        let router = Router::from_bytes(&bytes).unwrap();
        assert_eq!(router.to_bytes(), bytes);
        let trace = synthesize_with(&router, &fit, &spec, 7).unwrap();
        assert_eq!(trace.hash(), synthesize(&spec, 7).unwrap().hash());
        for cut in [0, 3, 19, 40, bytes.len() - 1] {
            assert!(Router::from_bytes(&bytes[..cut]).is_none());
        }
        assert!(Router::from_bytes(&[&bytes[..], &[0]].concat()).is_none());
        let mut huge = bytes.clone();
        huge[..20].fill(0xFF);
        assert!(Router::from_bytes(&huge).is_none());
    }
}
