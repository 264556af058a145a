//! What tokens cost on their ways, in the mode that a deployment runs.
//!
//! * [`Mode::ReturnHome`]: a token starts from the device where its sequence's attention is, and its experts' outputs come back
//!   there. What counts is how many devices, or nodes, its top-k experts are on; layers do not matter to each other. The search
//!   takes every device for as likely a home as any other.
//! * [`Mode::TokenFollows`]: attention is shared by all devices, so that any of them may hold a token. It is where the first of its
//!   experts of the layer before is.
//!
//! The search sees a sample of rows ([`Rows`]); [`copies`] counts all.

mod exact;
mod rows;

pub use exact::{Copies, Routes, copies};
pub use rows::Rows;

use crate::Homes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An expert id that stands for "none".
pub const MISSING: u16 = u16::MAX;

/// Where a token is between layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// On the device of its sequence.
    #[default]
    ReturnHome,
    /// On the device of the first of its experts of the layer before; where it starts, by sequence and position in turn.
    TokenFollows,
}

/// What of a token is sent once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// A copy for each device of its experts.
    #[default]
    Flat,
    /// A copy for each of its experts.
    PerSelection,
    /// A copy for each node of its experts, dealt out inside it.
    Hierarchical,
}

/// What the ways of tokens cost.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Where tokens are between layers.
    pub mode: Mode,
    /// What of them is sent once.
    pub way: Way,
    /// Cost of a copy that stays in its node: on the way out, on the way back.
    pub inside: [f64; 2],
    /// Cost of a copy that leaves its node.
    pub across: [f64; 2],
    /// Node of each group.
    pub node_of: Vec<u32>,
    /// The rows that the search sees.
    pub rows: Rows,
    /// Tokens of an iteration for each of these rows.
    pub scale: f64,
}

/// Homes with one lookup for experts that have one.
#[derive(Clone, Debug)]
pub(crate) struct HomeTable {
    experts: usize,
    /// The only home of each (layer, expert), or `SEVERAL`.
    one: Vec<u32>,
    several: Homes,
}

const SEVERAL: u32 = u32::MAX;

impl HomeTable {
    pub(crate) fn new(homes: &Homes) -> Self {
        let experts = homes.first().map_or(0, Vec::len);
        let one = homes.iter().flatten().map(|on| if on.len() == 1 { on[0] } else { SEVERAL }).collect();
        Self { experts, one, several: homes.clone() }
    }

    pub(crate) fn set(&mut self, layer: usize, expert: usize, on: &[u32]) {
        self.one[layer * self.experts + expert] = if on.len() == 1 { on[0] } else { SEVERAL };
        self.several[layer][expert].clear();
        self.several[layer][expert].extend_from_slice(on);
    }

    /// Those of `ids` that have a home: zero-compute experts have none.
    #[inline]
    pub(crate) fn placed<'a>(&self, ids: &'a [u16]) -> impl Iterator<Item = u16> + use<'a> {
        let experts = self.experts;
        ids.iter().copied().filter(move |e| usize::from(*e) < experts)
    }

    /// The group that serves expert `e` of `layer` for the token whose turn it is.
    #[inline]
    pub(crate) fn home(&self, layer: usize, e: u16, turn: u64) -> u32 {
        let e = usize::from(e);
        match self.one[layer * self.experts + e] {
            SEVERAL => {
                let on = &self.several[layer][e];
                on[(turn % on.len() as u64) as usize]
            }
            group => group,
        }
    }
}

impl Traffic {
    /// Groups.
    pub fn groups(&self) -> usize {
        self.node_of.len()
    }

    /// Cost of an iteration.
    pub fn cost(&self, homes: &Homes) -> f64 {
        let table = HomeTable::new(homes);
        (0..self.rows.layers).map(|l| self.layer_cost(l, &table)).sum()
    }

    /// Cost of a layer.
    pub(crate) fn layer_cost(&self, layer: usize, table: &HomeTable) -> f64 {
        (0..self.rows.tokens()).map(|t| self.token_cost(layer, t, table)).sum::<f64>() * self.scale
    }

    /// Cost of one token in a layer, not scaled.
    pub(crate) fn token_cost(&self, layer: usize, t: usize, table: &HomeTable) -> f64 {
        let (ids, turn) = (self.rows.ids(t, layer), self.rows.turn(t));
        let mut on = Distinct::default();
        for e in table.placed(ids) {
            on.add(table.home(layer, e, turn), self.way == Way::PerSelection);
        }
        match self.mode {
            Mode::ReturnHome => self.returning(on.list()),
            Mode::TokenFollows => {
                let from = self.holder(layer, t, table);
                let to = self.holder(layer + 1, t, table);
                on.list().iter().map(|&g| self.leg(from, g, 0) + self.leg(g, to, 1)).sum()
            }
        }
    }

    /// Who holds token `t` before `layer`, in the mode in which it follows.
    pub(crate) fn holder(&self, layer: usize, t: usize, table: &HomeTable) -> u32 {
        let turn = self.rows.turn(t);
        for l in (0..layer).rev() {
            if let Some(first) = table.placed(self.rows.ids(t, l)).next() {
                return table.home(l, first, turn);
            }
        }
        (turn % self.groups() as u64) as u32
    }

    fn leg(&self, from: u32, to: u32, way: usize) -> f64 {
        if from == to {
            0.0
        } else if self.node_of[from as usize] == self.node_of[to as usize] {
            self.inside[way]
        } else {
            self.across[way]
        }
    }

    /// The expected cost of a token with experts on these groups, whose home is any group.
    fn returning(&self, on: &[u32]) -> f64 {
        let (groups, both) = (self.groups() as f64, |c: [f64; 2]| c[0] + c[1]);
        let nodes = f64::from(self.node_of.last().map_or(1, |n| n + 1));
        let per_node = groups / nodes;
        if self.way == Way::Hierarchical {
            let mut seen = Distinct::default();
            on.iter().for_each(|&g| seen.add(self.node_of[g as usize], false));
            let away = seen.list().len() as f64 * (1.0 - 1.0 / nodes) * both(self.across);
            // In its node, the copy is there already if the device is the one where it came in.
            return away + on.len() as f64 * (1.0 - 1.0 / per_node) * both(self.inside);
        }
        let each = (per_node - 1.0) * both(self.inside) + (groups - per_node) * both(self.across);
        on.len() as f64 * each / groups
    }
}

/// A few numbers, each once unless asked otherwise.
#[derive(Debug)]
pub(crate) struct Distinct {
    list: [u32; Self::MOST],
    len: usize,
}

impl Default for Distinct {
    fn default() -> Self {
        Self { list: [0; Self::MOST], len: 0 }
    }
}

impl Distinct {
    /// More experts a token than any model selects.
    const MOST: usize = 64;

    #[inline]
    pub(crate) fn add(&mut self, x: u32, again: bool) {
        if self.len < Self::MOST && (again || !self.list[..self.len].contains(&x)) {
            self.list[self.len] = x;
            self.len += 1;
        }
    }

    #[inline]
    pub(crate) fn list(&self) -> &[u32] {
        &self.list[..self.len]
    }
}

#[cfg(test)]
mod tests;
