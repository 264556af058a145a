//! TensorRT-LLM's load balancer, YAML: `num_slots`, `initial_global_assignments` (a map from the model's layers to lists
//! of the expert in each slot) and `layer_updates_per_iter` (0: the assignment stays). Slots of a rank are consecutive, so
//! that the number of ranks must be given. Loaded by `moe_config.load_balancer: FILE.yaml` of the LLM API's options.
//!
//! Every MoE layer must be there, those of multi-token prediction too where the model has them; other keys are refused.
//! Facts from NVIDIA/TensorRT-LLM, `tensorrt_llm/llmapi/llm_args.py` (`MoeLoadBalancerConfig`) and
//! `examples/wide_ep/ep_load_balancer` (1.x, 2025 and 2026).

use super::{Format, PlacementFile, ReadOptions, cut, own, slots, text, yaml};
use moesim_core::output::AtomicFile;
use moesim_core::{Diag, Result};
use std::fmt::Write;
use std::path::Path;

pub(super) struct TensorRtLlm;

impl Format for TensorRtLlm {
    fn name(&self) -> &'static str {
        "tensorrt-llm"
    }
    fn description(&self) -> &'static str {
        "TensorRT-LLM's load balancer (.yaml): initial_global_assignments by layer; needs the devices"
    }
    fn detect(&self, path: &Path) -> bool {
        text::starts_with(path, &["initial_global_assignments:"])
    }
    fn read(&self, path: &Path, options: &ReadOptions) -> Result<PlacementFile> {
        let balancer = yaml::read(&text::read(path)?)?;
        let mut layers = balancer.assignments;
        if layers.is_empty() {
            return Err(Diag::input("assigns no expert: the engine begins by its own rule")
                .place("initial_global_assignments")
                .cure("give a file with initial assignments"));
        }
        layers.sort_by_key(|l| l.0);
        if let Some(pair) = layers.windows(2).find(|w| w[0].0 == w[1].0) {
            let problem = format!("assigns layer {} twice", pair[0].0);
            return Err(Diag::input(problem).place("initial_global_assignments").cure("write each layer once"));
        }
        let (layer_numbers, rows): (Vec<u32>, Vec<Vec<u16>>) = layers.into_iter().unzip();
        let slots = rows.first().map_or(0, Vec::len);
        if balancer.num_slots.is_some_and(|n| n != slots as u64) {
            let problem = format!("is {}; layer {} has {slots}", balancer.num_slots.unwrap_or(0), layer_numbers[0]);
            return Err(Diag::input(problem).place("num_slots").cure("give every layer num_slots experts"));
        }
        let mut notes = Vec::new();
        if let Some(n) = balancer.layer_updates_per_iter.filter(|n| *n > 0) {
            notes.push(format!("the engine moves experts of {n} layers an iteration: this is how it begins"));
        }
        let placed = slots::place(&rows, options)?;
        let file = PlacementFile { format: self.name(), model: None, layer_numbers, placed, result: None, notes };
        cut(file, options)
    }
    fn write(&self, file: &PlacementFile, path: &Path) -> Result<()> {
        let p = &file.placed;
        let each = slots::equal(p, "TensorRT-LLM", true)?;
        let mut out = String::from("initial_global_assignments:\n");
        for (number, layer) in file.layer_numbers.iter().zip(&p.devices) {
            let _ = write!(out, "  {number}: [");
            own::list(&mut out, slots::row(layer));
            out.push_str("]\n");
        }
        let _ = write!(out, "layer_updates_per_iter: 0\nnum_slots: {}\n", each * p.devices());
        AtomicFile::write(path, out.as_bytes())
    }
}
