//! vLLM: a JSON file of nested lists [MoE layers, slots], the shape of its `physical_to_logical_map`.
//!
//! No release of vLLM that we know loads a placement: `EPLBConfig` in vllm-project/vllm, `vllm/config/parallel.py`, has no key for
//! one (August 2026), and a server begins with slot i holding expert i modulo the experts. The file is what the open pull
//! request 49572 reads as `initial_expert_map_path` of `--eplb-config`, with `num_redundant_experts` the slots beyond one an
//! expert. What vLLM on Ascend loads today is the format `vllm-ascend`.
//!
//! The same lists as EPLB's in `.json`, so that a file without a named format is taken for `eplb`.

use super::{Format, PlacementFile, ReadOptions, eplb, slots, text};
use moesim_core::Result;
use moesim_core::output::AtomicFile;
use std::path::Path;

pub(super) struct Vllm;

impl Format for Vllm {
    fn name(&self) -> &'static str {
        "vllm"
    }
    fn description(&self) -> &'static str {
        "vLLM's physical-to-logical map as JSON [MoE layers, slots]; proposed for vLLM (pull request 49572), in no release; needs the devices"
    }
    fn detect(&self, _path: &Path) -> bool {
        false
    }
    fn read(&self, path: &Path, options: &ReadOptions) -> Result<PlacementFile> {
        eplb::unnumbered(self.name(), &eplb::json(&text::read(path)?)?, options)
    }
    fn write(&self, file: &PlacementFile, path: &Path) -> Result<()> {
        slots::equal(&file.placed, "vLLM", true)?;
        AtomicFile::write(path, eplb::lists(file).as_bytes())
    }
}
