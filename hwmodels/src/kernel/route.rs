//! Gate, selections, and the counting sort that groups them by expert: what all three kernels do alike.

use super::MISSING;

/// A gate's weights.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// Routed experts `E`.
    pub experts: usize,
    /// Places a token, `k`.
    pub top_k: usize,
    /// `E x H`.
    pub weights: &'a [f32],
    /// Whether the weights of a token's places are divided by their sum.
    pub renormalise: bool,
}

/// The places of all tokens: `T x k` experts and weights, as routing traces have them.
#[derive(Clone, Copy, Debug)]
pub struct Selections<'a> {
    /// Places a token, `k`.
    pub top_k: usize,
    /// Experts, or [`MISSING`].
    pub experts: &'a [u16],
    /// Weights.
    pub weights: &'a [f32],
}

impl Gate<'_> {
    /// The selections of tokens `x` (`T x H`), in f64: experts and weights, `T x k`.
    pub fn select(&self, hidden: usize, x: &[f32]) -> (Vec<u16>, Vec<f32>) {
        assert!(self.top_k <= self.experts && self.experts < usize::from(MISSING), "places and experts");
        let (mut experts, mut weights) = (Vec::new(), Vec::new());
        for token in x.chunks(hidden) {
            let logit = |row: &[f32]| row.iter().zip(token).map(|(g, x)| f64::from(*g) * f64::from(*x)).sum::<f64>();
            let logits: Vec<f64> = self.weights.chunks(hidden).map(logit).collect();
            let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let parts: Vec<f64> = logits.iter().map(|l| libm::exp(l - most)).collect();
            let mut order: Vec<usize> = (0..self.experts).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
            let chosen = &order[..self.top_k];
            let all: f64 = if self.renormalise { chosen.iter().map(|e| parts[*e]).sum() } else { parts.iter().sum() };
            experts.extend(chosen.iter().map(|e| *e as u16));
            weights.extend(chosen.iter().map(|e| (parts[*e] / all) as f32));
        }
        (experts, weights)
    }
}

/// Rows by expert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// First row of each expert, and the number of rows behind the last: `E + 1` long.
    pub first: Vec<u32>,
    /// The token of each row.
    pub token: Vec<u32>,
    /// The row of each place, `T x k`; `u32::MAX` where it is missing.
    pub row: Vec<u32>,
}

impl Sorted {
    /// A stable counting sort of the places by expert.
    ///
    /// Panics on an expert that does not exist: routing is checked where it is read.
    pub fn new(experts: usize, s: &Selections) -> Self {
        let mut sorted = Self::default();
        sorted.fill(experts, s);
        sorted
    }

    /// [`Sorted::new`] into buffers that are there already.
    pub fn fill(&mut self, experts: usize, s: &Selections) {
        assert_eq!(s.experts.len(), s.weights.len(), "places");
        self.first.clear();
        self.first.resize(experts + 1, 0);
        for e in s.experts.iter().filter(|e| **e != MISSING) {
            self.first[usize::from(*e) + 1] += 1;
        }
        for e in 0..experts {
            self.first[e + 1] += self.first[e];
        }
        let rows = self.first[experts] as usize;
        self.token.clear();
        self.token.resize(rows, 0);
        self.row.clear();
        let mut next = self.first.clone();
        for (place, e) in s.experts.iter().enumerate() {
            if *e == MISSING {
                self.row.push(u32::MAX);
                continue;
            }
            let at = &mut next[usize::from(*e)];
            self.token[*at as usize] = (place / s.top_k) as u32;
            self.row.push(*at);
            *at += 1;
        }
    }

    /// Rows of an expert.
    pub fn rows(&self, expert: usize) -> std::ops::Range<usize> {
        self.first[expert] as usize..self.first[expert + 1] as usize
    }
}

/// Selections in which expert `e` has `counts[e]` tokens, at most all: pairs are listed by expert, and the p-th goes to
/// token `p mod T`, so that no token has an expert twice. Tokens that get fewer than `top_k` have missing places;
/// weights are `1 / k`.
///
/// Panics on more pairs than places, or an expert with more tokens than there are.
pub fn deal(tokens: usize, top_k: usize, counts: &[u32]) -> (Vec<u16>, Vec<f32>) {
    assert!(counts.len() < usize::from(MISSING), "experts");
    assert!(counts.iter().all(|c| *c as usize <= tokens), "an expert has a token twice");
    let mut experts = vec![MISSING; tokens * top_k];
    let pairs = counts.iter().enumerate().flat_map(|(e, n)| std::iter::repeat_n(e as u16, *n as usize));
    for (p, e) in pairs.enumerate() {
        experts[(p % tokens) * top_k + p / tokens] = e;
    }
    let weights = vec![1.0 / top_k as f32; tokens * top_k];
    (experts, weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gate_by_hand() {
        // Logits 1, 3, 3, 0: experts 1 and 2 are equal, the lower first.
        let gate = Gate { experts: 4, top_k: 3, weights: &[1.0, 3.0, 3.0, 0.0], renormalise: true };
        let (experts, weights) = gate.select(1, &[1.0]);
        assert_eq!(experts, [1, 2, 0]);
        assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6 && weights[0] == weights[1]);
        let all = Gate { renormalise: false, top_k: 4, ..gate };
        let (_, whole) = all.select(1, &[1.0]);
        let (_, part) = Gate { top_k: 2, ..all }.select(1, &[1.0]);
        assert_eq!(whole[..2], part[..]);
        assert!((whole.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    proptest! {
        /// Every place but the missing ones has its row among its expert's, rows are in the order of tokens.
        #[test]
        fn sorted_by_expert(experts in 1usize..20, k in 1usize..5, places in prop::collection::vec(0u16..24, 0..200)) {
            let tokens = places.len() / k;
            let ids: Vec<u16> =
                places[..tokens * k].iter().map(|e| if usize::from(*e) < experts { *e } else { MISSING }).collect();
            let weights = vec![1.0; ids.len()];
            let s = Sorted::new(experts, &Selections { top_k: k, experts: &ids, weights: &weights });
            prop_assert_eq!(s.token.len(), ids.iter().filter(|e| **e != MISSING).count());
            for (place, (e, row)) in ids.iter().zip(&s.row).enumerate() {
                if *e == MISSING {
                    prop_assert_eq!(*row, u32::MAX);
                } else {
                    prop_assert!(s.rows(usize::from(*e)).contains(&(*row as usize)));
                    prop_assert_eq!(s.token[*row as usize] as usize, place / k);
                }
            }
            for e in 0..experts {
                prop_assert!(s.token[s.rows(e)].is_sorted());
            }
        }

        #[test]
        fn dealt_counts_come_back(tokens in 1usize..40, counts in prop::collection::vec(0u32..40, 1..20)) {
            let counts: Vec<u32> = counts.iter().map(|c| (*c).min(tokens as u32)).collect();
            let k = (counts.iter().sum::<u32>() as usize).div_ceil(tokens).max(1);
            let (experts, weights) = deal(tokens, k, &counts);
            let s = Sorted::new(counts.len(), &Selections { top_k: k, experts: &experts, weights: &weights });
            for (e, n) in counts.iter().enumerate() {
                let own = &s.token[s.rows(e)];
                prop_assert_eq!(own.len(), *n as usize);
                prop_assert!(own.windows(2).all(|w| w[0] < w[1]), "a token twice");
            }
        }
    }
}
