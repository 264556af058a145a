//! What a kernel does, and by which form its time is made.

use crate::form::{AttentionKernel, GemmKernel, Tiling};
use serde::{Deserialize, Serialize};

/// What a kernel does for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// The routed experts of a layer on a device: both grouped GEMMs and what lies between.
    Experts,
    /// A dense GEMM.
    Gemm,
    /// A GEMM over groups of rows, a matrix each.
    GroupedGemm,
    /// Attention of one new token a sequence, multi-head or grouped-query.
    DecodeAttention,
    /// Attention of many new tokens, perhaps beside sequences that decode.
    PrefillAttention,
    /// Latent attention (MLA) of one new token a sequence, projections absorbed.
    LatentDecodeAttention,
    /// Latent attention of many new tokens, keys and values expanded to every head's unless the kernel packs heads:
    /// then they are taken as they are cached.
    LatentPrefillAttention,
    /// Latent attention of one new token a sequence over the keys that an indexer chose.
    SparseDecodeAttention,
    /// The same of many new tokens.
    SparsePrefillAttention,
    /// The indexer's scores of all keys (DeepSeek Sparse Attention), one new token a sequence.
    DecodeIndexer,
    /// The same of many new tokens.
    PrefillIndexer,
    /// Norms, rotary embeddings, look-ups: bytes and little else.
    Stream,
    /// Every device gets all parts.
    AllGather,
    /// Every device gets the sum.
    AllReduce,
    /// Every device gets its part of the sum.
    ReduceScatter,
    /// Every device gets a part of every other's.
    AllToAll,
    /// Tokens to their experts.
    Dispatch,
    /// Results of experts to their tokens.
    Combine,
}

/// A form and the choices of a kernel that its constants do not say.
#[derive(Clone, Debug, PartialEq)]
pub enum KernelForm {
    /// [`crate::form::FusedMoeForm`].
    FusedMoe {
        /// How it chooses its tiles.
        tiling: Tiling,
        /// (Experts on the device, intermediate width) for which it ships a tuned tile.
        tuned: Vec<[u64; 2]>,
    },
    /// [`crate::form::GemmForm`].
    Gemm {
        /// Whether operands may lie in L2 since the call before.
        warm: bool,
        /// What it can choose.
        kernel: GemmKernel,
    },
    /// [`crate::form::GemmPairForm`].
    GemmPair {
        /// What it can choose.
        kernel: GemmKernel,
    },
    /// [`crate::form::StreamedForm`].
    Streamed {
        /// Rows of a group up to which its weights are streamed.
        few: u32,
    },
    /// [`crate::form::AttentionForm`].
    Attention {
        /// What it does.
        kernel: AttentionKernel,
    },
    /// [`crate::form::StreamForm`].
    Stream,
    /// [`crate::form::CollectiveForm`].
    Collective,
    /// [`crate::form::CustomAllReduceForm`].
    CustomAllReduce,
    /// [`crate::form::LowLatencyForm`].
    LowLatency,
    /// [`crate::form::NormalForm`].
    Normal {
        /// Fewest and most processors that copied in the measurements: a run gives it one of these numbers.
        units: [u64; 2],
    },
    /// [`crate::form::FusedExchangeForm`].
    FusedExchange,
}

/// A form's name in a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FormName {
    /// A fused MoE layer.
    FusedMoe,
    /// A GEMM, dense or grouped.
    Gemm,
    /// Two grouped GEMMs timed as one.
    GemmPair,
    /// Products on processors, dense or of experts.
    Streamed,
    /// Attention.
    Attention,
    /// What streams.
    Stream,
    /// A collective inside a scale-up domain.
    Collective,
    /// An inference engine's own all-reduce of small messages.
    CustomAllReduce,
    /// An exchange of experts for low latency.
    LowLatency,
    /// An exchange of experts for throughput.
    Normal,
    /// A fused exchange of experts.
    FusedExchange,
}

impl KernelForm {
    /// The name.
    pub fn name(&self) -> FormName {
        match self {
            Self::FusedMoe { .. } => FormName::FusedMoe,
            Self::Gemm { .. } => FormName::Gemm,
            Self::GemmPair { .. } => FormName::GemmPair,
            Self::Streamed { .. } => FormName::Streamed,
            Self::Attention { .. } => FormName::Attention,
            Self::Stream => FormName::Stream,
            Self::Collective => FormName::Collective,
            Self::CustomAllReduce => FormName::CustomAllReduce,
            Self::LowLatency => FormName::LowLatency,
            Self::Normal { .. } => FormName::Normal,
            Self::FusedExchange => FormName::FusedExchange,
        }
    }
}

impl Op {
    /// Whether bytes alone count, not what they are: collectives and exchanges.
    pub fn counts_bytes(self) -> bool {
        use Op::{AllGather, AllReduce, AllToAll, Combine, Dispatch, ReduceScatter};
        matches!(self, AllGather | AllReduce | ReduceScatter | AllToAll | Dispatch | Combine)
    }
}

impl FormName {
    /// The operations that the form has a time for.
    pub fn ops(self) -> &'static [Op] {
        match self {
            Self::FusedMoe | Self::GemmPair => &[Op::Experts],
            Self::Gemm => &[Op::Gemm, Op::GroupedGemm],
            Self::Streamed => &[Op::Experts, Op::Gemm],
            Self::Attention => &[
                Op::DecodeAttention,
                Op::PrefillAttention,
                Op::LatentDecodeAttention,
                Op::LatentPrefillAttention,
                Op::SparseDecodeAttention,
                Op::SparsePrefillAttention,
                Op::DecodeIndexer,
                Op::PrefillIndexer,
            ],
            Self::Stream => &[Op::Stream],
            Self::Collective => &[Op::AllGather, Op::AllReduce, Op::ReduceScatter, Op::AllToAll],
            Self::CustomAllReduce => &[Op::AllReduce],
            Self::LowLatency | Self::Normal | Self::FusedExchange => &[Op::Dispatch, Op::Combine],
        }
    }
}

impl std::fmt::Display for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.serialize(f)
    }
}

impl std::fmt::Display for FormName {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.serialize(f)
    }
}
