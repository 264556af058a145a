//! Lengths that lie, archives that unpack without end, and what is nested without end. Each file is small.

use super::{Bad, import, npy, npz, with};
use flate2::{Compression, write::GzEncoder};
use moesim_core::Result;
use moesim_traces::import::load;
use moesim_traces::{counts, model};
use std::fs;
use std::io::Write;
use std::path::Path;

/// 10 GB, as lengths say it.
const TEN_GB: u64 = 10_000_000_000;

pub(super) fn count(format: &'static str) -> impl Fn(&Path) -> Result<()> + Copy {
    move |path| counts::read(path, Some(format)).map(|_| ())
}

fn config(path: &Path) -> Result<()> {
    model::import_config(path, None).map(|_| ())
}

/// A folder of TensorRT-LLM around its file.
fn folder(path: &Path) -> Result<()> {
    load(path.parent().unwrap_or(path), Some("tensorrt-llm"), &with(4)).map(|_| ())
}

/// An archive of torch.save with this pickle.
fn torch(pickle: &[u8], method: zip::CompressionMethod) -> Vec<u8> {
    let mut z = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in [("a/data.pkl", pickle), ("a/data/0", &[0; 64])] {
        z.start_file(name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
        z.write_all(bytes).unwrap();
    }
    z.finish().unwrap().into_inner()
}

fn gguf(parts: &[&[u8]]) -> Vec<u8> {
    [&b"GGUF\x03\x00\x00\x00"[..], &parts.concat()].concat()
}

#[test]
fn lengths_that_lie() {
    let mut bad = Bad::new();
    let (stored, ten) = (zip::CompressionMethod::Stored, TEN_GB.to_le_bytes());
    let [zero, one] = [0u64, 1].map(u64::to_le_bytes);
    // Arrays.
    let array = npy("|u1", "False", "(10000000000, 1, 1)", &[1; 9]);
    bad.case("array.npy", &array, "10000000000", import("npz"));
    bad.case("array.npz", npz("a.npy", &array), "10000000000", import("npz"));
    let loads = npy("<f8", "False", "(10000000000, 4)", &[1; 64]);
    bad.case("loads.npy", &loads, "10000000000", count("eplb"));
    bad.case("steps.npy", npy("<f8", "False", "(10000000000, 1, 4)", &[0; 64]), "ends early", count("eplb"));
    bad.case("grid.npy", npy("|u1", "False", "(4096, 65534)", &[1; 64]), "[4096, 65534]", count("eplb"));
    // The directory of an archive promises 10 GB of a member, in its zip64 field.
    let mut archive = npz("expert_ids.npy", &npy("|u1", "False", "(1, 1, 1)", &[0]));
    let at = archive.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    archive[at + 20..at + 28].copy_from_slice(&[0xFF; 8]);
    bad.case("member.npz", archive, "", import("npz"));
    // GGUF: the length of a key, the number of keys, of tensors, of elements, and the place of an array.
    let imatrix = count("imatrix");
    bad.case("key.gguf", gguf(&[&zero, &one, &ten, b"x"]), "a text of 10000000000 bytes", imatrix);
    bad.case("keys.gguf", gguf(&[&zero, &ten]), "ends early", imatrix);
    bad.case("list.gguf", gguf(&[&zero, &one, &one, b"x\x09\0\0\0\x08\0\0\0", &ten]), "ends early", imatrix);
    let lists = [9u32.to_le_bytes().to_vec(), TEN_GB.to_le_bytes().to_vec()].concat().repeat(10_000);
    bad.case("lists.gguf", gguf(&[&zero, &one, &one, b"x\x09\0\0\0", &lists]), "more than 4 deep", imatrix);
    let kind = [&12u64.to_le_bytes()[..], b"general.type\x08\0\0\0", &7u64.to_le_bytes(), b"imatrix"].concat();
    bad.case("tensors.gguf", gguf(&[&ten, &one, &kind]), "ends early", imatrix);
    let name = b"blk.0.ffn_up_exps.weight.counts";
    let tensor = |n: u64, offset: u64| {
        let shape = [&1u32.to_le_bytes()[..], &n.to_le_bytes(), &[0; 4], &offset.to_le_bytes()].concat();
        gguf(&[&one, &one, &kind, &(name.len() as u64).to_le_bytes(), name, &shape, &[0; 64]])
    };
    bad.case("elements.gguf", tensor(TEN_GB, 0), "behind the end", imatrix);
    bad.case("offset.gguf", tensor(2, TEN_GB), "behind the end", imatrix);
    bad.case("wraps.gguf", tensor(1 << 63, u64::MAX - 31), "behind the end", imatrix);
    // Pickles: a text, an integer, a storage, a shape.
    let sglang = import("sglang");
    let pickle = |p: &[u8]| torch(&[b"\x80\x02", p].concat(), stored);
    bad.case("text.pt", pickle(b"X\xff\xff\xff\xffx."), "ends early", sglang);
    bad.case("integer.pt", pickle(b"\x8a\xff\x01."), "more than 64 bits", sglang);
    bad.case("memo.pt", pickle(b"]r\xff\xff\xff\x7f."), "numbers a value 2147483647", sglang);
    let storage = b"(X\x07\x00\x00\x00storagectorch\nLongStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\x05\x00\xe4\x0b\x54\x02tQ.";
    bad.case("storage.pt", pickle(storage), "not 10000000000 elements", sglang);
    let view = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nLongStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x08tQK\x00\x8a\x05\x00\xe4\x0b\x54\x02\x85K\x00\x85\x89ccollections\nOrderedDict\n)RtR.";
    bad.case("shape.pt", pickle(view), "does not fit its storage of 8", sglang);
    bad.case("name.pt", pickle(b"cos\nsystem\n(X\x02\x00\x00\x00lstR."), "it names os.system", sglang);
    bad.case("object.pt", pickle(b"N}b."), "neither tensors nor plain", sglang);
    bad.case("packed.pt", torch(b"\x80\x02N.", zip::CompressionMethod::Deflated), "compressed", sglang);
    // The header of safetensors.
    fs::write(bad.path("meta_info.json"), r#"{"num_experts": 4, "num_experts_per_token": 1}"#).unwrap();
    let raw = "rank0_raw.safetensors";
    bad.case(raw, [&ten[..], b"{}"].concat(), "header", folder);
    let header = br#"{"0_0": {"dtype": "I32", "shape": [10000000000, 1], "data_offsets": [0, 40000000000]}}"#;
    bad.case(raw, [&(header.len() as u64).to_le_bytes()[..], header, &[0; 64]].concat(), "header", folder);
    // The container: blocks, and columns of more experts than counts have room for.
    let label = || "x".to_string();
    let (layer_numbers, source, licence) = ((0..4096).collect(), label(), label());
    let meta = moesim_traces::Meta { model: label(), layer_numbers, experts: 65_534, k: 1, source, licence };
    assert!(meta.check().unwrap_err().to_string().contains("4096 layers x 65534 experts are too many"));
    let good = super::rows(vec![Some(1); 3], [1; 3], [0, 1, 2], super::ONES);
    let mut refused = 0;
    for at in (0..good.len() - 8).step_by(4) {
        let mut lies = good.clone();
        lies[at..at + 8].copy_from_slice(&ten);
        fs::write(bad.path("lies.arrow"), &lies).unwrap();
        refused += usize::from(super::open(&bad.path("lies.arrow")).is_err());
    }
    assert!(refused > 20, "{refused}");
    assert!(bad.cases >= 24, "{}", bad.cases);
}

#[test]
fn bombs() {
    let mut bad = Bad::new();
    // A gigabyte of zeros, and what unpacks to it.
    let mut gz = GzEncoder::new(Vec::new(), Compression::best());
    gz.write_all(b"{\"n_expert_per_layer\": 4, \"layers\": [").unwrap();
    let blanks = vec![b' '; 1 << 20];
    (0..300).for_each(|_| gz.write_all(&blanks).unwrap());
    let bomb = gz.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    bad.case("bomb.json.gz", &bomb, "larger than 256 MiB unpacked", count("coactivation"));
    bad.case("cut.json.gz", &bomb[..1000], "gzip", count("coactivation"));
    let zeros = npy("|u1", "False", "(2500000, 4)", &vec![0; 10_000_000]);
    bad.case("loads.npz", npz("weight.npy", &zeros), "shape", count("eplb"));
    let steps = npy("|u1", "False", "(2500000, 1, 4)", &vec![0; 10_000_000]);
    bad.case("steps.npz", npz("weight.npy", &steps), "no selections", count("eplb"));
    // Wide rows, of which there are many.
    let row = "1,".repeat(30_000) + "1\n";
    bad.case("wide.csv", row.repeat(600), "line 560: goes beyond 2^24 loads", count("eplb"));
    let list = format!("[{}[]]", "[],".repeat(5000));
    bad.case("lists.json", list, "", count("eplb"));
}

#[test]
fn nesting() {
    let mut bad = Bad::new();
    let deep = "[".repeat(10_000);
    let objects = "{\"a\":".repeat(10_000);
    fs::write(bad.path("rank0_raw.safetensors"), "").unwrap();
    for (i, nest) in [&deep, &objects].into_iter().enumerate() {
        let name = |n: &str| format!("{i}{n}");
        bad.case(&name("vllm.json"), format!("{{\"choices\": {nest}"), "response 0", import("vllm"));
        bad.case(
            &name("ids.json"),
            format!("{{\"choices\": [{{\"routed_experts\": {nest}"),
            "response 0",
            import("vllm"),
        );
        bad.case(&name("config.json"), format!("{{\"model_type\": {nest}"), "1:", config);
        bad.case(&name("other.json"), format!("{{\"rope\": {nest}"), "1:", config);
        bad.case(&name("inner.json"), "{\"text_config\":".repeat(10_000), "1:", config);
        bad.case(&name("table.json"), format!("{{\"n_expert_per_layer\": {nest}"), "1:", count("coactivation"));
        bad.case(&name("heat.json"), format!("{{\"layers\": [{{\"heat\": {nest}"), "1:", count("coactivation"));
        bad.case(&name("loads.json"), nest, "1:", count("eplb"));
        bad.case(&name("weight.json"), format!("{{\"weight\": {nest}"), "1:", count("eplb"));
        bad.case("meta_info.json", format!("{{\"num_experts\": {nest}"), "1:", folder);
        let header = format!("{{\"0_0\": {nest}");
        fs::write(bad.path("meta_info.json"), r#"{"num_experts": 4, "num_experts_per_token": 1}"#).unwrap();
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        bad.case("rank0_raw.safetensors", file, "header", folder);
    }
    let maps = b"\x80\x02}(X\x07\0\0\0records]X\x0a\0\0\0model_maps}u.";
    bad.case("maps.pt", torch(maps, zip::CompressionMethod::Stored), "model_maps", import("sglang"));
    // Lists in lists are values of a pickle, which nothing goes down into.
    let lists = [&b"\x80\x02"[..], &vec![b']'; 10_000], &vec![b'a'; 9999], b"."].concat();
    bad.case("lists.pt", torch(&lists, zip::CompressionMethod::Stored), "no recording", import("sglang"));
}
