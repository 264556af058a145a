//! Every copy of every row.

use super::rows::positions;
use super::{Distinct, HomeTable, Mode, Way};
use crate::Homes;
use moesim_core::Result;
use moesim_traces::Trace;
use rayon::prelude::*;
use serde::Serialize;
use std::ops::Range;

/// Copies of tokens that leave their device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copies {
    /// Dispatched inside a node.
    pub dispatch_inside: u64,
    /// Dispatched between nodes.
    pub dispatch_across: u64,
    /// Combined inside a node.
    pub combine_inside: u64,
    /// Combined between nodes.
    pub combine_across: u64,
}

impl Copies {
    fn add(mut self, other: Self) -> Self {
        self.dispatch_inside += other.dispatch_inside;
        self.dispatch_across += other.dispatch_across;
        self.combine_inside += other.combine_inside;
        self.combine_across += other.combine_across;
        self
    }
}

/// How tokens travel.
#[derive(Clone, Copy, Debug)]
pub struct Routes<'a> {
    /// Where they are between layers.
    pub mode: Mode,
    /// What is sent once.
    pub way: Way,
    /// Node of each group, as many groups on each.
    pub node_of: &'a [u32],
}

/// Copies of all rows of the sequences `range`, whose tokens are at home on group `home(sequence)`.
///
/// # Errors
/// A sequence with an id beyond the trace's experts.
pub fn copies(
    trace: &Trace,
    range: Range<usize>,
    homes: &Homes,
    routes: Routes,
    home: impl Fn(usize) -> u32 + Sync,
) -> Result<Copies> {
    let table = HomeTable::new(homes);
    // Sums of integers: whoever adds them.
    let one = |i: usize| {
        trace.check_sequence(i)?;
        let (s, width) = (trace.sequence(i), trace.width());
        let mut sum = Copies::default();
        let rows = s.prefill.chunks_exact(width).chain(s.decode.chunks_exact(width));
        for (row, position) in rows.zip(positions(&s, width)) {
            let turn = i as u64 + position;
            let start = match routes.mode {
                Mode::ReturnHome => home(i),
                Mode::TokenFollows => (turn % routes.node_of.len() as u64) as u32,
            };
            sum = sum.add(token(row, trace.k(), turn, start, &table, routes));
        }
        Ok(sum)
    };
    range.into_par_iter().map(one).try_reduce(Copies::default, |a, b| Ok(a.add(b)))
}

fn token(row: &[u16], k: usize, turn: u64, start: u32, table: &HomeTable, routes: Routes) -> Copies {
    let mut sum = Copies::default();
    let node = |g: u32| routes.node_of[g as usize];
    let nodes = routes.node_of.last().map_or(1, |n| n + 1);
    let per_node = routes.node_of.len() as u32 / nodes;
    let mut holder = start;
    for (l, ids) in row.chunks_exact(k).enumerate() {
        let mut on = Distinct::default();
        for e in table.placed(ids) {
            on.add(table.home(l, e, turn), routes.way == Way::PerSelection);
        }
        let first = table.placed(ids).next().filter(|_| routes.mode == Mode::TokenFollows);
        let next = first.map_or(holder, |e| table.home(l, e, turn));
        let mut leg = |from: u32, to: u32, back: bool| {
            if from != to {
                let n = match (back, node(from) == node(to)) {
                    (false, true) => &mut sum.dispatch_inside,
                    (false, false) => &mut sum.dispatch_across,
                    (true, true) => &mut sum.combine_inside,
                    (true, false) => &mut sum.combine_across,
                };
                *n += 1;
            }
        };
        if routes.way == Way::Hierarchical {
            let mut seen = Distinct::default();
            on.list().iter().for_each(|&g| seen.add(node(g), false));
            let entry = |n: u32| if n == node(holder) { holder } else { n * per_node + holder % per_node };
            for &n in seen.list() {
                leg(holder, entry(n), false);
                leg(entry(n), holder, true);
            }
            for &g in on.list() {
                leg(entry(node(g)), g, false);
                leg(g, entry(node(g)), true);
            }
        } else {
            for &g in on.list() {
                leg(holder, g, false);
                leg(g, next, true);
            }
        }
        holder = next;
    }
    sum
}
