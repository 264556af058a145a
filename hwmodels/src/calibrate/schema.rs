//! Schemas: which one a table has, and its rows as measurements of kernels.

use super::data::llmservingsim::{self, Served};
use super::data::nccl::LinksOf;
use super::data::{
    Group, MeasurementTable, SCHEMAS, cann, deepep, deepgemm, drop_outliers, gemm_kernel, infersim_attention,
    infersim_gemm, join, llmservingsim_attention, moe, nccl, own, read_attention, read_custom_all_reduce, read_gemm,
    read_mla,
};
use super::device;
use super::measured::{self, Measured};
use super::profile::Op;
use crate::form::{AttentionRow, GemmForm, GemmKernel, StreamedRow};
use crate::kernel::cpu;
use moesim_core::{Diag, Result, diag};

/// What tables do not say.
pub struct Context<'a> {
    /// The device, for tables that do not name it.
    pub device: Option<&'a str>,
    /// Peaks of a device for a precision.
    pub peaks: moe::PeaksOf<'a>,
    /// Peaks of a device's links.
    pub links: LinksOf<'a>,
    /// The model that was served, for tables of a served model's layers; its device is [`Context::device`].
    pub served: Option<Served<'a>>,
}

/// Columns that mark a schema: all of one list.
const MARKS: &[(&str, &[&str])] = &[
    ("measured", &["what", "expert_tokens", "latency_us"]),
    ("fused-moe", &["kernel_source", "moe_dtype", "num_tokens"]),
    ("gemm", &["kind", "m_per_group", "tflops"]),
    ("infersim-gemm", &["num_local_experts", "up_proj_us"]),
    ("infersim-gemm", &["m", "k", "n", "latency_us"]),
    ("llmservingsim-attention", &["prefill_chunk", "n_decode"]),
    ("llmservingsim-moe", &["activated_experts", "time_us"]),
    ("llmservingsim-dense", &["layer", "time_us"]),
    ("attention", &["attn_dtype", "past_tokens", "num_key_value_heads"]),
    ("latent-attention", &["mla_dtype", "num_heads", "phase"]),
    ("dense-gemm", &["gemm_dtype", "m", "n", "k"]),
    ("custom-all-reduce", &["allreduce_dtype", "num_gpus", "message_size"]),
    ("fused-exchange", &["num_devices", "message_bytes"]),
    ("nccl", &["nccl_dtype", "message_size"]),
    ("deepep-low-latency", &["dispatch_avg_t_us", "combine_avg_t_us"]),
    ("deepep-normal", &["dispatch_transmit_us", "combine_transmit_us"]),
];

/// The schema of a table, by its columns, or by its name where that says the kernel.
///
/// # Errors
/// A table like none that is known.
pub fn detect(table: &MeasurementTable) -> Result<&'static str> {
    if infersim_attention::is_named(table.path()) {
        return Ok("infersim-attention");
    }
    let marked = MARKS.iter().find(|(_, columns)| columns.iter().all(|c| table.find(c).is_some()));
    marked.map(|m| m.0).ok_or_else(|| {
        let names: Vec<&str> = SCHEMAS.iter().map(|s| s.0).collect();
        Diag::input("has the columns of no schema that is known")
            .file(table.path())
            .place("line 1")
            .cure(format!("name its schema with --schema ({}) and its columns with --map", names.join(", ")))
    })
}

/// Reads tables of one schema as one: measurements by device, family and precision, in the order of the tables.
///
/// # Errors
/// An unknown schema, something that a table leaves out and the context does too, and all that is wrong with a table.
pub fn read(schema: &str, tables: &[MeasurementTable], x: &Context) -> Result<Vec<Box<dyn Measured>>> {
    fn all<R: Clone>(
        tables: &[MeasurementTable],
        read: impl Fn(&MeasurementTable) -> Result<Vec<Group<R>>>,
    ) -> Result<Vec<Group<R>>> {
        Ok(join(tables.iter().map(read).collect::<Result<Vec<_>>>()?))
    }
    let lacks = |what: &str, flag: &str| {
        Diag::input(format!("does not say {what}"))
            .file(tables.first().map_or("the table".as_ref(), |t| t.path()))
            .cure(format!("name it with {flag}"))
    };
    let device = || x.device.ok_or_else(|| lacks("which device was measured", "--device"));
    let served = || {
        device()?;
        x.served.ok_or_else(|| lacks("which model was served", "--model"))
    };
    let (peaks, links) = (x.peaks, x.links);
    let mut out: Vec<Box<dyn Measured>> = Vec::new();
    match schema {
        "fused-moe" => out.extend(all(tables, |t| moe::read(t, peaks))?.into_iter().map(measured::fused_moe)),
        "measured" => {
            let read = tables.iter().map(|t| own::read(t, peaks)).collect::<Result<Vec<_>>>()?;
            let (mut experts, mut gemms, mut norms) = (Vec::new(), Vec::new(), Vec::new());
            let (mut streamed_experts, mut streamed_gemms) = (Vec::new(), Vec::new());
            for one in read {
                streamed_experts.push(one.streamed_experts);
                streamed_gemms.push(one.streamed_gemms);
                experts.push(one.experts);
                gemms.push(one.gemms);
                norms.push(one.norms);
            }
            let (streamed_experts, streamed_gemms) = (join(streamed_experts), join(streamed_gemms));
            // A processor's kernel has a form of its own, and stands beside kernels of others as they would be fitted.
            let own = |op, streamed: &[Group<StreamedRow>], other: Box<dyn Measured>| {
                let same = |g: &&Group<_>| [&g.device[..], &g.family, &g.precision] == other.names();
                let few = moe::widths(other.names()[2]).map_or(0, |w| cpu::few(w[0] as usize));
                match streamed.iter().find(same) {
                    Some(g) => measured::streamed(op, few as u32, g.clone(), other),
                    None => other,
                }
            };
            let experts = join(experts).into_iter().map(measured::fused_moe);
            out.extend(experts.map(|m| own(Op::Experts, &streamed_experts, m)));
            let own_gemm = GemmForm::cold(GemmKernel::CUBLAS);
            let gemms = join(gemms).into_iter().map(|g| measured::gemm(Op::Gemm, own_gemm, g, "each (n, k)"));
            out.extend(gemms.map(|m| own(Op::Gemm, &streamed_gemms, m)));
            out.extend(join(norms).into_iter().map(measured::stream));
        }
        "gemm" => {
            let device = device()?;
            for group in all(tables, |t| deepgemm::read(t, device, peaks))? {
                // Dense and grouped ones run the same main loop: one fit for both.
                let dense = group.cell.iter().any(|c| group.cells[*c as usize] == "dense");
                let op = if dense { Op::Gemm } else { Op::GroupedGemm };
                out.push(measured::gemm(op, GemmForm::cold(GemmKernel::WIDE), group, "each (n, k)"));
            }
        }
        "infersim-gemm" => {
            let device = device()?;
            for group in all(tables, |t| infersim_gemm::read(t, device, peaks))? {
                let op = if group.family == "gemm_dense" { Op::Gemm } else { Op::GroupedGemm };
                out.push(measured::gemm(op, GemmForm::cold(GemmKernel::WIDE), group, "each (n, k)"));
            }
        }
        "llmservingsim-dense" => {
            let served = served()?;
            let (mut gemms, mut streams) = (Vec::new(), Vec::new());
            for table in tables {
                let layers = llmservingsim::layers(table)?;
                if layers.gemms {
                    gemms.push(llmservingsim::read_dense(table, &served, peaks)?);
                }
                if layers.streams {
                    streams.push(llmservingsim::read_streams(table, &served, peaks)?);
                }
            }
            let form = GemmForm { warm: true, kernel: GemmKernel::CUBLAS };
            out.extend(join(gemms).into_iter().map(|g| measured::gemm(Op::Gemm, form, g, "each layer")));
            out.extend(join(streams).into_iter().map(measured::stream));
        }
        "llmservingsim-moe" => {
            let served = served()?;
            let groups = all(tables, |t| llmservingsim::read_moe(t, &served, peaks))?;
            let pair = |g| measured::pair(GemmKernel::TRITON, g, "each number of activated experts");
            out.extend(groups.into_iter().map(pair));
        }
        "llmservingsim-attention" => {
            let served = served()?;
            for group in all(tables, |t| llmservingsim_attention::read(t, &served, peaks))? {
                let op = if group.family == "attention_decode" { Op::DecodeAttention } else { Op::PrefillAttention };
                out.extend(measured::attention(op, group, "each length of the decoding sequences"));
            }
        }
        "infersim-attention" => {
            let device = device()?;
            for mut group in all(tables, |t| infersim_attention::read(t, device, peaks))? {
                drop_outliers(&mut group);
                let op = match group.family.as_str() {
                    "mha_decode" => Op::DecodeAttention,
                    "mha_prefill" => Op::PrefillAttention,
                    "mla_decode" => Op::LatentDecodeAttention,
                    "mla_prefill" => Op::LatentPrefillAttention,
                    "dsa_decode_attn" => Op::SparseDecodeAttention,
                    "dsa_prefill_attn" => Op::SparsePrefillAttention,
                    "dsa_decode_logits" => Op::DecodeIndexer,
                    _ => Op::PrefillIndexer,
                };
                out.extend(measured::attention(op, group, "each length of keys"));
            }
        }
        "attention" | "latent-attention" => {
            type Read = fn(&MeasurementTable, &str, moe::PeaksOf) -> Result<Vec<Group<AttentionRow>>>;
            let device = device()?;
            let (read, [decode, prefill]): (Read, _) = match schema == "latent-attention" {
                true => (read_mla, [Op::LatentDecodeAttention, Op::LatentPrefillAttention]),
                false => (read_attention, [Op::DecodeAttention, Op::PrefillAttention]),
            };
            for group in all(tables, |t| read(t, device, peaks))? {
                let op = if group.family.starts_with("decode ") { decode } else { prefill };
                out.extend(measured::attention(op, group, "each number of heads"));
            }
        }
        "dense-gemm" => {
            let device = device()?;
            for group in all(tables, |t| read_gemm(t, device, peaks))? {
                let form = GemmForm::cold(gemm_kernel([&group.device, &group.family, &group.precision]));
                out.push(measured::gemm(Op::Gemm, form, group, "each (n, k)"));
            }
        }
        "custom-all-reduce" => {
            let device = device()?;
            let groups = all(tables, |t| read_custom_all_reduce(t, device, links))?;
            out.extend(groups.into_iter().map(measured::custom_all_reduce));
        }
        "fused-exchange" => {
            let groups = all(tables, |t| cann::read(t, links))?;
            out.extend(groups.into_iter().map(|g| measured::fused_exchange(way(&g.family), g)));
        }
        "nccl" => {
            for group in all(tables, |t| nccl::read(t, links))? {
                let op = match group.family.as_str() {
                    "all_gather" => Op::AllGather,
                    "all_reduce" => Op::AllReduce,
                    "reduce_scatter" => Op::ReduceScatter,
                    _ => Op::AllToAll,
                };
                out.push(measured::collective(op, group));
            }
        }
        "deepep-low-latency" => {
            let groups = one_device(all(tables, |t| deepep::read_low_latency(t, links))?);
            out.extend(groups.into_iter().map(|g| measured::low_latency(way(&g.family), g)));
        }
        "deepep-normal" => {
            let groups = one_device(all(tables, |t| deepep::read_normal(t, links))?);
            out.extend(groups.into_iter().map(|g| measured::normal(way(&g.family), g)));
        }
        other => {
            let names: Vec<&str> = SCHEMAS.iter().map(|s| s.0).collect();
            return Err(diag::unknown("schema", other, &names).place("--schema"));
        }
    }
    Ok(out)
}

/// Tables name a device more or less fully, as NVIDIA H100 and NVIDIA H100 80GB HBM3: the shortest of a preset's names
/// that a name begins with stands for both. NVIDIA H20 is no short name of NVIDIA H200.
fn one_device<R: Clone>(mut groups: Vec<Group<R>>) -> Vec<Group<R>> {
    let names: Vec<String> = groups.iter().map(|g| g.device.clone()).collect();
    for group in &mut groups {
        let own = device::preset(&group.device);
        let alike = |n: &&String| own.is_some() && device::preset(n) == own && group.device.starts_with(n.as_str());
        if let Some(shortest) = names.iter().filter(alike).min_by_key(|n| n.len()) {
            group.device.clone_from(shortest);
        }
    }
    join([groups])
}

/// Which way an exchange goes, by the name of its family.
fn way(family: &str) -> Op {
    if family.ends_with("dispatch") { Op::Dispatch } else { Op::Combine }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_one_name() {
        let named = |names: &[&str]| {
            let groups = names.iter().map(|n| Group::<()>::new(n, "f", "fp8")).collect();
            one_device(groups).into_iter().map(|g| g.device).collect::<Vec<_>>()
        };
        assert_eq!(named(&["NVIDIA H100 80GB HBM3", "NVIDIA H100"]), ["NVIDIA H100"]);
        for apart in [["NVIDIA H20", "NVIDIA H200"], ["NVIDIA H20", "NVIDIA H20-3e"], ["", "NVIDIA H100"], ["X", "X 2"]]
        {
            assert_eq!(named(&apart), apart);
        }
    }
}
