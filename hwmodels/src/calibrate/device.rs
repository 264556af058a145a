//! Devices as measurements name them, and their peaks.

use crate::form::{LinkPeaks, Peaks};
use crate::hardware::{Device, Hardware};
use crate::topology::{LinkSpec, TopologySpec};
use moesim_core::{Diag, Result};

/// What benchmarks call devices, and the preset with their data sheet; the first that the name contains.
const NAMES: &[(&str, &str)] = &[
    ("GB200", "gb200-nvl72"),
    ("B200", "b200-8"),
    ("B300", "b300-8"),
    ("H200", "h200-8"),
    ("H20", "h20-8"),
    ("L40S", "l40s-8"),
    ("H800", "h800-8"),
    ("H100", "h100-8"),
    ("A100", "a100-8"),
    ("MI300X", "mi300x-8"),
    ("4090", "rtx4090-offload"),
    ("RTX PRO 6000", "rtx-pro-6000-2"),
    ("910C", "cloudmatrix384"),
];

/// Cards that have no preset, though their names contain one that has: of the same chip with other memory or clocks.
const OTHERS: [&str; 6] = ["PCIE", "NVL", "40GB", "GH200", "GB300", "H20-3E"];

/// The preset of the hardware that a device of this name belongs to, if one is known.
pub fn preset(device: &str) -> Option<&'static str> {
    let name = device.to_uppercase();
    let other = OTHERS.iter().any(|v| name.contains(v));
    let known = NAMES.iter().find(|n| !other && name.contains(n.0) && crate::preset_text(n.1).is_some());
    known.map(|n| n.1)
}

/// The hardware that a device of this name belongs to.
///
/// # Errors
/// No preset is known for the device.
pub fn hardware(device: &str) -> Result<Hardware> {
    let preset = preset(device).ok_or_else(|| {
        Diag::input(format!("no hardware preset is known for the device {device:?}"))
            .cure("name its hardware with --hardware: a preset or a file with its data sheet's peaks")
    })?;
    Hardware::load(preset)
}

/// The peaks of a device for kernels of a precision as benchmarks name it.
///
/// # Errors
/// The device has no number of units, or no rate for the precision.
pub fn peaks(device: &Device, precision: &str) -> Result<Peaks> {
    let lacks = |what: &str, key: &str| {
        Diag::input(format!("{} has no {what}", device.name))
            .place(format!("device.{key}"))
            .cure("add it to the hardware file, with its origin")
    };
    let units = device.units.as_ref().ok_or_else(|| lacks("number of processors", "units"))?;
    let p = &device.peak;
    let need = |rate: &Option<moesim_core::Sourced<moesim_core::FlopRate>>, what: &str| {
        rate.as_ref().map(|r| r.value.per_second()).ok_or_else(|| lacks(what, &format!("peak.{what}")))
    };
    let flop_per_s = match precision {
        "float32" | "fp32" if p.fp32.is_some() => need(&p.fp32, "fp32")?,
        "fp8" | "fp8_block" | "w4afp8" | "w4a8_mxfp4_mxfp8" => need(&p.fp8, "fp8")?,
        "int8" | "w8a8" => need(&p.int8, "int8")?,
        "nvfp4" => need(&p.fp4, "fp4")?,
        // 16-bit activations compute in 16 bits, whatever the weights.
        _ => p.bf16.value.per_second(),
    };
    Ok(Peaks {
        flop_per_s,
        bytes_per_s: device.memory.bandwidth.value.per_second(),
        units: f64::from(units.value),
        l2_bytes: device.llc.as_ref().map_or(0.0, |l| l.value.as_f64()),
    })
}

/// What a device can send at best, one way: over its links inside the node, and over its card between nodes (infinite
/// where the hardware has none: nothing is sent over it). Of planes of switches the rate that a device was measured to
/// write at to others, which is what CANN's kernels are fitted against.
///
/// # Errors
/// A topology whose devices have no link of their own kind.
pub fn links(hardware: &Hardware) -> Result<LinkPeaks> {
    let raw = |l: &LinkSpec| l.bandwidth.value.per_second();
    let (link, nic) = match &hardware.topology {
        TopologySpec::FatTreeRail { link, nic, .. } => (raw(link), raw(nic)),
        TopologySpec::Planes { link, planes, .. } => {
            let all = raw(link) * f64::from(*planes) * link.achievable.value;
            (all, all)
        }
        TopologySpec::Switch { link, .. }
        | TopologySpec::Pcie { link, .. }
        | TopologySpec::Ring { link, .. }
        | TopologySpec::Torus { link, .. }
        | TopologySpec::Mesh2d { link, .. } => (raw(link), f64::INFINITY),
        TopologySpec::FullMesh { devices, link } => (raw(link) * f64::from(devices.saturating_sub(1)), f64::INFINITY),
        TopologySpec::Single {} | TopologySpec::FullMeshNd { .. } | TopologySpec::Graph { .. } => {
            return Err(Diag::input(format!("{} has no one rate at which its devices send", hardware.name))
                .place("topology")
                .cure("name hardware with a switch, rails, planes or a mesh"));
        }
    };
    let bytes_per_s = hardware.device.memory.bandwidth.value.per_second();
    Ok(LinkPeaks { link_bytes_per_s: link, nic_bytes_per_s: nic, bytes_per_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_by_what_benchmarks_call_them() {
        let known = ["NVIDIA H20", "NVIDIA H200", "NVIDIA H20 96GB", "NVIDIA B300 SXM6", "nvidia gb200", "Ascend 910C"];
        let presets = ["h20-8", "h200-8", "h20-8", "b300-8", "gb200-nvl72", "cloudmatrix384"];
        assert_eq!(known.map(preset), presets.map(Some));
        for other in
            ["NVIDIA GB300", "NVIDIA H20-3e", "NVIDIA GH200 480GB", "NVIDIA H100 PCIe", "NVIDIA A100-PCIE-40GB", ""]
        {
            assert_eq!(preset(other), None, "{other}");
        }
        let e = hardware("NVIDIA GB300").unwrap_err();
        assert!(e.to_string().contains("NVIDIA GB300") && e.to_string().contains("--hardware"), "{e}");
    }
}
