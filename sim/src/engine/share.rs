//! Max-min rates of operations that draw on the same shared channels.

use super::graph::NONE;

/// The solver; its memory is used again by the next problem.
///
/// An operation in its body draws amounts (of the whole body) on channels, and is never faster than alone.
#[derive(Clone, Debug, Default)]
pub struct MaxMin {
    drawers: Vec<Drawer>,
    /// (index into `channels`, amount).
    demands: Vec<(u32, f64)>,
    channels: Vec<Channel>,
    /// Index into `channels` by channel; [`NONE`] between problems.
    index: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Drawer {
    demands_end: u32,
    alone_s: f64,
    /// Its largest demand.
    weight: f64,
    rate: f64,
    open: bool,
}

#[derive(Clone, Copy, Debug)]
struct Channel {
    id: u32,
    /// Bytes per second of those whose rate is settled.
    taken: f64,
    /// What one byte per second more of the level takes.
    slope: f64,
    /// The level (bytes per second of the largest demand) at which it would be full.
    full: f64,
}

impl MaxMin {
    /// Starts a new problem.
    pub fn clear(&mut self) {
        for c in self.channels.drain(..) {
            self.index[c.id as usize] = NONE;
        }
        self.drawers.clear();
        self.demands.clear();
    }

    /// Adds an operation: `alone_s`, the time of its body alone, and (channel, amount above zero) for every channel.
    pub fn add(&mut self, alone_s: f64, demands: impl Iterator<Item = (u32, f64)>) {
        let mut weight = 0.0f64;
        for (id, amount) in demands {
            if self.index.len() <= id as usize {
                self.index.resize(id as usize + 1, NONE);
            }
            let at = &mut self.index[id as usize];
            if *at == NONE {
                *at = self.channels.len() as u32;
                self.channels.push(Channel { id, taken: 0.0, slope: 0.0, full: 0.0 });
            }
            self.demands.push((*at, amount));
            weight = weight.max(amount);
        }
        let demands_end = self.demands.len() as u32;
        self.drawers.push(Drawer { demands_end, alone_s, weight, rate: 0.0, open: true });
    }

    /// Rates in bodies per second in the order of adding, max-min fair in bytes per second of each operation's largest
    /// demand (progressive filling: Bertsekas and Gallager, Data Networks, section 6.5.2): all rates rise together; an
    /// operation stops at its own speed, or when one of its channels is full.
    ///
    /// `capacity(channel)` is in bytes per second. Every round settles an operation, so it is quadratic in their number,
    /// which is small here.
    pub fn solve(&mut self, capacity: impl Fn(u32) -> f64) -> impl Iterator<Item = f64> {
        let mut open = self.drawers.len();
        while open > 0 {
            let mut level = f64::INFINITY;
            for c in &mut self.channels {
                (c.taken, c.slope) = (0.0, 0.0);
            }
            let mut from = 0;
            for d in &self.drawers {
                for &(at, amount) in &self.demands[from..d.demands_end as usize] {
                    let c = &mut self.channels[at as usize];
                    if d.open { c.slope += amount / d.weight } else { c.taken += amount * d.rate }
                }
                from = d.demands_end as usize;
                if d.open {
                    level = level.min(d.weight / d.alone_s);
                }
            }
            for c in &mut self.channels {
                c.full = if c.slope > 0.0 { ((capacity(c.id) - c.taken) / c.slope).max(0.0) } else { f64::INFINITY };
                level = level.min(c.full);
            }
            let mut from = 0;
            for d in &mut self.drawers {
                let own = &self.demands[from..d.demands_end as usize];
                from = d.demands_end as usize;
                if !d.open {
                    continue;
                }
                if d.weight / d.alone_s <= level {
                    d.rate = 1.0 / d.alone_s;
                } else if own.iter().any(|&(at, _)| self.channels[at as usize].full <= level) {
                    d.rate = level / d.weight;
                } else {
                    continue;
                }
                d.open = false;
                open -= 1;
            }
        }
        self.drawers.iter().map(|d| d.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone)]
    struct Case {
        demands: Vec<(u32, f64)>,
        alone_s: f64,
    }

    fn drawer(demands: &[(u32, f64)], alone_s: f64) -> Case {
        Case { demands: demands.to_vec(), alone_s }
    }

    fn max_min(cases: &[Case], capacity: impl Fn(u32) -> f64) -> Vec<f64> {
        let mut solver = MaxMin::default();
        // What an earlier problem left behind must not matter.
        solver.add(1.0, [(1, 5.0), (3, 7.0)].into_iter());
        solver.clear();
        for c in cases {
            solver.add(c.alone_s, c.demands.iter().copied());
        }
        solver.solve(capacity).collect()
    }

    #[test]
    fn a_slow_copy_keeps_its_speed_and_the_kernel_gets_the_rest() {
        // Channel of 100 B/s; the copy alone moves 10 B/s, the kernel alone 100 B/s.
        let rates = max_min(&[drawer(&[(0, 10.0)], 1.0), drawer(&[(0, 100.0)], 1.0)], |_| 100.0);
        assert_eq!(rates, [1.0, 0.9]);
    }

    #[test]
    fn equals_share_equally() {
        let d = drawer(&[(3, 50.0)], 0.5);
        assert_eq!(max_min(&[d.clone(), d.clone(), d.clone(), d], |_| 100.0), [0.5; 4]);
    }

    #[test]
    fn the_textbook_line_network() {
        // Two links of 1; one flow over both, one on each: 1/2 for all.
        let flows = [drawer(&[(0, 1.0), (1, 1.0)], 0.1), drawer(&[(0, 1.0)], 0.1), drawer(&[(1, 1.0)], 0.1)];
        assert_eq!(max_min(&flows, |_| 1.0), [0.5; 3]);
        // The second link twice as wide: the lone flow on it takes what the long one leaves.
        assert_eq!(max_min(&flows, |c| f64::from(c + 1)), [0.5, 0.5, 1.5]);
    }

    proptest! {
        #[test]
        fn no_channel_is_overdrawn_and_no_rate_can_rise_alone(
            raw in prop::collection::vec((prop::collection::btree_map(0u32..4, 1.0..100.0f64, 1..4), 0.1..10.0f64), 1..8),
            caps in prop::collection::vec(1.0..50.0f64, 4),
        ) {
            let drawers: Vec<_> = raw.iter().map(|(d, s)| drawer(&d.iter().map(|(c, a)| (*c, *a)).collect::<Vec<_>>(), *s)).collect();
            let rates = max_min(&drawers, |c| caps[c as usize]);
            let load = |c: u32| -> f64 {
                drawers.iter().zip(&rates).flat_map(|(d, r)| d.demands.iter().filter(move |x| x.0 == c).map(move |x| x.1 * r)).sum()
            };
            for c in 0..4 {
                prop_assert!(load(c) <= caps[c as usize] * (1.0 + 1e-9));
            }
            for (d, &r) in drawers.iter().zip(&rates) {
                prop_assert!(r > 0.0 && r <= 1.0 / d.alone_s * (1.0 + 1e-12));
                let at_speed = r >= 1.0 / d.alone_s * (1.0 - 1e-9);
                let blocked = d.demands.iter().any(|x| load(x.0) >= caps[x.0 as usize] * (1.0 - 1e-9));
                prop_assert!(at_speed || blocked);
            }
        }
    }
}
