//! What the fuzz targets have in common: input as a file, and what is required of a reader.
//!
//! A reader takes the input, or refuses it with one line that names the file and a cure, exit status 2. What is taken is
//! used as the command line would.

use moesim::experiment::Resolved;
use moesim::machine::{Machine, Plan};
use moesim_core::Result;
use moesim_solver::file;
use moesim_traces::import::{Options, load};
use moesim_traces::stats::info;
use moesim_traces::{ArrivalSpec, Arrivals, Trace, counts};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A folder of this process in memory.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let path = Path::new("/dev/shm").join(format!("moesim-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder in memory");
        path
    })
}

/// The input as a file of [`folder`].
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    path.parent().map_or(Ok(()), std::fs::create_dir_all).expect("a folder in memory");
    std::fs::write(&path, bytes).expect("a file in memory");
    path
}

/// Requires of a refusal what a user needs.
pub fn sound<T>(read: Result<T>) -> Option<T> {
    let e = match read {
        Ok(t) => return Some(t),
        Err(e) => e,
    };
    let text = e.to_string();
    assert_eq!(e.exit_code(), 2, "exit status: {text}");
    assert!(e.file.is_some(), "no file: {text}");
    assert!(!e.cure.is_empty(), "no cure: {text}");
    assert!(!text.chars().any(char::is_control), "control characters: {text:?}");
    assert!(text.len() < 1200, "too long: {text}");
    None
}

/// Reads a trace of a format. Rows that were taken are whole.
pub fn import(format: &str, path: &Path, experts: Option<u32>) {
    let options = Options { experts, ..Default::default() };
    if let Some(trace) = sound(load(path, Some(format), &options)) {
        (0..trace.sequences()).for_each(|i| trace.check_sequence(i).expect("an importer checks its rows"));
        describe(&trace);
    }
}

/// Reads the counts of a format.
pub fn count(format: &str, path: &Path) {
    let Some(c) = sound(counts::read(path, Some(format))) else { return };
    assert_eq!(c.counts.len(), c.layer_numbers.len() * c.experts as usize);
    for l in 0..c.layer_numbers.len() {
        assert!(c.total(l) > 0 && c.imbalance(l).is_finite() && c.entropy(l).is_finite() && !c.top(l, 3).is_empty());
    }
}

/// Reads a placement of a format. One that is taken is sound, and comes back of our own file as it was.
pub fn placement(format: &str, devices: usize, path: &Path) {
    let slots = !matches!(format, "moesim" | "vllm-ascend" | "omni");
    let options = file::ReadOptions { format: Some(format), devices: slots.then_some(devices), ..Default::default() };
    let Some(read) = sound(file::read(path, &options)) else { return };
    let repeated = read.check().expect("a reader checks its placement").repeated;
    let replicas = read.placed.replicas();
    assert!(replicas.redundant >= repeated && replicas.most <= read.placed.devices());
    assert_eq!(read.placed.moves(&read.placed), 0);
    let copy = folder().join("copy.json");
    file::write(&read, "moesim", &copy).expect("our own format has every placement");
    let again = file::read(&copy, &file::ReadOptions::default()).expect("our own file");
    assert_eq!((again.placed, again.layer_numbers), (read.placed.clone(), read.layer_numbers.clone()));
    for (format, name) in [("sglang", "out.json"), ("tensorrt-llm", "out.yaml"), ("omni", "out.npy")] {
        sound(file::write(&read, format, &folder().join(name)));
    }
}

/// Opens arrivals and takes the first of them, as `run` would.
pub fn arrive(spec: &ArrivalSpec, path: &Path) {
    // Keys of an experiment are in no file of their own.
    match sound(spec.open(1, folder()).map_err(|d| d.file(path))) {
        Some(Arrivals::Open(requests) | Arrivals::Closed { requests, .. }) => {
            let mut last = 0;
            for r in requests.take(10_000) {
                let Some(r) = sound(r) else { return };
                assert!(r.arrival.0 >= last && r.prompt_tokens > 0 && r.output_tokens > 0, "{r:?} after {last}");
                last = r.arrival.0;
            }
        }
        Some(Arrivals::Sessions(_)) | None => {}
    }
}

/// Lays an experiment's model out on its hardware and opens its arrivals, as `run` does before it opens a trace.
pub fn laid_out(resolved: &Resolved, path: &Path) {
    let x = &resolved.experiment;
    let machine = Machine::new(resolved.hardware.clone());
    let plan = machine.and_then(|m| Plan::new(resolved.model.clone(), m, x.deployment.clone()));
    if let Some(plan) = sound(plan.map_err(|d| d.file(path))) {
        assert!(plan.common_weight_bytes() > 0 && plan.kv_bytes(1) > 0);
        arrive(&x.workload.arrivals, path);
    }
}

/// What `trace info` says.
pub fn describe(trace: &Trace) {
    if let Some(info) = sound(info(trace)) {
        assert!(!format!("{info:?}").is_empty());
    }
}

/// The headers of a tar archive with the right checksums, so that it is read beyond them: each is followed by its member, in
/// blocks of 512 bytes. The layout is that of POSIX.1-1988 (ustar).
pub fn tar(bytes: &[u8]) -> Vec<u8> {
    let mut archive = bytes.to_vec();
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + 512).filter(|h| h.iter().any(|b| *b != 0)) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let octal = header[124..135].iter().filter(|b| b.is_ascii_digit());
        let size = octal.fold(0usize, |n, b| (n * 8 + usize::from(b - b'0')) % (1 << 30));
        at += 512 + size.next_multiple_of(512);
    }
    archive
}

/// A file of `torch.save` with this pickle, and storages 0 to 3 of 64, 256, 1024 and 0 bytes.
pub fn torch(pickle: &[u8]) -> Vec<u8> {
    let mut z = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut member = |name: &str, bytes: &[u8]| {
        z.start_file(format!("archive/{name}"), stored).expect("a member");
        z.write_all(bytes).expect("memory");
    };
    member("data.pkl", pickle);
    for (key, n) in [64u32, 256, 1024, 0].into_iter().enumerate() {
        let ids: Vec<u8> = (0..n / 4).flat_map(|i| (i % 5).to_le_bytes()).collect();
        member(&format!("data/{key}"), &ids);
    }
    z.finish().expect("memory").into_inner()
}
