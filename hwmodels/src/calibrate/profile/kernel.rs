//! A kernel family of a profile: what it does, in which form, with which constants, out of which data, how far off.

use super::op::{FormName, KernelForm, Op};
use crate::calibrate::cross::{Cell, Errors};
use crate::calibrate::solve::FitSolution;
use crate::form::{
    AttentionForm, AttentionKernel, CollectiveForm, Constant, CustomAllReduceForm, Form, FusedExchangeForm,
    FusedMoeForm, GemmForm, GemmKernel, GemmPairForm, GemmTiling,
};
use crate::form::{LowLatencyForm, NormalForm, StreamForm, StreamedForm, Tiling};
use moesim_core::output::content_hash;
use moesim_core::{Diag, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A kernel family in one precision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "File", into = "File")]
pub struct Kernel {
    /// What it does.
    pub op: Op,
    /// Its form, with the choices that constants do not say.
    pub(crate) form: KernelForm,
    /// Of attention: ranges of query heads a KV head that it is for; all where there are none.
    pub groups: Vec<[u64; 2]>,
    /// Of attention: the widths of keys and values that it is for, where they differ; else any.
    pub widths: Option<[u64; 2]>,
    /// The family, as its data name it.
    pub family: String,
    /// The precision, as its data name it; `any` where bytes alone count.
    pub precision: String,
    /// Versions of the framework.
    pub versions: Vec<String>,
    /// What the reader assumed, and which rows were left out as outliers.
    pub notes: Vec<String>,
    /// Where its times come from.
    pub data: Data,
    /// The constants.
    pub constants: BTreeMap<String, Fitted>,
    /// What fits had not seen in `left_out` of the cells, as in `each shape`.
    pub folds: Option<String>,
    /// Errors by cell.
    pub cell: Vec<Cell>,
    /// Errors beyond what was measured: of fits that had not seen the largest.
    pub beyond: Vec<Beyond>,
}

/// Errors on what lies beyond the rows that a fit has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beyond {
    /// What was left out, as in `8 devices`.
    pub without: String,
    /// Errors on it.
    pub errors: Errors,
}

/// [`Kernel`] as files write it: choices are keys of the kernel's table.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    op: Op,
    form: FormName,
    family: String,
    precision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tiling: Option<Tiling>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tuned: Vec<[u64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warm: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    least_tile: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    split_k: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tiles: Option<GemmTiling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rounds: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    few: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tile: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pack: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causal: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    converts: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<[u64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    widths: Option<[u64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    units: Option<[u64; 2]>,
    versions: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folds: Option<String>,
    data: Data,
    constants: BTreeMap<String, Fitted>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cell: Vec<Cell>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    beyond: Vec<Beyond>,
}

/// Keys of choices, by form.
fn choices(form: FormName) -> &'static [&'static str] {
    match form {
        FormName::FusedMoe => &["tiling", "tuned"],
        FormName::Gemm => &["warm", "least_tile", "split_k", "tiles", "rounds"],
        FormName::GemmPair => &["least_tile", "split_k"],
        FormName::Streamed => &["few"],
        FormName::Attention => &["tile", "pack", "split", "causal", "converts", "groups", "widths"],
        FormName::Normal => &["units"],
        _ => &[],
    }
}

impl TryFrom<File> for Kernel {
    /// In serde's words, which [`moesim_core::config`] turns into a message with a cure.
    type Error = String;

    fn try_from(f: File) -> std::result::Result<Self, String> {
        let one_of = |names: &[String]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        let known = choices(f.form);
        let given = [
            ("tiling", f.tiling.is_some()),
            ("tuned", !f.tuned.is_empty()),
            ("warm", f.warm.is_some()),
            ("least_tile", f.least_tile.is_some()),
            ("split_k", f.split_k.is_some()),
            ("tiles", f.tiles.is_some()),
            ("rounds", f.rounds.is_some()),
            ("few", f.few.is_some()),
            ("tile", f.tile.is_some()),
            ("pack", f.pack.is_some()),
            ("split", f.split.is_some()),
            ("causal", f.causal.is_some()),
            ("converts", f.converts.is_some()),
            ("groups", !f.groups.is_empty()),
            ("widths", f.widths.is_some()),
            ("units", f.units.is_some()),
        ];
        if let Some((name, _)) = given.iter().find(|(name, given)| *given && !known.contains(name)) {
            let known: Vec<String> = known.iter().map(ToString::to_string).collect();
            return Err(format!("unknown field `{name}`, expected one of {}", one_of(&known)));
        }
        if !f.form.ops().contains(&f.op) {
            let ops: Vec<String> = f.form.ops().iter().map(ToString::to_string).collect();
            return Err(format!("unknown variant `{}`, expected one of {}", f.op, one_of(&ops)));
        }
        if f.groups.iter().any(|[least, most]| least > most) {
            return Err("groups are ranges of query heads a KV head, the least first".into());
        }
        fn need<T>(value: Option<T>, name: &str) -> std::result::Result<T, String> {
            value.ok_or_else(|| format!("missing field `{name}`"))
        }
        let gemm = || {
            let least_tile = need(f.least_tile, "least_tile")?;
            // Any finite height will do: tiles that are lower are not open.
            let least_tile = Some(least_tile).filter(|t| (1.0..=128.0).contains(t));
            Ok::<_, String>(GemmKernel {
                tiling: f.tiles.unwrap_or_default(),
                least_tile: least_tile.ok_or("least_tile is from 1 to 128")?,
                split_k: need(f.split_k, "split_k")?,
                rounds: f.rounds.unwrap_or(false),
            })
        };
        let form = match f.form {
            FormName::FusedMoe => KernelForm::FusedMoe { tiling: need(f.tiling, "tiling")?, tuned: f.tuned },
            FormName::Gemm => KernelForm::Gemm { warm: need(f.warm, "warm")?, kernel: gemm()? },
            FormName::GemmPair => KernelForm::GemmPair { kernel: gemm()? },
            FormName::Streamed => KernelForm::Streamed { few: need(f.few, "few")? },
            FormName::Attention => KernelForm::Attention {
                kernel: AttentionKernel {
                    tile: need(f.tile, "tile")?,
                    pack: need(f.pack, "pack")?,
                    split: need(f.split, "split")?,
                    causal: need(f.causal, "causal")?,
                    converts: need(f.converts, "converts")?,
                },
            },
            FormName::Stream => KernelForm::Stream,
            FormName::Collective => KernelForm::Collective,
            FormName::CustomAllReduce => KernelForm::CustomAllReduce,
            FormName::LowLatency => KernelForm::LowLatency,
            FormName::Normal => KernelForm::Normal { units: need(f.units, "units")? },
            FormName::FusedExchange => KernelForm::FusedExchange,
        };
        Ok(Self {
            op: f.op,
            form,
            groups: f.groups,
            widths: f.widths,
            family: f.family,
            precision: f.precision,
            versions: f.versions,
            notes: f.notes,
            data: f.data,
            constants: f.constants,
            folds: f.folds,
            cell: f.cell,
            beyond: f.beyond,
        })
    }
}

impl From<Kernel> for File {
    fn from(k: Kernel) -> Self {
        let file = Self {
            op: k.op,
            form: k.form.name(),
            family: k.family,
            precision: k.precision,
            tiling: None,
            tuned: Vec::new(),
            warm: None,
            least_tile: None,
            split_k: None,
            tiles: None,
            rounds: None,
            few: None,
            tile: None,
            pack: None,
            split: None,
            causal: None,
            converts: None,
            groups: k.groups,
            widths: k.widths,
            units: None,
            versions: k.versions,
            notes: k.notes,
            folds: k.folds,
            data: k.data,
            constants: k.constants,
            cell: k.cell,
            beyond: k.beyond,
        };
        match k.form {
            KernelForm::FusedMoe { tiling, tuned } => Self { tiling: Some(tiling), tuned, ..file },
            KernelForm::Gemm { warm, kernel: GemmKernel { tiling, least_tile, split_k, rounds } } => Self {
                warm: Some(warm),
                least_tile: Some(least_tile),
                split_k: Some(split_k),
                tiles: Some(tiling).filter(|t| *t != GemmTiling::Best),
                rounds: Some(rounds).filter(|r| *r),
                ..file
            },
            KernelForm::GemmPair { kernel: GemmKernel { least_tile, split_k, .. } } => {
                Self { least_tile: Some(least_tile), split_k: Some(split_k), ..file }
            }
            KernelForm::Streamed { few } => Self { few: Some(few), ..file },
            KernelForm::Attention { kernel: AttentionKernel { tile, pack, split, causal, converts } } => Self {
                tile: Some(tile),
                pack: Some(pack),
                split: Some(split),
                causal: Some(causal),
                converts: Some(converts),
                ..file
            },
            KernelForm::Normal { units } => Self { units: Some(units), ..file },
            KernelForm::Stream
            | KernelForm::Collective
            | KernelForm::CustomAllReduce
            | KernelForm::LowLatency
            | KernelForm::FusedExchange => file,
        }
    }
}

/// A kernel's data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The files.
    pub file: Vec<DataFile>,
    /// Its origin and licence, if told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Rows fitted.
    pub rows: usize,
    /// Shapes fitted.
    pub shapes: usize,
    /// Least and most of what makes a row large (new tokens, bytes of a collective, devices of a fused exchange): uses
    /// outside are extrapolations.
    pub sizes: [f64; 2],
}

/// A file of measurements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFile {
    /// Its name.
    pub name: String,
    /// Its hash (BLAKE3, the first 16 hex digits).
    pub hash: String,
}

impl Data {
    /// One hash for all: the file's own, or that of the files' hashes.
    pub fn hash(&self) -> String {
        match &self.file[..] {
            [one] => one.hash.clone(),
            all => content_hash(all.iter().map(|f| f.hash.as_str()).collect::<Vec<_>>().join("\n").as_bytes()),
        }
    }
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
    pub fn all(constants: &[Constant], solution: &FitSolution) -> BTreeMap<String, Self> {
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
    /// The form, with its choices.
    pub fn form(&self) -> &KernelForm {
        &self.form
    }
    /// Whether a kernel of attention is for so many query heads and KV heads of a device, with keys and values of these
    /// widths.
    pub fn fits_heads(&self, [query, kv]: [u64; 2], widths: [u64; 2]) -> bool {
        let group = query / kv.max(1);
        let fits = self.groups.is_empty() || self.groups.iter().any(|[least, most]| (*least..=*most).contains(&group));
        fits && self.widths.is_none_or(|w| w == widths)
    }
    /// The constants in the form's order.
    ///
    /// # Errors
    /// One is lacking, unknown, or out of bounds.
    pub fn values(&self) -> Result<Vec<f64>> {
        let known = self.form.constants();
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

impl KernelForm {
    /// The form's constants, in its order.
    pub fn constants(&self) -> Vec<Constant> {
        match self {
            Self::FusedMoe { tiling, .. } => FusedMoeForm { tiling: *tiling }.constants(),
            Self::Gemm { warm, kernel } => GemmForm { warm: *warm, kernel: *kernel }.constants(),
            Self::GemmPair { kernel } => GemmPairForm { kernel: *kernel }.constants(),
            Self::Streamed { .. } => StreamedForm.constants(),
            Self::Attention { .. } => AttentionForm.constants(),
            Self::Stream => StreamForm.constants(),
            Self::Collective => CollectiveForm.constants(),
            Self::CustomAllReduce => CustomAllReduceForm.constants(),
            Self::LowLatency => LowLatencyForm.constants(),
            Self::Normal { .. } => NormalForm.constants(),
            Self::FusedExchange => FusedExchangeForm.constants(),
        }
    }
}
