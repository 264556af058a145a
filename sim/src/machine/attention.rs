//! Attention of a layer: what a batch asks of it, and what it costs with its projections.

use super::{Fused, Plan};
use moesim_hwmodels::cost::{
    self, AttentionBatch, AttentionClass, AttentionKind, AttentionShape, AttentionWork, Cost, Gemm, elementwise, gemm,
};
use moesim_traces::model::{Heads, QkNorm, Span};

/// What the sequences of a rank ask of a layer; reused, so that nothing is allocated once it is warm.
#[derive(Clone, Debug, Default)]
pub struct AttentionDemand {
    decode: AttentionWork,
    prefill: AttentionWork,
    sequences: [Vec<AttentionClass>; 2],
}

impl AttentionDemand {
    /// Forgets all.
    pub fn clear(&mut self) {
        (self.decode, self.prefill) = Default::default();
        self.sequences.iter_mut().for_each(Vec::clear);
    }

    /// Adds a sequence; `listed`: as one of its own too, for kernels that want to know.
    pub fn add(&mut self, work: &AttentionWork, listed: bool) {
        let decode = work.query_tokens == 1;
        if decode {
            self.decode.add(work)
        } else {
            self.prefill.add(work)
        }
        if listed {
            let (tokens, keys, pairs) = (work.query_tokens, work.kv_tokens_read, work.query_key_pairs);
            let class = AttentionClass { sequences: 1, tokens, keys, pairs, cut: work.kv_tokens_hidden > 0 };
            self.sequences[usize::from(!decode)].push(class);
        }
    }

    /// All of it, for its cost.
    pub fn view(&self) -> AttentionBatch<'_> {
        let [a, b] = &self.sequences;
        AttentionBatch { decode: self.decode, prefill: self.prefill, sequences: [a, b] }
    }
}

impl Plan {
    /// What positions `from..from + count` of one sequence ask of a layer of class `class`.
    pub fn attention_work(&self, class: usize, from: u32, count: u32) -> AttentionWork {
        let (c, n) = (u64::from(from), u64::from(count));
        // Position p sees p + 1 keys, fewer under a window or chunk.
        let (pairs, read) = match self.classes[class].attention.span {
            Span::Full | Span::Cross => (n * c + n * (n + 1) / 2, c + n),
            Span::Window(w) => {
                let w = u64::from(w);
                let growing = w.saturating_sub(c).min(n);
                (growing * c + growing * (growing + 1) / 2 + (n - growing) * w, (c + n).min(w + n - 1))
            }
            Span::Chunk(w) => {
                let w = u64::from(w);
                let below = |x: u64| x / w * (w * (w + 1) / 2) + (x % w) * (x % w + 1) / 2;
                (below(c + n) - below(c), c % w + n)
            }
        };
        AttentionWork {
            query_tokens: n,
            query_key_pairs: pairs,
            kv_tokens_read: read,
            kv_tokens_hidden: c + n - read,
            kv_tokens_written: n,
        }
    }

    /// Attention of one layer on one device of a rank: norm, projections, rotary embedding, writing keys and values, core attention,
    /// output projection. `tokens`: those with a query.
    pub fn attention_cost(&self, class: usize, tokens: u64, batch: &AttentionBatch) -> Cost {
        let (gpu, p) = (&self.machine.gpu, &self.model.precision);
        let hidden = u64::from(self.model.hidden);
        let tp = self.ranks.tp as u64;
        let project_of = |m: u64, n: u64, k: u64| {
            gemm(gpu, Gemm { m, n, k, weight_bits: p.attention, activation_bits: p.activation })
        };
        let project = |n: u64, k: u64| project_of(tokens, n, k);
        let attention = &self.classes[class].attention;
        let (before, kind, after) = match attention.heads {
            Heads::Gqa { heads, kv_heads, head_dim } if attention.experts > 0 => {
                let (heads, kv_heads, dim) =
                    (u64::from(heads) / tp, u64::from(kv_heads).div_ceil(tp), u64::from(head_dim));
                let (experts, k) = (u64::from(attention.experts), u64::from(attention.top_k));
                let active = activated(experts, k, tokens);
                let each = |n: u64, k_: u64| {
                    let g = Gemm { m: k * tokens, n, k: k_, weight_bits: p.attention, activation_bits: p.activation };
                    cost::grouped_gemm(gpu, g, active)
                };
                let gate = cost::gate(gpu, tokens, hidden, experts, p.attention, p.activation);
                let before = gate.then(project(2 * kv_heads * dim, hidden)).then(each(heads * dim, hidden));
                (
                    before,
                    AttentionKind::Grouped { heads: k * heads, kv_heads, head_dim: dim },
                    each(hidden, heads * dim),
                )
            }
            Heads::Gqa { heads, kv_heads, head_dim } => {
                let (heads, kv_heads, dim) =
                    (u64::from(heads) / tp, u64::from(kv_heads).div_ceil(tp), u64::from(head_dim));
                let qkv = project((heads + 2 * kv_heads) * dim, hidden);
                (qkv, AttentionKind::Grouped { heads, kv_heads, head_dim: dim }, project(hidden, heads * dim))
            }
            Heads::Mla { heads, q_rank, kv_rank, nope_dim, rope_dim, v_dim } => {
                let (heads, rank, rope) = (u64::from(heads) / tp, u64::from(kv_rank), u64::from(rope_dim));
                let q = heads * (u64::from(nope_dim) + rope);
                let queries = match q_rank {
                    Some(r) => project(r.into(), hidden).then(project(q, r.into())),
                    None => project(q, hidden),
                };
                let (nope, value) = (u64::from(nope_dim), u64::from(v_dim));
                // Absorbed, queries go into the latent space and outputs out of it; expanded, the new tokens' latent vectors
                // go to keys and values: by the same weights, in as many operations.
                let latent = project(rank + rope, hidden).then(project(heads * nope, rank));
                let out = project(heads * value, rank).then(project(hidden, heads * value));
                // Latent vectors of earlier chunks are expanded again for a kernel that does not take them as they are cached.
                let cached = match gpu.kernels.expands_latent() {
                    true => batch.prefill.kv_tokens_read - batch.prefill.kv_tokens_written,
                    false => 0,
                };
                let again = project_of(cached, heads * (nope + value), rank);
                let before = queries.then(latent).then(again);
                (before, AttentionKind::Latent { heads, rank, rope, nope, value }, out)
            }
        };
        let shape = AttentionShape { kind, kv_bits: p.kv, activation_bits: p.activation };
        let normed = self.qk_normed(attention.qk_norm, kind, tokens);
        let before = self.norm(tokens).then(before).then(normed).then(self.rotated(kind, tokens));
        before.then(cost::attention(gpu, &shape, batch)).then(after)
    }

    /// Norms of queries and keys, which read and write both; engines run one kernel for both.
    fn qk_normed(&self, norm: QkNorm, kind: AttentionKind, tokens: u64) -> Cost {
        match (norm, kind) {
            (QkNorm::Head | QkNorm::Layer, AttentionKind::Grouped { heads, kv_heads, head_dim }) => {
                let elements = tokens as f64 * ((heads + kv_heads) * head_dim) as f64;
                elementwise(&self.machine.gpu, 2.0 * elements * self.model.precision.activation / 8.0)
            }
            _ => Cost::default(),
        }
    }

    /// Bytes that the devices of a rank sum before attention of a layer of class `class`: where queries and keys are normalised over all
    /// heads, the sums of squares of both, in 32 bits a token; 0 otherwise.
    pub fn qk_norm_bytes(&self, class: usize, tokens: u64) -> u64 {
        if self.classes[class].attention.qk_norm == QkNorm::Layer { 8 * tokens } else { 0 }
    }

    /// What engines run between the projections and core attention, each a kernel of its own: the rotary embedding, which reads and
    /// writes queries and keys, and the copy of new keys and values into their blocks of the cache. (vLLM 0.19 times the rotary
    /// embedding by itself, at 2.4 us for few tokens on an RTX PRO 6000; core attention is timed without the copy.)
    fn rotated(&self, kind: AttentionKind, tokens: u64) -> Cost {
        if self.habits.fused.contains(&Fused::RotaryCache) {
            return Cost::default();
        }
        let (gpu, p) = (&self.machine.gpu, &self.model.precision);
        let (turned, kept) = match kind {
            AttentionKind::Grouped { heads, kv_heads, head_dim } => {
                ((heads + kv_heads) * head_dim, 2 * kv_heads * head_dim)
            }
            AttentionKind::Latent { heads, rank, rope, .. } => ((heads + 1) * rope, rank + rope),
        };
        let bytes = |bits: f64, elements: u64| tokens as f64 * elements as f64 * bits / 8.0;
        elementwise(gpu, bytes(2.0 * p.activation, turned)).then(elementwise(gpu, bytes(p.activation + p.kv, kept)))
    }
}

/// Experts that `tokens` tokens activate in the mean if each takes `k` different ones of `experts`, each as likely as the
/// others: one is missed by all with probability (1 - k / experts)^tokens.
fn activated(experts: u64, k: u64, tokens: u64) -> f64 {
    let (n, mut base, mut missed, mut left) = (experts as f64, 1.0 - k as f64 / experts as f64, 1.0, tokens);
    // By squaring: multiplications alone give the same bits everywhere.
    while left > 0 {
        if left % 2 == 1 {
            missed *= base;
        }
        base *= base;
        left /= 2;
    }
    n * (1.0 - missed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Deployment, Machine};
    use moesim_hwmodels::cost::CoreKernel;
    use moesim_hwmodels::form::{AttentionForm, AttentionKernel, Form, Peaks};
    use moesim_hwmodels::hardware::Hardware;
    use moesim_traces::Model;

    fn plan(model: &str) -> Plan {
        let machine = Machine::new(Hardware::load("h100-8").unwrap()).unwrap();
        Plan::new(Model::load(model).unwrap(), machine, Deployment::default()).unwrap()
    }

    fn batch(work: AttentionWork) -> AttentionDemand {
        let mut b = AttentionDemand::default();
        b.add(&work, false);
        b
    }

    /// Counted pair by pair.
    #[test]
    fn attention_pairs_by_enumeration() {
        let mut p = plan("gpt-oss-20b");
        let spans = [Span::Full, Span::Window(5), Span::Chunk(4)];
        for span in spans {
            p.classes[0].attention.span = span;
            for from in 0..12u32 {
                for count in 1..12u32 {
                    let keys = |q: u32| match span {
                        Span::Window(w) => (q + 1).min(w),
                        Span::Chunk(w) => q % w + 1,
                        _ => q + 1,
                    };
                    let expected: u64 = (from..from + count).map(|q| u64::from(keys(q))).sum();
                    assert_eq!(p.attention_work(0, from, count).query_key_pairs, expected, "{span:?} {from} {count}");
                }
            }
        }
    }

    /// Eight attention experts of two heads, two a token: two KV heads for all.
    #[test]
    fn attention_experts_by_hand() {
        let mut p = plan("gpt-oss-20b");
        let a = &mut p.classes[0].attention;
        a.heads = Heads::Gqa { heads: 2, kv_heads: 2, head_dim: 64 };
        (a.span, a.bias, a.experts, a.top_k) = (Span::Full, false, 8, 2);
        let (h, q) = (2880u64, 2 * 64u64);
        let cost = |tokens: u64| p.attention_cost(0, tokens, &batch(p.attention_work(0, 0, tokens as u32)).view());
        for tokens in [1u64, 2, 1000] {
            // Keys and values 2 h 2 q; two experts' queries and outputs; the gate; four heads over every pair of positions.
            let pairs = tokens * (tokens + 1) / 2;
            let flop = 2 * tokens * (h * 2 * q + 2 * 2 * h * q + h * 8) + 4 * 4 * 64 * pairs;
            assert_eq!(cost(tokens).flop, flop, "{tokens}");
        }
        // One token activates 2 of 8, two 8 (1 - 9/16) = 3.5 in the mean, many all; beside them all bytes are linear in
        // tokens but the gate's and KV's weights, which come once.
        let (one, two) = (cost(1).bytes, cost(2).bytes);
        let once = 2 * (h * 2 * q + h * 8 + 2 * 2 * h * q);
        let again = two - one;
        assert_eq!(
            again,
            (one - once) + 2 * (3 * 2 * h * q) / 2,
            "one and a half experts more, and the token's own bytes"
        );
        assert_eq!(activated(8, 2, 1 << 40), 8.0);
        assert_eq!(p.classes[0].attention.parameters(2880), 8 * 2 * h * q + 2 * h * q + 8 * h);
        assert_eq!(p.classes[0].attention.active_parameters(2880), 2 * 2 * h * q + 2 * h * q + 8 * h);
    }

    /// Decode of one token on H100: weights over bandwidth, by hand.
    #[test]
    fn one_token_costs_its_weights() {
        let p = plan("gpt-oss-20b");
        let c = p.attention_cost(1, 1, &batch(p.attention_work(1, 0, 1)).view());
        let weights = 2.0 * (2880.0 * (64.0 + 16.0) * 64.0 + 64.0 * 64.0 * 2880.0);
        let rate = 3.35e12 * 0.9;
        // Activations and one KV entry come on top: under 1 %.
        assert!((c.memory_s - weights / rate) / (weights / rate) < 0.01 && c.memory_s > weights / rate);
        // Norm, projection, rotary embedding, keys and values, core attention, projection.
        assert!((c.launch_s - 6.0 * 2e-6).abs() < 1e-18);
    }

    /// DeepSeek-V3, 128 heads: a chunk of 64 behind 100 cached tokens expands the cached ones again; a token that decodes meets
    /// the latent vectors as they are.
    #[test]
    fn latent_attention_is_expanded_for_chunks_and_absorbed_for_decode() {
        let p = plan("deepseek-v3");
        let cost =
            |from, count: u32| p.attention_cost(0, count.into(), &batch(p.attention_work(0, from, count)).view());
        let (h, q, rank, rope, nope, v, heads) = (7168u64, 1536u64, 512u64, 64u64, 128u64, 128u64, 128u64);
        let weights = h * q + q * heads * (nope + rope) + h * (rank + rope) + heads * (nope + v) * rank + heads * v * h;
        let pairs = 64 * 100 + 64 * 65 / 2;
        let chunk = 64 * weights + 100 * heads * (nope + v) * rank + pairs * heads * (nope + rope + v);
        assert_eq!(cost(100, 64).flop, 2 * chunk);
        assert_eq!(cost(100, 1).flop, 2 * (weights + 101 * heads * (2 * rank + rope)));
        // A calibrated kernel that takes latent vectors as they are cached expands none again, one that does not expands all.
        let peaks = Peaks { flop_per_s: 989e12, bytes_per_s: 3.35e12, units: 132.0, l2_bytes: 50e6 };
        let calibrated = |pack: bool| {
            let kernel = AttentionKernel { tile: 64, pack, split: false, causal: true, converts: false };
            let constants = AttentionForm.constants().iter().map(|c| c.start).collect();
            let mut p = p.clone();
            p.machine.gpu.kernels.prefill = Some(CoreKernel::new(kernel, constants, peaks, true));
            let mut b = AttentionDemand::default();
            b.add(&p.attention_work(0, 100, 64), true);
            p.attention_cost(0, 64, &b.view()).flop
        };
        assert_eq!(calibrated(false), 2 * chunk);
        assert_eq!(calibrated(true), 2 * (64 * weights + pairs * heads * (2 * rank + rope)));
    }
}
