//! A device that is not there: times of a roofline with a launch, and noise that a seed fixes.

use super::{Bench, Facts, Point, Work};
use moesim_core::Result;
use moesim_core::rng::{draw, purpose_key};

/// The simulated device.
#[derive(Debug)]
pub struct Mock {
    facts: Facts,
    seed: u64,
    point: Point,
    /// Calls of the point.
    calls: u64,
    all_calls: u64,
    now_s: f64,
    /// Calls after which it fails.
    fails_after: Option<u64>,
}

/// Operations a second.
const FLOP_PER_S: f64 = 400e9;
/// Bytes a second.
const BYTES_PER_S: f64 = 40e9;
/// Seconds of a start.
const LAUNCH_S: f64 = 10e-6;
/// Most that noise adds, as a part.
const NOISE: f64 = 0.02;

impl Mock {
    /// With this seed; `fails_after` so many calls it is gone.
    pub fn new(seed: u64, fails_after: Option<u64>) -> Self {
        let facts = Facts {
            device: "mock device".into(),
            family: "moesim_mock",
            code: "mock".into(),
            threads: 4,
            llc_bytes: 16 << 20,
            memory_bytes: 64 << 30,
            rotated_bytes: 64 << 20,
            date: "mock".into(),
        };
        let point = Point { work: Work::Launch, pass: 1 };
        Self { facts, seed, point, calls: 0, all_calls: 0, now_s: 0.0, fails_after }
    }

    fn seconds(&self) -> f64 {
        let (flop, bytes) = (self.point.work.flop(), self.point.work.bytes());
        let (compute, memory) = match self.point.work {
            Work::Library { .. } => (flop / FLOP_PER_S, 0.0),
            Work::HostCopy { pinned, .. } => (0.0, bytes / if pinned { 20e9 } else { 5e9 }),
            _ => (flop / (0.7 * FLOP_PER_S), bytes / (0.9 * BYTES_PER_S)),
        };
        LAUNCH_S + compute.max(memory)
    }
}

impl Bench for Mock {
    fn facts(&self) -> &Facts {
        &self.facts
    }
    fn prepare(&mut self, point: &Point) -> Result<Option<String>> {
        (self.point, self.calls) = (point.clone(), 0);
        Ok(None)
    }
    fn once(&mut self) -> Result<f64> {
        (self.calls, self.all_calls) = (self.calls + 1, self.all_calls + 1);
        if self.fails_after.is_some_and(|n| self.all_calls > n) {
            return Err(moesim_core::Diag::run("the device is gone").cure("see to it, and go on with --resume"));
        }
        // A function of the point and the call alone, so that what is gone on with is what would have been.
        let entity = purpose_key(&format!("{:?}", self.point));
        let unit = draw(self.seed, purpose_key("mock-noise"), entity, self.calls) as f64 / u64::MAX as f64;
        let t = self.seconds() * (1.0 + NOISE * unit);
        self.now_s += t;
        Ok(t)
    }
    fn now_s(&self) -> f64 {
        self.now_s
    }
    fn clock_mhz(&self) -> Option<f64> {
        Some(1000.0)
    }
}
