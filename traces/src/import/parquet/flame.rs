//! FLAME-MoE's routing traces (arXiv 2505.20225; data set CMU-FLAME/FLAME-MoE-Traces): a folder `actives/iter_NNNN` with
//! `layer_NN.parquet`, one row a token in the same order in every file, `indices` a list of k expert ids.
//!
//! * The data card counts layers from 1 and moesim from 0: `layer_02` becomes layer 1.
//! * The files have no borders of sequences. Rows are cut into sequences of 2048 tokens, the length of the training
//!   (model card); whether a row's neighbour is its neighbour in the text the card does not say. `scores` is not read.
//! * The number of experts is not in the files (the card says 64): it comes from the options.

use super::file::{Batches, Source, expert, integers, is_integer, shown};
use crate::import::{Declared, Options, Phase, Sink};
use crate::trace::{LAYERS, Meta, OwnedSequence};
use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use moesim_core::{Diag, Result};
use std::path::{Path, PathBuf};

/// Tokens a sequence.
const SEQUENCE: usize = 2048;

/// Ids of a row group over all files; a million rows of 17 layers have 107 million.
const LIST_VALUES: u64 = 1 << 28;

pub(super) fn import(folder: &Path, files: &[(u32, PathBuf)], options: &Options, sink: &mut dyn Sink) -> Result<()> {
    let named = |problem: &str| {
        Diag::input(problem)
            .file(folder)
            .place("names")
            .cure("give a folder with layer_02.parquet and so on, once each")
    };
    if files.is_empty() || files.len() > LAYERS || files.windows(2).any(|w| w[0].0 == w[1].0) {
        return Err(named("has no layer_NN.parquet, one twice, or more than 4096"));
    }
    let numbers = files.iter().map(|f| f.0.checked_sub(1)).collect::<Option<Vec<u32>>>();
    let numbers = numbers.ok_or_else(|| named("has a layer 0; FLAME-MoE counts from 1"))?;
    let mut layers = files.iter().map(|(_, path)| open(path, files.len())).collect::<Result<Vec<_>>>()?;
    let mut meta: Option<Meta> = None;
    let mut sequence = 0u32;
    let mut values = Vec::new();
    let many = || Diag::input("has more than 2^32 sequences").file(folder).place("end").cure("divide it");
    loop {
        let batches = layers.iter_mut().map(|l| Ok((l.next()?, l.rows))).collect::<Result<Vec<_>>>()?;
        let rows = batches[0].1;
        if let Some(i) = batches.iter().position(|b| b.1 != rows) {
            let problem = format!("has {} rows where {} has {rows}", batches[i].1, files[0].1.display());
            return Err(layers[i].at(Diag::input(problem).place("rows").cure("give files of one capture, all whole")));
        }
        let Some(batches) = batches.into_iter().map(|b| b.0).collect::<Option<Vec<_>>>() else { break };
        let tokens = batches[0].num_rows();
        let k = match &meta {
            Some(m) => m.k as usize,
            None => {
                let k = batches[0].column(0).as_list::<i32>().value_length(0).max(0) as usize;
                let declared = Declared { layer_numbers: Some(numbers.clone()), ..Default::default() };
                let m = options.describe(folder, numbers.len(), u32::try_from(k).unwrap_or(u32::MAX), declared)?;
                sink.begin(m.clone())?;
                meta = Some(m);
                k
            }
        };
        let Some(meta) = &meta else { break };
        if tokens as u64 * meta.width() as u64 > super::super::SEQUENCE {
            let d = Diag::input(format!("{tokens} tokens have more than 1 GiB of ids")).place("rows");
            return Err(d.file(folder).cure("give lists of k expert ids"));
        }
        let mut ids = vec![0u16; tokens * meta.width()];
        for (l, batch) in batches.iter().enumerate() {
            let first = rows - tokens as u64;
            lists(batch, k, &mut values, |row, n, id| ids[row * meta.width() + l * k + n] = id).map_err(
                |(row, problem)| {
                    let d = Diag::input(problem).place(format!("row {}, indices", first + row as u64));
                    layers[l].at(d.cure("write as many expert ids for every token as for the first, from 0"))
                },
            )?;
        }
        let mut s = OwnedSequence { id: sequence, ..Default::default() };
        match options.phase {
            Phase::Prefill => s.prefill = ids,
            Phase::Decode => s.decode = ids,
        }
        crate::trace::check_rows(meta, &s.view()).map_err(|d| d.file(folder))?;
        sink.sequence(&s)?;
        sequence = sequence.checked_add(1).ok_or_else(many)?;
    }
    Ok(())
}

/// The column `indices` of a layer, a sequence at a time.
fn open(path: &Path, files: usize) -> Result<Batches> {
    let source = Source::open(path)?;
    let wrong = |problem: String| {
        let cure = "give FLAME-MoE's actives: `indices`, a list of integers, one row a token";
        Diag::input(problem).file(path).place("schema").cure(cure)
    };
    let fields = source.schema().fields();
    let mut found = fields.iter().enumerate().filter(|(_, f)| f.name() == "indices");
    let (Some((column, field)), None) = (found.next(), found.next()) else {
        return Err(wrong("lacks the one column `indices`".into()));
    };
    if !matches!(field.data_type(), DataType::List(item) if is_integer(item.data_type())) {
        return Err(wrong(format!("column `indices` has the type {}", shown(&field.data_type().to_string()))));
    }
    source.batches(&[column], SEQUENCE, LIST_VALUES / files as u64)
}

/// Gives (row, n, id) of every list to `put`. Errors are (row, problem).
fn lists(
    batch: &RecordBatch,
    k: usize,
    values: &mut Vec<i64>,
    mut put: impl FnMut(usize, usize, u16),
) -> std::result::Result<(), (usize, String)> {
    let list = batch.column(0).as_list::<i32>();
    // Lengths first: the values of a list of another length are not even converted.
    for row in 0..list.len() {
        let n = if list.is_null(row) { 0 } else { list.value_length(row) };
        if usize::try_from(n).ok() != Some(k) {
            return Err((row, format!("has {n} experts, not {k}")));
        }
    }
    let start = list.value_offsets()[0] as usize;
    integers(list.values().slice(start, list.len() * k).as_ref(), values);
    for (row, ids) in values.chunks_exact(k.max(1)).enumerate() {
        for (n, value) in ids.iter().enumerate() {
            put(row, n, expert(*value).ok_or_else(|| (row, format!("{value} is not an expert id")))?);
        }
    }
    Ok(())
}
