//! One client: its windows, and the requests that they bring.

use super::super::gaps::Gaps;
use moesim_core::rng::{Stream, stream};
use moesim_core::{Diag, Picos, Result};
use rand::Rng;

/// Beyond, gaps vanish beside the time of day.
const MOST_PER_S: f64 = 1e6;

/// A window with a process. Times are seconds from the start of the day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) rate: f64,
    pub(super) gaps: Gaps,
}

/// Lengths and the sums of their probabilities up to each.
#[derive(Debug, Default)]
pub(super) struct Distribution {
    pub(super) tokens: Vec<u32>,
    pub(super) sums: Vec<f64>,
}

impl Distribution {
    fn draw(&self, r: &mut Stream) -> u32 {
        let total = self.sums[self.sums.len() - 1];
        // Uniform in [0, 1), 53 bits.
        let at = (r.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
        self.tokens[self.sums.partition_point(|s| *s <= at).min(self.tokens.len() - 1)]
    }
}

/// Prompt and output lengths from `start` on.
#[derive(Debug)]
pub(super) struct Lengths {
    pub(super) start: f64,
    pub(super) prompt: Distribution,
    pub(super) output: Distribution,
}

/// One client.
pub(super) struct Client {
    pub(super) id: u32,
    /// In order.
    pub(super) windows: Vec<Window>,
    /// In order; none is empty.
    pub(super) lengths: Vec<Lengths>,
    pub(super) drawing: Drawing,
}

/// How far its requests are.
#[derive(Default)]
pub(super) struct Drawing {
    seed: u64,
    from: f64,
    /// Windows begun.
    begun: usize,
    process: Option<Process>,
}

/// The window that is going on.
struct Process {
    window: Window,
    /// Index in the client's lengths.
    lengths: usize,
    at: f64,
    gaps: Stream,
    tokens: Stream,
}

impl Client {
    /// Its windows between two times, with rates scaled; an error if lengths are lacking there.
    pub(super) fn within(mut self, seed: u64, from: f64, to: f64, rate_scale: f64) -> Result<Self> {
        self.windows.retain_mut(|w| {
            *w = Window { end: w.end.min(to), rate: w.rate * rate_scale, ..*w };
            w.end > from.max(w.start)
        });
        if let Some(w) = self.windows.iter().find(|w| w.rate > MOST_PER_S) {
            return Err(Diag::input(format!("the window at {} s has {} requests a second", w.start, w.rate))
                .place(format!("chunk-{}-trace.csv", self.id))
                .cure("choose a rate_scale that leaves a client 1e6 requests a second"));
        }
        if let Some(w) = self.windows.iter().find(|w| self.lengths_at(w.start).is_none()) {
            return Err(Diag::input(format!("has no lengths for the window at {} s", w.start))
                .place(format!("chunk-{}-dataset.json", self.id))
                .cure("give input_tokens and output_tokens from the first window with a rate on"));
        }
        self.drawing = Drawing { seed, from, ..Drawing::default() };
        Ok(self)
    }

    /// ServeGen too takes the last lengths at or before a window that are not empty.
    fn lengths_at(&self, start: f64) -> Option<usize> {
        self.lengths.partition_point(|l| l.start <= start).checked_sub(1)
    }

    /// When its next request comes, counted from the start of the span.
    pub(super) fn next_arrival(&mut self) -> Option<Picos> {
        loop {
            if let Some(p) = &mut self.drawing.process {
                if p.at < p.window.end {
                    return Some(Picos::from_seconds(p.at - self.drawing.from));
                }
                self.drawing.process = None;
            }
            let window = *self.windows.get(self.drawing.begun)?;
            self.drawing.begun += 1;
            // Starts are below 2^32 s, and a stream belongs to one client and window.
            let entity = u64::from(self.id) << 32 | window.start as u64;
            let mut gaps = stream(self.drawing.seed, "servegen-gaps", entity);
            let at = window.start.max(self.drawing.from) + window.gaps.first(&mut gaps) / window.rate;
            let lengths = self.lengths_at(window.start)?;
            let tokens = stream(self.drawing.seed, "servegen-lengths", entity);
            self.drawing.process = Some(Process { window, lengths, at, gaps, tokens });
        }
    }

    /// Prompt and output tokens of the request that comes next; it is then over.
    pub(super) fn lengths(&mut self) -> (u32, u32) {
        let Some(p) = &mut self.drawing.process else { return (1, 1) };
        let l = &self.lengths[p.lengths];
        let drawn = (l.prompt.draw(&mut p.tokens), l.output.draw(&mut p.tokens));
        p.at += p.window.gaps.draw(&mut p.gaps) / p.window.rate;
        drawn
    }
}
