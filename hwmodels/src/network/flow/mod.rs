//! Max-min fair sharing, event by event.
//!
//! A transfer moves its bytes as a fluid over all links of its path at once, from its start on, and ends one path
//! latency after its last byte: end = completion of the fluid + latency. Rates are max-min fair in bytes per second
//! whatever the priority (progressive filling: Bertsekas and Gallager, Data Networks, section 6.5.2): no rate can rise
//! without lowering one that is no larger. They change only where transfers start or complete. Completions are rounded
//! up to the picosecond, so that what completes within one is one event.
//!
//! **What is recomputed.** Filling raises all rates together. Below the least rate of the transfers that end, and below
//! what the ones that start get at least (capacity over transfers on the link, the least along the path), it goes as
//! before. So only rates from there on can change, and only of transfers joined to those by links that such transfers
//! share; the others keep theirs, and the links that they cross lose their bytes per second beforehand.

mod solve;

use super::lines::Lines;
use super::tree::Tree;
use super::{Phase, Timed, Transfer, TransferModel, real, up};
use crate::topology::Topology;
use moesim_core::Picos;
use solve::Solver;
use std::sync::Arc;

/// Prices transfers on one topology; keeps its arrays between calls, so that no event allocates.
#[derive(Clone, Debug)]
pub struct Flow {
    topology: Arc<Topology>,
    /// Bytes per picosecond of each link.
    capacity: Vec<f64>,
    /// The transfers, their links, and who is on each link now.
    lines: Lines,
    /// By transfer: bytes left at `since`.
    left: Vec<f64>,
    /// By transfer: when `left` was true, in picoseconds.
    since: Vec<u64>,
    /// By transfer: bytes per picosecond; infinite from its start to the next solution.
    rate: Vec<f64>,
    /// By transfer: the link that was full at this rate.
    binding: Vec<u32>,
    /// Completion of each transfer that is under way.
    completions: Tree,
    /// Transfers by start.
    order: Vec<u32>,
    starts: Vec<u64>,
    ends: Vec<u64>,
    /// Transfers that ended or started at this instant.
    changed: Vec<u32>,
    solver: Solver,
    /// Events so far: instants at which transfers started or completed.
    events: u64,
}

impl Flow {
    /// For transfers on `topology`.
    pub fn new(topology: Arc<Topology>) -> Self {
        let links = topology.links().len();
        Self {
            capacity: topology.links().iter().map(|l| l.bandwidth_per_s / 1e12).collect(),
            lines: Lines::new(links),
            left: Vec::new(),
            since: Vec::new(),
            rate: Vec::new(),
            binding: Vec::new(),
            completions: Tree::default(),
            order: Vec::new(),
            starts: Vec::new(),
            ends: Vec::new(),
            changed: Vec::new(),
            solver: Solver::new(links),
            events: 0,
            topology,
        }
    }

    /// Instants at which rates were recomputed, over all calls.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Runs the transfers, `ends` then has their ends; `watch` sees every event once its rates are known.
    fn run(&mut self, count: usize, at: impl Fn(usize) -> (u64, Transfer), mut watch: impl FnMut(u64, &Self)) {
        self.starts.clear();
        self.starts.extend((0..count).map(|i| at(i).0));
        self.ends.clear();
        self.ends.extend_from_slice(&self.starts);
        self.order.clear();
        self.order.extend((0..count as u32).filter(|&i| real(&at(i as usize).1)));
        self.order.sort_unstable_by_key(|&i| (self.starts[i as usize], i));
        self.lines.load(&self.topology, count, |i| at(i).1);
        self.left.clear();
        self.left.extend((0..count).map(|i| at(i).1.bytes as f64));
        self.since.clear();
        self.since.resize(count, 0);
        self.rate.clear();
        self.rate.resize(count, 0.0);
        self.binding.clear();
        self.binding.resize(count, 0);
        self.completions.clear(count);
        self.solver.begin(count);
        let mut next = 0;
        loop {
            let arrival = self.order.get(next).map_or(u64::MAX, |&i| self.starts[i as usize]);
            let now = arrival.min(self.completions.first().0);
            if now == u64::MAX {
                return;
            }
            self.events += 1;
            // The rate from which on anything can change.
            let mut from = f64::INFINITY;
            self.changed.clear();
            while self.completions.first().0 == now {
                let i = self.completions.first().1;
                self.completions.set(i as usize, u64::MAX);
                from = from.min(self.rate[i as usize]);
                let t = at(i as usize).1;
                self.ends[i as usize] = now.saturating_add(latency_ps(&self.topology, &t));
                self.lines.leave(i);
                self.changed.push(i);
            }
            let first = next;
            while self.order.get(next).is_some_and(|&i| self.starts[i as usize] == now) {
                let i = self.order[next];
                self.lines.enter(i);
                self.since[i as usize] = now;
                self.rate[i as usize] = f64::INFINITY;
                self.changed.push(i);
                next += 1;
            }
            for &i in &self.order[first..next] {
                let fair = |&l: &u32| self.capacity[l as usize] / self.lines.on(l).len() as f64;
                from = self.lines.path(i).iter().map(fair).fold(from, f64::min);
            }
            self.solve(now, from);
            watch(now, self);
        }
    }

    /// New rates for what the transfers in `changed` concern, given that no rate below `from` changes.
    fn solve(&mut self, now: u64, from: f64) {
        let Self { solver, lines, capacity, rate, changed, .. } = self;
        solver.region(lines, capacity, rate, changed, from);
        let (left, since, binding, completions) =
            (&mut self.left, &mut self.since, &mut self.binding, &mut self.completions);
        let mut moved = 0;
        let all = solver.len() * 8 > completions.len();
        solver.fill(lines, from, |i, level, link| {
            let i = i as usize;
            binding[i] = link;
            // What differs by less is noise.
            if (level - rate[i]).abs() <= 1e-12 * level {
                return;
            }
            let span = now - since[i];
            if span > 0 {
                left[i] = (left[i] - rate[i] * span as f64).max(0.0);
                since[i] = now;
            }
            rate[i] = level;
            let end = now.saturating_add(up(left[i] / level)).min(u64::MAX - 1);
            moved += 1;
            if all { completions.put(i, end) } else { completions.set(i, end) }
        });
        if all && moved > 0 {
            completions.rebuild();
        }
    }

    /// The last to end, and its end.
    fn last(&self) -> Option<(u64, u32)> {
        self.order.iter().map(|&i| (self.ends[i as usize], i)).max_by_key(|&(end, i)| (end, std::cmp::Reverse(i)))
    }
}

/// Latency of a transfer, rounded up.
pub(super) fn latency_ps(topology: &Topology, t: &Transfer) -> u64 {
    up(topology.latency_s(t.src as usize, t.dst as usize) * 1e12)
}

impl TransferModel for Flow {
    fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    fn phase(&mut self, transfers: &[Transfer], link_bytes: Option<&mut [u64]>) -> Phase {
        self.run(transfers.len(), |i| (0, transfers[i]), |_, _| {});
        self.lines.add_bytes(transfers.iter().copied(), link_bytes);
        self.last().map_or_else(Phase::default, |(end, i)| Phase {
            time_s: Picos(end).seconds(),
            link: Some(self.binding[i as usize]),
        })
    }

    fn schedule(&mut self, transfers: &[Timed], ends: &mut Vec<Picos>, link_bytes: Option<&mut [u64]>) {
        self.run(transfers.len(), |i| (transfers[i].start.0, transfers[i].transfer), |_, _| {});
        self.lines.add_bytes(transfers.iter().map(|t| t.transfer), link_bytes);
        ends.clear();
        ends.extend(self.ends.iter().map(|&e| Picos(e)));
    }
}

#[cfg(test)]
mod tests;
