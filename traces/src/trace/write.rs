//! Writing the container.

use super::hash::RowHasher;
use super::{Meta, OwnedSequence};
use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, UInt8Array, UInt16Array, UInt32Array};
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use moesim_core::output::AtomicFile;
use moesim_core::{Diag, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A batch is written as soon as it holds this many selections; it may hold more, because sequences are not divided.
const BATCH: usize = 4 << 20;

/// Writes a trace under a temporary name that [`Writer::finish`] renames. Memory holds one record batch.
pub struct Writer {
    meta: Meta,
    target: PathBuf,
    file: AtomicFile,
    // Made at the first sequence, which shows whether there are gate weights.
    ipc: Option<FileWriter<BufWriter<File>>>,
    batch: Columns,
    hash: RowHasher,
    last: Option<u32>,
    summary: Summary,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Tokens.
    pub rows: u64,
    /// Sequences.
    pub sequences: u64,
    /// Size of the file.
    pub bytes: u64,
}

#[derive(Default)]
struct Columns {
    sequence: Vec<u32>,
    phase: Vec<u8>,
    position: Vec<u32>,
    experts: Vec<u16>,
    weights: Option<Vec<f32>>,
}

/// The schema of a trace; equal schemas are what [`super::Trace::open`] accepts.
fn schema(meta: &Meta, weights: bool) -> Schema {
    let width = meta.width() as i32;
    let list = |t| DataType::FixedSizeList(Arc::new(Field::new("item", t, false)), width);
    let mut fields = vec![
        Field::new("sequence", DataType::UInt32, false),
        Field::new("phase", DataType::UInt8, false),
        Field::new("position", DataType::UInt32, false),
        Field::new("experts", list(DataType::UInt16), false),
    ];
    if weights {
        fields.push(Field::new("weights", list(DataType::Float32), false));
    }
    let layers: Vec<String> = meta.layer_numbers.iter().map(u32::to_string).collect();
    let entries = [
        ("moesim.format", "1".to_string()),
        ("moesim.model", meta.model.clone()),
        ("moesim.layers", layers.join(",")),
        ("moesim.experts", meta.experts.to_string()),
        ("moesim.k", meta.k.to_string()),
        ("moesim.source", meta.source.clone()),
        ("moesim.licence", meta.licence.clone()),
    ];
    Schema::new(fields).with_metadata(entries.into_iter().map(|(k, v)| (k.to_string(), v)).collect::<BTreeMap<_, _>>())
}

impl Writer {
    /// Starts a trace at `path`.
    pub fn create(path: &Path, meta: Meta) -> Result<Self> {
        meta.check().map_err(|d| d.file(path))?;
        Ok(Self {
            meta,
            target: path.to_path_buf(),
            file: AtomicFile::create(path)?,
            ipc: None,
            batch: Columns::default(),
            hash: RowHasher::new(),
            last: None,
            summary: Summary::default(),
        })
    }
    /// Appends a sequence; numbers ascend. Expert ids must be below the number of experts, or [`super::MISSING`].
    pub fn push_sequence(&mut self, s: &OwnedSequence) -> Result<()> {
        let weights = if self.last.is_none() { s.weights.is_some() } else { self.batch.weights.is_some() };
        let width = self.meta.width();
        let (prefill, decode) = s.check(width, self.last, weights).map_err(|d| d.file(&self.target))?;
        super::read::check_rows(&self.meta, &s.view()).map_err(|d| d.file(&self.target))?;
        let rows = prefill as usize + decode as usize;
        let b = &mut self.batch;
        b.sequence.extend(std::iter::repeat_n(s.id, rows));
        b.phase.extend(std::iter::repeat_n(0u8, prefill as usize).chain(std::iter::repeat_n(1, decode as usize)));
        b.position.extend((0..prefill).map(|i| s.first_position + i));
        b.position.extend((0..decode).map(|i| s.decode_first_position + i));
        b.experts.extend_from_slice(&s.prefill);
        b.experts.extend_from_slice(&s.decode);
        if let Some(w) = &s.weights {
            b.weights.get_or_insert_default().extend_from_slice(w);
        }
        self.hash.push(&s.view());
        self.last = Some(s.id);
        self.summary.rows += rows as u64;
        self.summary.sequences += 1;
        if self.batch.experts.len() >= BATCH { self.flush() } else { Ok(()) }
    }
    /// Writes the rest and gives the file its name.
    pub fn finish(mut self) -> Result<Summary> {
        if self.last.is_none() {
            return Err(Diag::input("no sequences to write").file(&self.target).cure("import a source that has rows"));
        }
        self.flush()?;
        let failed = |e: ArrowError| cannot_write(&self.target, e);
        if let Some(mut ipc) = self.ipc.take() {
            ipc.write_metadata("moesim.hash", self.hash.finish());
            ipc.finish().map_err(failed)?;
            let file = ipc.into_inner().map_err(failed)?.into_inner();
            let file = file.map_err(|e| Diag::cannot_write(&self.target, e.error()))?;
            self.summary.bytes = file.metadata().map_err(|e| Diag::cannot_write(&self.target, &e))?.len();
        }
        self.file.commit()?;
        Ok(self.summary)
    }
    fn flush(&mut self) -> Result<()> {
        let weights = self.batch.weights.is_some();
        let batch = std::mem::take(&mut self.batch);
        // The next batch has gate weights as this one.
        self.batch.weights = weights.then(Vec::new);
        if batch.sequence.is_empty() {
            return Ok(());
        }
        let schema = Arc::new(schema(&self.meta, weights));
        let failed = |e: ArrowError| cannot_write(&self.target, e);
        let record = batch.record(&schema).map_err(failed)?;
        if self.ipc.is_none() {
            let file = File::create(self.file.path()).map_err(|e| Diag::cannot_write(&self.target, &e))?;
            let options = IpcWriteOptions::try_new(64, false, MetadataVersion::V5).map_err(failed)?;
            let ipc = FileWriter::try_new_with_options(BufWriter::new(file), &schema, options).map_err(failed)?;
            self.ipc = Some(ipc);
        }
        self.ipc.as_mut().map_or(Ok(()), |ipc| ipc.write(&record)).map_err(failed)
    }
}

impl Columns {
    fn record(self, schema: &Arc<Schema>) -> std::result::Result<RecordBatch, ArrowError> {
        let list = |column: usize, values: ArrayRef| match schema.field(column).data_type() {
            DataType::FixedSizeList(item, n) => FixedSizeListArray::try_new(item.clone(), *n, values, None),
            other => Err(ArrowError::SchemaError(format!("{other} is not a list"))),
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(self.sequence)),
            Arc::new(UInt8Array::from(self.phase)),
            Arc::new(UInt32Array::from(self.position)),
            Arc::new(list(3, Arc::new(UInt16Array::from(self.experts)))?),
        ];
        if let Some(w) = self.weights {
            columns.push(Arc::new(list(4, Arc::new(Float32Array::from(w)))?));
        }
        RecordBatch::try_new(schema.clone(), columns)
    }
}

fn cannot_write(target: &Path, e: ArrowError) -> Diag {
    match e {
        ArrowError::IoError(_, e) => Diag::cannot_write(target, &e),
        other => Diag::run(format!("cannot be written: {other}")).file(target),
    }
}
