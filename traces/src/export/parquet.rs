//! Parquet, one row a token and layer, in the form that [`mod@crate::import`] calls `parquet`.
//!
//! Columns: `sequence` u32, `phase` u8 (0 prefill, 1 decode), `position` u32, `layer` u32, `expert0`, ... u16, null where
//! missing, and `weight0`, ... f32 if there are gate weights. One column an expert packs tighter than a list, and a
//! dictionary with zstd at level 1 as tight as higher levels do. Model, layers, experts, k, source and licence are in the
//! footer's metadata as `moesim.*`. Memory holds a packed row group of a million rows, and 65,536 rows that are not.

use super::Exporter;
use crate::trace::{MISSING, Trace};
use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use arrow_array::{ArrayRef, Float32Array, RecordBatch, UInt8Array, UInt16Array, UInt32Array};
use arrow_schema::{DataType, Field, Schema};
use moesim_core::output::AtomicFile;
use moesim_core::{Diag, Result};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

const BATCH: usize = 1 << 16;
const GROUP: usize = 1 << 20;

/// See the module.
pub(super) struct Parquet;

impl Exporter for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
    }
    fn description(&self) -> &'static str {
        "Parquet, one row a token and layer: sequence, phase, position, layer, expert0, expert1, ..."
    }
    fn loses(&self) -> &'static str {
        "nothing"
    }
    fn export(&self, trace: &Trace, out: &Path) -> Result<()> {
        let io = |e: std::io::Error| Diag::cannot_write(out, &e);
        let failed = |e: ParquetError| match e {
            ParquetError::External(e) if e.is::<std::io::Error>() => {
                e.downcast::<std::io::Error>().map_or_else(|e| Diag::run(e.to_string()).file(out), |e| io(*e))
            }
            other => Diag::run(format!("cannot be written: {other}")).file(out),
        };
        let partial = AtomicFile::create(out)?;
        let schema = Arc::new(schema(trace));
        let file = BufWriter::with_capacity(1 << 20, File::create(partial.path()).map_err(io)?);
        let mut writer =
            ArrowWriter::try_new(file, schema.clone(), Some(properties(trace).map_err(failed)?)).map_err(failed)?;
        let mut table = PendingRows::new(trace);
        for i in 0..trace.sequences() {
            trace.check_sequence(i)?;
            let s = trace.sequence(i);
            let phases = [
                (0, s.first_position, s.prefill, s.prefill_weights),
                (1, s.decode_first_position, s.decode, s.decode_weights),
            ];
            for (phase, first, ids, weights) in phases {
                for (row, ids) in ids.chunks_exact(trace.width()).enumerate() {
                    let weights = weights.map(|w| &w[row * trace.width()..][..trace.width()]);
                    // Positions of a trace fit 32 bits.
                    table.push(trace, (s.id, phase, first + row as u32), ids, weights);
                    if table.layer.len() >= BATCH {
                        writer.write(&table.take(trace, &schema).map_err(|e| failed(e.into()))?).map_err(failed)?;
                    }
                }
            }
        }
        writer.write(&table.take(trace, &schema).map_err(|e| failed(e.into()))?).map_err(failed)?;
        let file = writer.into_inner().map_err(failed)?;
        file.into_inner().map_err(|e| io(e.into_error()))?;
        partial.commit()
    }
}

fn schema(trace: &Trace) -> Schema {
    let mut fields = vec![
        Field::new("sequence", DataType::UInt32, false),
        Field::new("phase", DataType::UInt8, false),
        Field::new("position", DataType::UInt32, false),
        Field::new("layer", DataType::UInt32, false),
    ];
    fields.extend((0..trace.k()).map(|i| Field::new(format!("expert{i}"), DataType::UInt16, true)));
    let weights = if trace.has_weights() { trace.k() } else { 0 };
    fields.extend((0..weights).map(|i| Field::new(format!("weight{i}"), DataType::Float32, false)));
    Schema::new(fields)
}

fn properties(trace: &Trace) -> std::result::Result<WriterProperties, ParquetError> {
    let m = trace.meta();
    let layers: Vec<String> = m.layer_numbers.iter().map(u32::to_string).collect();
    let about = [
        ("moesim.model", m.model.clone()),
        ("moesim.layers", layers.join(",")),
        ("moesim.experts", m.experts.to_string()),
        ("moesim.k", m.k.to_string()),
        ("moesim.source", m.source.clone()),
        ("moesim.licence", m.licence.clone()),
    ];
    let about = about.map(|(key, value)| KeyValue::new(key.to_string(), value)).to_vec();
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(GROUP))
        .set_key_value_metadata(Some(about))
        // The same bytes whatever wrote them before.
        .set_created_by(concat!("moesim ", env!("CARGO_PKG_VERSION")).to_string())
        // Positions ascend, so a dictionary of them only grows.
        .set_column_dictionary_enabled("position".into(), false)
        .set_column_encoding("position".into(), Encoding::DELTA_BINARY_PACKED)
        .build())
}

/// Rows to be written.
struct PendingRows {
    sequence: Vec<u32>,
    phase: Vec<u8>,
    position: Vec<u32>,
    layer: Vec<u32>,
    experts: Vec<Vec<u16>>,
    weights: Vec<Vec<f32>>,
}

impl PendingRows {
    fn new(trace: &Trace) -> Self {
        let weights = if trace.has_weights() { trace.k() } else { 0 };
        Self {
            sequence: Vec::new(),
            phase: Vec::new(),
            position: Vec::new(),
            layer: Vec::new(),
            experts: vec![Vec::new(); trace.k()],
            weights: vec![Vec::new(); weights],
        }
    }
    /// The rows of a token.
    fn push(&mut self, trace: &Trace, token: (u32, u8, u32), ids: &[u16], weights: Option<&[f32]>) {
        let layers = trace.layers();
        self.sequence.extend(std::iter::repeat_n(token.0, layers));
        self.phase.extend(std::iter::repeat_n(token.1, layers));
        self.position.extend(std::iter::repeat_n(token.2, layers));
        self.layer.extend_from_slice(&trace.meta().layer_numbers);
        for (n, column) in self.experts.iter_mut().enumerate() {
            column.extend(ids.iter().skip(n).step_by(trace.k()));
        }
        for (n, column) in self.weights.iter_mut().enumerate() {
            column.extend(weights.unwrap_or_default().iter().skip(n).step_by(trace.k()));
        }
    }
    fn take(
        &mut self,
        trace: &Trace,
        schema: &Arc<Schema>,
    ) -> std::result::Result<RecordBatch, arrow_schema::ArrowError> {
        let t = std::mem::replace(self, Self::new(trace));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(t.sequence)),
            Arc::new(UInt8Array::from(t.phase)),
            Arc::new(UInt32Array::from(t.position)),
            Arc::new(UInt32Array::from(t.layer)),
        ];
        for ids in t.experts {
            let nulls = ids.contains(&MISSING);
            let array = if nulls {
                ids.into_iter().map(|id| (id != MISSING).then_some(id)).collect()
            } else {
                UInt16Array::from(ids)
            };
            columns.push(Arc::new(array));
        }
        columns.extend(t.weights.into_iter().map(|w| Arc::new(Float32Array::from(w)) as ArrayRef));
        RecordBatch::try_new(schema.clone(), columns)
    }
}
