//! The time of batches as a program, where tokens return home: the busiest group of every batch, and the busiest link.

use super::Program;
use crate::linear::{LinearProgram, Rule, Var};
use crate::time::Batches;
use crate::traffic::{Mode, Way};
use crate::{Homes, Problem, Solution};
use moesim_core::Result;
use std::collections::BTreeMap;

/// Whether there is a program for it.
pub(crate) fn applies(p: &Problem) -> bool {
    p.redundant == 0 && p.batches.as_ref().is_some_and(|b| b.traffic.mode == Mode::ReturnHome)
}

pub(super) fn place(p: &Problem, start: &Homes) -> Result<Solution> {
    let Some(b) = p.batches.as_ref().filter(|_| applies(p)) else {
        return Err(p.refuse(
            "ilp",
            "has a program for the time of batches only where tokens return home, without redundant experts",
        ));
    };
    let mut program = Program { p, model: LinearProgram::default(), x: Vec::new(), time: Vec::new(), start };
    program.replicas();
    program.limits();
    let unit = p.value(start).max(f64::MIN_POSITIVE) / (p.layers * b.batches) as f64;
    for l in 0..p.layers {
        for batch in 0..b.batches {
            program.experts(b, l, batch, unit);
            program.exchange(b, l, batch, unit);
        }
    }
    let Some(found) = program.model.solve(&p.effort)? else {
        return Ok(Solution { cut: p.effort.over(), ..start.clone().into() });
    };
    Ok(Solution { homes: program.homes(&found), bound: Some(found.bound.max(0.0)), cut: found.cut, ran: None })
}

impl Program<'_> {
    /// A time that is no less than each of these sums, times `cost` seconds.
    fn at_least(&mut self, sums: Vec<Vec<(Var, f64)>>, seconds: f64, share: f64, unit: f64) {
        let most = self.model.amount(share * unit, f64::INFINITY);
        let scale = seconds / unit;
        let value =
            |model: &LinearProgram, sum: &[(Var, f64)]| sum.iter().map(|(v, c)| c * model.started(*v)).sum::<f64>();
        let start = sums.iter().map(|s| value(&self.model, s)).fold(0.0, f64::max);
        self.model.start(most, start * scale);
        for sum in sums {
            let mut row: Vec<(Var, f64)> = sum.into_iter().map(|(v, c)| (v, c * scale)).collect();
            row.push((most, -1.0));
            self.model.row(row, Rule::AtMost, 0.0);
        }
    }

    fn experts(&mut self, b: &Batches, l: usize, batch: usize, unit: f64) {
        let p = self.p;
        let group = |g: usize| {
            let each = |e: usize| (self.x[l][e][g][0], b.cost(batch, l, e, 1) / p.speed[g]);
            (0..p.experts).map(each).collect()
        };
        let sums = (0..p.groups).map(group).collect();
        self.at_least(sums, 1.0, 1.0 / b.batches as f64, unit);
    }

    fn exchange(&mut self, b: &Batches, l: usize, batch: usize, unit: f64) {
        let (p, t) = (self.p, &b.traffic);
        let (nodes, share) = (p.nodes() as f64, 1.0 / b.batches as f64);
        let per_node = p.groups as f64 / nodes;
        let (away, inside) = (1.0 - 1.0 / nodes, (per_node - 1.0) / p.groups as f64);
        let mut sets: BTreeMap<Vec<u16>, f64> = BTreeMap::new();
        for token in (batch..t.rows.tokens()).step_by(b.batches) {
            let mut set: Vec<u16> =
                t.rows.ids(token, l).iter().copied().filter(|e| usize::from(*e) < p.experts).collect();
            set.sort_unstable();
            *sets.entry(set).or_insert(0.0) += b.scale;
        }
        sets.remove(&Vec::new());
        let mut groups: Vec<Vec<(Var, f64)>> = vec![Vec::new(); p.groups];
        let mut rails: Vec<Vec<(Var, f64)>> = vec![Vec::new(); p.nodes()];
        for (set, n) in sets {
            if t.way == Way::PerSelection {
                for (g, sum) in groups.iter_mut().enumerate() {
                    sum.extend(set.iter().map(|e| (self.x[l][usize::from(*e)][g][0], n)));
                }
                continue;
            }
            let u = self.cover(l, &set, 0.0);
            groups.iter_mut().zip(&u).for_each(|(sum, v)| sum.push((*v, n)));
            if t.way == Way::Hierarchical {
                for (node, sum) in rails.iter_mut().enumerate() {
                    let mine: Vec<usize> = (0..p.groups).filter(|g| p.node_of[*g] as usize == node).collect();
                    let v = self.model.amount(0.0, 1.0);
                    let on = mine.iter().map(|g| self.model.started(u[*g])).fold(0.0, f64::max);
                    self.model.start(v, on);
                    mine.iter().for_each(|g| self.model.row(vec![(u[*g], 1.0), (v, -1.0)], Rule::AtMost, 0.0));
                    sum.push((v, n));
                }
            }
        }
        if t.way != Way::Hierarchical {
            let seconds: f64 = (0..2).map(|way| (away * t.across[way]).max(inside * t.inside[way])).sum();
            self.at_least(groups, seconds, share, unit);
            return;
        }
        for way in 0..2 {
            let (rail, device) = (away / per_node * t.across[way], (1.0 - 1.0 / per_node) * t.inside[way]);
            let scaled = |sums: &[Vec<(Var, f64)>], by: f64| -> Vec<Vec<(Var, f64)>> {
                sums.iter().map(|s| s.iter().map(|(v, c)| (*v, c * by)).collect()).collect()
            };
            let mut sums = scaled(&rails, rail);
            sums.extend(scaled(&groups, device));
            self.at_least(sums, 1.0, share, unit);
        }
    }
}
