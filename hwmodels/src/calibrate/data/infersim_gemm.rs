//! InferSim's tables of FP8 GEMMs, dense and grouped.

use super::moe::PeaksOf;
use super::{Group, Label, MeasurementTable, group};
use crate::form::{GemmLoad, GemmRow};
use moesim_core::Result;

/// What the mfu of H800's tables is a fraction of, InferSim's own figure; of other devices it is their peak.
const H800_FLOP_PER_S: f64 = 1979e12;
const PRECISION: &str = "fp8";
const ELEMENT_BYTES: [f64; 3] = [1.0, 1.0, 2.0];

/// Reads a file, dense or grouped by its columns; the file does not name its `device`. Folds of leave-out are (n, k).
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, a grouped GEMM without rows.
pub fn read(table: &MeasurementTable, device: &str, peaks: PeaksOf) -> Result<Vec<Group<GemmRow>>> {
    if table.find("num_local_experts").is_some() { grouped(table, device, peaks) } else { dense(table, device, peaks) }
}

fn push(out: &mut Vec<Group<GemmRow>>, device: &str, family: &str, row: GemmRow, seconds: f64, cell: &str) {
    let size = row.load.rows / row.load.groups;
    let label = Label { shape: &format!("n {} k {}", row.n, row.k), cell, size, version: "" };
    group(out, device, family, PRECISION).push(row, seconds, &label);
}

fn dense(table: &MeasurementTable, device: &str, peaks: PeaksOf) -> Result<Vec<Group<GemmRow>>> {
    let (m, k, n) = (table.column("m")?, table.column("k")?, table.column("n")?);
    let (latency, peaks) = (table.column("latency_us")?, peaks(device, PRECISION)?);
    let mut out = Vec::new();
    for row in 0..table.rows() {
        let whole = |column| table.whole(row, column, [1, 1 << 24]).map(|v| v as f64);
        let (m, n, k) = (whole(m)?, whole(n)?, whole(k)?);
        let load = GemmLoad::even(1.0, m);
        let gemm = GemmRow { load, n, k, element_bytes: ELEMENT_BYTES, peaks };
        let cell = if m <= 64.0 {
            "to 64 rows"
        } else if m <= 512.0 {
            "to 512 rows"
        } else {
            "more rows"
        };
        push(&mut out, device, "gemm_dense", gemm, table.micros(row, latency)?, cell);
    }
    Ok(out)
}

/// Two GEMMs a row: up and gate as one, and down.
///
/// `tokens_per_expert` is nominal: the benchmark draws the rows of a group as whole part of nominal times a number from
/// 0.7 to 1.3, which the tokens that its mfu implies say too (a nominal 1 leaves half of the experts without rows). The
/// rows here are the quantiles of that draw: of the nominal number in decode with eight groups or more, else, where
/// chance weighs more, of the tokens that the mfu implies, which is a fraction of the device's peak.
fn grouped(table: &MeasurementTable, device: &str, peaks: PeaksOf) -> Result<Vec<Group<GemmRow>>> {
    let c = |name: &str| table.column(name);
    let (experts, hidden, width) = (c("num_local_experts")?, c("hidden_size")?, c("intermediate_size")?);
    let (nominal, decode) = (c("tokens_per_expert")?, table.find("batch_size_per_gpu").is_some());
    if !decode {
        c("seq_len_per_gpu")?;
    }
    let (up, down) = ([c("up_proj_us")?, c("up_mfu")?], [c("down_proj_us")?, c("down_mfu")?]);
    let peaks = peaks(device, PRECISION)?;
    let peak = if device.to_lowercase().contains("h800") { H800_FLOP_PER_S } else { peaks.flop_per_s };
    let mut out = Vec::new();
    for row in 0..table.rows() {
        let whole = |column, most| table.whole(row, column, [1, most]).map(|v| v as f64);
        let (h, i) = (whole(hidden, 1 << 20)?, whole(width, 1 << 20)?);
        let (experts, nominal) = (whole(experts, 1 << 14)?, whole(nominal, 1 << 20)?);
        for ([us, mfu], n, k) in [(up, 2.0 * i, h), (down, h, i)] {
            let seconds = table.micros(row, us)?;
            let tokens = table.number(row, mfu, [1e-9, 1.0])? * peak * seconds / (2.0 * k * n);
            let counts = (0..experts as u32).map(|e| {
                let part = 0.7 + 0.6 * (f64::from(e) + 0.5) / experts;
                let rows = if decode && experts >= 8.0 {
                    (nominal * part).floor()
                } else {
                    (tokens / experts * part).round_ties_even()
                };
                rows as u32
            });
            let load = GemmLoad::of(counts);
            if load.rows == 0.0 {
                let problem = format!("{experts} experts share {tokens:.2} tokens");
                return Err(table.wrong(row, mfu, problem).cure("leave out rows in which no expert computes"));
            }
            let gemm = GemmRow { load, n, k, element_bytes: ELEMENT_BYTES, peaks };
            push(&mut out, device, "gemm_grouped", gemm, seconds, if decode { "decode" } else { "prefill" });
        }
    }
    out.iter_mut().for_each(|g: &mut Group<GemmRow>| {
        g.notes.push("rows of a group: quantiles of 0.7 to 1.3 times the mean, as the benchmark draws them".into());
    });
    Ok(out)
}
