//! Expert statistics of TensorRT-LLM (`EXPERT_STATISTIC_PATH`): a folder with `rank*.safetensors`, each with one array
//! `ITERATION_LAYER` of selections by expert, and `meta_info.json` with `num_experts` and `num_experts_per_token`.
//!
//! Ranks and iterations are added up, as TensorRT-LLM's own report does. `rank*_raw.safetensors` beside them hold
//! selections token by token, which the importer of this name reads.

use super::{COUNTS, EXPERTS, ExpertCounts, LAYERS, Reader};
use crate::import::tensorrt_llm::{Folder, integers, key};
use moesim_core::{Diag, Result};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) struct TensorRtLlm;

impl Reader for TensorRtLlm {
    fn name(&self) -> &'static str {
        "tensorrt-llm"
    }
    fn description(&self) -> &'static str {
        "TensorRT-LLM expert statistics, a folder with rank*.safetensors and meta_info.json"
    }
    fn detect(&self, path: &Path) -> bool {
        Folder::open(path).is_ok_and(|f| !f.counts.is_empty())
    }
    fn read(&self, path: &Path) -> Result<ExpertCounts> {
        let folder = Folder::open(path)?;
        if folder.counts.is_empty() {
            let cure = "give the folder that EXPERT_STATISTIC_PATH named";
            return Err(Diag::input("has no rank*.safetensors").file(path).cure(cure));
        }
        let experts = folder.meta.num_experts as usize;
        let mut layers: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for file in &folder.counts {
            folder.tensors(file, |name, t| {
                let (_, layer) = key(name)?;
                let wrong = |problem: String| {
                    Diag::input(problem).cure("it is damaged, or of another model than meta_info.json: copy it again")
                };
                let found = t.shape().to_vec();
                if found != [experts] {
                    return Err(wrong(format!("has the shape {found:?}; meta_info.json says {experts} experts")));
                }
                let room = layers.len() < LAYERS && (layers.len() + 1) * experts <= COUNTS && experts <= EXPERTS;
                if !layers.contains_key(&layer) && !room {
                    return Err(wrong("is of one layer too many".into()));
                }
                let sums = layers.entry(layer).or_insert_with(|| vec![0; experts]);
                for (sum, count) in sums.iter_mut().zip(integers(&t)?) {
                    let count = u64::try_from(count).ok().filter(|c| *c < 1 << 53);
                    *sum = count
                        .and_then(|c| sum.checked_add(c))
                        .ok_or_else(|| wrong("has counts below 0 or beyond 2^53".into()))?;
                }
                Ok(())
            })?;
        }
        layers.retain(|_, counts| counts.iter().any(|c| *c > 0));
        if layers.is_empty() {
            return Err(Diag::input("has no selections").file(path).cure("record while requests are served"));
        }
        Ok(ExpertCounts {
            layer_numbers: layers.keys().copied().collect(),
            experts: experts as u32,
            k: Some(folder.meta.num_experts_per_token),
            counts: layers.into_values().flatten().collect(),
            notes: vec![
                format!(
                    "the sum of {} rank(s); without attention data parallelism, each has all tokens",
                    folder.counts.len()
                ),
                "with TensorRT-LLM's load balancer these are expert slots, not experts".into(),
            ],
            ..Default::default()
        })
    }
}
