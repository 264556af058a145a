//! The row of a (sequence, position).

use super::binding::Binding;
use super::replay::MISSING;
use moesim_core::{Diag, Result, rng};
use moesim_traces::trace::{Sequence, Trace};
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
    /// From a row used again, or standing in for one that the trace lacks.
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
/// Prompt position p replays the sequence's prompt row p. Output position j (counted from the end of the prompt) replays
/// the j-th decode row from `offset` on, going round at the end, so that a request that is no longer than its sequence
/// sees every row at most once. Where the sequence has no p-th or j-th row, [`Missing`] applies; for prompts of a trace
/// without prompt rows it works on the decode rows, from `offset` on.
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
            let needed = output as usize - 1;
            if prefill < prompt as usize || decode < needed {
                return Err(Diag::input(format!(
                    "request {id} needs {prompt} prompt rows and {needed} decode rows, but its sequence {} has {prefill} and {decode}",
                    s.id
                ))
                .place("workload.routing.missing")
                .cure("set workload.routing.missing to \"wrap\" or \"draw\", or bring a longer trace"));
            }
        }
        Ok(())
    }

    /// Refuses a sequence with an id or more selections than its layer has: `limits` are the ids and top_k of each MoE layer
    /// of a model whose layers differ, where the trace has one of both for all.
    ///
    /// # Errors
    /// The layer, what it has, and what to do.
    pub fn check_layers(&self, sequence: usize, limits: &[(u32, u32)]) -> Result<()> {
        self.trace.check_sequence(sequence)?;
        let (s, k) = (self.trace.sequence(sequence), self.trace.k());
        let rows = s.prefill.chunks_exact(self.trace.width()).chain(s.decode.chunks_exact(self.trace.width()));
        for (row, ids) in rows.enumerate() {
            for (l, (ids, &(experts, top_k))) in ids.chunks_exact(k).zip(limits).enumerate() {
                let present = || ids.iter().filter(|id| **id != MISSING);
                let number = self.trace.meta().layer_numbers[l];
                let problem = match present().find(|id| u32::from(**id) >= experts) {
                    Some(id) => format!("expert {id} of layer {number} does not exist: the model has {experts} there"),
                    None if present().count() > top_k as usize => {
                        format!(
                            "layer {number} selects {} experts; the model's top_k is {top_k} there",
                            present().count()
                        )
                    }
                    None => continue,
                };
                return Err(Diag::input(problem)
                    .place(format!("workload.routing: sequence {}, row {row}", s.id))
                    .cure("name the model that was traced, and pad rows of layers with a smaller top_k with 0xFFFF"));
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
            let run = self.run(&s, binding, prompt, at, end);
            let pool = if run.decode { s.decode } else { s.prefill };
            match run.row {
                None => {
                    (at..at + run.count).for_each(|p| each(Rows::Drawn(pool, self.drawn(binding, p))));
                    out.drawn += u64::from(run.count);
                }
                Some(row) => {
                    let n = u64::from(run.count);
                    if run.traced {
                        out.traced += n
                    } else {
                        out.wrapped += n
                    }
                    each(Rows::Slice(&pool[row as usize * width..(row + run.count) as usize * width]));
                }
            }
            at += run.count;
        }
        out
    }

    /// What MoE layer `layer` selects for position `position` of a request with a prompt of `prompt` tokens: ids, and the
    /// gate's weights if the trace has any.
    pub fn selected(&self, binding: Binding, prompt: u32, position: u32, layer: usize) -> (&[u16], Option<&[f32]>) {
        let (width, k) = (self.trace.width(), self.trace.k());
        let s = self.trace.sequence(binding.sequence as usize);
        let run = self.run(&s, binding, prompt, position, position + 1);
        let (pool, weights) = if run.decode { (s.decode, s.decode_weights) } else { (s.prefill, s.prefill_weights) };
        let row = run.row.map_or_else(
            || drawn_row(self.drawn(binding, position), layer, (pool.len() / width) as u64),
            |row| row as usize,
        );
        let at = row * width + layer * k..row * width + (layer + 1) * k;
        (&pool[at.clone()], weights.map(|w| &w[at]))
    }

    /// Positions from `at` on, before `end`, that replay consecutive rows, or are all drawn.
    fn run(&self, s: &Sequence, binding: Binding, prompt: u32, at: u32, end: u32) -> Run {
        // Own rows of this phase first; without any, the other phase's rows by the rule.
        let in_prompt = at < prompt;
        let (own, other, first, limit) = if in_prompt {
            (s.prefill, s.decode, at, end.min(prompt))
        } else {
            (s.decode, s.prefill, at - prompt, end)
        };
        let is_own = !own.is_empty();
        let decode = in_prompt != is_own;
        let rows = ((if is_own { own } else { other }).len() / self.trace.width()) as u32;
        let wanted = limit - at;
        let traced = is_own && first < rows;
        if !traced && self.missing == Missing::Draw {
            return Run { decode, row: None, count: wanted, traced };
        }
        // Prompts with rows of their own start at the first; everything else at the offset, and goes round.
        let shift = if is_own && in_prompt { 0 } else { binding.offset };
        let row = ((u64::from(first) + u64::from(shift)) % u64::from(rows)) as u32;
        let count = wanted.min(rows - row);
        Run { decode, row: Some(row), count: if traced { count.min(rows - first) } else { count }, traced }
    }

    /// The key of the draws of a position.
    fn drawn(&self, binding: Binding, position: u32) -> u64 {
        let entity = u64::from(binding.sequence) << 32 | u64::from(binding.offset);
        rng::draw(self.seed, self.key, entity, u64::from(position))
    }
}

/// Consecutive positions of a sequence, and what they replay.
struct Run {
    /// Of the decode rows; else of the prompt rows.
    decode: bool,
    /// The first row; none where each layer of each position is drawn.
    row: Option<u32>,
    /// Positions.
    count: u32,
    /// The rows are those of the positions.
    traced: bool,
}

/// The row of a pool of `rows` rows that stands in for layer `layer` of a drawn position.
pub(super) fn drawn_row(key: u64, layer: usize, rows: u64) -> usize {
    rng::below(rng::draw(key, layer as u64, 0, 0), rows) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use moesim_traces::{Meta, OwnedSequence};
    use proptest::prelude::*;

    /// One layer, one expert a token, whose id is the row's number (prompt rows) or 1000 + it (decode rows).
    fn source(prompt_rows: u16, decode_rows: u16, missing: Missing) -> Source {
        let meta = Meta {
            model: "test".into(),
            layer_numbers: vec![0],
            experts: 2000,
            k: 1,
            source: "test".into(),
            licence: "none".into(),
        };
        let sequence = OwnedSequence {
            prefill: (0..prompt_rows).collect(),
            decode: (1000..1000 + decode_rows).collect(),
            decode_first_position: prompt_rows.into(),
            ..OwnedSequence::default()
        };
        Source::new(Arc::new(Trace::from_sequences(meta, vec![sequence]).unwrap()), missing, 1)
    }

    fn ids(s: &Source, offset: u32, prompt: u32, from: u32, count: u32) -> (Vec<u16>, Provenance) {
        let mut out = Vec::new();
        let p = s.rows(Binding { sequence: 0, offset }, prompt, from, count, |rows| match rows {
            Rows::Slice(ids) => out.extend_from_slice(ids),
            Rows::Drawn(pool, key) => out.push(pool[drawn_row(key, 0, pool.len() as u64)]),
        });
        (out, p)
    }

    #[test]
    fn rows_by_phase_with_wrap_and_stagger() {
        let s = source(3, 4, Missing::Wrap);
        let (rows, p) = ids(&s, 0, 4, 0, 10);
        assert_eq!(rows, [0, 1, 2, 0, 1000, 1001, 1002, 1003, 1000, 1001]);
        assert_eq!((p.traced, p.wrapped), (7, 3));
        // Staggered: decode rows from 2 on, round, each once before any twice; prompts with rows start at the first.
        let (rows, p) = ids(&s, 2, 2, 0, 7);
        assert_eq!(rows, [0, 1, 1002, 1003, 1000, 1001, 1002]);
        assert_eq!((p.traced, p.wrapped), (6, 1));
        // A trace without prompt rows: decode rows stand in.
        let (rows, p) = ids(&source(0, 4, Missing::Wrap), 1, 2, 0, 4);
        assert_eq!(rows, [1001, 1002, 1001, 1002]);
        assert_eq!((p.traced, p.wrapped), (2, 2));
    }

    proptest! {
        /// The row of a position does not depend on how positions are cut into calls.
        #[test]
        fn rows_are_a_pure_function_of_the_position(
            prompt_rows in 0u16..5, decode_rows in 1u16..6, offset in 0u32..6, prompt in 1u32..9,
            cuts in prop::collection::vec(1u32..5, 1..6), draw in any::<bool>(),
        ) {
            let s = source(prompt_rows, decode_rows, if draw { Missing::Draw } else { Missing::Wrap });
            let total = cuts.iter().sum();
            let whole = ids(&s, offset, prompt, 0, total);
            let mut parts = Vec::new();
            let mut sum = Provenance::default();
            let mut at = 0;
            for c in cuts {
                let (rows, p) = ids(&s, offset, prompt, at, c);
                parts.extend(rows);
                sum.add(&p);
                at += c;
            }
            prop_assert_eq!(&whole.0, &parts);
            prop_assert_eq!(whole.1, sum);
            prop_assert_eq!(sum.total(), u64::from(total));
            let each: Vec<u16> = (0..total).map(|p| s.selected(Binding { sequence: 0, offset }, prompt, p, 0).0[0]).collect();
            prop_assert_eq!(whole.0, each);
        }
    }
}
