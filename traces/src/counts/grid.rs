//! Numbers [layers, experts] on their way to counts.

use super::{COUNTS, EXPERTS, ExpertCounts, LAYERS};
use moesim_core::{Diag, Result};

/// Sums of loads, [layers, experts]. Sums of whole numbers are exact up to 2^53.
pub(super) struct Grid {
    layers: usize,
    experts: usize,
    loads: Vec<f64>,
    next: usize,
}

fn wrong(problem: String) -> Diag {
    Diag::input(problem).cure("give counts or loads as an array [layers, experts], or several of them: at most 4096 layers, 65534 experts and 2^24 loads")
}

impl Grid {
    /// A grid of zeros for an array of this shape: [.., layers, experts].
    pub(super) fn new(shape: &[usize]) -> Result<Self> {
        let &[.., layers, experts] = shape else {
            return Err(wrong(format!("has the shape {shape:?}, not [layers, experts]")).place("shape"));
        };
        let sound = (1..=LAYERS).contains(&layers) && (1..=EXPERTS).contains(&experts) && layers * experts <= COUNTS;
        if !sound || shape.len() > 3 {
            return Err(wrong(format!("has the shape {shape:?}, not [layers, experts]")).place("shape"));
        }
        Ok(Self { layers, experts, loads: vec![0.0; layers * experts], next: 0 })
    }
    /// Adds the next number, in C order; after the last it begins again.
    pub(super) fn push(&mut self, load: f64) -> Result<()> {
        let (layer, expert) = (self.next / self.experts, self.next % self.experts);
        self.next = (self.next + 1) % self.loads.len();
        self.add(layer, expert, load)
    }
    /// Adds to one expert, which is in range.
    pub(super) fn add(&mut self, layer: usize, expert: usize, load: f64) -> Result<()> {
        if !(0.0..=9_007_199_254_740_992.0).contains(&load) {
            return Err(Diag::input(format!("{load} is no load"))
                .place(format!("layer {layer}, expert {expert}"))
                .cure("give numbers from 0 to 2^53"));
        }
        self.loads[layer * self.experts + expert] += load;
        Ok(())
    }
    /// The counts of layers with these numbers; layers without a selection are left out.
    pub(super) fn counts(self, numbers: impl Fn(usize) -> u32) -> Result<ExpertCounts> {
        let max = self.loads.iter().copied().fold(0.0, f64::max);
        if max == 0.0 {
            return Err(Diag::input("has no selections").place("counts").cure("record while requests are served"));
        }
        let mut notes = Vec::new();
        let mut scale = 1.0;
        if self.loads.iter().any(|x| x.fract() != 0.0) {
            // A power of two that leaves at least 40 bits of the largest.
            while max * scale < (1u64 << 40) as f64 && scale < f64::MAX / 4.0 {
                scale *= 2.0;
            }
            notes.push(format!("the loads are no whole numbers: shown times {scale:e} and rounded"));
        } else if max > 9_007_199_254_740_992.0 {
            return Err(Diag::input("has sums beyond 2^53").place("counts").cure("record for a shorter time"));
        }
        // Below 2^54, or 2^53 at most.
        let whole = |x: &f64| (x * scale).round() as u64;
        let used: Vec<usize> = (0..self.layers)
            .filter(|l| self.loads[l * self.experts..(l + 1) * self.experts].iter().any(|x| whole(x) > 0))
            .collect();
        let row = |l: &usize| self.loads[l * self.experts..(l + 1) * self.experts].iter().map(whole);
        Ok(ExpertCounts {
            layer_numbers: used.iter().map(|l| numbers(*l)).collect(),
            experts: self.experts as u32,
            counts: used.iter().flat_map(row).collect(),
            notes,
            ..Default::default()
        })
    }
}
