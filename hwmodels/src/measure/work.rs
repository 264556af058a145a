//! One thing to time.

use std::fmt;

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    Bf16,
    /// 8-bit integers, widened before they are multiplied.
    Int8,
    /// 8-bit floating point, widened before they are multiplied.
    Fp8,
}

impl Precision {
    /// All, with the word on the command line and the name in tables.
    pub const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::F32, "f32", "float32"),
        (Self::Bf16, "bf16", "bfloat16"),
        (Self::Int8, "int8", "int8_wo"),
        (Self::Fp8, "fp8", "fp8_wo"),
    ];
    /// The name in tables.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|p| p.0 == self).map_or("", |p| p.2)
    }
    /// Bytes of a weight.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 | Self::Fp8 => 1,
        }
    }
}

/// A layer's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeasuredShape {
    /// Model width.
    pub hidden: usize,
    /// Width inside an expert.
    pub intermediate: usize,
    /// Routed experts.
    pub experts: usize,
    /// Experts a token.
    pub top_k: usize,
}

impl MeasuredShape {
    /// Weights of an expert.
    pub fn weights(&self) -> usize {
        3 * self.hidden * self.intermediate
    }
}

/// How tokens are spread over the active experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Skew {
    /// Evenly.
    Balanced,
    /// The r-th expert has a share of `r^-s`.
    Zipf(f64),
    /// As the rows of a routing trace have it.
    Trace,
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Balanced => f.write_str("balanced"),
            Self::Zipf(s) => write!(f, "zipf-{s}"),
            Self::Trace => f.write_str("trace"),
        }
    }
}

impl Skew {
    /// Tokens of each of `experts`, of which `active` have some, so that `tokens` tokens fill all their places: at
    /// least one each, at most every token. `active` is brought into what is possible, from `top_k` to all places.
    pub fn counts(self, tokens: usize, shape: &MeasuredShape, active: usize) -> Vec<u32> {
        let pairs = tokens * shape.top_k;
        let active = active.clamp(shape.top_k, shape.experts).min(pairs);
        let power = if let Self::Zipf(s) = self { s } else { 0.0 };
        let shares: Vec<f64> = (0..active).map(|r| libm::pow((r + 1) as f64, -power)).collect();
        let all: f64 = shares.iter().sum();
        let spare = (pairs - active) as f64;
        let mut counts: Vec<usize> = shares.iter().map(|s| (1 + (s / all * spare) as usize).min(tokens)).collect();
        let mut missing = pairs - counts.iter().sum::<usize>();
        // What rounding and the limit left over goes one by one to those with room, the largest first.
        while missing > 0 {
            for n in counts.iter_mut().filter(|n| **n < tokens) {
                if missing > 0 {
                    *n += 1;
                    missing -= 1;
                }
            }
        }
        counts.resize(shape.experts, 0);
        counts.into_iter().map(|n| n as u32).collect()
    }
}

/// Which way over the link to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// To the device.
    ToDevice,
    /// From the device.
    FromDevice,
}

/// One thing to time.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// A layer of routed experts: permutation, both products, combine; without its gate.
    Experts {
        /// Its shape.
        shape: MeasuredShape,
        /// How weights are stored.
        precision: Precision,
        /// Tokens.
        tokens: usize,
        /// Tokens of each expert.
        counts: Vec<u32>,
        /// How they were spread.
        skew: Skew,
    },
    /// A dense product of `m x k` and `k x n`.
    Gemm {
        /// How weights are stored.
        precision: Precision,
        /// Rows, columns, depth.
        size: [usize; 3],
    },
    /// The same by the library that the device's own is compared with: the crate gemm, cuBLAS.
    Library {
        /// How operands are stored.
        precision: Precision,
        /// Rows, columns, depth.
        size: [usize; 3],
    },
    /// A root-mean-square norm of `tokens x hidden` in BF16.
    Norm {
        /// Tokens.
        tokens: usize,
        /// Width.
        hidden: usize,
    },
    /// Reads so many bytes.
    Read(usize),
    /// Writes so many bytes.
    Write(usize),
    /// Copies so many bytes: as many are read and written.
    Copy(usize),
    /// Starts the device's threads, which do nothing: a parallel region, an empty kernel.
    Launch,
    /// Copies between host and device.
    HostCopy {
        /// Which way.
        way: Way,
        /// Whether the host's memory is pinned.
        pinned: bool,
        /// Bytes.
        bytes: usize,
    },
}

impl Work {
    /// Its name in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Experts { .. } => "experts",
            Self::Gemm { .. } => "gemm",
            Self::Library { .. } => "library-gemm",
            Self::Norm { .. } => "norm",
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::Copy(_) => "copy",
            Self::Launch => "launch",
            Self::HostCopy { way: Way::ToDevice, pinned: true, .. } => "to-device-pinned",
            Self::HostCopy { way: Way::ToDevice, pinned: false, .. } => "to-device-pageable",
            Self::HostCopy { way: Way::FromDevice, pinned: true, .. } => "from-device-pinned",
            Self::HostCopy { way: Way::FromDevice, pinned: false, .. } => "from-device-pageable",
        }
    }
    /// Operations.
    pub fn flop(&self) -> f64 {
        match self {
            Self::Experts { shape, counts, .. } => {
                2.0 * counts.iter().map(|n| f64::from(*n)).sum::<f64>() * shape.weights() as f64
            }
            Self::Gemm { size, .. } | Self::Library { size, .. } => {
                2.0 * size.map(|s| s as f64).iter().product::<f64>()
            }
            _ => 0.0,
        }
    }
    /// Bytes of weights, or that are moved.
    pub fn bytes(&self) -> f64 {
        match self {
            Self::Experts { shape, counts, precision, .. } => {
                counts.iter().filter(|n| **n > 0).count() as f64 * (shape.weights() * precision.bytes()) as f64
            }
            Self::Gemm { precision, size } | Self::Library { precision, size } => {
                (size[1] * size[2] * precision.bytes()) as f64
            }
            Self::Norm { tokens, hidden } => 4.0 * (tokens * hidden) as f64,
            Self::Read(n) | Self::Write(n) | Self::HostCopy { bytes: n, .. } => *n as f64,
            Self::Copy(n) => 2.0 * *n as f64,
            Self::Launch => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_place_is_filled(
            tokens in 1usize..300, experts in 1usize..70, top_k in 1usize..9, active in 0usize..80, power in 0.0f64..3.0,
        ) {
            let shape = MeasuredShape { hidden: 1, intermediate: 1, experts, top_k: top_k.min(experts) };
            for skew in [Skew::Balanced, Skew::Zipf(power)] {
                let counts = skew.counts(tokens, &shape, active);
                prop_assert_eq!(counts.len(), experts);
                prop_assert_eq!(counts.iter().sum::<u32>() as usize, tokens * shape.top_k);
                prop_assert!(counts.iter().all(|n| *n as usize <= tokens));
                let some = counts.iter().filter(|n| **n > 0).count();
                prop_assert_eq!(some, active.clamp(shape.top_k, experts).min(tokens * shape.top_k));
            }
        }
    }

    #[test]
    fn spreads_by_hand() {
        let shape = MeasuredShape { hidden: 1, intermediate: 1, experts: 4, top_k: 2 };
        assert_eq!(Skew::Balanced.counts(4, &shape, 3), [3, 3, 2, 0]);
        // Shares 1, 1/4, 1/9 of five beside the three that each has: 3.67, 0.92, 0.41; one more for the first two, of
        // whom the first has every token then.
        assert_eq!(Skew::Zipf(2.0).counts(4, &shape, 3), [4, 2, 2, 0]);
    }
}
