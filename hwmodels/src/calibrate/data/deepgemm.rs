//! GEMMs as rates: the table of DeepGEMM's first README, and what is written like it.

use super::moe::{PeaksOf, widths};
use super::{Group, Label, MeasurementTable, group};
use crate::form::{GemmLoad, GemmRow};
use moesim_core::Result;

/// Reads a file into groups by precision; the file does not name its `device`. `m_per_group` rows in each of `groups`;
/// elements leave in 16 bits. Folds of leave-out are (n, k); cells are kinds.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, a kind or precision that is not known.
pub fn read(table: &MeasurementTable, device: &str, peaks: PeaksOf) -> Result<Vec<Group<GemmRow>>> {
    const KINDS: [&str; 3] = ["dense", "grouped_contiguous", "grouped_masked"];
    let [kind, groups, m, n, k, tflops] = {
        let c = ["kind", "groups", "m_per_group", "n", "k", "tflops"];
        let mut at = [0; 6];
        for (at, name) in at.iter_mut().zip(c) {
            *at = table.column(name)?;
        }
        at
    };
    let precision = table.find("precision");
    let mut out: Vec<Group<GemmRow>> = Vec::new();
    for row in 0..table.rows() {
        let name = precision.map_or("fp8", |p| table.text(row, p));
        let [weight, activation] = widths(name).ok_or_else(|| {
            let problem = format!("{name:?} is not a precision that is known");
            table
                .wrong(row, precision.unwrap_or_default(), problem)
                .cure("write fp8, int8, bf16 or another that moesim knows")
        })?;
        let cell = table.text(row, kind);
        if !KINDS.contains(&cell) {
            let problem = format!("{cell:?} is not a kind of GEMM that is known");
            return Err(table.wrong(row, kind, problem).cure("write dense, grouped_contiguous or grouped_masked"));
        }
        let groups = table.whole(row, groups, [1, 1 << 14])? as f64;
        let m = table.whole(row, m, [1, 1 << 24])? as f64;
        let [n, k] = [table.whole(row, n, [1, 1 << 24])? as f64, table.whole(row, k, [1, 1 << 24])? as f64];
        let rate = table.number(row, tflops, [1e-6, 1e6])? * 1e12;
        let load = GemmLoad::even(groups, m);
        let element_bytes = [activation, weight, 2.0];
        let gemm = GemmRow { load, n, k, element_bytes, peaks: peaks(device, name)? };
        let label = Label { shape: &format!("n {n} k {k}"), cell, size: m, version: "" };
        group(&mut out, device, "gemm", name).push(gemm, gemm.flop() / rate, &label);
    }
    Ok(out)
}
