//! Progressive filling of a part of the network.

use crate::network::lines::Lines;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The solver; its arrays are used again by the next problem.
#[derive(Clone, Debug)]
pub(super) struct Solver {
    /// Transfers whose rates are sought.
    transfers: Vec<u32>,
    /// By transfer: `round` if its rate is sought, `round + 1` once it is known.
    state: Vec<u64>,
    /// Links that they cross.
    links: Vec<u32>,
    /// By link: `round` if it is one of these.
    seen: Vec<u64>,
    /// By link: bytes per picosecond that are not given away yet.
    left: Vec<f64>,
    /// By link: transfers without a rate yet.
    open: Vec<u32>,
    /// (Bits of the level at which the link would be full, link): bits of positive floats are in their order.
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    round: u64,
}

impl Solver {
    pub(super) fn new(links: usize) -> Self {
        Self {
            transfers: Vec::new(),
            state: Vec::new(),
            links: Vec::new(),
            seen: vec![0; links],
            left: vec![0.0; links],
            open: vec![0; links],
            heap: BinaryHeap::with_capacity(links),
            round: 0,
        }
    }

    /// Before the first problem with `count` transfers.
    pub(super) fn begin(&mut self, count: usize) {
        self.state.clear();
        self.state.resize(count, 0);
    }

    /// Transfers in the part that [`Solver::region`] found.
    pub(super) fn len(&self) -> usize {
        self.transfers.len()
    }

    /// Finds the part that the transfers in `changed` concern: the links that they cross, the transfers on these with a
    /// rate of at least `from`, the links that those cross, and so on.
    pub(super) fn region(&mut self, lines: &Lines, capacity: &[f64], rate: &[f64], changed: &[u32], from: f64) {
        self.round += 2;
        self.transfers.clear();
        self.links.clear();
        let from = from * (1.0 - 1e-12);
        let Self { links, seen, round, .. } = self;
        let mut reach = |links: &mut Vec<u32>, path: &[u32]| {
            for &l in path {
                if seen[l as usize] != *round {
                    seen[l as usize] = *round;
                    links.push(l);
                }
            }
        };
        changed.iter().for_each(|&i| reach(links, lines.path(i)));
        let mut at = 0;
        while let Some(&l) = links.get(at) {
            at += 1;
            let (mut taken, mut open) = (0.0, 0);
            for &i in lines.on(l) {
                let state = &mut self.state[i as usize];
                if rate[i as usize] < from {
                    taken += rate[i as usize];
                    continue;
                }
                open += 1;
                if *state != *round {
                    *state = *round;
                    self.transfers.push(i);
                    reach(links, lines.path(i));
                }
            }
            self.left[l as usize] = capacity[l as usize] - taken;
            self.open[l as usize] = open;
        }
    }

    /// Calls `give` with transfer, rate and the link that is full at it, rates rising; none is below `from`.
    pub(super) fn fill(&mut self, lines: &Lines, from: f64, mut give: impl FnMut(u32, f64, u32)) {
        // Not below what is known, nor below the level before, whatever rounding says.
        let mut floor = from * (1.0 - 1e-9);
        let Self { left, open, heap, state, round, .. } = self;
        heap.clear();
        for &l in &self.links {
            if open[l as usize] > 0 {
                heap.push(Reverse(((left[l as usize] / f64::from(open[l as usize])).max(floor).to_bits(), l)));
            }
        }
        while let Some(Reverse((bits, l))) = heap.pop() {
            if open[l as usize] == 0 {
                continue;
            }
            // Levels only rise while others fill; a link is looked at again when its old level comes up.
            let level = (left[l as usize] / f64::from(open[l as usize])).max(floor);
            if level.to_bits() > bits && heap.peek().is_some_and(|Reverse(next)| next.0 < level.to_bits()) {
                heap.push(Reverse((level.to_bits(), l)));
                continue;
            }
            floor = level;
            for &i in lines.on(l) {
                if state[i as usize] != *round {
                    continue;
                }
                state[i as usize] += 1;
                for &other in lines.path(i) {
                    left[other as usize] -= level;
                    open[other as usize] -= 1;
                }
                give(i, level, l);
            }
        }
    }
}
