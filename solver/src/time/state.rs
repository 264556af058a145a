//! Times of layers while a search changes them.

use super::Batches;
use crate::Homes;
use crate::traffic::{HomeTable, Mode};

/// One layer, batch by batch.
#[derive(Clone, Debug)]
pub(crate) struct LayerTimes {
    /// Counters of each batch.
    n: Vec<i32>,
    /// Seconds of each (batch, group)'s experts.
    load: Vec<f64>,
    /// Seconds of each batch: experts and exchanges.
    seconds: Vec<[f64; 2]>,
}

impl LayerTimes {
    pub(crate) fn new(b: &Batches, speed: &[f64], l: usize, homes: &[Vec<u32>], table: &HomeTable) -> Self {
        let (groups, width) = (speed.len(), b.width());
        let mut s = Self {
            n: vec![0; b.batches * width],
            load: vec![0.0; b.batches * groups],
            seconds: vec![[0.0; 2]; b.batches],
        };
        for t in 0..b.traffic.rows.tokens() {
            let at = t % b.batches * width;
            b.raise(l, t, table, false, |i| s.n[at + i] += 1);
        }
        for batch in 0..b.batches {
            for (e, on) in homes.iter().enumerate() {
                let cost = b.cost(batch, l, e, on.len());
                on.iter().for_each(|&g| s.load[batch * groups + g as usize] += cost / speed[g as usize]);
            }
            s.busiest(b, groups, batch);
            s.exchange(b, batch);
        }
        s
    }

    pub(crate) fn seconds(&self) -> impl Iterator<Item = f64> + '_ {
        self.seconds.iter().map(|s| s[0] + s[1])
    }

    fn busiest(&mut self, b: &Batches, groups: usize, batch: usize) {
        debug_assert!(batch < b.batches);
        let load = &self.load[batch * groups..(batch + 1) * groups];
        self.seconds[batch][0] = load.iter().copied().fold(0.0, f64::max);
    }

    fn exchange(&mut self, b: &Batches, batch: usize) {
        let width = b.width();
        self.seconds[batch][1] = b.exchange(&self.n[batch * width..(batch + 1) * width]);
    }

    fn sum(&self) -> f64 {
        self.seconds().sum()
    }
}

/// What a step changed, to take it back.
#[derive(Clone, Copy, Debug)]
enum Was {
    Counter(u32, u32, i32),
    Load(u32, u32, f64),
    Seconds(u32, u32, [f64; 2]),
}

/// All layers of a search.
#[derive(Debug)]
pub(crate) struct State<'a> {
    b: &'a Batches,
    /// Of each group.
    speed: &'a [f64],
    /// By layer; those that are not searched are empty.
    layers: Vec<Option<LayerTimes>>,
    journal: Vec<Was>,
    /// Batches whose counters changed, by layer.
    dirty: Vec<(u32, u32)>,
    before: f64,
}

impl<'a> State<'a> {
    pub(crate) fn new(b: &'a Batches, speed: &'a [f64], mine: &[usize], homes: &Homes, table: &HomeTable) -> Self {
        let of = |l: usize| mine.contains(&l).then(|| LayerTimes::new(b, speed, l, &homes[l], table));
        Self {
            b,
            speed,
            layers: (0..homes.len()).map(of).collect(),
            journal: Vec::new(),
            dirty: Vec::new(),
            before: 0.0,
        }
    }

    /// Layers that a change of `l` changes.
    fn reach(&self, l: usize) -> std::ops::Range<usize> {
        let next = self.b.traffic.mode == Mode::TokenFollows && l + 1 < self.layers.len();
        l..l + 1 + usize::from(next)
    }

    fn sum(&self, l: usize) -> f64 {
        self.reach(l).filter_map(|l| self.layers[l].as_ref()).map(LayerTimes::sum).sum()
    }

    /// Before a change: the tokens of these experts are taken out of their counters.
    pub(crate) fn lift(&mut self, l: usize, touched: [Option<u16>; 2], table: &HomeTable) {
        self.journal.clear();
        self.dirty.clear();
        self.before = self.sum(l);
        self.shift(l, touched, table, -1);
    }

    /// After it: they are put back, and what the change costs, the mean over batches. `on` has the experts of each group and
    /// `homes` the groups of each expert of the layer as they now are.
    pub(crate) fn land(
        &mut self,
        l: usize,
        touched: [Option<u16>; 2],
        table: &HomeTable,
        groups: [u32; 2],
        on: &[Vec<u16>],
        homes: &[Vec<u32>],
    ) -> f64 {
        self.shift(l, touched, table, 1);
        if let Some(times) = &mut self.layers[l] {
            for batch in 0..self.b.batches {
                for &g in &groups {
                    let at = batch * self.speed.len() + g as usize;
                    self.journal.push(Was::Load(l as u32, at as u32, times.load[at]));
                    let each = |e: &u16| {
                        let e = usize::from(*e);
                        self.b.cost(batch, l, e, homes[e].len())
                    };
                    times.load[at] = on[g as usize].iter().map(each).sum::<f64>() / self.speed[g as usize];
                }
                self.journal.push(Was::Seconds(l as u32, batch as u32, times.seconds[batch]));
                times.busiest(self.b, self.speed.len(), batch);
            }
        }
        self.dirty.sort_unstable();
        self.dirty.dedup();
        for &(l, batch) in &self.dirty {
            if let Some(times) = &mut self.layers[l as usize] {
                self.journal.push(Was::Seconds(l, batch, times.seconds[batch as usize]));
                times.exchange(self.b, batch as usize);
            }
        }
        (self.sum(l) - self.before) / self.b.batches as f64
    }

    /// Takes the last change back.
    pub(crate) fn undo(&mut self) {
        for was in self.journal.drain(..).rev() {
            let (Was::Counter(l, ..) | Was::Load(l, ..) | Was::Seconds(l, ..)) = was;
            let Some(times) = &mut self.layers[l as usize] else { continue };
            match was {
                Was::Counter(_, i, by) => times.n[i as usize] -= by,
                Was::Load(_, i, load) => times.load[i as usize] = load,
                Was::Seconds(_, i, seconds) => times.seconds[i as usize] = seconds,
            }
        }
    }

    fn shift(&mut self, l: usize, touched: [Option<u16>; 2], table: &HomeTable, by: i32) {
        let (b, width) = (self.b, self.b.width());
        let rows = &b.traffic.rows;
        let [first, second] = touched;
        let of = |e: Option<u16>| e.map_or(&[][..], |e| rows.of(l, e.into()));
        let reach = self.reach(l);
        // Tokens of both count once.
        let again = |t: &&u32| first.is_none_or(|e| !rows.ids(**t as usize, l).contains(&e));
        for &t in of(first).iter().chain(of(second).iter().filter(again)) {
            let batch = t as usize % b.batches;
            for at in reach.clone() {
                // The next layer sees where its tokens come from: only those whose first expert it is.
                if at > l
                    && !table
                        .placed(rows.ids(t as usize, l))
                        .next()
                        .is_some_and(|e| Some(e) == first || Some(e) == second)
                {
                    continue;
                }
                let Some(times) = &mut self.layers[at] else { continue };
                let journal = &mut self.journal;
                b.raise(at, t as usize, table, at > l, |i| {
                    times.n[batch * width + i] += by;
                    journal.push(Was::Counter(at as u32, (batch * width + i) as u32, by));
                });
                if by > 0 && self.dirty.last() != Some(&(at as u32, batch as u32)) {
                    self.dirty.push((at as u32, batch as u32));
                }
            }
        }
    }
}
