//! All-reduces that inference engines run in place of NCCL's where messages are small, with aiconfigurator's columns.

use super::nccl::LinksOf;
use super::{Group, Label, MeasurementTable, group};
use crate::form::{CollectiveOp, CollectiveRow};
use moesim_core::Result;

/// Bytes below which engines run kernels of their own; from there on they and these tables have NCCL's.
const MOST_BYTES: f64 = 8.0 * 1024.0 * 1024.0;
/// How many times the slower of its neighbours in size a disturbed row takes.
const SPIKE: f64 = 1.3;

/// Reads a file into groups by kernel family; the file does not name its `device`. `message_size` counts elements. Launched by
/// the host instead of in a CUDA graph is a family of its own (`..._eager`). Folds of leave-out and cells are numbers
/// of devices. A row that takes far longer than both of its neighbours in size is left out and named.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number, a type that is not known.
pub fn read(table: &MeasurementTable, device: &str, links: LinksOf) -> Result<Vec<Group<CollectiveRow>>> {
    let c = |name: &str| table.column(name);
    let (family, dtype, version) = (c("kernel_source")?, c("allreduce_dtype")?, table.find("version"));
    let (count, elements, latency) = (c("num_gpus")?, c("message_size")?, c("latency_ms")?);
    let peaks = links(device)?;
    let (mut out, mut beyond) = (Vec::new(), 0);
    for row in 0..table.rows() {
        let width = match table.text(row, dtype) {
            "half" | "float16" | "bfloat16" => 2.0,
            "float" | "float32" => 4.0,
            other => {
                let problem = format!("{other:?} is not a type that is known");
                return Err(table.wrong(row, dtype, problem).cure("write bfloat16, float16 or float32"));
            }
        };
        let devices = table.whole(row, count, [2, 1 << 12])? as f64;
        let bytes = table.whole(row, elements, [1, 1 << 40])? as f64 * width;
        let seconds = table.number(row, latency, [1e-6, 1e7])? * 1e-3;
        if bytes >= MOST_BYTES {
            beyond += 1;
            continue;
        }
        let cell = format!("{devices} devices");
        let version = version.map_or("", |v| table.text(row, v));
        let label = Label { shape: &cell, cell: &cell, size: bytes, version };
        let collective = CollectiveRow { op: CollectiveOp::AllReduce, devices, bytes, in_switch: false, peaks };
        group(&mut out, device, table.text(row, family), "any").push(collective, seconds, &label);
    }
    if beyond > 0 {
        let note = format!("{beyond} rows of the table from 8 MiB on left out: there engines run NCCL");
        out.iter_mut().for_each(|g: &mut Group<CollectiveRow>| g.notes.push(note.clone()));
    }
    out.iter_mut().for_each(drop_spikes);
    Ok(out)
}

/// Leaves out, by name, every row that takes [`SPIKE`] times the slower of its neighbours in size among as many
/// devices, or more. The smallest size has one neighbour; the largest stays.
fn drop_spikes(group: &mut Group<CollectiveRow>) {
    let mut order: Vec<usize> = (0..group.rows.len()).collect();
    order.sort_by(|a, b| {
        let key = |i: usize| (group.rows[i].devices, group.size[i]);
        key(*a).partial_cmp(&key(*b)).unwrap_or(std::cmp::Ordering::Equal)
    });
    let devices = |i: usize| group.rows[i].devices;
    let spike = |at: &usize| {
        let near = |n: Option<usize>| n.and_then(|n| order.get(n)).filter(|n| devices(**n) == devices(order[*at]));
        let time = |i: &usize| group.seconds[*i];
        let (before, after) = (near(at.checked_sub(1)).map_or(0.0, time), near(Some(at + 1)).map(time));
        after.is_some_and(|after| group.seconds[order[*at]] >= SPIKE * after.max(before))
    };
    let spikes: Vec<usize> = (0..order.len()).filter(spike).map(|at| order[at]).collect();
    let name =
        |i: &usize| format!("{} bytes on {} devices, {:.1} us", group.size[*i], devices(*i), group.seconds[*i] * 1e6);
    let names: Vec<String> = spikes.iter().map(name).collect();
    if !names.is_empty() {
        group.notes.push(format!("left out as disturbed, {SPIKE} times both neighbours or more: {}", names.join("; ")));
        group.retain(|i| !spikes.contains(&i));
    }
}
