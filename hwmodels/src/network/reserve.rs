//! Circuits: a transfer holds all links of its path for its whole duration.
//!
//! A transfer takes all links of its path at once or none, holds them for bytes / bandwidth of the slowest + path
//! latency (rounded up to the picosecond), and gives them back at its end. Those that wait are served by (priority, the
//! highest first; start; place in the list). With backfill one goes ahead of earlier ones if all its links are free;
//! head-of-line, it goes ahead of none with which it shares a link. A link that stands for several (a trunk, planes
//! striped evenly) is held as one, which such fabrics do not do: this is for single links, as between dies. The locks
//! of the wafer-scale study's simulator are of this kind (arXiv 2510.05497, released simulator: a lock for each edge of
//! the mesh).

use super::lines::Lines;
use super::tree::Tree;
use super::{Phase, Timed, Transfer, TransferModel, real, up};
use crate::topology::Topology;
use moesim_core::Picos;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

const NONE: u32 = u32::MAX;

/// Where a transfer is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Ahead,
    Waiting,
    Started,
}

/// Prices transfers on one topology; keeps its arrays between calls, so that no event allocates.
#[derive(Clone, Debug)]
pub struct Reserve {
    topology: Arc<Topology>,
    backfill: bool,
    /// The transfers and their links; a link's transfers in the order of service.
    lines: Lines,
    /// By link: whether a transfer holds it.
    held: Vec<bool>,
    /// By link, head-of-line: how many of its transfers, from the first on, have started.
    passed: Vec<u32>,
    /// By link, backfill: ranks of the transfers that wait until it is free. Each waits for one link, which is held;
    /// where that is released and another is not, it waits for the other.
    waiting: Vec<BinaryHeap<Reverse<u32>>>,
    state: Vec<State>,
    duration: Vec<u64>,
    /// By transfer: its place in the order of service.
    rank: Vec<u32>,
    /// Ends of the transfers under way.
    running: Tree,
    by_rank: Vec<u32>,
    by_start: Vec<u32>,
    released: Vec<u32>,
    /// Ranks of transfers that may be able to start now, each with the released link that it waits for; [`NONE`]
    /// without.
    candidates: BinaryHeap<Reverse<(u32, u32)>>,
    ends: Vec<u64>,
}

impl Reserve {
    /// For transfers on `topology`, with backfill or head-of-line.
    pub fn new(topology: Arc<Topology>, backfill: bool) -> Self {
        let links = topology.links().len();
        Self {
            backfill,
            lines: Lines::new(links),
            held: vec![false; links],
            passed: vec![0; links],
            waiting: vec![BinaryHeap::new(); links],
            state: Vec::new(),
            duration: Vec::new(),
            rank: Vec::new(),
            running: Tree::default(),
            by_rank: Vec::new(),
            by_start: Vec::new(),
            released: Vec::new(),
            candidates: BinaryHeap::new(),
            ends: Vec::new(),
            topology,
        }
    }

    /// Runs the transfers; `ends` then has their ends.
    fn run(&mut self, count: usize, at: impl Fn(usize) -> Timed) {
        self.load(count, &at);
        let mut next = 0;
        loop {
            let arrival = self.by_start.get(next).map_or(u64::MAX, |&i| at(i as usize).start.0);
            let now = arrival.min(self.running.first().0);
            if now == u64::MAX {
                return;
            }
            self.candidates.clear();
            self.released.clear();
            while self.running.first().0 == now {
                let i = self.running.first().1;
                self.running.set(i as usize, u64::MAX);
                self.released.extend_from_slice(self.lines.path(i));
            }
            self.released.iter().for_each(|&l| self.held[l as usize] = false);
            while self.by_start.get(next).is_some_and(|&i| at(i as usize).start.0 == now) {
                let i = self.by_start[next];
                self.state[i as usize] = State::Waiting;
                self.candidates.push(Reverse((self.rank[i as usize], NONE)));
                next += 1;
            }
            for at in 0..self.released.len() {
                let l = self.released[at];
                if self.backfill {
                    self.look_at(l);
                } else if let Some(i) = self.head(l) {
                    self.candidates.push(Reverse((self.rank[i as usize], NONE)));
                }
            }
            while let Some(Reverse((rank, link))) = self.candidates.pop() {
                if link != NONE {
                    if self.held[link as usize] {
                        // It still waits for this link, and so do those behind it.
                        continue;
                    }
                    self.waiting[link as usize].pop();
                }
                let i = self.by_rank[rank as usize];
                if self.state[i as usize] == State::Waiting && self.may_start(i) {
                    self.state[i as usize] = State::Started;
                    self.lines.path(i).iter().for_each(|&l| self.held[l as usize] = true);
                    let end = now.saturating_add(self.duration[i as usize]).min(u64::MAX - 1);
                    self.ends[i as usize] = end;
                    self.running.set(i as usize, end);
                } else if link != NONE {
                    self.look_at(link);
                }
            }
        }
    }

    /// Makes the first of those that wait for a link a candidate.
    fn look_at(&mut self, link: u32) {
        if let Some(&Reverse(rank)) = self.waiting[link as usize].peek() {
            self.candidates.push(Reverse((rank, link)));
        }
    }

    fn load(&mut self, count: usize, at: &impl Fn(usize) -> Timed) {
        let Self { topology, lines, by_rank, by_start, .. } = self;
        by_rank.clear();
        by_rank.extend((0..count as u32).filter(|&i| real(&at(i as usize).transfer)));
        by_start.clone_from(by_rank);
        by_start.sort_unstable_by_key(|&i| (at(i as usize).start, i));
        by_rank.sort_unstable_by_key(|&i| (Reverse(at(i as usize).priority), at(i as usize).start, i));
        lines.load(topology, count, |i| at(i).transfer);
        by_rank.iter().for_each(|&i| lines.enter(i));
        self.rank.clear();
        self.rank.resize(count, 0);
        self.by_rank.iter().enumerate().for_each(|(rank, &i)| self.rank[i as usize] = rank as u32);
        self.duration.clear();
        self.duration.extend((0..count).map(|i| {
            let t = at(i).transfer;
            let class = self.topology.class(t.src as usize, t.dst as usize);
            up((t.bytes as f64 * class.s_per_byte + class.latency_s) * 1e12)
        }));
        self.ends.clear();
        self.ends.extend((0..count).map(|i| at(i).start.0));
        self.state.clear();
        self.state.resize(count, State::Ahead);
        self.held.fill(false);
        self.passed.fill(0);
        self.waiting.iter_mut().for_each(BinaryHeap::clear);
        self.running.clear(count);
    }

    /// Whether a transfer that waits may start; with backfill, if not, it waits for the first of its links that is
    /// held.
    fn may_start(&mut self, i: u32) -> bool {
        let held = self.lines.path(i).iter().copied().find(|&l| self.held[l as usize]);
        if let (Some(l), true) = (held, self.backfill) {
            self.waiting[l as usize].push(Reverse(self.rank[i as usize]));
        }
        held.is_none()
            && (self.backfill || (0..self.lines.path(i).len()).all(|k| self.head(self.lines.path(i)[k]) == Some(i)))
    }

    /// The first of those that wait for a link.
    fn head(&mut self, link: u32) -> Option<u32> {
        let on = self.lines.on(link);
        let passed = &mut self.passed[link as usize];
        while on.get(*passed as usize).is_some_and(|&i| self.state[i as usize] == State::Started) {
            *passed += 1;
        }
        on[*passed as usize..].iter().copied().find(|&i| self.state[i as usize] == State::Waiting)
    }

    /// The slowest link of transfer `i`, the first among equals.
    fn slowest(&self, i: u32) -> Option<u32> {
        let speed = |l: u32| self.topology.links()[l as usize].bandwidth_per_s;
        self.lines.path(i).iter().copied().reduce(|a, b| if speed(b) < speed(a) { b } else { a })
    }
}

impl TransferModel for Reserve {
    fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    fn phase(&mut self, transfers: &[Transfer], link_bytes: Option<&mut [u64]>) -> Phase {
        self.run(transfers.len(), |i| Timed { start: Picos::ZERO, priority: 0, transfer: transfers[i] });
        self.lines.add_bytes(transfers.iter().copied(), link_bytes);
        let last = self.by_rank.iter().copied().max_by_key(|&i| (self.ends[i as usize], Reverse(i)));
        last.map_or_else(Phase::default, |i| Phase {
            time_s: Picos(self.ends[i as usize]).seconds(),
            link: self.slowest(i),
        })
    }

    fn schedule(&mut self, transfers: &[Timed], ends: &mut Vec<Picos>, link_bytes: Option<&mut [u64]>) {
        self.run(transfers.len(), |i| transfers[i]);
        self.lines.add_bytes(transfers.iter().map(|t| t.transfer), link_bytes);
        ends.clear();
        ends.extend(self.ends.iter().map(|&e| Picos(e)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::TopologySpec;
    use crate::topology::tests::link;

    fn timed(start: u64, priority: u8, src: u32, dst: u32) -> Timed {
        Timed { start: Picos(start), priority, transfer: Transfer { src, dst, bytes: 1000 } }
    }

    /// 1,000 bytes over 1 GB/s: a microsecond; and 10 ns over two links of a switch.
    fn ends(backfill: bool, transfers: &[Timed]) -> Vec<u64> {
        let t = Topology::build(&TopologySpec::Switch { devices: 4, link: link(1.0, 5) }).unwrap();
        let mut ends = Vec::new();
        // Twice: a call leaves nothing behind.
        let mut network = Reserve::new(Arc::new(t), backfill);
        network.schedule(transfers, &mut ends, None);
        network.schedule(transfers, &mut ends, None);
        ends.iter().map(|e| e.0 / 1000).collect()
    }

    #[test]
    fn backfill_goes_ahead_and_head_of_line_does_not() {
        // 0 > 1 holds; 0 > 2 waits for the sender; 3 > 2 is free to go unless it must wait behind 0 > 2.
        let line = [timed(0, 0, 0, 1), timed(0, 0, 0, 2), timed(0, 0, 3, 2)];
        assert_eq!(ends(true, &line), [1010, 2020, 1010]);
        assert_eq!(ends(false, &line), [1010, 2020, 3030]);
        // What shares nothing with those that wait goes either way.
        let apart = [timed(0, 0, 0, 1), timed(0, 0, 0, 2), timed(0, 0, 2, 3)];
        assert_eq!(ends(false, &apart), [1010, 2020, 1010]);
    }

    /// At every instant everyone in line is looked at, in order; which links are taken is worked out anew.
    fn oracle(t: &Topology, transfers: &[Timed], backfill: bool) -> Vec<u64> {
        let path = |x: &Timed| t.path(x.transfer.src as usize, x.transfer.dst as usize);
        let duration = |x: &Timed| {
            let slowest = path(x).iter().map(|&l| t.links()[l as usize].bandwidth_per_s).fold(f64::INFINITY, f64::min);
            let latency = t.latency_s(x.transfer.src as usize, x.transfer.dst as usize);
            up((x.transfer.bytes as f64 / slowest + latency) * 1e12)
        };
        let mut ends: Vec<Option<u64>> = transfers.iter().map(|x| (!real(&x.transfer)).then_some(x.start.0)).collect();
        let (mut started, mut now) = (vec![false; transfers.len()], 0);
        while ends.iter().any(Option::is_none) {
            let mut line: Vec<usize> =
                (0..transfers.len()).filter(|&i| ends[i].is_none() && transfers[i].start.0 <= now).collect();
            line.sort_by_key(|&i| (Reverse(transfers[i].priority), transfers[i].start, i));
            let mut taken: Vec<u32> = Vec::new();
            for i in 0..transfers.len() {
                if started[i] && ends[i].is_some_and(|e| e > now) {
                    taken.extend(path(&transfers[i]));
                }
            }
            for i in line {
                let free = path(&transfers[i]).iter().all(|l| !taken.contains(l));
                if free {
                    (started[i], ends[i]) = (true, Some(now + duration(&transfers[i])));
                }
                if free || !backfill {
                    taken.extend(path(&transfers[i]));
                }
            }
            let later = ends.iter().flatten().copied().chain(transfers.iter().map(|x| x.start.0)).filter(|&e| e > now);
            now = later.min().unwrap_or(now);
        }
        ends.into_iter().flatten().collect()
    }

    proptest::proptest! {
        #[test]
        fn reserve_is_the_oracle(
            raw in proptest::collection::vec((0u64..3, 0u8..3, 0u32..6, 0u32..6, 0u64..4), 1..40),
        ) {
            let one = |&(start, priority, src, dst, bytes): &(u64, u8, u32, u32, u64)| Timed {
                start: Picos(start * 700_000),
                priority,
                transfer: Transfer { src, dst, bytes: bytes * 500 },
            };
            let transfers: Vec<Timed> = raw.iter().map(one).collect();
            for spec in [
                TopologySpec::Switch { devices: 6, link: link(1.0, 5) },
                TopologySpec::Mesh2d { x: 3, y: 2, link: link(1.0, 5) },
            ] {
                let t = Arc::new(Topology::build(&spec).unwrap());
                for backfill in [true, false] {
                    let mut ends = Vec::new();
                    Reserve::new(t.clone(), backfill).schedule(&transfers, &mut ends, None);
                    let ends: Vec<u64> = ends.iter().map(|e| e.0).collect();
                    proptest::prop_assert_eq!(ends, oracle(&t, &transfers, backfill));
                }
            }
        }
    }

    #[test]
    fn the_order_is_priority_then_start_then_place() {
        let line = [timed(2, 0, 0, 1), timed(0, 0, 0, 1), timed(1, 0, 0, 1), timed(3, 9, 0, 1), timed(1, 0, 0, 1)];
        for backfill in [true, false] {
            // The second starts first; when it ends all are there, and the one of priority 9 is next.
            assert_eq!(ends(backfill, &line), [5050, 1010, 3030, 2020, 4040], "{backfill}");
        }
        assert_eq!(ends(true, &[timed(7000, 0, 1, 1)]), [7]);
        assert_eq!(ends(true, &[]), [0u64; 0]);
    }
}
