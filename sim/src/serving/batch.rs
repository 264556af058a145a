//! The batch of an iteration.

use super::rank::{Rank, Step};
use super::scheduler::Scheduler;
use crate::machine::Plan;
use crate::routing::Segment;

/// What an iteration computes, and on which devices; reused, so that nothing is allocated once it is warm.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Per rank: what its scheduler listed.
    pub steps: Vec<Vec<Step>>,
    /// The same, with what each step replays.
    pub segments: Vec<Segment>,
    /// Per rank: tokens.
    pub rank_tokens: Vec<u64>,
    /// Per rank: sequences that sample an output token.
    pub samples: Vec<u64>,
    /// Per device: tokens that it holds after attention, all of its rank where they are replicated.
    pub device_tokens: Vec<u64>,
    /// All of it in numbers.
    pub size: BatchSize,
}

/// A batch in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSize {
    /// Sequences with a step.
    pub sequences: u64,
    /// Tokens of steps that are no decode steps.
    pub prefill_tokens: u64,
    /// Tokens of decode steps.
    pub decode_tokens: u64,
}

impl Batch {
    /// For `ranks` ranks.
    pub fn new(ranks: usize) -> Self {
        Self {
            steps: vec![Vec::new(); ranks],
            segments: Vec::new(),
            rank_tokens: Vec::new(),
            samples: Vec::new(),
            device_tokens: Vec::new(),
            size: BatchSize::default(),
        }
    }

    /// Asks the scheduler for the steps of every rank; whether there is anything to compute. The rest of the batch follows
    /// with [`Batch::gather`].
    pub fn schedule(&mut self, scheduler: &mut dyn Scheduler, plan: &Plan, ranks: &mut [Rank]) -> bool {
        let mut any = false;
        for (rank, steps) in ranks.iter_mut().zip(&mut self.steps) {
            steps.clear();
            if rank.load() > 0 {
                scheduler.plan(plan, rank, steps);
                any |= !steps.is_empty();
            }
        }
        any
    }

    /// Segments, tokens and samples of the steps that were scheduled.
    pub fn gather(&mut self, plan: &Plan, ranks: &[Rank]) {
        let (tp, replicated) = (plan.ranks.tp, plan.ranks.replicated());
        // Tokens that are everywhere count as the first device's: no pair of devices exchanges them.
        let spread = if replicated { 1 } else { tp as u32 };
        self.segments.clear();
        self.rank_tokens.clear();
        self.samples.clear();
        self.device_tokens.clear();
        self.size = BatchSize::default();
        for (r, (rank, steps)) in ranks.iter().zip(&self.steps).enumerate() {
            let (mut tokens, mut samples) = (0u64, 0u64);
            for &Step { index, count } in steps {
                let live = &rank.running[index as usize];
                self.segments.push(Segment {
                    request: live.id,
                    binding: live.binding,
                    prompt: live.prompt,
                    from: live.computed,
                    count,
                    device: (r * tp) as u32,
                    spread,
                    turn: (tokens % u64::from(spread)) as u32,
                });
                tokens += u64::from(count);
                samples += u64::from(live.computed + count == live.target());
                if live.decodes() {
                    self.size.decode_tokens += u64::from(count);
                } else {
                    self.size.prefill_tokens += u64::from(count);
                }
            }
            self.size.sequences += steps.len() as u64;
            self.rank_tokens.push(tokens);
            self.samples.push(samples);
            for i in 0..tp as u64 {
                let dealt = (tokens + tp as u64 - 1 - i) / tp as u64;
                self.device_tokens.push(if replicated { tokens } else { dealt });
            }
        }
    }
}
