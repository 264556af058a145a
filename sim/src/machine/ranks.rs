//! How attention and experts are laid out over the devices: two rank maps over the same devices.

use moesim_core::{Diag, Result};
use moesim_solver::traffic::Mode;
use moesim_traces::model::{Heads, Model};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Where a rank's tokens are between attention and the next attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// On every device of the rank: attention ends with an all-reduce, every device computes its experts, or its part of each, and
    /// its part of shared experts on all tokens, and a second all-reduce ends the layer. Nothing is dispatched, so that one rank
    /// must have all devices.
    Replicated,
    /// Dealt over the devices of the rank: attention ends with a reduce-scatter, tokens travel to their experts and back, and an
    /// all-gather comes before the next attention. Shared experts are whole on every device.
    SequenceParallel,
}

/// The deployment: rank maps, batch limits, memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Deployment {
    /// Devices that share one attention rank's heads.
    pub attention_tp: u32,
    /// Data-parallel attention ranks; 0: as many as the devices allow.
    pub attention_dp: u32,
    /// Expert-parallel groups; 0: as many as the devices allow.
    pub expert_parallel: u32,
    /// Devices that share each expert of a group.
    pub expert_tp: u32,
    /// Pipeline stages; only 1 is modelled.
    pub pipeline: u32,
    /// Most tokens of one rank in an iteration.
    pub max_batched_tokens: u32,
    /// Most sequences of one rank in an iteration.
    pub max_sequences: u32,
    /// Tokens in a block of KV cache.
    pub kv_block_tokens: u32,
    /// Where tokens are between layers: `return-home`, on the device of their sequence, or `token-follows`, on that of the first
    /// of their experts of the layer before, which takes attention that all devices share.
    pub tokens: Mode,
    /// Where a rank's tokens are outside attention: `replicated` or `sequence-parallel`. Unless told, replicated where one rank has
    /// all of several devices and tokens return home, else sequence-parallel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Bits of an element that the dispatch sends, scales included; unless told, the model's activations.
    pub dispatch_bits: Option<f64>,
    /// Bits of an element that the combine sends; unless told, the model's activations.
    pub combine_bits: Option<f64>,
    /// Processors of every device that are kept for dispatch and combine: compute kernels run on the others. 0: dispatch and
    /// combine take what they need while nothing else runs.
    pub communication_units: u32,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            attention_tp: 1,
            attention_dp: 0,
            expert_parallel: 0,
            expert_tp: 1,
            pipeline: 1,
            max_batched_tokens: 8192,
            max_sequences: 256,
            kv_block_tokens: 16,
            tokens: Mode::ReturnHome,
            layout: None,
            dispatch_bits: None,
            combine_bits: None,
            communication_units: 0,
        }
    }
}

/// The rank maps. Attention rank r is on devices r tp .. (r + 1) tp, expert group g on devices g etp .. (g + 1) etp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// Devices of an attention rank.
    pub tp: usize,
    /// Attention ranks.
    pub dp: usize,
    /// Expert groups.
    pub ep: usize,
    /// Devices of an expert group.
    pub etp: usize,
    /// Where tokens are outside attention.
    pub layout: Layout,
}

impl Ranks {
    /// The maps of `d` for `model` on `devices` devices.
    ///
    /// # Errors
    /// Maps that do not cover the devices, heads that do not divide, and what is not modelled.
    pub fn new(d: &Deployment, model: &Model, devices: usize) -> Result<Self> {
        let wrong = |key: &str, problem: String, cure: String| {
            Err(Diag::input(problem).place(format!("deployment.{key}")).cure(cure))
        };
        if d.pipeline != 1 {
            return wrong("pipeline", format!("{} pipeline stages are not modelled", d.pipeline), "set it to 1".into());
        }
        for (key, value) in [
            ("attention_tp", d.attention_tp),
            ("expert_tp", d.expert_tp),
            ("max_batched_tokens", d.max_batched_tokens),
            ("max_sequences", d.max_sequences),
            ("kv_block_tokens", d.kv_block_tokens),
        ] {
            if value == 0 {
                return wrong(key, "is 0".into(), "set it to at least 1".into());
            }
        }
        for (key, bits) in [("dispatch_bits", d.dispatch_bits), ("combine_bits", d.combine_bits)] {
            if let Some(bits) = bits.filter(|b| !(1.0..=64.0).contains(b)) {
                return wrong(key, format!("{bits} bits an element"), "write 1 to 64, as in 8 or 8.25".into());
            }
        }
        let (tp, etp) = (d.attention_tp as usize, d.expert_tp as usize);
        let fill = |asked: u32, each: usize| if asked == 0 { devices / each } else { asked as usize };
        let (dp, ep) = (fill(d.attention_dp, tp), fill(d.expert_parallel, etp));
        for (key, each) in [("attention_tp", tp), ("expert_tp", etp)] {
            if !devices.is_multiple_of(each) {
                return wrong(
                    key,
                    format!("{each} does not divide the {devices} devices"),
                    format!("choose a divisor of {devices}"),
                );
            }
        }
        for (key, ranks, each) in [("attention_dp", dp, tp), ("expert_parallel", ep, etp)] {
            if ranks * each != devices {
                return wrong(
                    key,
                    format!("{ranks} x {each} ranks do not cover {devices} devices"),
                    format!("choose factors of {devices}, or 0 to fill"),
                );
            }
        }
        if d.tokens == Mode::TokenFollows && (dp > 1 || etp > 1) {
            return wrong(
                "tokens",
                "tokens follow their experts only where all devices share attention and none share an expert".into(),
                format!("set deployment.attention_tp to {devices} and deployment.expert_tp to 1"),
            );
        }
        if d.tokens == Mode::TokenFollows
            && model.decoder.iter().filter_map(|l| l.moe()).any(|m| m.capacity_factor.is_some())
        {
            return wrong(
                "tokens",
                "tokens that follow experts with a capacity are not modelled".into(),
                "set it to \"return-home\"".into(),
            );
        }
        for (l, layer) in model.decoder.iter().enumerate() {
            let (Heads::Gqa { heads, .. } | Heads::Mla { heads, .. }) = layer.attention.heads;
            if !(heads as usize).is_multiple_of(tp) {
                return wrong(
                    "attention_tp",
                    format!("{tp} devices cannot share the {heads} heads of layer {l}"),
                    "choose a divisor of the heads".into(),
                );
            }
        }
        let replicated = dp == 1 && tp > 1 && d.tokens == Mode::ReturnHome;
        let layout = d.layout.unwrap_or(if replicated { Layout::Replicated } else { Layout::SequenceParallel });
        if layout == Layout::Replicated && !replicated && devices > 1 {
            let (problem, cure) = match d.tokens {
                Mode::TokenFollows => ("replicated tokens are everywhere and follow nothing", "sequence-parallel"),
                Mode::ReturnHome => ("tokens of several ranks are not on all devices", "sequence-parallel"),
            };
            return wrong("layout", problem.into(), format!("set it to \"{cure}\", or attention_tp to {devices}"));
        }
        Ok(Self { tp, dp, ep, etp, layout })
    }

    /// Whether a rank's tokens are on all of its several devices outside attention.
    pub fn replicated(&self) -> bool {
        self.layout == Layout::Replicated && self.tp > 1
    }

    /// Devices of attention rank `r`.
    pub fn rank_devices(&self, r: usize) -> Range<usize> {
        r * self.tp..(r + 1) * self.tp
    }
    /// Devices of expert group `g`.
    pub fn group_devices(&self, g: usize) -> Range<usize> {
        g * self.etp..(g + 1) * self.etp
    }
    /// All devices.
    pub fn devices(&self) -> usize {
        self.tp * self.dp
    }
}
