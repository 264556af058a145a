//! A Parquet file read in batches of rows, checked before anything is decoded.
//!
//! * The footer is at most 64 MiB, a page's header 1 MiB; both are walked over before they are decoded ([`super::thrift`]).
//!   Column chunks lie inside the file. The header of every page of the columns that are used is visited first: no page
//!   unpacks to more than 256 MiB, and lists have no more values a row group than the caller allows,
//!   because one row may hold them all. So memory is bounded by pages, not by the file.
//! * The crate that decodes has assertions; a panic of it is caught, kept quiet, and becomes a message.

use super::thrift;
use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use ::parquet::column::page::PageReader;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::ColumnChunkMetaData;
use ::parquet::file::reader::{ChunkReader, Length};
use ::parquet::file::serialized_reader::SerializedPageReader;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};
use bytes::Bytes;
use moesim_core::{Diag, Result, input};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

const FOOTER: u32 = 64 << 20;
const PAGE: u64 = 256 << 20;
const HEADER: usize = 1 << 20;
const COLUMNS: usize = 65_536;

/// A file and what its footer says.
pub(super) struct Source {
    path: PathBuf,
    bytes: Bytes,
    footer: ArrowReaderMetadata,
}

/// Some columns of a file, in batches of rows.
pub(super) struct Batches {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    /// Rows read.
    pub(super) rows: u64,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let read = |e: std::io::Error| Diag::cannot_read(path, &e);
        let file = input::open(path)?;
        let wrong = |problem: &str| {
            Diag::input(problem).file(path).place("footer").cure("give a whole Parquet file: copy or write it again")
        };
        if file.metadata().map_err(read)?.len() < 12 {
            return Err(wrong("is too short for Parquet"));
        }
        let bytes = Bytes::from_owner(crate::map::map(&file).map_err(read)?);
        let (length, magic) = bytes[bytes.len() - 8..].split_at(4);
        if magic != b"PAR1" {
            return Err(wrong("does not end as Parquet does"));
        }
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default());
        if length > FOOTER {
            return Err(wrong("has a footer of more than 64 MiB"));
        }
        let start = bytes.len().checked_sub(8 + length as usize);
        if start.and_then(|start| thrift::field(&bytes[start..bytes.len() - 8], 1, &[])).is_none() {
            return Err(wrong("has a broken footer"));
        }
        // The Arrow schema that some writers embed is not needed, and one thing less to believe.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let footer = guarded(|| ArrowReaderMetadata::load(&bytes, options))
            .map_err(|e| wrong(&format!("cannot be read: {}", shown(&e))))?;
        if footer.parquet_schema().num_columns() > COLUMNS {
            return Err(wrong("has more than 65536 columns"));
        }
        Ok(Self { path: path.to_path_buf(), bytes, footer })
    }
    /// The columns of the file.
    pub(super) fn schema(&self) -> &Schema {
        self.footer.schema()
    }
    /// A value of the footer's metadata.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        let entries = self.footer.metadata().file_metadata().key_value_metadata()?;
        entries.iter().find(|e| e.key == key)?.value.as_deref()
    }
    /// Reads these columns of the schema, so many rows at a time; lists have so many values a row group and column.
    pub(super) fn batches(self, columns: &[usize], rows: usize, list_values: u64) -> Result<Batches> {
        let schema = self.footer.parquet_schema();
        let mask = ProjectionMask::roots(schema, columns.iter().copied());
        for (group, g) in self.footer.metadata().row_groups().iter().enumerate() {
            for (leaf, chunk) in g.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf)) {
                self.check_chunk(chunk, list_values).map_err(|problem| {
                    let name = schema.column(leaf).path().string();
                    Diag::input(shown(&problem))
                        .file(&self.path)
                        .place(format!("row group {group}, column {}", shown(&name)))
                        .cure("the file is damaged, or has pages or row groups of unusual size: write it again")
                })?;
            }
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes, self.footer);
        let reader = guarded(|| builder.with_projection(mask).with_batch_size(rows).build());
        let reader = reader.map_err(|e| broken(&self.path, 0, &e))?;
        Ok(Batches { path: self.path, reader, rows: 0 })
    }
    /// Visits the headers of a column chunk's pages; decodes none.
    fn check_chunk(&self, chunk: &ColumnChunkMetaData, list_values: u64) -> std::result::Result<(), String> {
        let starts = [Some(chunk.data_page_offset()), chunk.dictionary_page_offset()];
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let end = start.checked_add(chunk.compressed_size()).and_then(|end| u64::try_from(end).ok());
        let inside = end.is_some_and(|end| end <= self.bytes.len() as u64);
        if starts.iter().flatten().any(|s| *s < 0) || chunk.compressed_size() < 0 || !inside {
            return Err("lies outside the file".into());
        }
        let list = chunk.column_descr().max_rep_level() > 0;
        guarded(|| {
            let mut pages = SerializedPageReader::new(Arc::new(Headers(self.bytes.clone())), chunk, 0, None)?;
            let mut values = 0u64;
            while let Some(page) = pages.peek_next_page()? {
                values = values.saturating_add(page.num_levels.unwrap_or(0) as u64);
                if list && values > list_values {
                    return Err(ParquetError::General(format!("has more than {list_values} values in lists")));
                }
                pages.skip_next_page()?;
            }
            Ok(())
        })
    }
}

impl Batches {
    /// The next rows, at least one.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let next = guarded(|| self.reader.next().transpose()).map_err(|e| broken(&self.path, self.rows, &e))?;
            match next {
                Some(batch) if batch.num_rows() == 0 => {}
                Some(batch) => {
                    self.rows += batch.num_rows() as u64;
                    return Ok(Some(batch));
                }
                None => return Ok(None),
            }
        }
    }
    /// Names the file as what is wrong.
    pub(super) fn at(&self, d: Diag) -> Diag {
        d.file(&self.path)
    }
}

fn broken(path: &Path, row: u64, problem: &str) -> Diag {
    Diag::input(format!("cannot be decoded: {}", shown(problem)))
        .file(path)
        .place(format!("after row {row}"))
        .cure("the file is damaged, or packed in another way than plain, snappy or zstd: write it again")
}

/// What the decoder says, on one line of bounded length.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(160).flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// The file, read only at the headers of pages, whose declared sizes are refused where they are beyond reason.
struct Headers(Bytes);

impl Length for Headers {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

impl ChunkReader for Headers {
    type T = <Bytes as ChunkReader>::T;

    fn get_read(&self, start: u64) -> ::parquet::errors::Result<Self::T> {
        let rest = usize::try_from(start).ok().and_then(|s| self.0.get(s..)).unwrap_or_default();
        match unpacked(rest) {
            Some(size) if size <= PAGE => self.0.get_read(start),
            _ => Err(ParquetError::General("has a page with a broken header, or of more than 256 MiB".into())),
        }
    }
    fn get_bytes(&self, start: u64, length: usize) -> ::parquet::errors::Result<Bytes> {
        self.0.get_bytes(start, length)
    }
}

/// The unpacked size of the page whose header this is: the second field of the structure `PageHeader` (parquet.thrift).
fn unpacked(header: &[u8]) -> Option<u64> {
    let size = thrift::field(&header[..header.len().min(HEADER)], 2, thrift::PAGE_HEADER)??;
    u64::try_from(size).ok()
}

/// Runs the decoder; a panic of it is its message.
fn guarded<T, E: std::fmt::Display>(f: impl FnOnce() -> std::result::Result<T, E>) -> std::result::Result<T, String> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    // What the decoder leaves behind is dropped with the error.
    let result = catch_unwind(AssertUnwindSafe(f));
    QUIET.set(false);
    match result {
        Ok(r) => r.map_err(|e| e.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("broken off").to_string())
        }
    }
}

/// What stands for a value that is not there.
pub(super) const NULL: i64 = i64::MIN;

/// Whether [`integers`] can read a column.
pub(super) fn is_integer(t: &DataType) -> bool {
    t.is_integer()
}

/// The values of a column of integers, [`NULL`] where there is none, those beyond 63 bits as the largest.
pub(super) fn integers(array: &dyn Array, out: &mut Vec<i64>) {
    macro_rules! read {
        ($($kind:ident $ty:ty),*) => {
            match array.data_type() {
                $(DataType::$kind => {
                    let values = array.as_primitive::<$ty>().values();
                    // Fallible for u64 only, but one macro reads all integer types.
                    #[allow(clippy::unnecessary_fallible_conversions)]
                    out.extend(values.iter().map(|v| i64::try_from(*v).unwrap_or(i64::MAX)));
                })*
                _ => out.resize(array.len(), NULL),
            }
        };
    }
    out.clear();
    read!(Int8 Int8Type, Int16 Int16Type, Int32 Int32Type, Int64 Int64Type,
        UInt8 UInt8Type, UInt16 UInt16Type, UInt32 UInt32Type, UInt64 UInt64Type);
    if array.null_count() > 0 {
        out.iter_mut().enumerate().filter(|(i, _)| array.is_null(*i)).for_each(|(_, v)| *v = NULL);
    }
}

/// An expert id: null, -1 and the container's 65535 are missing.
pub(super) fn expert(value: i64) -> Option<u16> {
    match value {
        NULL | -1 => Some(crate::trace::MISSING),
        _ => u16::try_from(value).ok(),
    }
}
