//! What iterations take: batches of rows, each as a run would have them, with the busiest group of every batch.
//!
//! Time of a layer in a batch = that of the busiest group's experts + dispatch + combine, and a placement is worth the mean over
//! batches, summed over layers. The mean of the busiest is more than the busiest of the means: a placement that is even over all
//! rows may be uneven in every batch, and experts that tokens select together make it so.
//!
//! An exchange takes what its busiest link takes, as the network's `bottleneck` fidelity has it, if every group has a link of its own
//! inside its node and another one between nodes. Where tokens return home, every group is as likely a home as any other, so that
//! what arrives binds: of a flat dispatch, (1 - 1/N) of the tokens with an expert on a group come from other nodes.

mod state;

pub(crate) use state::State;

use crate::traffic::{Distinct, HomeTable, Mode, Traffic, Way};
use crate::{Curve, Homes};
use std::sync::Arc;

/// Batches of rows.
#[derive(Clone, Debug)]
pub struct Batches {
    /// The rows, and how tokens travel; `inside` and `across` are seconds of a copy on a link.
    pub traffic: Arc<Traffic>,
    /// How many batches: row t is in batch t mod this, so that a batch mixes sequences as a run does.
    pub batches: usize,
    /// Tokens of an iteration for each row of a batch.
    pub scale: f64,
    /// Seconds of an expert's part of a kernel, by tokens.
    pub kernel: Curve,
    /// Tokens of each (batch, layer, expert).
    counts: Vec<u32>,
    experts: usize,
}

impl Batches {
    /// Batches of `tokens` rows of `traffic`, at least four, smaller ones if there are too few rows; `experts` with a home.
    pub fn new(traffic: Arc<Traffic>, tokens: f64, experts: usize, kernel: Curve) -> Self {
        let rows = traffic.rows.tokens();
        let batches = ((rows as f64 / tokens.max(1.0)) as usize).max(4).min(rows.max(1));
        let layers = traffic.rows.layers;
        let mut counts = vec![0; batches * layers * experts];
        for t in 0..rows {
            for l in 0..layers {
                for &e in traffic.rows.ids(t, l).iter().filter(|e| usize::from(**e) < experts) {
                    counts[(t % batches * layers + l) * experts + usize::from(e)] += 1;
                }
            }
        }
        let scale = tokens * batches as f64 / rows.max(1) as f64;
        Self { traffic, batches, scale, kernel, counts, experts }
    }

    /// Seconds of one of `replicas` replicas of an expert in a batch.
    pub(crate) fn cost(&self, batch: usize, layer: usize, expert: usize, replicas: usize) -> f64 {
        let n = self.counts[(batch * self.traffic.rows.layers + layer) * self.experts + expert];
        if n == 0 { 0.0 } else { self.kernel.of(f64::from(n) * self.scale / replicas as f64) }
    }

    /// The same, the mean of all batches.
    pub fn mean_cost(&self, layer: usize, expert: usize, replicas: usize) -> f64 {
        let sum: f64 = (0..self.batches).map(|b| self.cost(b, layer, expert, replicas)).sum();
        sum / self.batches as f64
    }

    /// Seconds of each batch, summed over layers, on groups of these speeds.
    pub fn each(&self, speed: &[f64], homes: &Homes) -> Vec<f64> {
        let table = HomeTable::new(homes);
        let mut out = vec![0.0; self.batches];
        for (l, homes) in homes.iter().enumerate() {
            let layer = state::LayerTimes::new(self, speed, l, homes, &table);
            out.iter_mut().zip(layer.seconds()).for_each(|(o, s)| *o += s);
        }
        out
    }

    /// Seconds of an iteration, the mean over batches.
    pub fn value(&self, speed: &[f64], homes: &Homes) -> f64 {
        self.each(speed, homes).iter().sum::<f64>() / self.batches as f64
    }

    /// Nodes of the groups.
    pub(crate) fn nodes(&self) -> usize {
        self.traffic.node_of.last().map_or(1, |n| *n as usize + 1)
    }

    /// Counters of a batch in a layer.
    fn width(&self) -> usize {
        let groups = self.traffic.groups();
        match (self.traffic.mode, self.traffic.way) {
            (Mode::TokenFollows, _) => 8 * groups,
            (Mode::ReturnHome, Way::Hierarchical) => groups + self.nodes(),
            (Mode::ReturnHome, _) => groups,
        }
    }

    /// Every counter that token `t` raises in a layer; with `out_only`, those of its way out if it follows.
    fn raise(&self, layer: usize, t: usize, table: &HomeTable, out_only: bool, mut add: impl FnMut(usize)) {
        let x = &*self.traffic;
        let (ids, turn, groups) = (x.rows.ids(t, layer), x.rows.turn(t), x.groups());
        let mut on = Distinct::default();
        for e in table.placed(ids) {
            on.add(table.home(layer, e, turn), x.way == Way::PerSelection);
        }
        if x.mode == Mode::ReturnHome {
            on.list().iter().for_each(|&g| add(g as usize));
            if x.way == Way::Hierarchical {
                let mut seen = Distinct::default();
                on.list().iter().for_each(|&g| seen.add(x.node_of[g as usize], false));
                seen.list().iter().for_each(|&n| add(groups + n as usize));
            }
            return;
        }
        let mut leg = |from: u32, to: u32, way: usize| {
            if from != to {
                let across = usize::from(x.node_of[from as usize] != x.node_of[to as usize]);
                add((way * 4 + across) * groups + from as usize);
                add((way * 4 + 2 + across) * groups + to as usize);
            }
        };
        let from = x.holder(layer, t, table);
        on.list().iter().for_each(|&g| leg(from, g, 0));
        if !out_only {
            let to = x.holder(layer + 1, t, table);
            on.list().iter().for_each(|&g| leg(g, to, 1));
        }
    }

    /// Seconds of dispatch and combine with these counters.
    fn exchange(&self, n: &[i32]) -> f64 {
        let x = &*self.traffic;
        let (groups, nodes) = (x.groups(), self.nodes() as f64);
        let per_node = groups as f64 / nodes;
        let most = |n: &[i32]| f64::from(n.iter().copied().max().unwrap_or(0)) * self.scale;
        let (away, inside) = (1.0 - 1.0 / nodes, (per_node - 1.0) / groups as f64);
        (0..2)
            .map(|way| match (x.mode, x.way) {
                (Mode::TokenFollows, _) => (0..4)
                    .map(|i| {
                        let cost = if i % 2 == 1 { x.across[way] } else { x.inside[way] };
                        most(&n[(way * 4 + i) * groups..(way * 4 + i + 1) * groups]) * cost
                    })
                    .fold(0.0, f64::max),
                (Mode::ReturnHome, Way::Hierarchical) => {
                    let rails = most(&n[groups..]) * away / per_node * x.across[way];
                    rails.max(most(&n[..groups]) * (1.0 - 1.0 / per_node) * x.inside[way])
                }
                (Mode::ReturnHome, _) => most(n) * (away * x.across[way]).max(inside * x.inside[way]),
            })
            .sum()
    }
}

#[cfg(test)]
mod tests;
