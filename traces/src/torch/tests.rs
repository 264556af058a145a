use super::*;
use std::io::Write;

/// An archive as torch.save writes it, with these members.
fn archive(members: &[(&str, &[u8])], method: zip::CompressionMethod) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn open(bytes: &[u8]) -> Result<TorchFile> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pt");
    std::fs::write(&path, bytes).unwrap();
    TorchFile::open(&path)
}

fn stored(pickle: &[u8], storage: &[u8]) -> Result<TorchFile> {
    open(&archive(&[("a/data.pkl", pickle), ("a/data/0", storage)], zip::CompressionMethod::Stored))
}

/// The pickle of a tensor of four ints with this offset, shape and strides (each a pickled value).
fn tensor(count: u8, offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let id = [
        b"(X\x07\x00\x00\x00storagectorch\nIntStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK",
        &[count, b't', b'Q'][..],
    ];
    let call = [&b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("[..], &id.concat(), offset, shape, strides];
    [&call.concat()[..], b"\x89ccollections\nOrderedDict\n)RtR."].concat()
}

#[test]
fn tensors_and_plain_values() {
    let f = stored(
        &tensor(4, b"K\x00", b"K\x02K\x02\x86", b"K\x01K\x02\x86"),
        &[7, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 3, 0, 0, 0, 4, 0, 0, 0],
    );
    let f = f.unwrap();
    let t = f.tensor(f.root).unwrap();
    assert_eq!((&t.shape[..], f.numbers(t).collect::<Vec<_>>()), (&[2, 2][..], vec![7.0, 3.0, -1.0, 4.0]));
    assert_eq!(f.integer(t, [1, 0, 0]), -1);
    // {"a": [None, True, 1.5, -2, 70000], "b": (2^40,), the list again}; later keys win.
    let text = b"\x80\x02}(X\x01\x00\x00\x00a](NI01\n";
    assert!(stored(text, b"").is_err(), "text integers are of protocol 0");
    let text = [
        &b"\x80\x02}q\x00(X\x01\x00\x00\x00a]q\x01(N\x88G\x3f\xf8\x00\x00\x00\x00\x00\x00J\xfe\xff\xff\xffJ"[..],
        &70000i32.to_le_bytes(),
        b"eX\x01\x00\x00\x00b\x8a\x06\x00\x00\x00\x00\x00\x01\x85X\x01\x00\x00\x00ah\x01u.",
    ]
    .concat();
    let f = stored(&text, b"").unwrap();
    let list = f.items(f.get(f.root, "a").unwrap()).unwrap();
    assert_eq!(list, [Value::None, Value::Bool(true), Value::Float(1.5), Value::Int(-2), Value::Int(70000)]);
    assert_eq!(f.items(f.get(f.root, "b").unwrap()).unwrap(), [Value::Int(1 << 40)]);
    assert!(f.get(f.root, "c").is_none());
}

#[test]
fn bad_files_are_refused() {
    let good = tensor(4, b"K\x00", b"K\x02K\x02\x86", b"K\x02K\x01\x86");
    let four = [0u8; 16];
    assert!(stored(&good, &four).is_ok());
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    let pair = |a: &[u8], b: &[u8]| [a, b, b"\x86"].concat();
    for (name, pickle, word) in [
        ("global", &b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."[..], "names os.system"),
        ("odd name", b"\x80\x02c\xff\n\x1b[1m\n.", "not only tensors"),
        ("instance", b"\x80\x02(ios\nsystem\n.", "neither tensors nor plain"),
        ("build", b"\x80\x02}}b.", "neither tensors nor plain"),
        ("call", b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "a call of another form"),
        ("call of a number", b"\x80\x02K\x01)R.", "a call of another form"),
        ("persistent", b"\x80\x02K\x01Q.", "no storage"),
        ("early", b"\x80\x02K", "ends early"),
        ("text", b"\x80\x02X\xff\xff\xff\xff.", "ends early"),
        ("line", b"\x80\x02ctorch", "ends early"),
        ("no stop", b"\x80\x02N", "ends early"),
        ("empty", b".", "not there"),
        ("below the mark", b"\x80\x02N(.", "not there"),
        ("tuple", b"\x80\x02K\x01\x86.", "not there"),
        ("mark", b"\x80\x02t.", "without a start"),
        ("append", b"\x80\x02K\x01K\x02a.", "no list"),
        ("set", b"\x80\x02]K\x01K\x02s.", "no dictionary"),
        ("odd", b"\x80\x02}(K\x01u.", "without a value"),
        ("memo", b"\x80\x02]r\xff\xff\xff\x7f.", "numbers a value"),
        ("recall", b"\x80\x02h\x05.", "refers to the value 5"),
        ("long", b"\x80\x02\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.", "more than 64 bits"),
        ("keys", &[&b"\x80\x02}("[..], &b"K\x01K\x02".repeat(65), b"u."].concat(), "more than 64 keys"),
        ("count", &tensor(5, b"K\x00", b")", b")"), "16 bytes, not 5 elements"),
        ("beyond", &tensor(4, b"K\x03", b"K\x02\x85", b"K\x01\x85"), "does not fit"),
        ("offset", &tensor(4, huge, b")", b")"), "does not fit"),
        ("shape", &tensor(4, b"K\x00", &pair(huge, huge), &pair(b"K\x01", b"K\x01")), "does not fit"),
        ("expanded", &tensor(4, b"K\x00", &pair(huge, b"K\x01"), &pair(b"K\x00", b"K\x00")), "does not fit"),
        ("stride", &tensor(4, b"K\x00", &pair(b"K\x02", b"K\x02"), &pair(huge, huge)), "does not fit"),
        ("negative", &tensor(4, b"K\x00", b"J\xff\xff\xff\xff\x85", b"K\x01\x85"), "without a sound shape"),
        ("dimensions", &tensor(4, b"K\x00", &pair(b"K\x02", b"K\x02"), b"K\x01\x85"), "strides [1]"),
        ("many", &tensor(4, b"K\x00", b"(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01t", b")"), "9 dimensions"),
    ] {
        let Err(e) = stored(pickle, &four) else { panic!("{name} is accepted") };
        let text = e.to_string();
        assert!(text.contains(word), "{name}: {text}");
        assert!(text.contains("x.pt: data.pkl, byte ") && !e.cure.is_empty() && text.len() < 400, "{name}: {text}");
        assert!(text.chars().all(|c| !c.is_control()), "{name}: {text:?}");
    }
    let s = zip::CompressionMethod::Stored;
    let whole = archive(&[("a/data.pkl", &good), ("a/data/0", &four)], s);
    for (name, bytes, word) in [
        ("empty", vec![], "is empty"),
        ("text", b"hello".to_vec(), "not a sound archive"),
        ("cut", whole[..whole.len() - 30].to_vec(), "not a sound archive"),
        ("no pickle", archive(&[("a/data/0", &four)], s), "no data.pkl"),
        ("no storage", archive(&[("a/data.pkl", &good)], s), "`0` is not in the archive"),
        ("deflated", archive(&[("a/data.pkl", &good)], zip::CompressionMethod::Deflated), "is compressed"),
        ("big", archive(&[("a/data.pkl", &good), ("a/byteorder", b"big")], s), "big-endian"),
    ] {
        let Err(e) = open(&bytes) else { panic!("{name} is accepted") };
        assert!(e.to_string().contains(word) && !e.cure.is_empty(), "{name}: {e}");
    }
}

/// A list that holds itself is read, and nothing goes round in it.
#[test]
fn a_list_in_itself() {
    let f = stored(b"\x80\x02]q\x00h\x00a.", b"").unwrap();
    assert_eq!(f.items(f.root).unwrap(), [f.root]);
}

#[test]
fn what_torch_wrote() {
    let golden = |name: &str| Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata")).join(name);
    let f = TorchFile::open(&golden("eplb.pt")).unwrap();
    let t = f.tensor(f.root).unwrap();
    assert_eq!((&t.shape[..], f.numbers(t).collect::<Vec<_>>()), (&[2, 4][..], vec![0., 2., 4., 6., 1., 3., 5., 7.]));
    let refused = |name: &str| TorchFile::open(&golden(name)).err().unwrap().to_string();
    assert!(refused("legacy.pt").contains("legacy.pt: archive: is in the format of PyTorch before 1.6"));
    assert!(refused("module.pt").contains("names torch.nn.modules.linear.Linear"), "{}", refused("module.pt"));
}

/// Damage of any kind gives a message or other values, never a panic.
#[test]
fn damaged_files() {
    let whole = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/sglang_per_token.pt")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pt");
    let mut random = 1u64;
    let mut draw = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut refused = 0;
    for _ in 0..1000 {
        let mut bytes = whole.clone();
        for _ in 0..=draw(3) {
            let at = draw(bytes.len());
            bytes[at] = [0, 1, 0x7f, 0xff, b'.', b'(', draw(256) as u8][draw(7)];
        }
        bytes.truncate(if draw(4) == 0 { draw(whole.len()) } else { whole.len() });
        std::fs::write(&path, bytes).unwrap();
        let read = crate::import::load(&path, Some("sglang"), &crate::import::Options::default());
        refused += usize::from(read.is_err_and(|e| e.exit_code() == 2 && e.file.is_some() && !e.cure.is_empty()));
    }
    assert!(refused > 150, "{refused}");
}
