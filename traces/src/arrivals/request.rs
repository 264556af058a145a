//! What a source of requests gives.

use moesim_core::{Picos, Result};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number, from 0 in order of arrival; turns are numbered session by session.
    pub id: u64,
    /// When it arrives; 0 in a closed loop, where the simulation decides.
    pub arrival: Picos,
    /// Prompt tokens, at least 1.
    pub prompt_tokens: u32,
    /// Output tokens, at least 1.
    pub output_tokens: u32,
    /// What its prompt is made of, where a log says so.
    pub blocks: Option<Blocks>,
    /// Which turn of which session it is, if it is one.
    pub turn: Option<Turn>,
}

/// A turn of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The session, from 0 in order of arrival.
    pub session: u64,
    /// Its turn, from 0.
    pub number: u32,
}

impl Request {
    /// A request of which no more is known than this.
    pub(super) fn new(id: u64, arrival: Picos, prompt_tokens: u32, output_tokens: u32) -> Self {
        Self { id, arrival, prompt_tokens, output_tokens, blocks: None, turn: None }
    }
}

/// The blocks of a prompt. Two prompts whose first n hashes are equal have their first n x tokens tokens in common.
///
/// They belong to the request, and go with it: a log is streamed, so memory holds those of the requests in line alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// One hash a block, in the order of the prompt. The last block may be shorter.
    pub hashes: Box<[u64]>,
    /// Tokens of a whole block.
    pub block_tokens: u32,
}

/// Requests one after the other; an error is the last item.
pub struct Requests {
    items: Box<dyn Iterator<Item = Result<Request>> + Send>,
    notes: Box<dyn Fn() -> Vec<String> + Send>,
}

impl Requests {
    pub(super) fn new(items: impl Iterator<Item = Result<Request>> + Send + 'static) -> Self {
        Self { items: Box::new(items), notes: Box::new(Vec::new) }
    }
    /// With what else its user should know once they are read.
    pub(super) fn noting(self, notes: impl Fn() -> Vec<String> + Send + 'static) -> Self {
        let before = self.notes;
        Self { notes: Box::new(move || [before(), notes()].concat()), ..self }
    }
    /// No more than so many.
    pub(super) fn limited(self, limit: Option<u64>) -> Self {
        let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { return self };
        Self { items: Box::new(self.items.take(limit)), ..self }
    }
    /// What was left out or is not used, of what has been read so far.
    pub fn notes(&self) -> Vec<String> {
        (self.notes)()
    }
}

impl Iterator for Requests {
    type Item = Result<Request>;
    fn next(&mut self) -> Option<Self::Item> {
        self.items.next()
    }
}
