//! How far a search is, and how good what it has.

use crate::cli::progress;
use crate::cli::terminal::interrupted;
use moesim_solver::{Watch, bound};
use std::sync::{Mutex, PoisonError};

/// Says so on the line, and ends the search when the user does.
#[derive(Debug)]
pub(super) struct Searched {
    method: &'static str,
    bound: f64,
    line: progress::ProgressLine,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    value: f64,
    steps: u64,
    of: u64,
}

impl Searched {
    /// Of a method whose objective no placement makes less than `bound`.
    pub(super) fn new(method: &'static str, bound: f64, line: progress::ProgressLine) -> Self {
        Self { method, bound, line, state: Mutex::default() }
    }
}

impl Watch for Searched {
    fn begins(&self, value: f64, steps: u64) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State { value, steps: 0, of: steps };
    }

    fn at(&self, steps: u64, change: f64) -> bool {
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        s.steps += steps;
        s.value += change;
        if steps > 0 && s.of > 0 {
            let gap = bound::gap(s.value, self.bound);
            let gap = if gap.is_finite() { format!(", gap {:.2} %", 100.0 * gap) } else { String::new() };
            self.line.say(format!("placing: {}, {} % of the steps{gap}", self.method, 100 * s.steps / s.of));
        }
        !interrupted()
    }
}
