use super::table_as_csv;
use crate::import::{Options, Phase, load};
use crate::trace::{MISSING, Trace};
use ::parquet::arrow::ArrowWriter;
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use moesim_core::{Diag, Result};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/parquet")).join(name)
}

fn options() -> Options {
    Options { experts: Some(8), ..Default::default() }
}

/// The id that make.py gives.
fn id(position: u32, layer: u32, n: u32) -> u16 {
    ((position * 3 + layer * 2 + n) % 8) as u16
}

#[test]
fn rows_written_by_pyarrow() {
    let t = load(&golden("long.parquet"), None, &options()).unwrap();
    assert_eq!((t.sequences(), t.rows(), t.k(), &t.meta().layer_numbers[..]), (2, 8, 2, &[1, 2][..]));
    for (i, s) in [t.sequence(0), t.sequence(1)].into_iter().enumerate() {
        let all = |first: u32, rows: u32| {
            (first..first + rows)
                .flat_map(|p| (1..3).flat_map(move |l| [id(p, l, 0), if p == 1 { MISSING } else { id(p, l, 1) }]))
                .collect::<Vec<_>>()
        };
        assert_eq!((s.id, s.first_position, s.decode_first_position), (5 * i as u32, 0, 3));
        assert_eq!((s.prefill, s.decode), (&all(0, 3)[..], &all(3, 1)[..]));
    }
}

#[test]
fn flame_written_by_pyarrow() {
    let both = Options { phase: Phase::Prefill, ..options() };
    let t = load(&golden("iter_0001"), None, &both).unwrap();
    assert_eq!((t.sequences(), t.rows(), t.k(), &t.meta().layer_numbers[..]), (2, 2050, 2, &[1, 2][..]));
    for row in 0..2050u32 {
        let (s, r) = (t.sequence(row as usize / 2048), row as usize % 2048);
        let expected = [id(row, 2, 0), id(row, 2, 1), id(row, 3, 0), id(row, 3, 1)];
        assert_eq!(s.prefill[r * 4..][..4], expected);
    }
    let e = load(&golden("iter_0001"), None, &Options::default()).err().unwrap();
    assert!(e.cure.contains("--experts"), "{e}");
}

/// A table of integers.
fn table(columns: &[(&str, &[Option<i64>])]) -> Vec<u8> {
    let array = |v: &[Option<i64>]| Arc::new(Int64Array::from(v.to_vec())) as ArrayRef;
    write(RecordBatch::try_from_iter(columns.iter().map(|(n, v)| (*n, array(v)))).unwrap())
}

fn write(batch: RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut w = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    w.write(&batch).unwrap();
    w.close().unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<Trace> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    std::fs::write(&path, bytes).unwrap();
    load(&path, Some("parquet"), &options())
}

#[test]
fn wrong_tables_are_named() {
    let n = |v: i64| [Some(v)];
    let row = |s: i64, p: i64, l: i64, e: i64| {
        table(&[("sequence", &n(s)), ("position", &n(p)), ("layer", &n(l)), ("expert0", &n(e))])
    };
    assert_eq!(read(&row(1, 2, 3, -1)).unwrap().sequence(0).decode, [MISSING]);
    let wrong = |bytes: &[u8], words: &[&str]| {
        let e = read(bytes).err().unwrap();
        let text = format!("{} {} {}", e.place.as_deref().unwrap_or(""), e.problem, e.cure);
        assert!(words.iter().all(|w| text.contains(w)) && e.exit_code() == 2, "{text}");
    };
    wrong(&row(-1, 2, 3, 0), &["row 0, sequence", "-1 is not a sequence number"]);
    wrong(&row(0, 1 << 32, 3, 0), &["row 0, position"]);
    wrong(&row(0, 0, 0, 8), &["expert 8 of 8 does not exist"]);
    wrong(&row(0, 0, 0, 65_536), &["row 0, expert0", "65536 is not an expert id"]);
    wrong(&table(&[("sequence", &[None]), ("token", &n(0)), ("layer", &n(0)), ("e0", &n(0))]), &["null", "sequence"]);
    wrong(&table(&[("sequence", &n(0)), ("token", &n(0)), ("layer", &n(0))]), &["lacks the column `expert0`"]);
    wrong(&table(&[("sequence", &n(0)), ("layer", &n(0)), ("e0", &n(0))]), &["lacks the column `position`"]);
    wrong(&table(&[("sequence", &[]), ("token", &[]), ("layer", &[]), ("e0", &[])]), &["has no rows"]);
    let columns = [("sequence", &n(0)), ("token", &n(0)), ("layer", &n(0)), ("phase", &n(2)), ("e0", &n(0))];
    wrong(&table(&columns.map(|(n, v)| (n, &v[..]))), &["row 0, phase", "2 is not a phase"]);
    let text = Arc::new(StringArray::from(vec!["a"])) as ArrayRef;
    let columns = ["expert0", "sequence", "position", "layer"].map(|n| (n, text.clone()));
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    wrong(&write(batch), &["`expert0` has the type Utf8"]);
    wrong(b"", &["too short"]);
    wrong(b"PAR1PAR1PAR1", &["footer"]);
    wrong(b"PAR1\xff\xff\xff\xffPAR1", &["more than 64 MiB"]);
    wrong(&std::fs::read(golden("iter_0001/layer_02.parquet")).unwrap(), &["lacks the column `expert0`"]);
}

/// A page that says it unpacks to almost 2 GiB is refused before it is unpacked.
#[test]
fn a_page_of_two_gigabytes() {
    let bytes = std::fs::read(golden("long.parquet")).unwrap();
    // The first page is the first column's, behind the magic: field 1, then field 2 of the header.
    assert_eq!((bytes[4], bytes[6]), (0x15, 0x15));
    let end = 7 + bytes[7..].iter().position(|b| b & 0x80 == 0).unwrap() + 1;
    let huge = [&bytes[..7], b"\xfe\xff\xff\xff\x0f", &bytes[end..]].concat();
    let e = read(&huge).err().unwrap();
    assert!(e.problem.contains("more than 256 MiB") && e.place.unwrap().contains("row group 0"), "{}", e.problem);
}

/// A list of 2^31 - 1 booleans, which take the decoder no byte, in a page's header and in the footer.
#[test]
fn lists_without_end() {
    let bytes = std::fs::read(golden("long.parquet")).unwrap();
    let list = [0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 7, 0];
    // Behind the first three fields of the first page's header.
    let mut at = 4;
    for _ in 0..3 {
        at += 2 + bytes[at + 1..].iter().position(|b| b & 0x80 == 0).unwrap();
    }
    let mut page = bytes.clone();
    page[at..at + 8].copy_from_slice(&list);
    let length = u32::from_le_bytes(bytes[bytes.len() - 8..][..4].try_into().unwrap()) as usize;
    let mut footer = bytes.clone();
    footer[bytes.len() - 8 - length..][..8].copy_from_slice(&list);
    for (bytes, place, words) in [(page, "row group 0", "a broken header"), (footer, "footer", "has a broken footer")] {
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || send.send(read(&bytes).err()));
        let e = receive.recv_timeout(std::time::Duration::from_secs(20)).expect("an answer").unwrap();
        assert!(e.problem.contains(words) && e.place.clone().unwrap().contains(place), "{e}");
    }
}

#[test]
fn flame_files_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    let good = std::fs::read(golden("iter_0001/layer_02.parquet")).unwrap();
    let wrong = |words: &str| {
        let e: Diag = load(dir.path(), None, &options()).err().unwrap();
        assert!(e.to_string().contains(words), "{e}");
    };
    put("layer_02.parquet", &good);
    put("layer_03.parquet", &good[..good.len() / 2]);
    wrong("does not end as Parquet does");
    put("layer_03.parquet", &std::fs::read(golden("long.parquet")).unwrap());
    wrong("lacks the one column `indices`");
    put("layer_03.parquet", &std::fs::read(golden("short.parquet")).unwrap());
    wrong("has 2 rows where");
    put("layer_03.parquet", &std::fs::read(golden("ragged.parquet")).unwrap());
    wrong("has 1 experts, not 2");
    std::fs::remove_file(dir.path().join("layer_03.parquet")).unwrap();
    put("layer_2.parquet", &good);
    wrong("one twice");
    std::fs::remove_file(dir.path().join("layer_2.parquet")).unwrap();
    put("layer_0.parquet", &good);
    wrong("has a layer 0");
}

/// A pipe would keep its reader waiting, so it is read on a thread of its own.
#[cfg(unix)]
#[test]
fn a_layer_that_is_no_file() {
    for (kind, words) in [("pipe", "a pipe or a device"), ("device", "a pipe or a device"), ("folder", "a folder, not")]
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer_02.parquet");
        match kind {
            "pipe" => assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success()),
            "device" => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
            _ => std::fs::create_dir(&path).unwrap(),
        }
        let (send, receive) = std::sync::mpsc::channel();
        let source = dir.path().to_path_buf();
        std::thread::spawn(move || send.send(load(&source, Some("parquet"), &options()).err()));
        let e = receive.recv_timeout(std::time::Duration::from_secs(20)).expect("an answer").unwrap();
        let text = e.to_string();
        assert!(text.contains(&format!("layer_02.parquet: is {words}")) && e.exit_code() == 2, "{text}");
        assert!(!e.cure.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Damage anywhere gives a trace or a message.
    #[test]
    fn damage_is_a_message(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
        flame in any::<bool>(),
    ) {
        let name = if flame { "iter_0001/layer_02.parquet" } else { "long.parquet" };
        let mut bytes = std::fs::read(golden(name)).unwrap();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layer_02.parquet");
        std::fs::write(&path, bytes).unwrap();
        let source = if flame { dir.path() } else { &path };
        if let Err(e) = load(source, Some("parquet"), &options()) {
            prop_assert_eq!(e.exit_code(), 2);
        }
    }
}

/// Any table as text: whole and broken numbers, text, nothing; lists are refused by name.
#[test]
fn tables_become_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let columns: [(&str, ArrayRef); 4] = [
        ("tokens", Arc::new(Int64Array::from(vec![Some(4), None]))),
        ("latency_ms", Arc::new(Float64Array::from(vec![0.017, 1e-9]))),
        ("name", Arc::new(StringArray::from(vec!["a, \"b\"", ""]))),
        ("eager", Arc::new(BooleanArray::from(vec![true, false]))),
    ];
    std::fs::write(&path, write(RecordBatch::try_from_iter(columns).unwrap())).unwrap();
    let text = String::from_utf8(table_as_csv(&path).unwrap()).unwrap();
    assert_eq!(text, "tokens,latency_ms,name,eager\n4,0.017,\"a, \"\"b\"\"\",true\n,0.000000001,,false\n");
    let list = ListArray::from_iter_primitive::<arrow_array::types::Int64Type, _, _>([Some([Some(1)])]);
    let columns: [(&str, ArrayRef); 1] = [("ids", Arc::new(list))];
    std::fs::write(&path, write(RecordBatch::try_from_iter(columns).unwrap())).unwrap();
    let e = table_as_csv(&path).unwrap_err().to_string();
    assert!(e.contains("column ids holds") && e.contains("leave the column out"), "{e}");
}
