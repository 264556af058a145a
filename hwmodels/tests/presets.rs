//! Do the presets load, and is every constant in them sourced and plausible?

use moesim_core::config;
use moesim_hwmodels::topology::TopologySpec;
use moesim_hwmodels::{Hardware, Topology, cost, preset_text, presets};

/// Whether `text` names a row of the table of published figures: R and three digits.
fn names_a_figure(text: &str) -> bool {
    text.as_bytes().windows(4).any(|w| w[0] == b'R' && w[1..].iter().all(u8::is_ascii_digit))
}

/// Calls `f` with the path, value and origin of every sourced constant.
fn walk(path: &str, value: &toml::Value, f: &mut impl FnMut(&str, &toml::Value, &str)) {
    match value {
        toml::Value::Table(t) => match (t.get("value"), t.get("origin")) {
            (Some(value), Some(origin)) => f(path, value, origin.as_str().expect("an origin is text")),
            _ => t.iter().for_each(|(k, v)| walk(&format!("{path}.{k}"), v, f)),
        },
        toml::Value::String(_) if [".name", ".description", ".kind", ".profile"].iter().any(|k| path.ends_with(k)) => {}
        toml::Value::Integer(_) if path.starts_with(".topology.") => {}
        bare => panic!("{path} = {bare} has no origin"),
    }
}

#[test]
fn every_constant_has_an_origin_that_is_no_figure() {
    let mut count = 0;
    for preset in presets() {
        let table = config::table(preset.text, preset.name).unwrap();
        walk("", &toml::Value::Table(table), &mut |path, _, origin| {
            let place = format!("{}{path}: {origin}", preset.name);
            assert!(origin.trim().len() > 5, "{place}");
            assert!(!names_a_figure(origin), "{place}");
            // A donor is a preset, and not itself a borrower of the same fraction.
            if let Some(rest) = origin.strip_prefix("donor: ") {
                let donor = rest.split(',').next().unwrap();
                let donor = preset_text(donor).unwrap_or_else(|| panic!("{place}"));
                let donor = toml::Value::Table(config::table(donor, "donor").unwrap());
                let path = if path.contains(".pim.") { ".device.achievable.memory" } else { path };
                walk("", &donor, &mut |p, _, o| assert!(p != path || !o.starts_with("donor"), "{place}"));
            }
            count += 1;
        });
    }
    assert!(count > 200, "{count}");
}

/// Constants of profiles come from data with a hash, and errors are those of shapes left out.
#[test]
fn every_profile_is_sound_and_belongs_to_a_preset() {
    use moesim_hwmodels::calibrate::profile::{self, Profile};
    for (name, text) in profile::presets() {
        let p = Profile::load(name).unwrap();
        assert!(p.name == *name && !names_a_figure(text), "{name}");
        let hardware = Hardware::load(&p.hardware).unwrap();
        assert_eq!(hardware.device.profile.as_deref(), Some(*name));
        for k in &p.kernels {
            assert!(
                k.data.hash().len() == 16 && k.data.source.is_some() && (k.left_out().is_some() || k.data.shapes == 1),
                "{name} {}",
                k.family
            );
            assert!(k.constants.len() <= 15, "{name} {}", k.family);
        }
        assert!(p.donors.iter().all(|d| d != name && Profile::load(d).is_ok()), "{name}");
    }
}

#[test]
fn every_preset_loads_and_is_plausible() {
    for preset in presets() {
        let h = Hardware::load(preset.name).unwrap();
        assert_eq!(h.name, preset.name);
        let gb = h.device.memory.capacity.value.as_f64() / 1e9;
        let tb_per_s = h.device.memory.bandwidth.value.per_second() / 1e12;
        let ridge = h.device.peak.bf16.value.per_second() / h.device.memory.bandwidth.value.per_second();
        assert!((24.0..=300.0).contains(&gb) && (0.8..=8.0).contains(&tb_per_s), "{}", preset.name);
        // FLOP per byte: 37 on H20, 153 on A100, 295 on H100, 281 on B200; 563 on the paper's Dojo-Enhanced.
        assert!((30.0..600.0).contains(&ridge), "{}: {ridge}", preset.name);
        assert!(h.usable_memory() < h.device.memory.capacity.value);
        let t = h.build_topology().unwrap();
        assert_eq!(t.devices(), h.devices());
        for link in t.links() {
            assert!(link.bandwidth_per_s < link.raw_bandwidth_per_s && link.latency_s <= 1e-5, "{}", link.name);
            // No link of a device is faster than the memory behind it.
            let of_device = (link.from.min(link.to) as usize) < t.devices();
            assert!(!of_device || link.raw_bandwidth_per_s <= tb_per_s * 1e12, "{}", link.name);
        }
        // What is resolved can be written, and read back as it was.
        let text = config::to_toml(&h).unwrap();
        assert_eq!(Hardware::from_table(config::table(&text, "again").unwrap(), "again").unwrap(), h);
    }
}

#[test]
fn units_and_divisions_are_right() {
    let h = Hardware::load("h100-8").unwrap();
    let TopologySpec::Switch { devices: 8, link } = &h.topology else { panic!("{:?}", h.topology) };
    assert_eq!(link.bandwidth.value.per_second(), 900e9 / 2.0);
    let h = Hardware::load("h800-2x8").unwrap();
    let TopologySpec::FatTreeRail { nodes: 2, devices_per_node: 8, nic, .. } = &h.topology else { panic!() };
    assert_eq!(nic.bandwidth.value.per_second(), 50e9);
    assert_eq!(h.devices(), 16);
    let h = Hardware::load("mi300x-8").unwrap();
    assert_eq!(Topology::build(&h.topology).unwrap().links()[0].raw_bandwidth_per_s, 128e9 / 2.0);
    let h = Hardware::load("wafer-5x5").unwrap();
    // Corner to corner: eight hops of 200 ns.
    assert!((Topology::build(&h.topology).unwrap().latency_s(0, 24) - 1.6e-6).abs() < 1e-15);
    // A die's seven links, a node's 7 x 16 uplinks: 196 and 3,136 GB/s; writes take 1.3 and 2.1 us.
    let t = Hardware::load("cloudmatrix384").unwrap().build_topology().unwrap();
    assert_eq!((t.devices(), t.nodes(), t.links().len()), (768, 48, 2 * 768 + 2 * 48));
    let path: Vec<f64> = t.path(0, 767).iter().map(|&l| t.links()[l as usize].raw_bandwidth_per_s / 1e9).collect();
    assert_eq!(path, [196.0, 3136.0, 3136.0, 196.0]);
    assert!((t.latency_s(0, 15) - 1.3e-6).abs() < 1e-15 && (t.latency_s(0, 16) - 2.1e-6).abs() < 1e-15);
    let t = Hardware::load("gb200-nvl72").unwrap().build_topology().unwrap();
    assert_eq!((t.devices(), t.nodes(), t.path(3, 71).len()), (72, 1, 2));
    assert_eq!(t.links()[0].raw_bandwidth_per_s, 1.8e12 / 2.0);
    let pim = Hardware::load("duplex-1").unwrap().device.pim.unwrap();
    let ridge = pim.peak.value.per_second() / pim.bandwidth.value.per_second();
    assert!((ridge - 8.0).abs() < 0.1, "the paper's ridge is 8 operations a byte, here {ridge}");
    let offload = Hardware::load("rtx4090-offload").unwrap();
    assert!(offload.host.link.is_some() && offload.host.memory.is_some() && offload.devices() == 1);
    let engine = cost::Engine::gpu(&Hardware::load("a100-8").unwrap().device);
    assert_eq!(engine.precision(8.0), cost::Precision::Int8);
}
