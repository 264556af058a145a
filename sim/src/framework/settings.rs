//! What an experiment can say of its serving engine.

use crate::machine::Fused;
use moesim_core::{Picos, Sourced};
use moesim_hwmodels::calibrate::profile::Op;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The serving engine: its framework, and what of it is set apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSettings {
    /// Whose kernels and habits: `vllm`, `sglang` or `tensorrt-llm` (tables say `trtllm`). Without it the fastest measured
    /// kernels run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// Whether kernels are launched in CUDA graphs, as they are unless told. Without graphs the engine's own all-reduce takes
    /// the time that it was measured at without them; other kernels keep theirs, which the summary says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graphs: Option<bool>,
    /// Host time between two iterations that devices wait for; unless told, the framework's, or
    /// `hardware.host.iteration_overhead`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_time: Option<Sourced<Picos>>,
    /// Time from a request's arrival until the scheduler can see that request (HTTP, tokenising, hand-over), together with the
    /// time that its first token takes from the engine to the client. Unless told, the framework's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front_end: Option<Sourced<Picos>>,
    /// Host time to launch one kernel or collective of an iteration with prompts, which runs without graphs: launches run ahead
    /// of the devices, so that such an iteration takes at least this long for each. Unless told, the framework's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eager_kernel: Option<Sourced<Picos>>,
    /// The scheduler looks for new requests after an iteration with prompts, and else after this many without (SGLang's
    /// `--scheduler-recv-interval`); 1 unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive_interval: Option<Sourced<u32>>,
    /// Share of a device's memory that the engine uses for weights and caches; unless told, what the framework uses, or what
    /// `hardware.device.reserve` leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_share: Option<Sourced<f64>>,
    /// Whether tokens that are gathered on all devices before experts (`policy.dispatch = "all-gather"`) travel rounded to the
    /// inputs of the experts' products, where these are narrower; unless told, as the framework does. A
    /// `deployment.dispatch_bits` goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds_before_gather: Option<Sourced<bool>>,
    /// Small kernels that are part of others: `all-reduce-norm`, `rotary-cache`; unless told, the framework's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fused: Option<Sourced<Vec<Fused>>>,
    /// Kernel families, in place of the framework's.
    #[serde(skip_serializing_if = "Families::is_empty")]
    pub kernels: Families,
}

/// Kernel families by what they are used for, as profiles name them (`moesim show PROFILE`); a `*` at the end stands for
/// any rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Families {
    /// Routed experts, fused or grouped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts: Option<String>,
    /// Dense products.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gemm: Option<String>,
    /// Attention of sequences that decode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_attention: Option<String>,
    /// Attention of prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_attention: Option<String>,
    /// All-reduces of small messages, beside the library's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_reduce: Option<String>,
}

/// What a kernel is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// [`Families::experts`].
    Experts,
    /// [`Families::gemm`].
    Gemm,
    /// [`Families::decode_attention`].
    DecodeAttention,
    /// [`Families::prefill_attention`].
    PrefillAttention,
    /// [`Families::all_reduce`].
    AllReduce,
}

impl Use {
    /// All uses of kernels, in the order of [`Families`].
    pub const ALL: [Self; 5] =
        [Self::Experts, Self::Gemm, Self::DecodeAttention, Self::PrefillAttention, Self::AllReduce];

    /// Operations whose kernels are used for this.
    pub fn ops(self) -> &'static [Op] {
        match self {
            Self::Experts => &[Op::Experts, Op::GroupedGemm],
            Self::Gemm => &[Op::Gemm],
            Self::DecodeAttention => &[Op::DecodeAttention, Op::LatentDecodeAttention],
            Self::PrefillAttention => &[Op::PrefillAttention, Op::LatentPrefillAttention],
            Self::AllReduce => &[Op::AllReduce],
        }
    }

    /// The key of an experiment that names the family for this use.
    pub fn key(self) -> &'static str {
        match self {
            Self::Experts => "engine.kernels.experts",
            Self::Gemm => "engine.kernels.gemm",
            Self::DecodeAttention => "engine.kernels.decode_attention",
            Self::PrefillAttention => "engine.kernels.prefill_attention",
            Self::AllReduce => "engine.kernels.all_reduce",
        }
    }
}

impl Families {
    /// The families that are named.
    pub fn named(&self) -> Vec<(Use, &str)> {
        let all = [
            (Use::Experts, &self.experts),
            (Use::Gemm, &self.gemm),
            (Use::DecodeAttention, &self.decode_attention),
            (Use::PrefillAttention, &self.prefill_attention),
            (Use::AllReduce, &self.all_reduce),
        ];
        all.into_iter().filter_map(|(of, family)| Some((of, family.as_deref()?))).collect()
    }

    fn is_empty(&self) -> bool {
        self.named().is_empty()
    }
}
