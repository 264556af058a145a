//! Hardware profiles: fitted constants of one device's kernels, as a file.

mod kernel;
mod op;
mod time_table;

pub use kernel::{Beyond, Data, DataFile, Fitted, Kernel};
pub use op::{FormName, KernelForm, Op};
pub use time_table::{ShapeTimes, TimeTable};

use moesim_core::{Diag, Result, config, diag, input};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;

/// Profiles are written by programs, but small.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// The device that was measured, as its data name it.
    pub device: String,
    /// The hardware whose peaks the constants are fractions of: a preset or a file.
    pub hardware: String,
    /// Profiles that stand in, in this order, for operations that this one lacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub donors: Vec<String>,
    /// Kernel families, each in one precision.
    #[serde(rename = "kernel", default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<Kernel>,
    /// Measured times, which go before kernels where they have the shape and the size.
    #[serde(rename = "table", default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TimeTable>,
}

/// Profiles that ship inside the binary.
const PRESETS: &[(&str, &str)] = &[
    ("a100-sxm", include_str!("../../../profiles/a100-sxm.toml")),
    ("b200-sxm", include_str!("../../../profiles/b200-sxm.toml")),
    ("h20-sxm", include_str!("../../../profiles/h20-sxm.toml")),
    ("h100-sxm", include_str!("../../../profiles/h100-sxm.toml")),
    ("h800-sxm", include_str!("../../../profiles/h800-sxm.toml")),
    ("rtx-pro-6000", include_str!("../../../profiles/rtx-pro-6000.toml")),
    ("ascend-910c", include_str!("../../../profiles/ascend-910c.toml")),
];

/// The profiles that ship, with their text.
pub fn presets() -> &'static [(&'static str, &'static str)] {
    PRESETS
}

/// Bits of an MXFP4 weight: four, and a quarter of the 8-bit scale that 32 elements share (OCP Microscaling Formats
/// 1.0). Integers with a scale of 16 bits alone for 64 elements are as wide, and are taken for MXFP4.
const MXFP4_BITS: f64 = 4.25;
/// How far from [`MXFP4_BITS`] a width still is MXFP4: less than that of integers with a scale and a zero point for 64
/// or 128 elements, 4 + 20/64 and 4 + 20/128 bits.
const MXFP4_REACH: f64 = 0.02;

/// Names of the precision of operands of these bits, the most suitable first.
fn precisions(weight_bits: f64, activation_bits: f64) -> &'static [&'static str] {
    if weight_bits > 24.5 {
        // Kernels in 16 bits stood in for these before any was measured, and still do.
        &["float32", "fp32", "bfloat16", "float16", "bf16", "fp16"]
    } else if weight_bits > 8.5 {
        &["bfloat16", "float16", "bf16", "fp16"]
    } else if weight_bits > 8.0 {
        &["fp8_block", "fp8"]
    } else if weight_bits > 4.6 {
        &["fp8", "fp8_block", "int8", "w8a8", "fp8_wo", "int8_wo"]
    } else if activation_bits > 8.5 && (weight_bits - MXFP4_BITS).abs() < MXFP4_REACH {
        &["w4a16_mxfp4", "mxfp4", "int4_wo", "w4a16", "int4"]
    } else if activation_bits > 8.5 {
        &["int4_wo", "w4a16", "int4", "w4a16_mxfp4", "mxfp4"]
    } else if activation_bits > 4.75 {
        &["w4a8_mxfp4_mxfp8", "w4afp8", "nvfp4"]
    } else {
        &["nvfp4", "w4a8_mxfp4_mxfp8"]
    }
}

/// How well a precision suits operands of these bits: 0 for the best, `None` for another precision.
fn rank(precision: &str, weight_bits: f64, activation_bits: f64) -> Option<usize> {
    precisions(weight_bits, activation_bits).iter().position(|p| *p == precision)
}

impl Kernel {
    /// Whether it was fitted in the precision of operands of these bits, or bytes alone count.
    pub fn suits(&self, weight_bits: f64, activation_bits: f64) -> bool {
        self.rank(weight_bits, activation_bits).is_some()
    }
    /// How well the kernel's precision suits operands of these bits: 0 for the best, `None` for another precision.
    /// Where bytes alone count, every precision suits alike.
    pub fn rank(&self, weight_bits: f64, activation_bits: f64) -> Option<usize> {
        if self.op.counts_bytes() { Some(0) } else { rank(&self.precision, weight_bits, activation_bits) }
    }
}

impl Profile {
    /// Reads a profile's text; `name` for messages.
    ///
    /// # Errors
    /// Not a profile, or one with constants that are not sensible.
    pub fn read(text: &str, name: &str) -> Result<Self> {
        let profile: Self = config::from_toml(text, name)?;
        if profile.kernels.iter().any(|k| k.data.sizes.iter().any(|s| !s.is_finite())) {
            return Err(Diag::input("has sizes that are no numbers")
                .file(name)
                .place("data.sizes")
                .cure("fit it again"));
        }
        profile.tables.iter().try_for_each(|t| t.check().map_err(|d| d.file(name)))?;
        profile.kernels.iter().try_for_each(|k| k.values().map(drop).map_err(|d| d.file(name)))?;
        Ok(profile)
    }
    /// Reads a profile by name or path.
    ///
    /// # Errors
    /// Neither a name nor a readable file, or as [`Profile::read`].
    pub fn load(name_or_path: &str) -> Result<Self> {
        if let Some((name, text)) = PRESETS.iter().find(|p| p.0 == name_or_path) {
            return Self::read(text, name);
        }
        let path = Path::new(name_or_path);
        if !path.exists() && path.extension().is_none() && path.components().count() <= 1 {
            let names: Vec<&str> = PRESETS.iter().map(|p| p.0).collect();
            return Err(diag::unknown("profile or file", name_or_path, &names));
        }
        let mut text = String::new();
        let file = input::open(path)?.take(MAX_FILE_BYTES);
        std::io::BufReader::new(file).read_to_string(&mut text).map_err(|e| Diag::cannot_read(path, &e))?;
        Self::read(&text, name_or_path)
    }
    /// The kernel of an operation, of a family if one is asked for, for operands of these bits: the first in the file,
    /// precisions in the order in which they suit the bits. Bits of attention are those of keys and values, and of
    /// queries. Where bytes alone count (collectives, dispatch, combine) any precision will do.
    pub fn find(&self, op: Op, family: Option<&str>, weight_bits: f64, activation_bits: f64) -> Option<&Kernel> {
        let own = self.kernels.iter().filter(|k| k.op == op && family.is_none_or(|f| k.family == f));
        let suited = own.filter_map(|k| Some((k.rank(weight_bits, activation_bits)?, k)));
        suited.min_by_key(|(rank, _)| *rank).map(|(_, k)| k)
    }
    /// The families of an operation, each once.
    pub fn families(&self, op: Op) -> Vec<&str> {
        let kernels = self.kernels.iter().map(|k| (k.op, k.family.as_str()));
        let tables = self.tables.iter().map(|t| (t.op, t.family.as_str()));
        let mut names = Vec::new();
        for (_, family) in kernels.chain(tables).filter(|(o, _)| *o == op) {
            if !names.contains(&family) {
                names.push(family);
            }
        }
        names
    }
    /// The table of an operation, of a family that suits, for operands of these bits: the first in the file of the
    /// precision that suits them best.
    pub fn table(
        &self,
        op: Op,
        family: impl Fn(&str) -> bool,
        weight_bits: f64,
        activation_bits: f64,
    ) -> Option<&TimeTable> {
        let own = self.tables.iter().filter(|t| t.op == op && family(&t.family));
        let suited = own.filter_map(|t| Some((rank(&t.precision, weight_bits, activation_bits)?, t)));
        suited.min_by_key(|(rank, _)| *rank).map(|(_, t)| t)
    }
    /// The file.
    ///
    /// # Errors
    /// None that a user could cause.
    pub fn to_text(&self) -> Result<String> {
        let head = "# Fitted by `moesim calibrate fit`. Constants are fractions of the hardware's peaks; `moesim calibrate check` \
                    compares them with measurements.\n";
        Ok(head.to_string() + &config::to_toml(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four bits under 16-bit activations are MXFP4 or integers, by what their scales take: of GPTQ and AWQ one of 16
    /// bits and a zero point of 4 for 128 or 64 elements, of compressed tensors a scale of 16 bits for 128 or 32.
    #[test]
    fn four_bits_are_told_apart_by_their_scales() {
        let first = |bits| precisions(bits, 16.0)[0];
        assert_eq!(first(4.0 + 8.0 / 32.0), "w4a16_mxfp4");
        for bits in [4.0, 4.0 + 20.0 / 128.0, 4.0 + 20.0 / 64.0, 4.0 + 16.0 / 128.0, 4.0 + 16.0 / 32.0] {
            assert_eq!(first(bits), "int4_wo", "{bits}");
        }
    }

    /// A table in the operands' own precision goes before one that only stands in, wherever each is in the file.
    #[test]
    fn tables_in_the_best_precision_go_first() {
        let table = |family: &str, precision: &str| {
            let data = Data { file: Vec::new(), source: None, rows: 1, shapes: 1, sizes: [1.0, 1.0] };
            TimeTable::new(Op::Gemm, [family, precision], &[], data, [(vec![1, 1], 1.0, 1e-6)])
        };
        let tables = vec![table("a", "int8"), table("b", "fp8_block"), table("c", "fp8"), table("d", "fp8")];
        let profile = Profile {
            name: String::new(),
            device: String::new(),
            hardware: String::new(),
            donors: Vec::new(),
            kernels: Vec::new(),
            tables,
        };
        let found =
            |family: &dyn Fn(&str) -> bool| profile.table(Op::Gemm, family, 8.0, 8.0).map(|t| t.family.as_str());
        assert_eq!([found(&|_| true), found(&|f| f < "c"), found(&|f| f > "d")], [Some("c"), Some("b"), None]);
    }
}
