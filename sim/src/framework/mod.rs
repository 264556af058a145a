//! What a serving engine runs on a machine (`[engine]` of an experiment): which kernels of a profile, in CUDA graphs or
//! not, how tokens travel to experts unless the experiment says, and the host's time between iterations.
//!
//! A framework's name sets all of these from a file that ships (`sim/presets/frameworks`), each value with its origin;
//! every key can be set alone. Without `[engine]` a run takes the fastest measured kernel of every operation, in graphs,
//! and no host time.

mod settings;

pub use settings::{EngineSettings, Families, Use};

use crate::machine::Fused;
use crate::policy::Choice;
use moesim_core::{Bytes, Diag, Picos, Result, Sourced, config, diag};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Frameworks that ship: name, other names in tables, text.
const PRESETS: [(&str, &[&str], &str); 3] = [
    ("vllm", &[], include_str!("../../presets/frameworks/vllm.toml")),
    ("sglang", &[], include_str!("../../presets/frameworks/sglang.toml")),
    ("tensorrt-llm", &["trtllm", "trt-llm"], include_str!("../../presets/frameworks/tensorrt-llm.toml")),
];

/// How tokens travel where neither the experiment nor an engine says.
const DISPATCH: &str = "flat";

/// A framework's file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Preset {
    /// How tokens travel between ranks with their own attention.
    dispatch: Sourced<String>,
    /// Host time between iterations that devices wait for; without it, what the hardware's file says.
    host_time: Option<Sourced<Picos>>,
    /// From a request's arrival until the scheduler can see that request.
    front_end: Option<Sourced<Picos>>,
    /// Host time to launch one kernel of an iteration with prompts.
    eager_kernel: Option<Sourced<Picos>>,
    /// Iterations without prompts from one look for new requests to the next.
    receive_interval: Option<Sourced<u32>>,
    /// Share of a device's memory for weights and caches.
    memory_share: Option<Sourced<f64>>,
    /// What the engine keeps of a device's memory for itself, by the size of the memory; instead of a share.
    memory_kept: Option<Sourced<Vec<Kept>>>,
    /// Whether tokens that are gathered before experts travel rounded to the inputs of the experts' products.
    rounds_before_gather: Option<Sourced<bool>>,
    /// Small kernels that are part of others.
    fused: Option<Sourced<Vec<Fused>>>,
    /// Kernel families by use, the preferred first; a `*` at the end stands for any rest.
    kernels: BTreeMap<Use, Sourced<Vec<String>>>,
}

/// What an engine keeps of a device's memory for itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Of devices with less memory than this; without it, of all others.
    below: Option<Bytes>,
    /// Bytes of a device that are kept whatever the deployment is.
    fixed: Bytes,
    /// For each device that serves the model.
    #[serde(default)]
    each: Bytes,
    /// Where attention is data-parallel.
    #[serde(default)]
    data_parallel: Bytes,
}

/// The engine of a run, with every key as it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Framework {
    /// The framework's name; `null` for an engine without one.
    pub framework: Option<&'static str>,
    /// Whether kernels are launched in CUDA graphs.
    pub graphs: bool,
    /// How tokens travel where the experiment does not say.
    pub dispatch: Sourced<String>,
    /// Host time between iterations; `null` if the hardware's file says it.
    pub host_time: Option<Sourced<Picos>>,
    /// From a request's arrival until the scheduler can see that request; `null` for no time.
    pub front_end: Option<Sourced<Picos>>,
    /// Host time to launch one kernel of an iteration with prompts, which runs without graphs; `null` for no time.
    pub eager_kernel: Option<Sourced<Picos>>,
    /// Iterations without prompts from one look for new requests to the next.
    pub receive_interval: Sourced<u32>,
    /// Share of a device's memory for weights and caches; `null` if something else says what is left for them.
    pub memory_share: Option<Sourced<f64>>,
    /// What the engine keeps of a device's memory, by the size of the memory; `null` if something else says it.
    pub memory_kept: Option<Sourced<Vec<Kept>>>,
    /// Whether tokens that are gathered before experts travel rounded to the inputs of the experts' products.
    pub rounds_before_gather: Sourced<bool>,
    /// Small kernels that are part of others.
    pub fused: Sourced<Vec<Fused>>,
    /// Kernel families by use, the preferred first.
    pub kernels: BTreeMap<Use, Sourced<Vec<String>>>,
    /// Uses whose families the experiment names itself: none other will do.
    #[serde(skip)]
    pub named: Vec<Use>,
}

impl Framework {
    /// The engine that an experiment asks for.
    ///
    /// # Errors
    /// A framework that is not known, numbers that are not sensible.
    pub fn new(settings: &EngineSettings) -> Result<Self> {
        let preset = settings.framework.as_deref().map(preset).transpose()?;
        let (name, preset) = preset.unzip();
        let preset = preset.as_ref();
        let unnamed = || Sourced { value: DISPATCH.to_string(), origin: "no framework is named".to_string() };
        let dispatch = preset.map_or_else(unnamed, |p| p.dispatch.clone());
        let host_time = either(&settings.host_time, preset, |p| &p.host_time);
        let front_end = either(&settings.front_end, preset, |p| &p.front_end);
        let eager_kernel = either(&settings.eager_kernel, preset, |p| &p.eager_kernel);
        let receive_interval = either(&settings.receive_interval, preset, |p| &p.receive_interval)
            .unwrap_or_else(|| Sourced { value: 1, origin: "every iteration".to_string() });
        if receive_interval.value == 0 {
            let place = "engine.receive_interval";
            return Err(Diag::input("never looks for requests").place(place).cure("write a whole number from 1 on"));
        }
        let memory_share = either(&settings.memory_share, preset, |p| &p.memory_share);
        if memory_share.as_ref().is_some_and(|s| !(s.value > 0.0 && s.value <= 1.0)) {
            let cure = "write a number above 0, at most 1";
            return Err(Diag::input("is no share").place("engine.memory_share").cure(cure));
        }
        let memory_kept = preset.and_then(|p| p.memory_kept.clone()).filter(|_| memory_share.is_none());
        let rounds_before_gather = either(&settings.rounds_before_gather, preset, |p| &p.rounds_before_gather)
            .unwrap_or_else(|| Sourced { value: false, origin: "none is known".to_string() });
        let fused = either(&settings.fused, preset, |p| &p.fused)
            .unwrap_or_else(|| Sourced { value: Vec::new(), origin: "none is known".to_string() });
        let mut kernels = preset.map_or_else(BTreeMap::new, |p| p.kernels.clone());
        let own = settings.kernels.named();
        let named = own.iter().map(|(of, _)| *of).collect();
        kernels.extend(own.into_iter().map(|(of, family)| (of, Sourced::user(vec![family.to_string()]))));
        let graphs = settings.graphs.unwrap_or(true);
        Ok(Self {
            framework: name,
            graphs,
            dispatch,
            host_time,
            front_end,
            eager_kernel,
            receive_interval,
            memory_share,
            memory_kept,
            rounds_before_gather,
            fused,
            kernels,
            named,
        })
    }

    /// What is left of a device's memory for weights and caches, as a share in [0, 1], with the origin of that
    /// share; `devices` serve one model in `dp` attention ranks. `None` if the engine leaves it to the hardware's file.
    pub fn memory_left(&self, memory: Bytes, devices: u64, dp: u64) -> Option<Sourced<f64>> {
        let kept = self.memory_kept.as_ref().and_then(|kept| {
            let step = kept.value.iter().find(|k| k.below.is_none_or(|below| memory < below))?;
            let spread = if dp > 1 { step.data_parallel.0 } else { 0 };
            let bytes = step.fixed.0 + step.each.0 * devices + spread;
            let value = 1.0 - (bytes as f64 / memory.0 as f64).min(1.0);
            Some(Sourced { value, origin: kept.origin.clone() })
        });
        self.memory_share.clone().or(kept)
    }

    /// How well a family suits: the place of the pattern that it has, the first being the preferred one; `None` if the
    /// engine has other families for this use. Where the engine has no families of its own every kernel suits.
    pub fn suits(&self, of: Use, family: &str) -> Option<usize> {
        let Some(patterns) = self.kernels.get(&of) else { return Some(0) };
        patterns.value.iter().position(|p| matches(p, family))
    }

    /// The families that the experiment itself names for this use.
    pub fn asked(&self, of: Use) -> Option<&str> {
        let family = || self.kernels.get(&of)?.value.first().map(String::as_str);
        self.named.contains(&of).then(family).flatten()
    }

    /// Leaves the engine without families of its own for `uses`, so that every kernel suits there.
    pub fn without_kernels(&mut self, uses: &[Use]) {
        self.kernels.retain(|of, _| !uses.contains(of));
        self.named.retain(|of| !uses.contains(of));
    }

    /// What words of costs call the engine.
    pub fn word(&self) -> &'static str {
        self.framework.unwrap_or("the engine")
    }
}

/// The policy's choice, or what the engine has in its place where the experiment leaves it to the engine.
pub fn dispatch(choice: &Choice, engine: Option<&Framework>) -> Choice {
    match choice.kind == Choice::AUTO {
        true => Choice { kind: engine.map_or(DISPATCH, |e| e.dispatch.value.as_str()).to_string(), ..choice.clone() },
        false => choice.clone(),
    }
}

/// The experiment's own value, or the framework's.
fn either<T: Clone>(
    own: &Option<Sourced<T>>,
    preset: Option<&Preset>,
    theirs: fn(&Preset) -> &Option<Sourced<T>>,
) -> Option<Sourced<T>> {
    own.clone().or_else(|| preset.and_then(|p| theirs(p).clone()))
}

/// Whether a family's name is the pattern, or begins with what stands before its `*`.
fn matches(pattern: &str, family: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == family, |start| family.starts_with(start))
}

fn preset(name: &str) -> Result<(&'static str, Preset)> {
    let found = PRESETS.iter().find(|(own, others, _)| *own == name || others.contains(&name));
    let Some((own, _, text)) = found else {
        let names: Vec<&str> = PRESETS.iter().map(|p| p.0).collect();
        return Err(diag::unknown("framework", name, &names).place("engine.framework"));
    };
    Ok((own, config::from_toml(text, own)?))
}

#[cfg(test)]
mod tests;
