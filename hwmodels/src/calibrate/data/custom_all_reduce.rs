//! All-reduces that inference engines run in place of NCCL's where messages are small, with aiconfigurator's columns.

use super::nccl::LinksOf;
use super::{Group, Label, MeasurementTable, group};
use crate::form::{CollectiveOp, CollectiveRow};
use moesim_core::Result;

/// Bytes below which engines run kernels of their own: the default of `max_size` in vLLM's `CustomAllreduce`, which
/// takes less than that. From there on engines run NCCL.
const MOST_BYTES: f64 = 8.0 * 1024.0 * 1024.0;
/// How many times the slower of its neighbours in size a disturbed row takes, or more: a choice, not a figure of the
/// tables.
const SPIKE: f64 = 1.3;

/// Reads a file into groups by kernel family; the file does not name its `device`. `message_size` counts elements.
/// Launched by the host instead of in a CUDA graph is a family of its own (`..._eager`). Folds of leave-out and cells
/// are numbers of devices. A row that takes far longer than both of its neighbours in size is left out and named.
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
/// devices, or more; of several rows of a neighbour's size the slowest counts. The smallest size has one neighbour; the
/// largest stays.
fn drop_spikes(group: &mut Group<CollectiveRow>) {
    let devices = |i: usize| group.rows[i].devices;
    let by_size =
        |a: &usize, b: &usize| devices(*a).total_cmp(&devices(*b)).then(group.size[*a].total_cmp(&group.size[*b]));
    let mut order: Vec<usize> = (0..group.rows.len()).collect();
    order.sort_by(by_size);
    let sizes: Vec<&[usize]> = order.chunk_by(|a, b| by_size(a, b).is_eq()).collect();
    let mut spikes: Vec<usize> = Vec::new();
    for (at, own) in sizes.iter().enumerate() {
        let near = |n: Option<usize>| n.and_then(|n| sizes.get(n)).filter(|n| devices(n[0]) == devices(own[0]));
        let slowest = |near: &&[usize]| near.iter().map(|i| group.seconds[*i]).fold(0.0, f64::max);
        let (before, after) = (near(at.checked_sub(1)).map_or(0.0, slowest), near(Some(at + 1)).map(slowest));
        let Some(after) = after else { continue };
        spikes.extend(own.iter().filter(|i| group.seconds[**i] >= SPIKE * after.max(before)));
    }
    let name =
        |i: &usize| format!("{} bytes on {} devices, {:.1} us", group.size[*i], devices(*i), group.seconds[*i] * 1e6);
    let names: Vec<String> = spikes.iter().map(name).collect();
    if !names.is_empty() {
        group.notes.push(format!("left out as disturbed, {SPIKE} times both neighbours or more: {}", names.join("; ")));
        group.retain(|i| !spikes.contains(&i));
    }
}
