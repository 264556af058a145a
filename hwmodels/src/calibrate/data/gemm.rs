//! Dense GEMMs with aiconfigurator's columns.

use super::moe::{PeaksOf, widths};
use super::{Group, Label, MeasurementTable, group};
use crate::form::{GemmKernel, GemmLoad, GemmRow, GemmTiling};
use moesim_core::Result;

/// Reads a file into groups by kernel family and precision; the file does not name its `device`. Folds of leave-out are
/// (n, k), cells numbers of rows.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, a precision that is not known.
pub fn read(table: &MeasurementTable, device: &str, peaks: PeaksOf) -> Result<Vec<Group<GemmRow>>> {
    let c = |name: &str| table.column(name);
    let (family, dtype, version) = (c("kernel_source")?, c("gemm_dtype")?, table.find("version"));
    let ([m, n, k], latency) = ([c("m")?, c("n")?, c("k")?], c("latency_ms")?);
    let mut out = Vec::new();
    for row in 0..table.rows() {
        let precision = table.text(row, dtype);
        let [weight, activation] = widths(precision).ok_or_else(|| {
            let problem = format!("{precision:?} is not a precision that is known");
            table.wrong(row, dtype, problem).cure("write bfloat16, fp8, fp8_block or nvfp4")
        })?;
        let whole = |column| table.whole(row, column, [1, 1 << 24]).map(|v| v as f64);
        let (m, n, k) = (whole(m)?, whole(n)?, whole(k)?);
        let seconds = table.number(row, latency, [1e-6, 1e7])? * 1e-3;
        let name = table.text(row, family);
        let product = GemmRow {
            load: GemmLoad::even(1.0, m),
            n,
            k,
            element_bytes: [activation, weight, 2.0],
            peaks: peaks(device, precision)?,
        };
        let cell = if m <= 64.0 {
            "to 64 rows"
        } else if m <= 512.0 {
            "to 512 rows"
        } else {
            "more rows"
        };
        let shape = format!("n {n} k {k}");
        let label = Label { shape: &shape, cell, size: m, version: version.map_or("", |v| table.text(row, v)) };
        group(&mut out, device, name, precision).push(product, seconds, &label);
    }
    Ok(out)
}

/// What a family of a device can choose in a precision: facts of the public kernels. cuBLAS has any tile and splits K.
/// DeepGEMM, which TensorRT-LLM too runs for block scales, has tiles of 64 rows and more and never splits; so have
/// CUTLASS and the CuTe DSL, by a rule of rows on Hopper. On Blackwell all but cuBLAS have 128 rows and more, as its
/// matrix units do. Kernels with narrower activations than 16 bits round them themselves.
pub fn kernel([device, family, precision]: [&str; 3]) -> GemmKernel {
    let device = device.to_uppercase();
    let blackwell = device.contains("B200") || device.contains("B300");
    let rounds = widths(precision).is_some_and(|w| w[1] < 2.0);
    let persistent = family.contains("deepgemm") || precision == "fp8_block";
    let cutlass = ["Cutlass", "scaled_mm", "cutedsl", "CuteDsl"].iter().any(|f| family.contains(f));
    let kernel = match family {
        _ if blackwell && (persistent || cutlass) => GemmKernel { least_tile: 128.0, ..GemmKernel::WIDE },
        "torch_flow" if blackwell && precision == "nvfp4" => {
            GemmKernel { tiling: GemmTiling::Single, least_tile: 128.0, ..GemmKernel::WIDE }
        }
        _ if persistent => GemmKernel::WIDE,
        _ if cutlass => GemmKernel { tiling: GemmTiling::Rows, ..GemmKernel::WIDE },
        _ => GemmKernel::CUBLAS,
    };
    GemmKernel { rounds, ..kernel }
}
