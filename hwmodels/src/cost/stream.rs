//! Kernels and copies that only move bytes.

use super::{Asked, Cost, Engine, Family};

/// A kernel that moves `bytes` in all (reads and writes together) and computes next to nothing: norms, activations,
/// permutations. No bytes cost nothing.
pub fn elementwise(engine: &Engine, bytes: f64) -> Cost {
    if bytes <= 0.0 {
        return Cost::default();
    }
    let cost = engine.kernels.stream(bytes).unwrap_or_else(|| engine.kernel(Family::Dense, 16.0, 0.0, bytes));
    engine.asked(Asked::Stream(bytes), &cost);
    cost
}

/// A copy of `bytes` over a link of `bandwidth_per_s` (achievable, bytes per second); the latency counts as launch. No
/// bytes cost nothing.
pub fn copy(bytes: f64, bandwidth_per_s: f64, latency_s: f64) -> Cost {
    if bytes <= 0.0 {
        return Cost::default();
    }
    Cost::kernel(latency_s, 0.0, bytes / bandwidth_per_s, 0, bytes as u64)
}
