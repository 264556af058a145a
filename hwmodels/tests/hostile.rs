//! Does a hardware file that is wrong give one message with file, place and cure, and never a panic?

use moesim_core::Diag;
use moesim_core::diag::Class;
use moesim_hwmodels::{Hardware, preset_text};
use std::fs;

/// Loads h100-8 with `from` replaced by `to`, from a file.
fn load(from: &str, to: &str) -> Diag {
    let text = preset_text("h100-8").unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from}");
    load_text(&text.replace(from, to))
}

fn load_text(text: &str) -> Diag {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.toml");
    fs::write(&path, text).unwrap();
    let e = Hardware::load(path.to_str().unwrap()).unwrap_err();
    assert_eq!(e.class, Class::Input, "{e}");
    assert!(e.file.as_ref().is_some_and(|f| f.ends_with("mine.toml")), "{e}");
    e
}

/// The message names the place, and says `what` in problem or cure.
#[track_caller]
fn says(e: &Diag, place: &str, what: &str) {
    assert!(e.place.as_deref().is_some_and(|p| p.starts_with(place)), "{e}");
    assert!(e.problem.contains(what) || e.cure.contains(what), "{e}");
    assert!(!e.cure.is_empty(), "{e}");
}

#[test]
fn structure() {
    says(&load("fp8 = {", "fp9 = {"), "20:1", "did you mean `fp8`?");
    says(&load("kind = \"switch\"", "kind = \"swich\""), "30:", "did you mean `switch`?");
    says(&load("devices = 8", "device = 8"), "29:1", "did you mean `devices`?");
    says(
        &load(
            "{ value = \"2 us\", origin = \"assumed: one kernel after another inside a CUDA graph\" }",
            "{ value = \"2 us\" }",
        ),
        "10:",
        "missing field `origin`",
    );
    says(
        &load("origin = \"assumed: one kernel after another inside a CUDA graph\"", "origin = \" \""),
        "device.launch",
        "empty origin",
    );
    says(&load("[device.memory]\ncapacity", "[device.memory]\ncapcity"), "14:1", "did you mean `capacity`?");
    says(&load("[host]\niteration_overhead", "[host\niteration_overhead"), "38:", "]");
    says(&load_text("# nothing"), "1:1", "missing field");
}

#[test]
fn values() {
    says(&load("\"3.35 TB/s\"", "\"3.35 TB\""), "15:", "TB/s");
    says(&load("\"3.35 TB/s\"", "\"0 B/s\""), "device.memory.bandwidth", "above zero");
    says(&load("\"3.35 TB/s\"", "\"1e30 TB/s\""), "device.memory.bandwidth", "1e18");
    says(&load("\"3.35 TB/s\"", "\"-1 TB/s\""), "15:", "not negative");
    says(&load("\"81559 MiB\"", "\"0 B\""), "device.memory.capacity", "above zero");
    says(&load("\"500 ns\"", "\"500 s\""), "topology.link.latency", "longer than one second");
    says(&load("\"50 MB\"", "50"), "9:", "with its unit");
    says(&load("value = 0.75", "value = nan"), "device.achievable.attention", "NaN");
    says(&load("value = 0.75", "value = 1.5"), "device.achievable.attention", "up to 1");
    says(&load("value = 0.75", "value = 0.0"), "device.achievable.attention", "above 0");
    says(&load("value = 0.1", "value = 1.0"), "device.reserve", "below 1");
    says(&load("{ value = 6.155", "{ value = -1.0"), "price_per_device_hour", "dollars");
}

#[test]
fn topologies() {
    says(&load("devices = 8", "devices = 0"), "topology", "no devices");
    says(&load("devices = 8", "devices = -8"), "29:1", "-8");
    says(&load("devices = 8", "devices = 4000000000"), "topology", "65536");
    let base = preset_text("h100-8").unwrap();
    let (head, rest) = base.split_once("[topology]").unwrap();
    let (topology, host) = rest.split_once("[host]").unwrap();
    let link = topology.split_once("[topology.link]").unwrap().1.trim().replace('\n', ", ");
    let graph = |devices: u32, ends: &[[&str; 2]]| {
        let edges: Vec<String> = ends.iter().map(|e| format!("{{ between = {e:?}, link = {{ {link} }} }}")).collect();
        let edges = edges.join(", ");
        format!("{head}[topology]\nkind = \"graph\"\ndevices = {devices}\nedges = [{edges}]\n[host]{host}")
    };
    says(&load_text(&graph(3, &[["gpu0", "leaf"], ["leaf", "gpu1"]])), "topology", "no path from gpu0 to gpu2");
    says(&load_text(&graph(2, &[["gpu0", "gpu7"]])), "topology.edges.0", "gpu0 to gpu1");
    says(&load_text(&graph(2, &[["gpu0", "gpu0"]])), "topology.edges.0", "itself");
    says(&load_text(&graph(2, &[["gpu0", ""]])), "topology.edges.0", "no name");
    says(&load_text(&graph(2, &[])), "topology", "no path");
    // A link that is wrong inside an edge is found like any other.
    let slow = graph(2, &[["gpu0", "gpu1"]]).replace("\"450 GB/s\"", "\"0 GB/s\"");
    says(&load_text(&slow), "topology.edges.0.link.bandwidth", "above zero");
}

#[test]
fn failed_links() {
    let failed = |names: &str| load("\n[device]\n", &format!("failed_links = {names}\n[device]\n"));
    says(&failed("[\"gpu0>swich\"]"), "failed_links.0", "\"gpu0>switch\"");
    says(&failed("[\"\"]"), "failed_links.0", "gpu0>switch");
    says(&failed("[\"gpu3>switch\"]"), "failed_links", "no path from gpu3 to gpu0");
    says(&failed("3"), "4:16", "write a sequence");
}

#[test]
fn what_is_no_hardware_file() {
    let e = Hardware::load("h100_8").unwrap_err();
    assert!(e.cure.contains("did you mean \"h100-8\"?") && e.cure.contains("wafer-5x5"), "{e}");
    let e = Hardware::load("no/such.toml").unwrap_err();
    assert!(e.file.as_deref() == Some("no/such.toml") && e.exit_code() == 2, "{e}");
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Hardware::load(dir.path().to_str().unwrap()).unwrap_err().exit_code(), 2);
    let binary = dir.path().join("binary.toml");
    fs::write(&binary, [0xff, 0xfe, 0, 1]).unwrap();
    assert!(Hardware::load(binary.to_str().unwrap()).unwrap_err().problem.contains("utf-8"));
    let huge = dir.path().join("huge.toml");
    fs::write(&huge, vec![b'#'; (16 << 20) + 1]).unwrap();
    assert!(Hardware::load(huge.to_str().unwrap()).unwrap_err().problem.contains("16 MiB"));
}
