//! Measurements: rows of CSV files, plain or gzip, by schema.
//!
//! A schema says which columns a file has and what its rows ask of which form. Columns of another name are mapped
//! (`their=ours`). What a file declares is believed only as far as it is plausible: every row is checked, and what is
//! wrong names file, line and column.

mod attention;
pub mod cann;
mod custom_all_reduce;
pub mod deepep;
pub mod deepgemm;
mod gemm;
pub mod infersim;
pub mod infersim_attention;
pub mod infersim_gemm;
pub mod llmservingsim;
pub mod llmservingsim_attention;
mod measurement_table;
mod mla;
pub mod moe;
pub mod nccl;
mod outlier;
pub mod own;
mod slow;

pub use attention::{heads as attention_heads, read as read_attention};
pub use custom_all_reduce::read as read_custom_all_reduce;
pub use gemm::{kernel as gemm_kernel, read as read_gemm};
pub use measurement_table::MeasurementTable;
pub use mla::read as read_mla;
pub use moe::{read as read_moe, tiling};
pub use outlier::drop_outliers;
pub use slow::SLOW_THROUGHOUT;

use moesim_core::{Diag, Result};
use std::collections::BTreeMap;

/// The schemas by name, with what they hold.
pub const SCHEMAS: &[(&str, &str)] = &[
    (
        "fused-moe",
        "aiconfigurator's: framework, version, device, kernel_source, moe_dtype, num_tokens, hidden_size, inter_size, topk, \
         num_experts, moe_ep_size, distribution, latency_ms or latency (ms), and optionally moe_tp_size, which divides inter_size, and \
         gated (both 1 unless told)",
    ),
    (
        "gemm",
        "DeepGEMM's: kind (dense, grouped_contiguous, grouped_masked), groups, m_per_group, n, k, tflops, and optionally \
         precision (fp8 unless told)",
    ),
    (
        "infersim-gemm",
        "InferSim's: m, k, n, latency_us; or num_local_experts, hidden_size, intermediate_size, tokens_per_expert, \
         up_proj_us, up_mfu, down_proj_us, down_mfu, and batch_size_per_gpu (decode) or seq_len_per_gpu (prefill)",
    ),
    (
        "llmservingsim-dense",
        "LLMServingSim's: layer, tokens or sequences, time_us; GEMMs, and norms and embeddings apart",
    ),
    (
        "infersim-attention",
        "InferSim's, by folders (mha/decode/DEVICE/HEADS-KV_HEADS-WIDTH.csv) or by file name: mha_decode_HEADS-KV_HEADS-WIDTH, \
         mha_prefill_HEADS-KV_HEADS-WIDTH, mla_decode_HEADS-LATENT-ROPE, \
         mla_prefill_HEADS-WIDTH-ROPE (batch_size, kv_len or seq_len, latency_us), and the sparse dsa_prefill_attn and \
         dsa_decode_attn-HEADS-WIDTH-KEYS, dsa_decode_logits and dsa_prefill_logits-HEADS-WIDTH",
    ),
    ("llmservingsim-attention", "LLMServingSim's: prefill_chunk, kv_prefill, n_decode, kv_decode, time_us"),
    (
        "measured",
        "what calibrate measure writes: what (experts, gemm, norm, and limits that are not fitted), device, kernel_source, version, \
         precision, tokens, hidden_size, inter_size, topk, num_experts, distribution, expert_tokens, m, n, k, latency_us",
    ),
    ("llmservingsim-moe", "LLMServingSim's: tokens, activated_experts, time_us"),
    (
        "fused-exchange",
        "CANN's fused kernels: device, op_name (dispatch, combine), num_devices, num_token, num_topk, message_bytes, latency_us",
    ),
    (
        "attention",
        "aiconfigurator's: kernel_source, batch_size, new_tokens, past_tokens, num_heads, num_key_value_heads, head_dim, attn_dtype, \
         kv_cache_dtype, window_size (0: none), latency_ms",
    ),
    (
        "latent-attention",
        "aiconfigurator's, of DeepSeek-V3's heads: framework, kernel_source, phase (context, generation), batch_size, new_tokens, \
         past_tokens, num_heads (on the device), mla_dtype, kv_cache_dtype, latency_ms",
    ),
    ("dense-gemm", "aiconfigurator's: kernel_source, gemm_dtype, m, n, k, latency_ms"),
    (
        "custom-all-reduce",
        "aiconfigurator's: kernel_source, allreduce_dtype, num_gpus, message_size (elements), latency_ms; to 8 MiB",
    ),
    ("nccl", "aiconfigurator's: device, op_name, nccl_dtype, num_gpus, message_size (elements), latency (ms)"),
    (
        "deepep-low-latency",
        "aiconfigurator's: device, node_num, hidden_size, num_token, num_topk, num_experts, dispatch_avg_t_us, combine_avg_t_us, and \
         optionally dispatch_bandwidth_gbps and combine_bandwidth_gbps (GB/s, which say how many of the selections were sent)",
    ),
    (
        "deepep-normal",
        "aiconfigurator's: device, node_num, hidden_size, num_token, num_topk, num_experts, and for dispatch and combine \
         OP_sms, OP_transmit_us, OP_notify_us",
    ),
];

/// Rows of one kernel family and precision on one device.
#[derive(Clone, Debug)]
pub struct Group<R> {
    /// The device as the file names it.
    pub device: String,
    /// The kernel family as the file names it.
    pub family: String,
    /// Versions of the framework.
    pub versions: Vec<String>,
    /// The precision as the file names it.
    pub precision: String,
    /// The rows.
    pub rows: Vec<R>,
    /// Measured seconds of each.
    pub seconds: Vec<f64>,
    /// Shape of each: rows of one shape are left out together. Index into `shapes`.
    pub shape: Vec<u32>,
    /// The shapes, written out.
    pub shapes: Vec<String>,
    /// Cell of each, index into `cells`: what errors are grouped by.
    pub cell: Vec<u32>,
    /// The cells, written out.
    pub cells: Vec<String>,
    /// What the reader assumed of some rows.
    pub notes: Vec<String>,
    /// Size of each row within its series (shape and cell): tokens.
    pub size: Vec<f64>,
}

impl<R: PartialEq> Group<R> {
    /// Notes how far times of the same work are from each other, where some was measured twice: no form can be nearer.
    pub fn note_spread(&mut self) {
        // Different work of one shape, cell and size is that of a few numbers of active experts: what is more is not
        // looked at.
        const DIFFERENT: usize = 64;
        let mut seen = BTreeMap::<(u32, u32, u64), Vec<usize>>::new();
        let mut off = Vec::new();
        for i in 0..self.rows.len() {
            let alike = seen.entry((self.shape[i], self.cell[i], self.size[i].to_bits())).or_default();
            match alike.iter().find(|j| self.rows[**j] == self.rows[i]) {
                Some(j) => off.push((self.seconds[i] / self.seconds[*j] - 1.0).abs()),
                None if alike.len() < DIFFERENT => alike.push(i),
                None => {}
            }
        }
        if !off.is_empty() {
            let mean = 100.0 * off.iter().sum::<f64>() / off.len() as f64;
            self.notes.push(format!("run-to-run spread: mean {mean:.1} % of {} rows measured again", off.len()));
        }
    }
}

/// What a row is beside what it asks of its form.
pub struct Label<'a> {
    /// The shape, written out.
    pub shape: &'a str,
    /// The cell, written out.
    pub cell: &'a str,
    /// Its size within its series.
    pub size: f64,
    /// The framework's version; empty if not told.
    pub version: &'a str,
}

impl<R: Clone> Group<R> {
    /// A group without rows.
    pub fn new(device: &str, family: &str, precision: &str) -> Self {
        Self {
            device: device.to_string(),
            family: family.to_string(),
            precision: precision.to_string(),
            versions: Vec::new(),
            rows: Vec::new(),
            seconds: Vec::new(),
            shape: Vec::new(),
            shapes: Vec::new(),
            cell: Vec::new(),
            cells: Vec::new(),
            notes: Vec::new(),
            size: Vec::new(),
        }
    }
    /// Adds a row.
    pub fn push(&mut self, row: R, seconds: f64, label: &Label) {
        self.rows.push(row);
        self.seconds.push(seconds);
        self.shape.push(index(&mut self.shapes, label.shape));
        self.cell.push(index(&mut self.cells, label.cell));
        self.size.push(label.size);
        if !label.version.is_empty() {
            index(&mut self.versions, label.version);
        }
    }
    /// Leaves only the rows for which `keep` is true; shapes and cells without rows stay named.
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        fn only<T>(list: &mut Vec<T>, keep: impl Fn(usize) -> bool) {
            let mut at = 0..;
            list.retain(|_| at.next().is_some_and(&keep));
        }
        only(&mut self.rows, &keep);
        only(&mut self.seconds, &keep);
        only(&mut self.shape, &keep);
        only(&mut self.cell, &keep);
        only(&mut self.size, &keep);
    }
    /// The rows for which `keep` is true.
    pub fn select(&self, keep: impl Fn(usize) -> bool) -> (Vec<R>, Vec<f64>) {
        let at = (0..self.rows.len()).filter(|i| keep(*i));
        at.map(|i| (self.rows[i].clone(), self.seconds[i])).unzip()
    }
}

/// The group of this device, family and precision, added if new.
pub fn group<'a, R: Clone>(
    groups: &'a mut Vec<Group<R>>,
    device: &str,
    family: &str,
    precision: &str,
) -> &'a mut Group<R> {
    let same = |g: &Group<R>| g.device == device && g.family == family && g.precision == precision;
    let at = groups.iter().position(same).unwrap_or_else(|| {
        groups.push(Group::new(device, family, precision));
        groups.len() - 1
    });
    &mut groups[at]
}

/// The groups of several files as one list: those of one device, family and precision become one.
pub fn join<R: Clone>(files: impl IntoIterator<Item = Vec<Group<R>>>) -> Vec<Group<R>> {
    let mut all: Vec<Group<R>> = Vec::new();
    for from in files.into_iter().flatten() {
        let to = group(&mut all, &from.device, &from.family, &from.precision);
        for (i, row) in from.rows.iter().enumerate() {
            let [shape, cell] = [&from.shapes[from.shape[i] as usize], &from.cells[from.cell[i] as usize]];
            to.push(row.clone(), from.seconds[i], &Label { shape, cell, size: from.size[i], version: "" });
        }
        for version in &from.versions {
            index(&mut to.versions, version);
        }
        for note in &from.notes {
            index(&mut to.notes, note);
        }
    }
    all
}

/// Notes what a reader left out of a family in a precision: at that family, else at the others of its framework, whose
/// names begin with the same word, else at all of the table.
///
/// # Errors
/// Nothing is left of the table.
fn note_left_out<R>(
    groups: &mut [Group<R>],
    table: &MeasurementTable,
    [family, precision]: [&str; 2],
    what: &str,
) -> Result<()> {
    let far = |g: &Group<R>| {
        let name = g.family.strip_prefix("decode ").unwrap_or(&g.family);
        let of = [name.split(' ').next(), name.split('_').next()];
        match [Some(family), family.split('_').next()] {
            _ if g.precision != precision => 2,
            own if own[0] == of[0] => 0,
            own if own[1] == of[1] => 1,
            _ => 2,
        }
    };
    let Some(nearest) = groups.iter().map(far).min() else {
        return Err(Diag::input(format!("has no row that can be fitted; {family}: {what}"))
            .file(table.path())
            .cure("give a table with other rows"));
    };
    let note = if nearest == 0 { what.to_string() } else { format!("{family}: {what}") };
    groups.iter_mut().filter(|g| far(g) == nearest).for_each(|g| g.notes.push(note.clone()));
    Ok(())
}

/// Index of `name` in `names`, added if new. Lists are short.
fn index(names: &mut Vec<String>, name: &str) -> u32 {
    let at = names.iter().position(|n| n == name).unwrap_or_else(|| {
        names.push(name.to_string());
        names.len() - 1
    });
    at as u32
}

#[cfg(test)]
mod tests;
