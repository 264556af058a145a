//! The structure of an Arrow IPC file, checked before anything is read through it.
//!
//! The flatbuffers are verified and every block and buffer is bounded here; the columns are then plain slices of the
//! mapped file, so that no decoder ever sees what was not checked.

use super::Meta;
use arrow_buffer::{ArrowNativeType, Buffer, ScalarBuffer};
use arrow_ipc::{Endianness, Field, Precision, RecordBatch, Schema, Type, root_as_footer, root_as_message};
use moesim_core::{Diag, Result};

const MAGIC: &[u8] = b"ARROW1";

/// A file whose structure is sound.
pub(super) struct Parsed {
    pub(super) meta: Meta,
    pub(super) hash: Option<String>,
    pub(super) batches: Vec<Columns>,
}

/// The columns of one record batch; every one has the same number of rows.
pub(super) struct Columns {
    pub(super) sequence: ScalarBuffer<u32>,
    pub(super) phase: ScalarBuffer<u8>,
    pub(super) position: ScalarBuffer<u32>,
    pub(super) experts: ScalarBuffer<u16>,
    pub(super) weights: Option<ScalarBuffer<f32>>,
}

fn wrong(place: &str, problem: impl Into<String>) -> Diag {
    Diag::input(problem).place(place).cure("the file is damaged or not a trace: import or copy it again")
}

/// What the verifier of flatbuffers found, without the path that it took.
fn malformed(place: &str, e: &impl std::fmt::Display) -> Diag {
    wrong(place, format!("is malformed: {}", e.to_string().lines().next().unwrap_or_default().trim_end_matches('.')))
}

/// Checks the structure of the whole file.
pub(super) fn parse(file: &Buffer) -> Result<Parsed> {
    let bytes = file.as_slice();
    let n = bytes.len();
    if n < 24 || &bytes[..6] != MAGIC {
        return Err(wrong("start", "is not an Arrow IPC file"));
    }
    if &bytes[n - 6..] != MAGIC {
        return Err(wrong("end", "has no Arrow footer: it is truncated"));
    }
    let length = i32::from_le_bytes([bytes[n - 10], bytes[n - 9], bytes[n - 8], bytes[n - 7]]);
    let start = usize::try_from(length).ok().and_then(|l| (n - 10).checked_sub(l)).filter(|s| *s >= 8);
    let start = start.ok_or_else(|| wrong("footer", format!("a footer of {length} bytes does not fit")))?;
    let footer = root_as_footer(&bytes[start..n - 10]).map_err(|e| malformed("footer", &e))?;
    if footer.dictionaries().is_some_and(|d| !d.is_empty()) {
        return Err(wrong("footer", "has dictionaries; a trace has plain columns"));
    }
    let fb = footer.schema().ok_or_else(|| wrong("footer", "has no schema"))?;
    let meta = read_meta(&fb)?;
    let weights = check_schema(&fb, meta.width())?;
    let value =
        |key: &str| footer.custom_metadata()?.iter().find(|kv| kv.key() == Some(key))?.value().map(str::to_string);
    let hash = value("moesim.hash").filter(|h| h.len() == 16 && h.bytes().all(|b| b.is_ascii_hexdigit()));
    let mut batches = Vec::new();
    for (i, block) in footer.recordBatches().iter().flatten().enumerate() {
        let place = format!("record batch {i}");
        // Offset of the message, offset of its body, end of its body.
        let bounds = || {
            let at = usize::try_from(block.offset()).ok()?;
            let body = at.checked_add(usize::try_from(block.metaDataLength()).ok()?)?;
            let end = body.checked_add(usize::try_from(block.bodyLength()).ok()?)?;
            (body >= at.checked_add(8)? && end <= start).then_some((at, body, end))
        };
        let (at, body, end) = bounds().ok_or_else(|| wrong(&place, "lies outside of the file"))?;
        if bytes[at..at + 4] != [0xFF; 4] {
            return Err(wrong(&place, "has no message"));
        }
        let message = root_as_message(&bytes[at + 8..body]).map_err(|e| malformed(&place, &e))?;
        let record = message.header_as_record_batch().ok_or_else(|| wrong(&place, "is not a record batch"))?;
        let body = file.slice_with_length(body, end - body);
        batches.push(Layout { record, body, place: &place }.columns(meta.width(), weights)?);
    }
    Ok(Parsed { meta, hash, batches })
}

fn read_meta(schema: &Schema) -> Result<Meta> {
    let text = |key: &str| {
        let entries = schema.custom_metadata();
        let value = entries.iter().flatten().find(|kv| kv.key() == Some(key)).and_then(|kv| kv.value());
        value.map(str::to_string).ok_or_else(|| wrong("schema", format!("lacks the metadata `{key}`")))
    };
    let number = |key: &str, text: &str| {
        text.parse::<u32>()
            .map_err(|_| wrong("schema", format!("the metadata `{key}` has \"{text:.20}\", not a number")))
    };
    let format = text("moesim.format")?;
    if format != "1" {
        let d = wrong("schema", format!("is a trace of format \"{format:.20}\"; this version reads format 1"));
        return Err(d.cure("update moesim, or import the trace again"));
    }
    let layers = text("moesim.layers")?;
    let meta = Meta {
        model: text("moesim.model")?,
        layer_numbers: layers.split(',').map(|l| number("moesim.layers", l)).collect::<Result<_>>()?,
        experts: number("moesim.experts", &text("moesim.experts")?)?,
        k: number("moesim.k", &text("moesim.k")?)?,
        source: text("moesim.source")?,
        licence: text("moesim.licence")?,
    };
    meta.check()?;
    Ok(meta)
}

/// Whether the schema is a trace's, and has gate weights.
fn check_schema(schema: &Schema, width: usize) -> Result<bool> {
    if schema.endianness() != Endianness::Little {
        return Err(wrong("schema", "is big-endian"));
    }
    let unsigned = |f: &Field, bits: i32| {
        f.type_as_int().is_some_and(|t| t.bitWidth() == bits && !t.is_signed())
            && f.children().is_none_or(|c| c.is_empty())
    };
    let float = |f: &Field| f.type_as_floating_point().is_some_and(|t| t.precision() == Precision::SINGLE);
    let list = |f: &Field, item: &dyn Fn(&Field) -> bool| {
        f.type_as_fixed_size_list().is_some_and(|t| usize::try_from(t.listSize()) == Ok(width))
            && f.children().is_some_and(|c| c.len() == 1 && item(&c.get(0)) && c.get(0).dictionary().is_none())
    };
    let fits = |f: &Field, name: &str| {
        f.name() == Some(name)
            && f.dictionary().is_none()
            && match name {
                "phase" => unsigned(f, 8),
                "experts" => f.type_type() == Type::FixedSizeList && list(f, &|c| unsigned(c, 16)),
                "weights" => list(f, &float),
                _ => unsigned(f, 32),
            }
    };
    let fields = schema.fields().ok_or_else(|| wrong("schema", "has no columns"))?;
    let names = ["sequence", "phase", "position", "experts", "weights"];
    if !(4..=5).contains(&fields.len()) || !fields.iter().zip(names).all(|(f, n)| fits(&f, n)) {
        let rule = format!("sequence u32, phase u8, position u32, experts FixedSizeList<u16>[{width}]");
        return Err(wrong(
            "schema",
            format!("the columns are not {rule} and optionally weights FixedSizeList<f32>[{width}]"),
        ));
    }
    Ok(fields.len() == 5)
}

/// A record batch whose buffers are yet to be bounded.
struct Layout<'a> {
    record: RecordBatch<'a>,
    body: Buffer,
    place: &'a str,
}

impl Layout<'_> {
    fn columns(&self, width: usize, weights: bool) -> Result<Columns> {
        if self.record.compression().is_some() {
            return Err(
                wrong(self.place, "is compressed").cure("write the trace uncompressed, so that it can be mapped")
            );
        }
        let rows = usize::try_from(self.record.length()).map_err(|_| wrong(self.place, "has a negative length"))?;
        let ids = rows.checked_mul(width).ok_or_else(|| wrong(self.place, "has too many rows"))?;
        // Nodes in depth-first order; a list is followed by its item.
        let lengths = [rows, rows, rows, rows, ids, rows, ids];
        let lengths = if weights { &lengths[..] } else { &lengths[..5] };
        let nodes = self.record.nodes().filter(|n| n.len() == lengths.len());
        let nodes = nodes.ok_or_else(|| wrong(self.place, "does not have the columns of the schema"))?;
        for (node, length) in nodes.iter().zip(lengths) {
            if usize::try_from(node.length()) != Ok(*length) {
                return Err(wrong(self.place, "has columns of different lengths"));
            }
            if node.null_count() != 0 {
                return Err(wrong(self.place, "has nulls").cure("mark missing experts by 65535"));
            }
        }
        // Buffers: validity and values of each column; a list has validity only.
        if self.record.buffers().is_none_or(|b| b.len() != if weights { 12 } else { 9 }) {
            return Err(wrong(self.place, "does not have the buffers of the schema"));
        }
        Ok(Columns {
            sequence: self.values(1, rows)?,
            phase: self.values(3, rows)?,
            position: self.values(5, rows)?,
            experts: self.values(8, ids)?,
            weights: if weights { Some(self.values(11, ids)?) } else { None },
        })
    }
    /// Buffer `i` as `n` values, if it lies in the body, is long enough and aligned.
    fn values<T: ArrowNativeType>(&self, i: usize, n: usize) -> Result<ScalarBuffer<T>> {
        let bounded = || {
            let buffer = self.record.buffers()?.get(i);
            let at = usize::try_from(buffer.offset()).ok()?;
            let length = usize::try_from(buffer.length()).ok()?;
            let needed = n.checked_mul(size_of::<T>())?;
            (needed <= length && at.checked_add(length)? <= self.body.len()).then_some((at, needed))
        };
        let (at, needed) = bounded().ok_or_else(|| wrong(self.place, "has a buffer outside of its body"))?;
        let values = self.body.slice_with_length(at, needed);
        if values.as_ptr().align_offset(align_of::<T>()) != 0 {
            return Err(wrong(self.place, "has a buffer that is not aligned"));
        }
        Ok(ScalarBuffer::new(values, 0, n))
    }
}
