//! Hardware profiles: fitted constants of one device's kernels, as a file.

use super::cross::{Cell, Errors};
use super::solve::{Constant, Solution};
use crate::form::{Form, FusedMoe, Tiling};
use moesim_core::{Diag, Result, config, diag, input};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// Kernel families of experts.
    pub fused_moe: Vec<Kernel>,
}

/// A kernel family in one precision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The family, as its data name it.
    pub family: String,
    /// The precision, as its data name it.
    pub precision: String,
    /// How it chooses its tiles.
    pub tiling: Tiling,
    /// (Experts on the device, intermediate width) for which it ships a tuned tile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tuned: Vec<[u64; 2]>,
    /// Versions of the framework.
    pub versions: Vec<String>,
    /// Where its times come from.
    pub data: Data,
    /// The constants.
    pub constants: BTreeMap<String, Fitted>,
    /// Errors by cell.
    pub cell: Vec<Cell>,
}

/// A kernel's data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The file's name.
    pub file: String,
    /// Its hash (BLAKE3, the first 16 hex digits).
    pub hash: String,
    /// Its origin and licence, if told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Rows fitted.
    pub rows: usize,
    /// Shapes fitted.
    pub shapes: usize,
    /// Least and most tokens: uses outside are extrapolations.
    pub sizes: [f64; 2],
}

/// A fitted constant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// Its value.
    pub value: f64,
    /// 95 % interval, if rows were independent of each other, which those of a series are not: it is too narrow.
    pub interval: [f64; 2],
    /// Whether the value lies at a bound of what is sensible.
    #[serde(default, skip_serializing_if = "is_false")]
    pub at_bound: bool,
}

fn is_false(b: &bool) -> bool {
    !b
}

impl Fitted {
    /// The constants of a solution by name.
    pub fn all(constants: &[Constant], solution: &Solution) -> BTreeMap<String, Self> {
        let one = |(i, c): (usize, &Constant)| {
            let (value, error) = (solution.values[i], solution.ln_errors[i]);
            let reach = libm::exp(1.96 * if error.is_finite() { error.min(20.0) } else { 20.0 });
            let [low, high] = c.bounds;
            let at_bound = value < low * 1.001 || value > high * 0.999;
            let interval = [(value / reach).max(low), (value * reach).min(high)];
            (c.name.to_string(), Self { value: rounded(value), interval: interval.map(rounded), at_bound })
        };
        constants.iter().enumerate().map(one).collect()
    }
}

/// Five digits: more would say nothing, and differ between processors.
fn rounded(x: f64) -> f64 {
    format!("{x:.4e}").parse().unwrap_or(x)
}

impl Kernel {
    /// The form.
    pub fn form(&self) -> FusedMoe {
        FusedMoe { tiling: self.tiling }
    }
    /// The constants in the form's order.
    ///
    /// # Errors
    /// One is lacking, unknown, or out of bounds.
    pub fn values(&self) -> Result<Vec<f64>> {
        let known = self.form().constants();
        let place = |name: &str| format!("{} {}: {name}", self.family, self.precision);
        if let Some(name) = self.constants.keys().find(|n| known.iter().all(|c| c.name != n.as_str())) {
            let names: Vec<&str> = known.iter().map(|c| c.name).collect();
            return Err(moesim_core::diag::unknown("constant", name, &names).place(place(name)));
        }
        let value = |c: &Constant| {
            let [low, high] = c.bounds;
            let fitted = self.constants.get(c.name);
            let sound = fitted.map(|f| f.value).filter(|v| (low..=high).contains(v));
            sound.ok_or_else(|| {
                let problem = match fitted {
                    Some(f) => format!("{} is out of bounds", f.value),
                    None => "is lacking".into(),
                };
                Diag::input(problem).place(place(c.name)).cure(format!("write a value from {low} to {high}"))
            })
        };
        known.iter().map(value).collect()
    }
    /// Errors over all cells on shapes left out, weighted by rows.
    pub fn left_out(&self) -> Option<Errors> {
        let all: Vec<Errors> = self.cell.iter().filter_map(|c| c.left_out).collect();
        let rows: usize = all.iter().map(|e| e.rows).sum();
        let mean = |f: fn(&Errors) -> f64| all.iter().map(|e| f(e) * e.rows as f64).sum::<f64>() / rows.max(1) as f64;
        (rows > 0).then(|| Errors { rows, mean: mean(|e| e.mean), median: mean(|e| e.median), p90: mean(|e| e.p90) })
    }
}

/// Profiles that ship inside the binary.
const PRESETS: &[(&str, &str)] = &[
    ("a100-sxm", include_str!("../../profiles/a100-sxm.toml")),
    ("h100-sxm", include_str!("../../profiles/h100-sxm.toml")),
];

/// The profiles that ship, with their text.
pub fn presets() -> &'static [(&'static str, &'static str)] {
    PRESETS
}

impl Profile {
    /// Reads a profile's text; `name` for messages.
    ///
    /// # Errors
    /// Not a profile, or one with constants that are not sensible.
    pub fn read(text: &str, name: &str) -> Result<Self> {
        let profile: Self = config::from_toml(text, name)?;
        if profile.fused_moe.iter().any(|k| k.data.sizes.iter().any(|s| !s.is_finite())) {
            return Err(Diag::input("has sizes that are no numbers")
                .file(name)
                .place("data.sizes")
                .cure("fit it again"));
        }
        profile.fused_moe.iter().try_for_each(|k| k.values().map(drop).map_err(|d| d.file(name)))?;
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
    /// The kernel of a family and precision; else of the precision; else the first one, which then is a donor (true).
    pub fn kernel(&self, family: &str, precision: &str) -> Option<(&Kernel, bool)> {
        let own = self.fused_moe.iter().find(|k| k.family == family && k.precision == precision);
        let alike = || self.fused_moe.iter().find(|k| k.precision == precision);
        own.map(|k| (k, false)).or_else(|| alike().or(self.fused_moe.first()).map(|k| (k, true)))
    }
    /// The kernel for experts of these bits a weight and activation, of a family if one is asked for: the first in the file.
    pub fn expert_kernel(&self, weight_bits: f64, activation_bits: f64, family: Option<&str>) -> Option<&Kernel> {
        let wide = activation_bits > 8.5;
        let names: &[&str] = if weight_bits > 8.5 {
            &["bfloat16", "float16", "bf16", "fp16"]
        } else if weight_bits > 8.0 {
            &["fp8_block", "fp8"]
        } else if weight_bits > 4.6 {
            &["fp8", "fp8_block", "int8", "w8a8"]
        } else if wide {
            &["w4a16_mxfp4", "mxfp4", "int4_wo", "w4a16", "int4"]
        } else {
            &["w4a8_mxfp4_mxfp8", "w4afp8", "nvfp4"]
        };
        let of = |name: &&str| {
            let same = |k: &&Kernel| k.precision == **name && family.is_none_or(|f| k.family == f);
            self.fused_moe.iter().find(same)
        };
        names.iter().find_map(of)
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
