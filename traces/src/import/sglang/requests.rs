//! Requests out of forward passes that name none.
//!
//! What SGLang's scheduler keeps makes this possible: a batch lists the tokens of a request together; running requests
//! stay in the order in which they joined (behind the prompts of a mixed pass), and each computes its next position in every
//! decode pass; a prompt in chunks is continued at the start of the next prefill. So:
//!
//! * the first chunk of a prefill pass that goes on where the last chunk of the prefill pass before it ended is the same
//!   prompt (unless the end of a mixed pass decodes that request); every other is a new request (which starts behind 0 where
//!   a prefix was cached);
//! * a token of a decode pass belongs to the first running request behind that of the token before it whose next position
//!   it is, or to any other such request, or begins a request whose prompt was not recorded;
//! * a running request that a decode pass leaves out has ended.
//!
//! Where two neighbours in the batch are equally long and the former ends, the latter's tokens are taken for the
//! former's; a request that was preempted comes back as a new one.

use moesim_core::{Diag, Result};
use std::collections::BTreeSet;

/// Forward modes: prefill, decode, and both in one pass. The others have no tokens or are speculative.
const EXTEND: i64 = 1;
const DECODE: i64 = 2;
const IDLE: i64 = 4;

/// A forward pass.
pub(super) struct Pass {
    pub(super) positions: Vec<u32>,
    /// Tokens of each request, in a prefill or mixed pass.
    pub(super) extend: Option<Vec<u32>>,
    pub(super) mode: Option<i64>,
}

/// A request: its tokens, as (record, token), and how many are of the prompt.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Request {
    pub(super) first: u32,
    pub(super) prompt: usize,
    pub(super) tokens: Vec<(u32, u32)>,
}

/// A request that may go on.
#[derive(Clone, Copy)]
struct Running {
    request: usize,
    next: u32,
}

#[derive(Default)]
struct Join {
    requests: Vec<Request>,
    /// In the order of the batch.
    running: Vec<Running>,
    /// The request among them of the last chunk of the prefill pass before, whose prompt may go on.
    open: Option<usize>,
}

/// The requests in the order in which they begin.
pub(super) fn join(passes: &[Pass]) -> Result<Vec<Request>> {
    let mut j = Join::default();
    for (number, pass) in passes.iter().enumerate() {
        j.pass(number as u32, pass).map_err(|d| d.place(format!("record {number}")))?;
    }
    Ok(j.requests)
}

impl Join {
    fn pass(&mut self, number: u32, pass: &Pass) -> Result<()> {
        if pass.positions.is_empty() {
            return Ok(());
        }
        if let Some(mode) = pass.mode.filter(|m| *m >= IDLE) {
            let problem = format!("has tokens in forward_mode {mode}, which are not all the model's output");
            return Err(Diag::input(problem).cure("record without speculative decoding"));
        }
        match pass.extend.as_ref().filter(|_| pass.mode != Some(DECODE)) {
            None => self.decode(number, &pass.positions, 0),
            Some(lengths) => return self.extend(number, &pass.positions, lengths, pass.mode != Some(EXTEND)),
        }
        Ok(())
    }
    /// A prefill pass. In a mixed one, running requests have a chunk of one token each, at the end.
    fn extend(&mut self, number: u32, positions: &[u32], lengths: &[u32], mixed: bool) -> Result<()> {
        let total: u64 = lengths.iter().map(|n| u64::from(*n)).sum();
        if total != positions.len() as u64 {
            let problem = format!("has {} positions and extend_seq_lens of {total}", positions.len());
            return Err(Diag::input(problem).cure("it is damaged: copy or record it again"));
        }
        let lengths: Vec<usize> = lengths.iter().map(|n| *n as usize).filter(|n| *n > 0).collect();
        // A mixed pass has a prompt at its start.
        let ones = lengths.iter().skip(1).rev().take_while(|n| mixed && **n == 1).count();
        let end = positions.len() - ones;
        let open = self.open.take().and_then(|o| self.running.iter().position(|r| r.request == o));
        let goes_on = open.filter(|i| {
            let next = self.running[*i].next;
            let decoded = positions[end..].iter().filter(|p| **p == next).count();
            positions[0] == next && decoded < self.running.iter().filter(|r| r.next == next).count()
        });
        let mut before = goes_on.map(|i| self.running.remove(i));
        let waiting: BTreeSet<u32> = self.running.iter().map(|r| r.next).collect();
        let mut prompts = Vec::new();
        let mut at = 0;
        for n in lengths {
            let chunk = &positions[at..at + n];
            let first = chunk[0];
            if chunk.iter().enumerate().any(|(i, p)| u64::from(*p) != u64::from(first) + i as u64) {
                return Err(Diag::input("has a prompt whose positions are not consecutive")
                    .cure("it is damaged, or of a model with positions of its own"));
            }
            if let Some(r) = before.take() {
                let request = &mut self.requests[r.request];
                request.prompt += n;
                request.tokens.extend((at..at + n).map(|t| (number, t as u32)));
                prompts.push(Running { next: first.saturating_add(n as u32), ..r });
            } else if at >= end && waiting.contains(&first) {
                self.decode(number, &positions[at..], at);
                break;
            } else {
                prompts.push(self.begin(number, at, n, first, n));
            }
            at += n;
        }
        self.open = prompts.last().map(|r| r.request);
        // Those that ran in a mixed pass are behind its prompts from then on.
        let place = if at < positions.len() { 0 } else { self.running.len() };
        self.running.splice(place..place, prompts);
        Ok(())
    }
    /// A new request of `n` tokens, `prompt` of which are of its prompt.
    fn begin(&mut self, number: u32, at: usize, n: usize, first: u32, prompt: usize) -> Running {
        let tokens = (at..at + n).map(|t| (number, t as u32)).collect();
        self.requests.push(Request { first, prompt, tokens });
        Running { request: self.requests.len() - 1, next: first.saturating_add(n as u32) }
    }
    /// A decode pass, whose tokens are numbered from `at`.
    fn decode(&mut self, number: u32, positions: &[u32], at: usize) {
        let before = std::mem::take(&mut self.running);
        // Those running, by their next position.
        let mut waiting: BTreeSet<(u32, usize)> = before.iter().enumerate().map(|(i, r)| (r.next, i)).collect();
        let mut behind = 0;
        for (i, position) in positions.iter().enumerate() {
            let of = |from: usize| waiting.range((*position, from)..=(*position, usize::MAX)).next().copied();
            match of(behind).or_else(|| of(0)) {
                Some(found) => {
                    waiting.remove(&found);
                    behind = found.1 + 1;
                    let r = before[found.1];
                    self.requests[r.request].tokens.push((number, (at + i) as u32));
                    self.running.push(Running { next: position.saturating_add(1), ..r });
                }
                None => {
                    let r = self.begin(number, at + i, 1, *position, 0);
                    self.running.push(r);
                }
            }
        }
        // A prompt in chunks is not decoded yet.
        let open = before.iter().enumerate().find(|(_, r)| Some(r.request) == self.open);
        match open.filter(|(i, r)| waiting.contains(&(r.next, *i))) {
            Some((_, r)) => self.running.push(*r),
            None => self.open = None,
        }
    }
}
