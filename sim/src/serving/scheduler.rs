//! How a rank forms its batch.

use super::rank::{Rank, Step};
use crate::machine::Plan;

/// Forms the batch of one rank for the next iteration.
///
/// * `steps` comes empty; each running sequence appears at most once, with at least one token and not beyond its target.
/// * KV for the steps is taken with [`Rank::grow`] before they are listed.
/// * Tokens and sequences stay within the deployment's limits.
pub trait Scheduler: Send {
    /// Lists the steps of the next iteration.
    fn plan(&mut self, plan: &Plan, rank: &mut Rank, steps: &mut Vec<Step>);
}

/// Continuous batching with chunked prefill: running sequences first, in the order in which they started (decodes take
/// one token each, unfinished prefills a chunk), then waiting ones while tokens, sequences and cache allow. A request is
/// admitted when the cache has room for its whole prompt. When a running sequence finds the cache full, the youngest
/// running sequence is preempted and will be recomputed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkedPrefill;

impl Scheduler for ChunkedPrefill {
    fn plan(&mut self, plan: &Plan, rank: &mut Rank, steps: &mut Vec<Step>) {
        let mut budget = plan.deployment.max_batched_tokens;
        let mut index = 0;
        while index < rank.running.len() && budget > 0 {
            let live = &rank.running[index];
            let count = (live.target() - live.computed).min(budget);
            while !rank.grow(plan, index, count) {
                rank.preempt(rank.running.len() - 1);
                if rank.running.len() == index {
                    break;
                }
            }
            if index < rank.running.len() {
                steps.push(Step { index: index as u32, count });
                budget -= count;
            }
            index += 1;
        }
        let preempted = rank.waiting.front().is_some_and(|w| w.preemptions > 0);
        while budget > 0 && rank.running.len() < plan.deployment.max_sequences as usize {
            let Some(next) = rank.waiting.front() else { break };
            // Leave room for the decodes of this iteration when something was just preempted.
            let spare = if preempted { plan.kv_bytes(plan.deployment.kv_block_tokens) } else { 0 };
            if plan.kv_peak_bytes(next.target()) + spare > rank.kv.free()
                && !(rank.running.is_empty() && steps.is_empty())
            {
                break;
            }
            let Some(live) = rank.waiting.pop_front() else { break };
            let count = live.target().min(budget);
            let index = rank.running.len();
            rank.running.push(live);
            if !rank.grow(plan, index, count) {
                // Alone and still too large for the cache cannot be: such requests are rejected on arrival.
                if let Some(live) = rank.running.pop() {
                    rank.waiting.push_front(live);
                }
                break;
            }
            steps.push(Step { index: index as u32, count });
            budget -= count;
        }
    }
}
