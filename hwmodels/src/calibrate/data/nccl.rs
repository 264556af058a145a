//! NCCL's collectives with aiconfigurator's columns.

use super::{Group, Label, MeasurementTable, group};
use crate::form::{CollectiveOp, CollectiveRow, LinkPeaks};
use moesim_core::Result;

/// Peaks of a device's links: as the file names it.
pub type LinksOf<'a> = &'a dyn Fn(&str) -> Result<LinkPeaks>;

/// Reads a file into groups by device and operation; `message_size` counts elements of the whole buffer and latency is
/// in milliseconds. The family is the operation (`all_gather`, ...), the precision `any`: bytes alone count, but for
/// sums in the switch, which floats alone take. Folds of leave-out and cells are numbers of devices; sizes are bytes.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, an operation or type that is not known.
pub fn read(table: &MeasurementTable, links: LinksOf) -> Result<Vec<Group<CollectiveRow>>> {
    let c = |name: &str| table.column(name);
    let (device, op, dtype) = (c("device")?, c("op_name")?, c("nccl_dtype")?);
    let (count, elements, latency) = (c("num_gpus")?, c("message_size")?, c("latency")?);
    let version = table.find("version");
    let mut out = Vec::new();
    for row in 0..table.rows() {
        let text = |column| table.text(row, column);
        let family = text(op);
        let known = match family {
            "all_gather" => CollectiveOp::AllGather,
            "all_reduce" => CollectiveOp::AllReduce,
            "reduce_scatter" => CollectiveOp::ReduceScatter,
            "alltoall" => CollectiveOp::AllToAll,
            other => {
                let problem = format!("{other:?} is not a collective that is known");
                return Err(table
                    .wrong(row, op, problem)
                    .cure("write all_gather, all_reduce, reduce_scatter or alltoall"));
            }
        };
        let (width, in_switch) = match text(dtype) {
            "half" | "bfloat16" => (2.0, true),
            "float" => (4.0, true),
            "int8" => (1.0, false),
            other => {
                let problem = format!("{other:?} is not a type that is known");
                return Err(table.wrong(row, dtype, problem).cure("write half, bfloat16, float or int8"));
            }
        };
        let devices = table.whole(row, count, [2, 1 << 12])? as f64;
        let bytes = table.whole(row, elements, [1, 1 << 40])? as f64 * width;
        let seconds = table.number(row, latency, [1e-6, 1e7])? * 1e-3;
        let peaks = links(text(device))?;
        let cell = format!("{devices} devices");
        let label =
            Label { shape: &cell, cell: &cell, size: bytes, version: version.map_or("", |v| table.text(row, v)) };
        let collective = CollectiveRow { op: known, devices, bytes, in_switch, peaks };
        group(&mut out, text(device), family, "any").push(collective, seconds, &label);
    }
    Ok(out)
}
