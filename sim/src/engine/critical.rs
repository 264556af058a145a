//! The critical path of an iteration: which operation released which, back from the last one.

use super::graph::{Graph, NONE, OpKind};
use moesim_core::Picos;

/// Time on the critical path by kind of operation, and idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakdown {
    /// Picoseconds by [`OpKind`].
    pub kinds: [u64; OpKind::ALL.len()],
    /// Picoseconds in which the path waits for nothing that an operation does.
    pub idle: u64,
}

impl Breakdown {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.kinds.iter().sum::<u64>() + self.idle
    }
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        for (a, b) in self.kinds.iter_mut().zip(&other.kinds) {
            *a += b;
        }
        self.idle += other.idle;
    }
}

/// The run of operation `i` that ended last by `until`: when it began and ended, who released what it waited for, and
/// whether it was its first.
#[inline]
fn run(graph: &Graph, i: usize, until: u64) -> (u64, u64, u32, bool) {
    if graph.runs.is_empty() || graph.runs.latest(i).is_none() {
        return (graph.start[i], graph.end[i], graph.waited_for[i], true);
    }
    let run = graph.runs.of(i).find(|r| r.end <= until && r.start < until);
    run.map_or((until, until, NONE, true), |r| (r.start, r.end, r.waited_for, r.first))
}

/// Walks from the operation that ended last (the latest appended among equals) back through whichever released it last:
/// the lane's previous holder if it waited for one, else the dependency that ended last. The time of a pause is charged to
/// whoever held the lane. `visit` sees every operation of the path with its time on it, latest first, one that was paused
/// once for every run. The result sums to the span from `begin` to that end.
pub fn path(graph: &Graph, begin: Picos, mut visit: impl FnMut(usize, Picos)) -> Breakdown {
    let mut out = Breakdown::default();
    let last_of = |ops: &mut dyn Iterator<Item = usize>| ops.max_by_key(|&i| (graph.end[i], i));
    let latest = graph.end.iter().copied().max();
    let mut at = latest.and_then(|end| graph.end.iter().rposition(|&e| e == end));
    let mut until = at.map_or(begin.0, |i| graph.end[i]);
    while let Some(i) = at {
        let (start, end, waited_for, first) = run(graph, i, until);
        out.idle += until - end;
        out.kinds[graph.kind[i] as usize] += end - start;
        until = start;
        visit(i, Picos(end - start));
        at = match waited_for {
            NONE if !first => Some(i),
            NONE => last_of(&mut graph.deps(i).iter().map(|&d| d as usize)),
            w => Some(w as usize),
        };
    }
    out.idle += until - begin.0;
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Execution, Executor, Resources, Work};

    #[test]
    fn the_path_names_who_released_whom_and_sums_to_the_span() {
        let mut r = Resources::default();
        let lane = r.lane("gpu", 1);
        let mut e = Executor::new(r, Execution::Op);
        e.begin();
        let w = |t| Work::fixed(Picos(t));
        let host = e.graph.op(OpKind::Host, 0, 0, w(10)).id();
        let long = e.graph.op(OpKind::Attention, 0, 0, w(100)).after(&[host]).hold(lane).id();
        // Ready at 10, waits for the lane until 110.
        let gate = e.graph.op(OpKind::Gate, 0, 0, w(5)).after(&[host]).hold(lane).id();
        e.graph.join(0, &[gate, long]);
        e.finish(Picos(0));
        let mut seen = Vec::new();
        let b = path(&e.graph, Picos(0), |i, _| seen.push(i));
        assert_eq!(seen, [3, 2, 1, 0]);
        assert_eq!((b.kinds[OpKind::Attention as usize], b.kinds[OpKind::Gate as usize], b.idle), (100, 5, 0));
        assert_eq!(b.total(), 115);
    }
}
