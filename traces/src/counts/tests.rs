use super::*;
use std::fs;
use std::path::PathBuf;

/// A file written by the tool's own library: see `testdata/make.py`.
fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata")).join(name)
}

/// The counts that the script's requests give layers 1 and 2.
fn recorded() -> Vec<u64> {
    let mut counts = vec![0; 12];
    for (request, first, end) in [(0, 0, 4), (1, 0, 9), (2, 2, 8), (3, 0, 3)] {
        for p in first..end {
            for (l, c) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
                counts[(l - 1) * 6 + (request * 5 + p * 3 + l * 2 + c) % 6] += 1;
            }
        }
    }
    counts
}

/// The recording with its map's other name in its pickle.
fn renamed_map(path: &Path) -> Vec<u8> {
    let text = |name: &str| [b"X", &(name.len() as u32).to_le_bytes()[..], name.as_bytes()].concat();
    let (from, to) = (text("last_physical_to_logical_map"), text("physical_to_logical_map"));
    let mut old = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut new = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for i in 0..old.len() {
        let mut member = old.by_index(i).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut member, &mut bytes).unwrap();
        if member.name().ends_with("/data.pkl") {
            let at = (0..bytes.len() - from.len()).find(|i| bytes[*i..].starts_with(&from)).unwrap();
            bytes.splice(at..at + from.len(), to.iter().copied());
        }
        new.start_file(member.name(), stored).unwrap();
        std::io::Write::write_all(&mut new, &bytes).unwrap();
    }
    new.finish().unwrap().into_inner()
}

#[test]
fn recordings_of_every_mode_have_the_same_counts() {
    for name in ["sglang_stat.pt", "sglang_per_pass.pt", "sglang_per_token.pt"] {
        let c = read(&golden(name), None).unwrap();
        assert_eq!((c.format, &c.layer_numbers[..], c.experts), ("sglang", &[1, 2][..], 6), "{name}");
        assert_eq!(c.counts, recorded(), "{name}");
        assert_eq!(c.notes.len(), if name == "sglang_stat.pt" { 0 } else { 2 });
    }
    // Those of the trace that the recording becomes.
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("t.arrow");
    crate::import::import(&golden("sglang_per_token.pt"), None, &Default::default(), &out).unwrap();
    let c = read(&out, None).unwrap();
    assert_eq!((c.format, c.counts, c.k), ("trace", recorded(), Some(2)));
    // The map under its other name.
    let renamed = dir.path().join("renamed.pt");
    fs::write(&renamed, renamed_map(&golden("sglang_per_pass.pt"))).unwrap();
    assert_eq!(read(&renamed, None).unwrap().counts, recorded());
    let table = dir.path().join("expert_distribution_rank0.csv");
    fs::write(&table, "layer_id,expert_id,count\n3,0,7\n3,2,1\n4,1,2\n3,0,1\n").unwrap();
    let c = read(&table, None).unwrap();
    assert_eq!((c.format, c.layer_numbers, c.experts, c.counts), ("sglang", vec![3, 4], 3, vec![8, 0, 1, 0, 2, 0]));
}

#[test]
fn statistics_and_importance_matrices() {
    let c = read(&golden("tensorrt_llm"), None).unwrap();
    let mut expected = vec![0; 8];
    for (rank, step) in [(0, 5), (0, 6), (1, 5), (1, 6)] {
        for (l, layer) in [3, 10].into_iter().enumerate() {
            (0..3 - rank).for_each(|t| (0..2).for_each(|i| expected[l * 4 + (rank + step + t + layer + i) % 4] += 1));
        }
    }
    assert_eq!((c.format, &c.layer_numbers[..], c.k, c.counts), ("tensorrt-llm", &[3, 10][..], Some(2), expected));
    let c = read(&golden("imatrix.gguf"), None).unwrap();
    let expected: Vec<u64> = [1, 2, 10].iter().flat_map(|l| (0..4).map(move |e| l * 100 + e)).collect();
    assert_eq!((c.format, &c.layer_numbers[..], c.experts, c.counts), ("imatrix", &[1, 2, 10][..], 4, expected));
    assert!(c.notes.is_empty());
}

#[test]
fn loads_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let npy = |descr: &str, shape: &str, body: &[u8]| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), body].concat()
    };
    let floats: Vec<u8> = [1.0f64, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, shape) in [("weight.npy", "(2, 2)"), ("names.npy", "(4,)")] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, &npy("<f8", shape, &floats)).unwrap();
    }
    for (name, bytes, expected) in [
        ("a.npy", npy("<f8", "(2, 2)", &floats), [1, 2, 3, 4]),
        ("b.npy", npy("|u1", "(2, 2, 2)", &[1, 2, 3, 4, 10, 10, 10, 10]), [11, 12, 13, 14]),
        ("c.npz", zip.finish().unwrap().into_inner(), [1, 2, 3, 4]),
        ("d.json", b"[[1, 2.0], [3, 4]]".to_vec(), [1, 2, 3, 4]),
        ("e.json", b"{\"logical_count\": [[1, 2], [3, 4]]}".to_vec(), [1, 2, 3, 4]),
        ("f.json", b"[[[1, 2], [3, 4]], [[1, 0], [0, 0]]]".to_vec(), [2, 2, 3, 4]),
        ("g.csv", b"1,2\n 3 ,4e0\n".to_vec(), [1, 2, 3, 4]),
    ] {
        fs::write(dir.path().join(name), bytes).unwrap();
        let c = read(&dir.path().join(name), None).unwrap();
        assert_eq!((c.format, c.counts), ("eplb", expected.to_vec()), "{name}");
    }
    let c = read(&golden("eplb.pt"), None).unwrap();
    assert_eq!((c.format, c.counts), ("eplb", vec![0, 2, 4, 6, 1, 3, 5, 7]));
    // Fractions keep their shares: exact to 40 bits of the largest.
    fs::write(dir.path().join("x.json"), "[[0.25, 0.5], [0.125, 0]]").unwrap();
    let c = read(&dir.path().join("x.json"), None).unwrap();
    assert_eq!((c.counts, c.notes.len()), (vec![1 << 39, 1 << 40, 1 << 38, 0], 1));
}

#[test]
fn figures_of_a_layer() {
    let c = ExpertCounts {
        layer_numbers: vec![0, 1, 2],
        experts: 4,
        counts: vec![4, 4, 4, 4, 0, 8, 0, 0, 2, 0, 2, 0],
        ..Default::default()
    };
    assert_eq!([0, 1, 2].map(|l| c.total(l)), [16, 8, 4]);
    assert_eq!([0, 1, 2].map(|l| c.imbalance(l)), [1.0, 4.0, 2.0]);
    let entropy = [0, 1, 2].map(|l| c.entropy(l));
    assert!((entropy[0] - 1.0).abs() < 1e-12 && entropy[1] == 0.0 && (entropy[2] - 0.5).abs() < 1e-12, "{entropy:?}");
    assert_eq!(c.top(2, 3), [(0, 2), (2, 2), (1, 0)]);
}

#[test]
fn published_tables() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/routing/popularity"));
    if !folder.exists() {
        return println!("skipped: {} is absent", folder.display());
    }
    for (name, layers, experts, k, tokens) in [
        ("qwen3-30b-a3b", 0..48, 128, 8, 75_773),
        ("qwen3-next-80b-a3b", 0..48, 512, 10, 24_963),
        ("glm52_overlay", 3..78, 256, 8, 1270),
    ] {
        let c = read(&folder.join(format!("coactivation_{name}.json.gz")), None).unwrap();
        assert_eq!((c.format, c.experts, c.k), ("coactivation", experts, Some(k)), "{name}");
        assert!(c.layer_numbers.iter().copied().eq(layers.clone()), "{name}: {:?}", c.layer_numbers);
        assert!((0..layers.len()).all(|l| c.total(l) == u64::from(k) * tokens), "{name}");
        assert!(c.pairs.len() == layers.len() && c.pairs.iter().all(|p| !p.is_empty() && p.len() <= 2000), "{name}");
    }
}

#[test]
fn bad_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, bytes: &[u8], word: &str| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let Err(e) = read(&path, None) else { panic!("{name} is accepted") };
        let text = e.to_string();
        assert!(text.contains(name) && text.contains(word), "{name}: {text}");
        assert!(e.exit_code() == 2 && !e.cure.is_empty() && text.len() < 600, "{name}: {text}");
    };
    refused("a.bin", b"?", "--source-format");
    refused("a.json", b"[[1, -2]]", "layer 0, expert 1: -2 is no load");
    refused("b.json", b"[[1, 2], [3]]", "step 0, layer 1: has 1 experts, not 2");
    refused("c.json", b"[[1, NaN]]", "1:6");
    refused("d.json", b"[[0, 0]]", "no selections");
    refused("e.json", b"[]", "has the shape [0, 0]");
    refused("f.json", "[".repeat(10_000).as_bytes(), "1:");
    refused("g.json", b"[[1e300, 1]]", "is no load");
    refused("a.csv", b"a,b\n1,2\n", "line 1: has a field that is no number");
    refused("b.csv", b"1,2\n1,inf\n", "layer 1, expert 1: inf is no load");
    refused("c.csv", b"1,2\n1\n", "line 2: has 1 fields, not 2");
    refused("d.csv", b"layer_id,expert_id,count\n0,70000,1\n", "line 2: is no row");
    let most = (1u64 << 53) - 1;
    let rows = |n: usize, expert: fn(usize) -> usize| -> String {
        (0..n).map(|i| format!("0,{},{most}\n", expert(i))).collect()
    };
    let table_of = |rows: String| format!("layer_id,expert_id,count\n{rows}");
    refused("f.csv", table_of(rows(2049, |_| 0)).as_bytes(), "line 3: goes beyond 2^53");
    refused("g.csv", table_of(rows(2049, |i| i)).as_bytes(), "layer 0: has more than 2^64 selections");
    refused("e.csv", b"layer_id,expert_id,count\n", "shape [0, 0]");
    refused("a.npy", b"\x93NUMPY\x01\x00\x02\x00{}", "header");
    refused("a.npz", b"PK\x03\x04", "not a sound archive");
    refused("t.pt", b"PK\x03\x04", "not a sound archive");
    let table = |layers: &str| format!("{{\"n_expert_per_layer\": 2, \"layers\": [{layers}]}}");
    for (name, layers, word) in [
        ("h.json", "{\"heat\": [1]}", "layers[0]: has heat of 1 experts, not 2"),
        ("i.json", "{\"heat\": [1, 1], \"pairs\": [[0, 2, 1]]}", "the pair [0, 2, 1]"),
        ("j.json", "{\"heat\": [1, 1], \"pairs\": [[0, 1, 2]]}", "the pair [0, 1, 2]"),
        ("k.json", "{\"heat\": [1, -1]}", "1:"),
        ("l.json", "{\"layer\": 1, \"heat\": [1, 1]}, {\"layer\": 1, \"heat\": [1, 1]}", "layer 1 follows layer 1"),
        ("m.json", "", "no selections"),
        ("n.json", "{\"heat\": [1, 1], \"pairs\": [[0, 1]]}", "1:"),
    ] {
        refused(name, table(layers).as_bytes(), word);
    }
    refused("a.json.gz", &[0x1f, 0x8b, 8, 0, 0, 0], "a known format");
    let good = fs::read(golden("imatrix.gguf")).unwrap();
    let swap = |from: &[u8], to: &[u8]| {
        let mut b = good.clone();
        let at: Vec<usize> = (0..b.len() - from.len()).filter(|i| b[*i..].starts_with(from)).collect();
        assert!(!at.is_empty());
        at.into_iter().for_each(|i| b[i..i + to.len()].copy_from_slice(to));
        b
    };
    refused("cut.gguf", &good[..good.len() - 200], "behind the end");
    refused("head.gguf", &good[..100], "ends early");
    refused("version.gguf", &[&good[..4], &9u32.to_le_bytes(), &good[8..]].concat(), "version 9");
    refused("model.gguf", &swap(b"general.type", b"general.typo"), "no importance matrix");
    refused("dense.gguf", &swap(b"_exps", b"_shex"), "no counts of experts");
    refused("names.gguf", &[&good[..16], &u64::MAX.to_le_bytes(), &good[24..]].concat(), "byte");
    refused("old.dat", b"\x02\x00\x00\x00\x1a\x00\x00\x00blk.0.ffn_gate_exps.weight", "older format");
}

/// Damage of any kind gives a message or other counts, never a panic.
#[test]
fn damaged_matrices() {
    let good = fs::read(golden("imatrix.gguf")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    let mut refused = 0;
    for i in (0..good.len().min(1800)).step_by(3) {
        let mut bytes = good.clone();
        bytes[i] = if i % 2 == 0 { 0xff } else { bytes[i].wrapping_add(1) };
        fs::write(&path, bytes).unwrap();
        refused += usize::from(read(&path, Some("imatrix")).is_err_and(|e| e.exit_code() == 2 && !e.cure.is_empty()));
    }
    assert!(refused > 40, "{refused}");
}
