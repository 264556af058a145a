use super::*;
use std::io::Write;

const WANT: Want = Want { name: None, what: "a map [layers, slots]", dimensions: 2, most: 100 };

/// A file in numpy's format, version 1.
fn npy(descr: &str, shape: &str, body: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), body].concat()
}

fn npz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn read(name: &str, bytes: &[u8], want: &Want) -> Result<Array> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    numpy(&path, want)
}

fn refused(name: &str, bytes: &[u8], want: &Want, word: &str) {
    let e = read(name, bytes, want).unwrap_err();
    let text = e.to_string();
    assert!(text.contains(word) && e.exit_code() == 2 && e.file.is_some() && !e.cure.is_empty(), "{text}");
}

#[test]
fn integers_of_every_type_and_whole_floats() {
    let floats: Vec<u8> = [1.0f64, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    for (descr, body) in [("|u1", vec![1, 0]), ("<i2", vec![1, 0, 0, 0]), ("<f8", floats)] {
        let a = read("a.npy", &npy(descr, "(1, 2)", &body), &WANT).unwrap();
        assert_eq!((a.name, &a.shape[..], &a.data[..]), (None, &[1, 2][..], &[1, 0][..]));
    }
    let negative = read("a.npy", &npy("|i1", "(2, 1)", &[0xFF, 7]), &WANT).unwrap();
    assert_eq!(negative.data, [-1, 7]);
}

#[test]
fn one_array_of_an_archive() {
    let one = npy("|u1", "(1, 2)", &[1, 2]);
    let cube = npy("|u1", "(1, 1, 1)", &[1]);
    let found = read("a.npz", &npz(&[("cube", cube.clone()), ("map", one.clone())]), &WANT).unwrap();
    assert_eq!((found.name.as_deref(), &found.data[..]), (Some("map"), &[1, 2][..]));
    let two = npz(&[("a", one.clone()), ("b", npy("|u1", "(1, 1)", &[9]))]);
    refused("a.npz", &two, &WANT, "name the array to read with --array: a, b");
    for name in ["b", "b.npy"] {
        let found = read("a.npz", &two, &Want { name: Some(name), ..WANT }).unwrap();
        assert_eq!(found.data, [9]);
    }
    refused("a.npz", &two, &Want { name: Some("c"), ..WANT }, "\"c\" is not an array of the archive");
    refused("a.npz", &npz(&[("cube", cube)]), &WANT, "has no array of 2 dimensions");
    refused("a.npz", &one, &WANT, "not a sound archive");
}

#[test]
fn bad_arrays_are_refused() {
    let nan: Vec<u8> = f32::NAN.to_le_bytes().to_vec();
    for (bytes, word) in [
        (npy("|u1", "(2,)", &[1, 2]), "not 2 dimensions"),
        (npy("|u1", "(0, 2)", &[]), "it is empty"),
        (npy("|u1", "(101, 1)", &[0; 101]), "100 elements are the most"),
        (npy("|u1", "(9223372036854775807, 9223372036854775807)", &[]), "100 elements are the most"),
        (npy("|u1", "(1, 2)", &[1]), "ends early"),
        (npy("|u1", "(1, 2)", &[1, 2, 3]), "goes on after"),
        (npy("<f4", "(1, 1)", &nan), "element 0: NaN is no whole number"),
        (npy("<f4", "(1, 1)", &1.5f32.to_le_bytes()), "1.5 is no whole number"),
        (npy("<f4", "(1, 1)", &1e30f32.to_le_bytes()), "is no whole number"),
        (npy("<u8", "(1, 1)", &[0xFF; 8]), "18446744073709551615 is no whole number"),
        (npy("|S1", "(1, 1)", &[1]), "elements of type"),
        (b"\x93NUM".to_vec(), "not a numpy array"),
        (Vec::new(), "not a numpy array"),
    ] {
        refused("a.npy", &bytes, &WANT, word);
    }
}

#[test]
fn tensors_of_torch() {
    let golden = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    let plain = tensor(&golden("eplb.pt"), &[], &WANT).unwrap();
    assert_eq!((plain.name, plain.data.len()), (None, plain.shape[0] * plain.shape[1]));
    // make.py: expert (slot + layer) mod 6 in slot of 8.
    let map = tensor(&golden("sglang_per_pass.pt"), &["absent", "last_physical_to_logical_map"], &WANT).unwrap();
    assert_eq!((map.name.as_deref(), &map.shape[..]), (Some("last_physical_to_logical_map"), &[3, 8][..]));
    assert_eq!(map.data[8..16], [1, 2, 3, 4, 5, 0, 1, 2]);
    let e = tensor(&golden("sglang_per_pass.pt"), &["absent"], &WANT).unwrap_err();
    assert!(e.to_string().contains("has none as absent") && e.file.is_some(), "{e}");
    assert!(has_tensor(&golden("eplb.pt"), &[], 2) && !has_tensor(&golden("sglang_per_pass.pt"), &[], 2));
}
