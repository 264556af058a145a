//! One attention rank: its line, its running sequences and its KV cache.

use crate::engine::Pool;
use crate::machine::Plan;
use crate::routing::Binding;
use moesim_core::Picos;
use moesim_traces::arrivals::Turn;
use std::collections::VecDeque;

/// A request that is in line or running.
#[derive(Clone, Debug)]
pub struct Live {
    /// Number in order of arrival.
    pub id: u64,
    /// When it came.
    pub arrival: Picos,
    /// Prompt tokens.
    pub prompt: u32,
    /// Output tokens that it asks for.
    pub output: u32,
    /// Which turn of a session it is, if it is one.
    pub turn: Option<Turn>,
    /// What it replays.
    pub binding: Binding,
    /// Output tokens that exist.
    pub generated: u32,
    /// Positions whose KV is in the cache.
    pub computed: u32,
    /// Positions ever computed: what is below and computed again after a preemption is recomputation.
    pub high_water: u32,
    /// Positions computed again.
    pub recomputed: u32,
    /// Bytes of KV that it holds on each device of its rank.
    pub kv_bytes: u64,
    /// When its first batch began.
    pub first_scheduled: Option<Picos>,
    /// When its first output token came.
    pub first_token: Option<Picos>,
    /// When its last output token so far came.
    pub last_token: Picos,
    /// Times it was preempted.
    pub preemptions: u32,
}

impl Live {
    /// Positions that must be in the cache before the next output token can be sampled.
    pub fn target(&self) -> u32 {
        self.prompt + self.generated
    }
    /// Whether the next step is a decode step: all but the last token are in the cache.
    pub fn decodes(&self) -> bool {
        self.generated > 0 && self.computed + 1 == self.target()
    }
}

/// What an iteration computes of one running sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Index in [`Rank::running`].
    pub index: u32,
    /// Tokens, from its [`Live::computed`] on.
    pub count: u32,
}

/// One attention rank.
#[derive(Clone, Debug)]
pub struct Rank {
    /// Waiting requests, first come first.
    pub waiting: VecDeque<Live>,
    /// Running sequences, oldest first.
    pub running: Vec<Live>,
    /// KV cache of one of its devices.
    pub kv: Pool,
    /// Preemptions so far.
    pub preemptions: u64,
}

impl Rank {
    /// An empty rank with `kv_bytes` of cache on each device.
    pub fn new(kv_bytes: u64) -> Self {
        Self { waiting: VecDeque::new(), running: Vec::new(), kv: Pool::new(kv_bytes), preemptions: 0 }
    }

    /// Requests in line or running.
    pub fn load(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    /// Makes room for `count` more tokens of running sequence `index`; false if the cache is full.
    pub fn grow(&mut self, plan: &Plan, index: usize, count: u32) -> bool {
        let live = &self.running[index];
        let block = plan.deployment.kv_block_tokens;
        let (now, then) = (live.computed.div_ceil(block), (live.computed + count).div_ceil(block));
        if now == then {
            return true;
        }
        let bytes = plan.kv_bytes(live.computed + count);
        // A window may hold less after a step than before (chunked spans): keep what is there.
        let more = bytes.saturating_sub(live.kv_bytes);
        if !self.kv.try_take(more) {
            return false;
        }
        self.running[index].kv_bytes += more;
        true
    }

    /// Takes running sequence `index` out of the cache and to the head of the line; it computes everything again.
    pub fn preempt(&mut self, index: usize) {
        let mut live = self.running.remove(index);
        self.kv.give(live.kv_bytes);
        live.kv_bytes = 0;
        live.high_water = live.high_water.max(live.computed);
        live.computed = 0;
        live.preemptions += 1;
        self.preemptions += 1;
        self.waiting.push_front(live);
    }
}
