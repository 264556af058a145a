//! Memory of a device: weights of all kinds but the routed experts, and KV caches.

use super::Plan;
use moesim_core::{Bytes, Diag, Result};
use moesim_traces::model::{Heads, Layer, Span};

impl Plan {
    /// Bytes of all weights but the routed experts on each device: attention, dense layers, embedding and head split
    /// over the tensor-parallel devices, and shared experts where tokens are replicated; routers, otherwise shared experts, and what
    /// attention has that is of no head whole.
    pub fn common_weight_bytes(&self) -> u64 {
        let m = &self.model;
        let layers = |of: &dyn Fn(&Layer) -> u64| m.decoder.iter().map(of).sum::<u64>();
        let latent = layers(&|l| l.attention_whole_bytes(m));
        let shared = layers(&|l| l.shared_weight_bytes(m));
        let [split_shared, whole_shared] = if self.ranks.replicated() { [shared, 0] } else { [0, shared] };
        let split = layers(&|l| l.attention_weight_bytes(m) + l.dense_weight_bytes(m)) - latent
            + m.embedding_bytes()
            + m.head_bytes()
            + split_shared;
        let whole = latent + layers(&|l| l.router_weight_bytes(m)) + whole_shared;
        split.div_ceil(self.ranks.tp as u64) + whole
    }

    /// Bytes of KV on each device of a rank for a sequence of `context` tokens, in whole blocks. Latent caches (MLA) are
    /// whole on every tensor-parallel device, KV heads are split, each device keeping at least one.
    pub fn kv_bytes(&self, context: u32) -> u64 {
        self.kv_held(|span| span.tokens_held(context.into()))
    }

    /// The most bytes that [`Plan::kv_bytes`] reaches on the way to `context`: a chunk is let go when the next one begins.
    pub fn kv_peak_bytes(&self, context: u32) -> u64 {
        self.kv_held(|span| match span {
            Span::Chunk(w) => u64::from(context.min(w)),
            span => span.tokens_held(context.into()),
        })
    }

    fn kv_held(&self, tokens: impl Fn(Span) -> u64) -> u64 {
        let block = u64::from(self.deployment.kv_block_tokens);
        self.classes
            .iter()
            .map(|c| {
                let held = tokens(c.attention.span).div_ceil(block) * block;
                let each = match c.attention.heads {
                    Heads::Gqa { kv_heads, .. } => {
                        let kept = u64::from(kv_heads).div_ceil(self.ranks.tp as u64);
                        c.kv_bytes * kept / u64::from(kv_heads)
                    }
                    Heads::Mla { .. } => c.kv_bytes,
                };
                c.layers * held * each
            })
            .sum()
    }

    /// Bytes of a device that experts may take where `other` bytes go to other weights and buffers: what the KV cache of a
    /// sequence as long as a full batch (`deployment.max_batched_tokens`) leaves, and at least half of the room.
    pub fn room_for_experts(&self, other: u64) -> u64 {
        let room = self.machine.hardware.usable_memory().get().saturating_sub(other);
        room - self.kv_peak_bytes(self.deployment.max_batched_tokens).min(room / 2)
    }

    /// Bytes of KV cache on each device once `weights` bytes are in.
    ///
    /// # Errors
    /// Weights that leave no room for one block of KV.
    pub fn kv_room(&self, weights: u64) -> Result<u64> {
        let usable = self.machine.hardware.usable_memory().get();
        let least = self.kv_bytes(self.deployment.kv_block_tokens);
        match usable.checked_sub(weights) {
            Some(room) if room >= least => Ok(room),
            _ => {
                let missing = Bytes(weights + least - usable);
                Err(Diag::does_not_fit(format!(
                    "{} does not fit: weights of {:.2} GiB a device on {} with {:.2} GiB usable; {} bytes ({:.2} GiB) are missing",
                    self.model.name,
                    Bytes(weights).gib(),
                    self.machine.hardware.name,
                    Bytes(usable).gib(),
                    missing.get(),
                    missing.gib()
                ))
                .place("deployment")
                .cure("use more devices, more tensor or expert parallelism, or narrower weights"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Deployment, Layout, Machine};
    use moesim_hwmodels::hardware::Hardware;
    use moesim_traces::model::Model;

    fn plan(deployment: Deployment) -> Plan {
        let machine = Machine::new(Hardware::load("h100-8").unwrap()).unwrap();
        Plan::new(Model::load("gpt-oss-20b").unwrap(), machine, deployment).unwrap()
    }

    /// gpt-oss-20b: 12 full and 12 window layers of 2 x 8 x 64 x 2 = 2,048 bytes a token.
    #[test]
    fn kv_follows_the_context_in_blocks_and_windows() {
        let p = plan(Deployment::default());
        assert_eq!(p.kv_bytes(1), 24 * 16 * 2048);
        assert_eq!(p.kv_bytes(128), 24 * 128 * 2048);
        assert_eq!(p.kv_bytes(1024), 12 * (1024 + 128) * 2048);
        let split = plan(Deployment { attention_tp: 4, ..Deployment::default() });
        assert_eq!(split.kv_bytes(1024) * 4, p.kv_bytes(1024));
    }

    /// Every device of a tensor-parallel rank has the projections into the latent spaces whole: 61 layers of 7168 x (1536 +
    /// 512 + 64) bytes, which eight devices hold eight times.
    #[test]
    fn latent_projections_are_not_split() {
        let of = |attention_tp| {
            let machine = Machine::new(Hardware::load("h100-8").unwrap()).unwrap();
            // Shared experts stay whole where tokens are dealt.
            let layout = Some(Layout::SequenceParallel);
            let deployment = Deployment { attention_tp, layout, ..Deployment::default() };
            Plan::new(Model::load("deepseek-v3").unwrap(), machine, deployment).unwrap()
        };
        let (one, eight) = (of(1), of(8));
        let m = &one.model;
        let (attention, latent) = (m.precision.attention / 8.0, 61.0 * 7168.0 * (1536.0 + 512.0 + 64.0));
        let whole: u64 = m.decoder.iter().map(|l| l.router_weight_bytes(m) + l.shared_weight_bytes(m)).sum();
        let more = 8 * (eight.common_weight_bytes() - whole) - (one.common_weight_bytes() - whole);
        assert!((more as f64 - 7.0 * attention * latent).abs() < 8.0 * 8.0, "{more}");
    }

    /// A chunk of 4 blocks is full at its end and let go at the next token; the peak remembers it.
    #[test]
    fn the_peak_of_a_chunked_cache_is_a_whole_chunk() {
        let mut p = plan(Deployment::default());
        p.classes.iter_mut().for_each(|c| c.attention.span = Span::Chunk(64));
        assert!(p.kv_bytes(65) < p.kv_bytes(64));
        for context in [1, 64, 65, 1000] {
            let largest = (1..=context).map(|c| p.kv_bytes(c)).max();
            assert_eq!(Some(p.kv_peak_bytes(context)), largest, "{context}");
        }
    }

    /// DeepSeek-V3: 61 layers with 1,536 + 512 + 64 columns of 7,168 that every tensor-parallel device has whole, at 8 bits.
    #[test]
    fn latent_down_projections_are_whole_on_every_device() {
        let machine = Machine::new(Hardware::load("h800-2x8").unwrap()).unwrap();
        let of = |attention_tp| {
            let d = Deployment { attention_tp, ..Deployment::default() };
            Plan::new(Model::load("deepseek-v3").unwrap(), machine.clone(), d).unwrap()
        };
        let (one, eight) = (of(1), of(8));
        let bits = one.model.precision.attention;
        let down = (61.0 * (1536.0 + 512.0 + 64.0) * 7168.0 * bits / 8.0) as u64;
        let whole: u64 = one
            .model
            .decoder
            .iter()
            .map(|l| l.router_weight_bytes(&one.model) + l.shared_weight_bytes(&one.model))
            .sum();
        let split = one.common_weight_bytes() - whole - down;
        assert!(eight.common_weight_bytes().abs_diff(split.div_ceil(8) + whole + down) <= 1);
    }
}
