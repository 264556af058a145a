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
    } else if activation_bits > 8.5 && weight_bits <= 4.4 {
        // A scale of 8 bits for 32 elements is a quarter of a bit, one of 16 is half of one.
        &["w4a16_mxfp4", "mxfp4", "int4_wo", "w4a16", "int4"]
    } else if activation_bits > 8.5 {
        &["int4_wo", "w4a16", "int4", "w4a16_mxfp4", "mxfp4"]
    } else if activation_bits > 4.75 {
        &["w4a8_mxfp4_mxfp8", "w4afp8", "nvfp4"]
    } else {
        &["nvfp4", "w4a8_mxfp4_mxfp8"]
    }
}

impl Kernel {
    /// Whether it was fitted in the precision of operands of these bits, or bytes alone count.
    pub fn suits(&self, weight_bits: f64, activation_bits: f64) -> bool {
        self.rank(weight_bits, activation_bits).is_some()
    }
    /// How well its precision suits operands of these bits: 0 for the best, `None` for another precision. Where bytes alone count, every
    /// precision suits alike.
    pub fn rank(&self, weight_bits: f64, activation_bits: f64) -> Option<usize> {
        if self.op.counts_bytes() {
            return Some(0);
        }
        precisions(weight_bits, activation_bits).iter().position(|p| *p == self.precision)
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
    /// The kernel of an operation, of a family if one is asked for, for operands of these bits: the first in the file, precisions
    /// in the order in which they suit the bits. Bits of attention are those of keys and values, and of queries. Where bytes
    /// alone count (collectives, dispatch, combine) any precision will do.
    pub fn find(&self, op: Op, family: Option<&str>, weight_bits: f64, activation_bits: f64) -> Option<&Kernel> {
        let mut own = self.kernels.iter().filter(|k| k.op == op && family.is_none_or(|f| k.family == f));
        if op.counts_bytes() {
            return own.next();
        }
        let own: Vec<&Kernel> = own.collect();
        let names = precisions(weight_bits, activation_bits).iter();
        names.filter_map(|name| own.iter().find(|k| k.precision == **name)).next().copied()
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
    /// The table of an operation, of a family that suits, for operands of these bits: the first in the file.
    pub fn table(
        &self,
        op: Op,
        family: impl Fn(&str) -> bool,
        weight_bits: f64,
        activation_bits: f64,
    ) -> Option<&TimeTable> {
        let names = precisions(weight_bits, activation_bits);
        self.tables.iter().find(|t| t.op == op && family(&t.family) && names.contains(&t.precision.as_str()))
    }
    /// The fused kernel for experts of these bits a weight and activation, of a family if one is asked for.
    pub fn expert_kernel(&self, weight_bits: f64, activation_bits: f64, family: Option<&str>) -> Option<&Kernel> {
        let k = self.find(Op::Experts, family, weight_bits, activation_bits)?;
        matches!(k.form(), KernelForm::FusedMoe { .. }).then_some(k)
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
