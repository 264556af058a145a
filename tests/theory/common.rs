//! Customers, replications, confidence intervals.

use moesim::engine::des::Des;
use moesim::engine::{Graph, LaneId, NO_DEVICE, OpId, OpKind, Resources, Work};
use moesim_core::Picos;
use moesim_core::rng::{self, Stream};
use rand::Rng;

/// The mean service time: a microsecond, so that rounding to picoseconds moves a time by at most 1 in 2 million.
pub const SERVICE_PS: f64 = 1e6;
/// Seeds of the replications.
pub const SEEDS: std::ops::RangeInclusive<u64> = 1..=30;

/// Draws of an exponential time with the given mean, rounded to picoseconds.
pub struct Exponential {
    stream: Stream,
    mean_ps: f64,
}

impl Exponential {
    pub fn new(seed: u64, purpose: &str, case: u64, mean_ps: f64) -> Self {
        Self { stream: rng::stream(seed, purpose, case), mean_ps }
    }
    /// By inversion; the uniform draw is below 1, so the logarithm is finite.
    pub fn draw(&mut self) -> Work {
        let uniform = (self.stream.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        fixed(-libm::log(1.0 - uniform) * self.mean_ps)
    }
}

/// A fixed time in picoseconds, rounded.
pub fn fixed(ps: f64) -> Work {
    Work::fixed(Picos(ps.round() as u64))
}

/// A service station of `servers` and what its customers left behind; its memory is used again by the next replication.
pub struct Station {
    pub graph: Graph,
    pub des: Des,
    pub resources: Resources,
    lane: LaneId,
}

impl Station {
    pub fn new(servers: u32) -> Self {
        let mut resources = Resources::default();
        let lane = resources.lane("station", servers);
        Self { graph: Graph::default(), des: Des::default(), resources, lane }
    }

    /// Appends `customers`: operation 2i is the time until customer i arrives, 2i + 1 its service.
    pub fn append(&mut self, customers: usize, mut gap: impl FnMut() -> Work, mut service: impl FnMut() -> Work) {
        self.graph.clear();
        self.des.reset();
        for i in 0..customers as u32 {
            let arrival = self.graph.op(OpKind::Host, 0, NO_DEVICE, gap());
            let arrival = if i == 0 { arrival.id() } else { arrival.after(&[OpId(2 * i - 2)]).id() };
            self.graph.op(OpKind::Experts, 0, 0, service()).after(&[arrival]).hold(self.lane);
        }
    }

    /// The operations appended, taken over at the time the last replication ended.
    pub fn submit(&mut self) {
        let now = self.des.now();
        self.des.submit(&mut self.graph, &self.resources, 0, now);
    }

    /// How long customer `i` waited, in mean service times.
    pub fn wait(&self, i: usize) -> f64 {
        let arrived = self.graph.end(2 * i).expect("every operation ended");
        (self.graph.start(2 * i + 1).0 - arrived.0) as f64 / SERVICE_PS
    }
}

/// Mean and 95 % half-width over the replications, by Student's t.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub mean: f64,
    pub half: f64,
}

impl Interval {
    /// Of independent replications, as many as [`SEEDS`].
    pub fn of(values: &[f64]) -> Self {
        // The 97.5 % quantile of Student's t with 29 degrees of freedom (any table; Abramowitz and Stegun 26.10).
        const T29: f64 = 2.045_229_642;
        assert_eq!(values.len(), 30, "the quantile is for 30 replications");
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
        Self { mean, half: T29 * (variance / n).sqrt() }
    }
    pub fn contains(&self, value: f64) -> bool {
        (value - self.mean).abs() <= self.half
    }
    /// The half-width over `value`.
    pub fn relative(&self, value: f64) -> f64 {
        self.half / value
    }
}

/// One value a seed, in the order of seeds, from as many threads as there are processors; each thread has a `T`.
pub fn replicate<T>(make: impl Fn() -> T + Sync, run: impl Fn(&mut T, u64) -> f64 + Sync) -> Vec<f64> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let mut values = vec![0.0; SEEDS.count()];
    let share = values.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for (t, part) in values.chunks_mut(share).enumerate() {
            let (make, run) = (&make, &run);
            scope.spawn(move || {
                let mut own = make();
                for (i, value) in part.iter_mut().enumerate() {
                    *value = run(&mut own, SEEDS.start() + (t * share + i) as u64);
                }
            });
        }
    });
    values
}
