//! The row of a (sequence, position).

use super::binding::Binding;
use moesim_core::{Diag, Result, rng};
use moesim_traces::trace::Trace;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What stands in for a row that the trace does not have: a request that outlasts its sequence, or prompt tokens of a
/// trace without prompt rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// The sequence's rows again from their start.
    #[default]
    Wrap,
    /// For each layer the selection of one of the sequence's rows, picked at random and independently over layers and
    /// positions: the sequence's own statistics without its order.
    Draw,
    /// The run ends with an error.
    Refuse,
}

/// How token assignments came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// From the row of that position.
    pub traced: u64,
    /// From a row used again.
    pub wrapped: u64,
    /// Drawn from the sequence's statistics.
    pub drawn: u64,
}

impl Provenance {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.traced + self.wrapped + self.drawn
    }
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.traced += other.traced;
        self.wrapped += other.wrapped;
        self.drawn += other.drawn;
    }
}

/// A trace and the rule for what it lacks.
///
/// Prompt position p replays the sequence's prompt row p; output position j (counted from the end of the prompt)
/// replays decode row `offset + j`. Where there is no such row, [`Missing`] applies; for prompts of a trace without
/// prompt rows it works on the decode rows, from `offset` on.
#[derive(Clone, Debug)]
pub struct Source {
    trace: Arc<Trace>,
    missing: Missing,
    seed: u64,
    key: u64,
}

/// Consecutive rows, or one drawn position.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Whole rows of the trace, one after the other.
    Slice(&'a [u16]),
    /// One row whose layers are drawn: rows to draw from, and the entity and index of the draw.
    Drawn(&'a [u16], u64),
}

impl Source {
    /// Replays `trace`.
    pub fn new(trace: Arc<Trace>, missing: Missing, seed: u64) -> Self {
        Self { trace, missing, seed, key: rng::purpose_key("routing-draw") }
    }

    /// The trace.
    pub fn trace(&self) -> &Arc<Trace> {
        &self.trace
    }

    /// Checks the ids of the bound sequence (once a sequence), and under `refuse` that it has every row that the
    /// request will ask for.
    pub fn admit(&self, id: u64, binding: Binding, prompt: u32, output: u32) -> Result<()> {
        self.trace.check_sequence(binding.sequence as usize)?;
        if self.missing == Missing::Refuse {
            let s = self.trace.sequence(binding.sequence as usize);
            let (prefill, decode) = (s.prefill.len() / self.trace.width(), s.decode.len() / self.trace.width());
            let needed = output as usize - 1 + binding.offset as usize;
            if prefill < prompt as usize || decode < needed {
                return Err(Diag::input(format!(
                    "request {id} needs {prompt} prompt rows and {needed} decode rows, but its sequence {} has {prefill} and {decode}",
                    s.id
                ))
                .cure("set workload.routing.missing to \"wrap\" or \"draw\", or bring a longer trace"));
            }
        }
        Ok(())
    }

    /// Calls `each` with the rows of positions `from..from + count` of a request with a prompt of `prompt` tokens, in
    /// order and in runs as long as possible, and says where they came from (in tokens).
    pub fn rows<'a>(
        &'a self,
        binding: Binding,
        prompt: u32,
        from: u32,
        count: u32,
        mut each: impl FnMut(Rows<'a>),
    ) -> Provenance {
        let width = self.trace.width();
        let s = self.trace.sequence(binding.sequence as usize);
        let mut out = Provenance::default();
        let mut at = from;
        let end = from + count;
        while at < end {
            // Own rows of this phase first; without any, the other phase's rows by the rule.
            let (own, other, first, limit) = if at < prompt {
                (s.prefill, s.decode, at, end.min(prompt))
            } else {
                (s.decode, s.prefill, at - prompt, end)
            };
            let (pool, is_own) = if own.is_empty() { (other, false) } else { (own, true) };
            let rows = (pool.len() / width) as u32;
            let first = if is_own && at < prompt { first } else { first + binding.offset };
            let wanted = limit - at;
            if is_own && first < rows {
                let n = wanted.min(rows - first);
                each(Rows::Slice(&pool[first as usize * width..(first + n) as usize * width]));
                out.traced += u64::from(n);
                at += n;
            } else if self.missing == Missing::Draw {
                let entity = u64::from(binding.sequence) << 32 | u64::from(binding.offset);
                for p in at..limit {
                    each(Rows::Drawn(pool, rng::draw(self.seed, self.key, entity, u64::from(p))));
                }
                out.drawn += u64::from(wanted);
                at = limit;
            } else {
                let first = first % rows;
                let n = wanted.min(rows - first);
                each(Rows::Slice(&pool[first as usize * width..(first + n) as usize * width]));
                out.wrapped += u64::from(n);
                at += n;
            }
        }
        out
    }
}
