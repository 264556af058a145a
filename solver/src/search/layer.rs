//! One layer while it is placed: who is where, and how long each group takes.

use crate::Problem;
use std::cell::RefCell;

/// One layer of a placement under construction.
#[derive(Clone, Debug)]
pub(crate) struct Layer<'a> {
    pub(crate) p: &'a Problem,
    pub(crate) layer: usize,
    /// Groups of each expert.
    pub(crate) homes: Vec<Vec<u32>>,
    /// Experts of each group.
    pub(crate) on: Vec<Vec<u16>>,
    /// Cost of each group.
    cost: Vec<f64>,
    /// Node that each expert is confined to, if groups of experts are.
    pub(crate) node: Option<Vec<u32>>,
    pinned: Vec<(u16, u32)>,
    /// Costs by expert and replicas that were asked for, NaN for the others: over batches they are dear.
    known: RefCell<Vec<Vec<f64>>>,
}

/// A change of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// Expert a goes from group g to group h.
    Move { a: u16, g: u32, h: u32 },
    /// Expert a of group g and expert b of group h change places.
    Swap { a: u16, g: u32, b: u16, h: u32 },
    /// A replica of expert b on group h makes way for another one of expert a.
    Replace { a: u16, b: u16, h: u32 },
}

impl<'a> Layer<'a> {
    pub(crate) fn empty(p: &'a Problem, layer: usize) -> Self {
        let node = (p.expert_groups > 0).then(|| {
            let of = super::node_of_groups(p, layer);
            (0..p.experts).map(|e| of[e * p.expert_groups / p.experts]).collect()
        });
        let pins = p.pins.iter().filter(|q| q.layer == layer);
        Self {
            p,
            layer,
            homes: vec![Vec::new(); p.experts],
            on: vec![Vec::new(); p.groups],
            cost: vec![0.0; p.groups],
            node,
            pinned: pins.map(|q| (q.expert as u16, q.group as u32)).collect(),
            known: RefCell::new(vec![Vec::new(); p.experts]),
        }
    }

    pub(crate) fn of(p: &'a Problem, layer: usize, homes: &[Vec<u32>]) -> Self {
        let mut s = Self::empty(p, layer);
        if let Some(node) = &mut s.node {
            homes.iter().enumerate().for_each(|(e, on)| node[e] = p.node_of[on[0] as usize]);
        }
        for (e, on) in homes.iter().enumerate() {
            on.iter().for_each(|&g| s.put(e, g as usize));
        }
        (0..p.groups).for_each(|g| s.price(g));
        s
    }

    /// Adds a replica; whoever has it too gets cheaper, which [`Layer::price`] must be told.
    fn put(&mut self, e: usize, g: usize) {
        self.homes[e].push(g as u32);
        self.homes[e].sort_unstable();
        self.on[g].push(e as u16);
        self.on[g].sort_unstable();
    }

    fn take(&mut self, e: usize, g: usize) {
        self.homes[e].retain(|h| *h as usize != g);
        self.on[g].retain(|x| usize::from(*x) != e);
    }

    fn price(&mut self, g: usize) {
        // Summed anew each time, so that nothing drifts.
        self.cost[g] = self.on[g].iter().map(|&e| self.each(e)).sum();
    }

    /// Cost of one of `replicas` replicas of `e`.
    fn cost_of(&self, e: usize, replicas: usize) -> f64 {
        let of = &mut self.known.borrow_mut()[e];
        if of.len() <= replicas {
            of.resize(replicas + 1, f64::NAN);
        }
        if of[replicas].is_nan() {
            of[replicas] = self.p.cost(self.layer, e, replicas);
        }
        of[replicas]
    }

    /// Cost of a replica of `e` as things are.
    pub(crate) fn each(&self, e: u16) -> f64 {
        self.cost_of(e.into(), self.homes[usize::from(e)].len())
    }

    pub(crate) fn time(&self, g: usize) -> f64 {
        self.cost[g] / self.p.speed[g]
    }

    pub(crate) fn busiest(&self) -> usize {
        (0..self.p.groups).reduce(|a, b| if self.time(b) > self.time(a) { b } else { a }).unwrap_or(0)
    }

    pub(crate) fn free(&self, g: usize) -> bool {
        self.on[g].len() < self.p.slots[self.layer][g] as usize
    }

    /// Whether `e` may get a replica on `g`, room aside.
    pub(crate) fn may(&self, e: u16, g: usize) -> bool {
        let here = self.node.as_ref().is_none_or(|n| n[usize::from(e)] == self.p.node_of[g]);
        here && !self.homes[usize::from(e)].contains(&(g as u32))
    }

    pub(crate) fn pinned(&self, e: u16, g: usize) -> bool {
        self.pinned.contains(&(e, g as u32))
    }

    /// Deals out `n[e]` replicas of every expert: the most costly first, each to the group that is done first.
    pub(crate) fn deal(&mut self, n: &[usize]) -> bool {
        for i in 0..self.pinned.len() {
            let (e, g) = self.pinned[i];
            self.put(e.into(), g as usize);
        }
        let cost = |e: usize| self.cost_of(e, n[e]);
        let mut order: Vec<(usize, f64)> = (0..self.p.experts).map(|e| (e, cost(e))).collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut sum = vec![0.0; self.p.groups];
        for &(e, c) in &order {
            self.homes[e].iter().for_each(|&g| sum[g as usize] += c);
        }
        for (e, c) in order {
            while self.homes[e].len() < n[e] {
                let after = |g: usize| (sum[g] + c) / self.p.speed[g];
                let open = (0..self.p.groups).filter(|&g| self.free(g) && self.may(e as u16, g));
                let Some(g) = open.reduce(|a, b| if after(b) < after(a) { b } else { a }) else {
                    if self.homes[e].is_empty() && !self.squeeze(e) {
                        return false;
                    }
                    break;
                };
                self.put(e, g);
                sum[g] += c;
            }
        }
        (0..self.p.groups).for_each(|g| self.price(g));
        true
    }

    /// Makes room for an expert that found none: a replica of another that has several gives way, or one moves.
    fn squeeze(&mut self, e: usize) -> bool {
        for g in (0..self.p.groups).filter(|&g| self.may(e as u16, g)) {
            let spare = |x: &&u16| self.homes[usize::from(**x)].len() > 1 && !self.pinned(**x, g);
            if let Some(&x) = self.on[g].iter().find(spare) {
                self.take(x.into(), g);
                self.put(e, g);
                return true;
            }
            for h in (0..self.p.groups).filter(|&h| self.free(h)) {
                if let Some(&x) = self.on[g].iter().find(|&&x| self.may(x, h) && !self.pinned(x, g)) {
                    self.take(x.into(), g);
                    self.put(x.into(), h);
                    self.put(e, g);
                    return true;
                }
            }
        }
        false
    }

    /// The step that lowers the time of the busiest group most, and the later time of the groups that it changes.
    pub(crate) fn best(&self) -> Option<(Step, f64)> {
        let g = self.busiest();
        let now = self.time(g);
        let mut best: Option<(Step, f64)> = None;
        let mut offer = |step: Step, value: f64| {
            // Rounding is no progress.
            if value < now * (1.0 - 1e-12) && best.is_none_or(|(_, v)| value < v) {
                best = Some((step, value));
            }
        };
        for &a in self.on[g].iter().filter(|a| !self.pinned(**a, g)) {
            let ca = self.each(a);
            for h in (0..self.p.groups).filter(|&h| h != g && self.may(a, h)) {
                let (sg, sh) = (self.p.speed[g], self.p.speed[h]);
                if self.free(h) {
                    let value = ((self.cost[g] - ca) / sg).max((self.cost[h] + ca) / sh);
                    offer(Step::Move { a, g: g as u32, h: h as u32 }, value);
                }
                for &b in &self.on[h] {
                    let cb = self.each(b);
                    if cb < ca && self.may(b, g) && !self.pinned(b, h) {
                        let value = ((self.cost[g] - ca + cb) / sg).max((self.cost[h] - cb + ca) / sh);
                        offer(Step::Swap { a, g: g as u32, b, h: h as u32 }, value);
                    }
                }
            }
        }
        // One replica more for an expert of the busiest group.
        for &a in &self.on[g] {
            let after = self.cost_of(a.into(), self.homes[usize::from(a)].len() + 1);
            for h in (0..self.p.groups).filter(|&h| self.may(a, h)) {
                for &b in self.on[h].iter().filter(|b| self.homes[usize::from(**b)].len() > 1 && !self.pinned(**b, h)) {
                    let less = self.cost_of(b.into(), self.homes[usize::from(b)].len() - 1);
                    let value = self.replaced(a, after, b, less, h);
                    offer(Step::Replace { a, b, h: h as u32 }, value);
                }
            }
        }
        best
    }

    /// The longest time among the groups of `a` and `b` once `a` has a replica on `h` instead of `b`.
    fn replaced(&self, a: u16, after: f64, b: u16, less: f64, h: usize) -> f64 {
        let (was_a, was_b) = (self.each(a), self.each(b));
        let mut worst = (self.cost[h] - was_b + after) / self.p.speed[h];
        for &g in &self.homes[usize::from(a)] {
            let g = g as usize;
            let both = if self.homes[usize::from(b)].contains(&(g as u32)) { less - was_b } else { 0.0 };
            worst = worst.max((self.cost[g] - was_a + after + both) / self.p.speed[g]);
        }
        for &g in &self.homes[usize::from(b)] {
            let g = g as usize;
            if g != h && !self.homes[usize::from(a)].contains(&(g as u32)) {
                worst = worst.max((self.cost[g] - was_b + less) / self.p.speed[g]);
            }
        }
        worst
    }

    pub(crate) fn apply(&mut self, step: Step) {
        match step {
            Step::Move { a, g, h } => {
                self.take(a.into(), g as usize);
                self.put(a.into(), h as usize);
                [g, h].into_iter().for_each(|g| self.price(g as usize));
            }
            Step::Swap { a, g, b, h } => {
                self.take(a.into(), g as usize);
                self.take(b.into(), h as usize);
                self.put(a.into(), h as usize);
                self.put(b.into(), g as usize);
                [g, h].into_iter().for_each(|g| self.price(g as usize));
            }
            Step::Replace { a, b, h } => {
                let mut touched = self.homes[usize::from(b)].clone();
                self.take(b.into(), h as usize);
                self.put(a.into(), h as usize);
                touched.extend(&self.homes[usize::from(a)]);
                touched.into_iter().for_each(|g| self.price(g as usize));
            }
        }
    }

    /// Takes the best step until there is none, at most `steps` times; whether it ended by itself.
    pub(crate) fn improve(&mut self, steps: u64) -> bool {
        for _ in 0..steps {
            match self.best() {
                Some((step, _)) => self.apply(step),
                None => return true,
            }
        }
        false
    }
}
