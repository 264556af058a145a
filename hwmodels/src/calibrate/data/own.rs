//! Tables that `moesim calibrate measure` writes: layers of experts, dense products and norms of one device.

use super::moe::{PeaksOf, widths};
use super::{Group, Label, MeasurementTable, group};
use crate::form::{GemmLoad, GemmRow, MoeLoad, MoeRow, MoeShape, StreamRow, StreamedLoad, StreamedRow};
use crate::kernel::cpu;
use crate::measure::sample::QUIET;
use crate::measure::table::counts;
use moesim_core::{Diag, Result};

/// What a table holds, by operation.
#[derive(Default)]
pub struct Own {
    /// Layers of experts.
    pub experts: Vec<Group<MoeRow>>,
    /// Dense products.
    pub gemms: Vec<Group<GemmRow>>,
    /// The same layers, where a processor's kernel ran them.
    pub streamed_experts: Vec<Group<StreamedRow>>,
    /// The same products.
    pub streamed_gemms: Vec<Group<StreamedRow>>,
    /// Norms.
    pub norms: Vec<Group<StreamRow>>,
}

/// The kernel of processors, which has a form of its own, and the device that is simulated, whose kernel is such a one.
const PROCESSORS: [&str; 2] = ["moesim_cpu", "moesim_mock"];
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
pub fn read(table: &MeasurementTable, peaks: PeaksOf) -> Result<Own> {
    let c = |name: &str| table.column(name);
    let (what, device, family, precision) = (c("what")?, c("device")?, c("kernel_source")?, c("precision")?);
    let (latency, version) = (c("latency_us")?, c("version")?);
    let others = table.find("others");
    let quiet = |row: usize| !others.is_some_and(|o| table.number(row, o, [0.0, 1.0]).is_ok_and(|o| o > QUIET));
    let disturbed = (0..table.rows()).filter(|r| !quiet(*r)).count();
    // On a machine that was never quiet there is nothing better.
    let keep = 2 * disturbed > table.rows();
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
        if !keep && !quiet(row) {
            continue;
        }
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
                let (hidden, intermediate) = (whole("hidden_size", 1 << 20)?, whole("inter_size", 1 << 20)?);
                let experts = whole("num_experts", 1 << 14)?;
                let name_ = format!("hidden {hidden} intermediate {intermediate} experts {experts} top-{k}");
                let label =
                    Label { shape: &name_, cell: text(c("distribution")?), size: tokens, version: text(version) };
                if PROCESSORS.contains(&text(family)) {
                    let load = StreamedLoad::of(loads.iter().copied(), cpu::few(weight_bytes as usize) as u32);
                    let widths = [hidden, intermediate, 2.0, experts];
                    let row = StreamedRow::experts(load, tokens, widths, weight_bytes, peaks);
                    group(&mut out.streamed_experts, text(device), text(family), name).push(row, seconds, &label);
                }
                let load = MoeLoad { tokens, ..MoeLoad::of(loads) };
                let tuned = false;
                let shape =
                    MoeShape { hidden, intermediate, first: 2.0, experts, weight_bytes, activation_bytes, tuned };
                group(&mut out.experts, text(device), text(family), name).push(
                    MoeRow { load, shape, peaks },
                    seconds,
                    &label,
                );
            }
            "gemm" => {
                let [m, n, k] = [whole("m", 1 << 24)?, whole("n", 1 << 24)?, whole("k", 1 << 24)?];
                let label = Label { shape: &format!("n {n} k {k}"), cell: "dense", size: m, version: text(version) };
                if PROCESSORS.contains(&text(family)) {
                    let few = cpu::few(weight_bytes as usize) as u32;
                    let row = StreamedRow::dense(m, [n, k], weight_bytes, few, peaks);
                    group(&mut out.streamed_gemms, text(device), text(family), name).push(row, seconds, &label);
                }
                let row = GemmRow {
                    load: GemmLoad::even(1.0, m),
                    n,
                    k,
                    element_bytes: [activation_bytes, weight_bytes, 2.0],
                    peaks,
                };
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
    if disturbed > 0 {
        let what = if keep { "and are kept, as most are: errors have it in them" } else { "and left out" };
        let note = format!("{disturbed} of {} rows of the table were disturbed by others {what}", table.rows());
        out.streamed_experts.iter_mut().for_each(|g| g.notes.push(note.clone()));
        out.experts.iter_mut().for_each(|g| g.notes.push(note.clone()));
    }
    out.streamed_experts.iter_mut().for_each(Group::note_spread);
    out.streamed_gemms.iter_mut().for_each(Group::note_spread);
    out.experts.iter_mut().for_each(Group::note_spread);
    out.gemms.iter_mut().for_each(Group::note_spread);
    out.norms.iter_mut().for_each(Group::note_spread);
    if out.experts.is_empty() && out.gemms.is_empty() && out.norms.is_empty() {
        return Err(Diag::input("has no undisturbed times of experts, products or norms")
            .file(table.path())
            .cure("go on measuring: --resume, with a longer --time-budget"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::Peaks;

    const HEAD: &str = "what,device,kernel_source,version,precision,tokens,hidden_size,inter_size,topk,num_experts,distribution,\
                        expert_tokens,m,n,k,latency_us,others";
    const GOOD: &str = "experts,cpu,own,1,bfloat16,8,64,32,2,6,balanced,1x8 4x2 1x0,,,,100,0.02";
    const DISTURBED: &str = "experts,cpu,own,1,bfloat16,8,64,32,2,6,balanced,1x8 4x2 1x0,,,,900,0.5";
    const LAUNCH: &str = "launch,cpu,own,1,,,,,,,,,,,,5,0";

    fn read_rows(rows: &[&str]) -> Result<Own> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.csv");
        std::fs::write(&path, format!("{HEAD}\n{}\n", rows.join("\n"))).unwrap();
        let peaks = Peaks { flop_per_s: 1e11, bytes_per_s: 1e10, units: 2.0, l2_bytes: 1e6 };
        read(&MeasurementTable::read(&path, &[]).unwrap(), &|_: &str, _: &str| Ok(peaks))
    }

    #[test]
    fn what_is_fitted_and_what_was_disturbed() {
        let gemm = "gemm,cpu,own,1,int8_wo,,,,,,,,8,128,64,50,0";
        let norm = "norm,cpu,own,1,bfloat16,8,64,,,,,,,,,7,0";
        let found = read_rows(&[LAUNCH, GOOD, DISTURBED, gemm, norm]).unwrap();
        let experts = &found.experts[0];
        assert_eq!((experts.rows.len(), experts.seconds[0], experts.notes.len()), (1, 100.0 * 1e-6, 1));
        assert!(found.streamed_experts.is_empty() && found.streamed_gemms.is_empty());
        let (load, shape) = (experts.rows[0].load, experts.rows[0].shape);
        assert_eq!((load.tokens, load.rows, load.active, shape.experts), (8.0, 16.0, 5.0, 6.0));
        assert_eq!((found.gemms[0].rows[0].n, found.gemms[0].rows[0].element_bytes), (128.0, [2.0, 1.0, 2.0]));
        assert_eq!((found.norms[0].family.as_str(), found.norms[0].rows[0].bytes), ("layernorm", 2048.0));
        // Where most are disturbed there is nothing better.
        assert_eq!(read_rows(&[GOOD, DISTURBED]).unwrap().experts[0].rows.len(), 1);
        assert_eq!(read_rows(&[DISTURBED]).unwrap().experts[0].rows.len(), 1);
    }

    #[test]
    fn processors_have_their_form_and_the_spread_is_told() {
        let own = GOOD.replace(",own,", ",moesim_cpu,");
        let found =
            read_rows(&[&own, &own.replace(",100,", ",110,"), "gemm,cpu,moesim_cpu,1,float32,,,,,,,,49,8,4,50,0"])
                .unwrap();
        let g = &found.streamed_experts[0];
        assert_eq!(g.rows[0].load, StreamedLoad { groups: [5.0, 0.0], rows: [16.0, 0.0] });
        assert_eq!(g.notes, ["run-to-run spread: mean 10.0 % of 1 rows measured again"]);
        assert_eq!(found.experts[0].rows.len(), 2);
        // 48 rows are few in FP32.
        assert_eq!(found.streamed_gemms[0].rows[0].load.groups, [0.0, 1.0]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (row, part) in [
            (GOOD.replace("1x8", "1x9"), "expert_tokens"),
            (GOOD.replace(",6,", ",7,"), "expert_tokens"),
            (GOOD.replace("1x8 4x2 1x0", "none"), "expert_tokens"),
            (GOOD.replace("bfloat16", "fp7"), "precision"),
            (GOOD.replace("experts", "exports"), "kind of work"),
            (GOOD.replace(",100,", ",-1,"), "latency_us"),
            (LAUNCH.to_string(), "no undisturbed times"),
        ] {
            let e = read_rows(&[&row]).err().unwrap_or_else(|| panic!("{row}")).to_string();
            assert!(e.contains(part), "{row}: {e}");
        }
    }
}
