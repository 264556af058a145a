//! Tables that `moesim calibrate measure` writes: layers of experts, dense products and norms of one device.

use super::moe::{PeaksOf, widths};
use super::{Group, Label, Table, group};
use crate::form::{GemmKernel, GemmLoad, GemmRow, MoeLoad, MoeRow, MoeShape, StreamRow};
use crate::measure::table::counts;
use moesim_core::{Diag, Result};

/// What a table holds, by operation.
#[derive(Default)]
pub struct Own {
    /// Layers of experts.
    pub experts: Vec<Group<MoeRow>>,
    /// Dense products.
    pub gemms: Vec<Group<GemmRow>>,
    /// Norms.
    pub norms: Vec<Group<StreamRow>>,
}

/// What norms are called in every profile.
const NORM: &str = "layernorm";
/// What is measured and belongs into a hardware file, not into a profile.
const LIMITS: [&str; 9] = [
    "launch",
    "read",
    "write",
    "copy",
    "library-gemm",
    "to-device-pinned",
    "to-device-pageable",
    "from-device-pinned",
    "from-device-pageable",
];

/// Reads a table. Folds of leave-out are a model's shape, (n, k), and the width of a norm.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, a kind of work that is not known, or nothing to fit.
pub fn read(table: &Table, peaks: PeaksOf) -> Result<Own> {
    let c = |name: &str| table.column(name);
    let (what, device, family, precision) = (c("what")?, c("device")?, c("kernel_source")?, c("precision")?);
    let (latency, version) = (c("latency_us")?, c("version")?);
    let mut out = Own::default();
    for row in 0..table.rows() {
        let text = |column: usize| table.text(row, column);
        let kind = text(what);
        if LIMITS.contains(&kind) {
            continue;
        }
        let cure = |d: Diag, cure: &str| d.cure(cure.to_string());
        if !["experts", "gemm", "norm"].contains(&kind) {
            let problem = format!("{kind:?} is not a kind of work that is known");
            let known = format!("write experts, gemm, norm, or one of {}", LIMITS.join(", "));
            return Err(cure(table.wrong(row, what, problem), &known));
        }
        let seconds = table.micros(row, latency)?;
        let name = text(precision);
        let [weight_bytes, activation_bytes] = widths(name).ok_or_else(|| {
            let problem = format!("{name:?} is not a precision that is known");
            cure(table.wrong(row, precision, problem), "write bfloat16, float32, int8_wo or fp8_wo")
        })?;
        let peaks = peaks(text(device), name)?;
        let whole = |name: &str, most: u64| Ok::<_, Diag>(table.whole(row, c(name)?, [1, most])? as f64);
        match kind {
            "experts" => {
                let given = c("expert_tokens")?;
                let wrong = || {
                    let problem = format!("{:?} are not tokens of experts", text(given));
                    cure(
                        table.wrong(row, given, problem),
                        "write runs, as in 4x16 2x1: four experts with 16 tokens, two with 1",
                    )
                };
                let loads = counts(text(given)).filter(|l| l.iter().any(|n| *n > 0)).ok_or_else(wrong)?;
                let (tokens, k) = (whole("tokens", 1 << 22)?, whole("topk", 256)?);
                if loads.iter().any(|n| f64::from(*n) > tokens) || loads.len() as f64 != whole("num_experts", 1 << 14)?
                {
                    return Err(wrong());
                }
                let load = MoeLoad { tokens, ..MoeLoad::of(loads) };
                let (hidden, intermediate) = (whole("hidden_size", 1 << 20)?, whole("inter_size", 1 << 20)?);
                let experts = whole("num_experts", 1 << 14)?;
                let shape = MoeShape {
                    hidden,
                    intermediate,
                    first: 2.0,
                    experts,
                    weight_bytes,
                    activation_bytes,
                    tuned: false,
                };
                let name_ = format!("hidden {hidden} intermediate {intermediate} experts {experts} top-{k}");
                let label =
                    Label { shape: &name_, cell: text(c("distribution")?), size: tokens, version: text(version) };
                group(&mut out.experts, text(device), text(family), name).push(
                    MoeRow { load, shape, peaks },
                    seconds,
                    &label,
                );
            }
            "gemm" => {
                let [m, n, k] = [whole("m", 1 << 24)?, whole("n", 1 << 24)?, whole("k", 1 << 24)?];
                let row = GemmRow {
                    load: GemmLoad::even(1.0, m),
                    n,
                    k,
                    element_bytes: [activation_bytes, weight_bytes, 2.0],
                    kernel: GemmKernel::PROCESSORS,
                    peaks,
                };
                let label = Label { shape: &format!("n {n} k {k}"), cell: "dense", size: m, version: text(version) };
                group(&mut out.gemms, text(device), text(family), name).push(row, seconds, &label);
            }
            _ => {
                let (tokens, hidden) = (whole("tokens", 1 << 24)?, whole("hidden_size", 1 << 20)?);
                let row = StreamRow { bytes: 2.0 * activation_bytes * tokens * hidden, peaks };
                let label =
                    Label { shape: &format!("width {hidden}"), cell: "norm", size: tokens, version: text(version) };
                group(&mut out.norms, text(device), NORM, name).push(row, seconds, &label);
            }
        }
    }
    if out.experts.is_empty() && out.gemms.is_empty() && out.norms.is_empty() {
        return Err(Diag::input("has limits of the device only, nothing to fit")
            .file(table.path())
            .cure("go on measuring: --resume, with a longer --time-budget"));
    }
    Ok(out)
}
