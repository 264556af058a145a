//! vLLM-Ascend's expert map, JSON: `{"moe_layer_count": 1, "layer_list": [{"layer_id": 0, "device_count": 1, "device_list":
//! [{"device_id": 0, "device_expert": [0, 1]}]}]}`, which it writes to `expert_map_record_path` and loads from
//! `expert_map_path`, both of `eplb_config` in `--additional-config` (older releases: beside it, without `eplb_config`).
//!
//! Layers are MoE layers in their order, devices expert-parallel ranks in theirs; their ids are not read. All devices have
//! the same slots. Of two replicas on one device the engine finds the last.
//!
//! Facts from vllm-project/vllm-ascend, `vllm_ascend/eplb/core/eplb_utils.py` and
//! `docs/source/user_guide/feature_guide/expert_parallelism_load_balancer.md` (v0.23).

use super::{Format, Placed, PlacementFile, ReadOptions, experts, numbered, own, slots, text};
use moesim_core::output::AtomicFile;
use moesim_core::{Diag, Result};
use serde::Deserialize;
use std::fmt::Write;
use std::path::Path;

pub(super) struct VllmAscend;

#[derive(Deserialize)]
struct File {
    moe_layer_count: usize,
    layer_list: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    layer_id: Option<u64>,
    device_count: Option<usize>,
    device_list: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    device_id: Option<u64>,
    device_expert: Vec<u16>,
}

impl Format for VllmAscend {
    fn name(&self) -> &'static str {
        "vllm-ascend"
    }
    fn description(&self) -> &'static str {
        "vLLM-Ascend's expert map (.json): layer_list, device_list, device_expert"
    }
    fn detect(&self, path: &Path) -> bool {
        text::starts_with(path, &["\"moe_layer_count\"", "\"layer_list\""])
    }
    fn read(&self, path: &Path, options: &ReadOptions) -> Result<PlacementFile> {
        let wrong = |problem: String, place: String| {
            Diag::input(problem).place(place).cure("record or export the map again: its counts contradict its lists")
        };
        let file: File = serde_json::from_slice(&text::read(path)?)
            .map_err(|e| text::broken("expert map of vLLM-Ascend", &e).cure("see FORMATS.md for its keys"))?;
        if file.layer_list.len() != file.moe_layer_count {
            let problem = format!("has {} layers, not {}", file.layer_list.len(), file.moe_layer_count);
            return Err(wrong(problem, "layer_list".into()));
        }
        let (mut notes, mut moved) = (Vec::new(), false);
        let mut devices = Vec::with_capacity(file.layer_list.len());
        for (l, layer) in file.layer_list.into_iter().enumerate() {
            let count = layer.device_list.len();
            if let Some(said) = layer.device_count.filter(|n| *n != count) {
                return Err(wrong(format!("has {count} devices, not {said}"), format!("layer {l}")));
            }
            moved |= layer.layer_id.is_some_and(|id| id != l as u64);
            moved |= (0..).zip(&layer.device_list).any(|(i, d)| d.device_id.is_some_and(|id| id != i));
            devices.push(layer.device_list.into_iter().map(|d| d.device_expert).collect::<Vec<_>>());
        }
        if moved {
            notes.push("ids of layers or devices are not their positions: vLLM-Ascend goes by positions".into());
        }
        let layer_numbers = numbered(devices.len(), options, &mut notes)?;
        let experts = experts(None, || devices.iter().flatten().flatten().max().copied(), options)?;
        let placed = Placed { experts, devices };
        Ok(PlacementFile { format: self.name(), model: None, layer_numbers, placed, result: None, notes })
    }
    fn write(&self, file: &PlacementFile, path: &Path) -> Result<()> {
        let p = &file.placed;
        slots::equal(p, "vLLM-Ascend", false)?;
        let mut out = format!("{{\"moe_layer_count\": {}, \"layer_list\": [", p.layers());
        for (l, layer) in p.devices.iter().enumerate() {
            let comma = if l == 0 { "" } else { "," };
            let _ = write!(out, "{comma}\n{{\"layer_id\": {l}, \"device_count\": {}, \"device_list\": [", layer.len());
            for (d, experts) in layer.iter().enumerate() {
                let comma = if d == 0 { "" } else { ", " };
                let _ = write!(out, "{comma}{{\"device_id\": {d}, \"device_expert\": [");
                own::list(&mut out, experts.iter());
                out.push_str("]}");
            }
            out.push_str("]}");
        }
        AtomicFile::write(path, (out + "\n]}\n").as_bytes())
    }
}
