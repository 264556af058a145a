//! CANN's fused dispatch and combine, as published tables give them.

use super::nccl::LinksOf;
use super::{Group, Label, MeasurementTable, group};
use crate::form::FusedExchangeRow;
use moesim_core::Result;

/// Reads a file into groups by device and operation (`fused_dispatch`, `fused_combine`). The link's rate is that which
/// a device writes to others at. Folds of leave-out are numbers of devices; sizes too.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, an operation that is not known.
pub fn read(table: &MeasurementTable, links: LinksOf) -> Result<Vec<Group<FusedExchangeRow>>> {
    let c = |name: &str| table.column(name);
    let (device, op, count) = (c("device")?, c("op_name")?, c("num_devices")?);
    let (tokens, top_k, message, latency) = (c("num_token")?, c("num_topk")?, c("message_bytes")?, c("latency_us")?);
    let mut out = Vec::new();
    for row in 0..table.rows() {
        let family = match table.text(row, op) {
            "dispatch" => "fused_dispatch",
            "combine" => "fused_combine",
            other => {
                let problem = format!("{other:?} is not an operation that is known");
                return Err(table.wrong(row, op, problem).cure("write dispatch or combine"));
            }
        };
        let whole = |column, low, most| table.whole(row, column, [low, most]).map(|v| v as f64);
        let devices = whole(count, 2, 1 << 14)?;
        let exchange = FusedExchangeRow {
            devices,
            messages: whole(tokens, 1, 1 << 24)? * whole(top_k, 1, 256)?,
            message_bytes: whole(message, 1, 1 << 24)?,
            peaks: links(table.text(row, device))?,
        };
        let shape = format!("{devices} devices");
        let label = Label { shape: &shape, cell: "all", size: devices, version: "" };
        group(&mut out, table.text(row, device), family, "int8").push(exchange, table.micros(row, latency)?, &label);
    }
    Ok(out)
}
