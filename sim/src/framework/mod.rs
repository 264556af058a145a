//! What a serving engine runs on a machine (`[engine]` of an experiment): which kernels of a profile, in CUDA graphs or not, how tokens
//! travel to experts unless the experiment says, and the host's time between iterations.
//!
//! A framework's name sets all of these from a file that ships (`sim/presets/frameworks`), each value with its origin; every key can be set
//! alone. Without `[engine]` a run takes the fastest measured kernel of every operation, in graphs, and no host time.

mod settings;

pub use settings::{EngineSettings, Families, Use};

use crate::machine::Fused;
use crate::policy::Choice;
use moesim_core::{Diag, Picos, Result, Sourced, config, diag};
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
    /// Iterations without prompts from one look for new requests to the next.
    receive_interval: Option<Sourced<u32>>,
    /// Share of a device's memory for weights and caches.
    memory_share: Option<Sourced<f64>>,
    /// Small kernels that are part of others.
    fused: Option<Sourced<Vec<Fused>>>,
    /// Kernel families by use, the preferred first; a `*` at the end stands for any rest.
    kernels: BTreeMap<Use, Sourced<Vec<String>>>,
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
    /// Iterations without prompts from one look for new requests to the next.
    pub receive_interval: Sourced<u32>,
    /// Share of a device's memory for weights and caches; `null` if the hardware's file says what is reserved.
    pub memory_share: Option<Sourced<f64>>,
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
        let unnamed = || Sourced { value: DISPATCH.to_string(), origin: "no framework is named".to_string() };
        let dispatch = preset.as_ref().map_or_else(unnamed, |p| p.dispatch.clone());
        let of = |own: &Option<Sourced<Picos>>, theirs: fn(&Preset) -> &Option<Sourced<Picos>>| {
            own.clone().or_else(|| preset.as_ref().and_then(|p| theirs(p).clone()))
        };
        let host_time = of(&settings.host_time, |p| &p.host_time);
        let front_end = of(&settings.front_end, |p| &p.front_end);
        let interval = settings.receive_interval.clone().or(preset.as_ref().and_then(|p| p.receive_interval.clone()));
        let each = || Sourced { value: 1, origin: "every iteration".to_string() };
        let share = settings.memory_share.clone().or(preset.as_ref().and_then(|p| p.memory_share.clone()));
        if share.as_ref().is_some_and(|s| !(s.value > 0.0 && s.value <= 1.0)) {
            return Err(Diag::input("is no share")
                .place("engine.memory_share")
                .cure("write a number above 0, at most 1"));
        }
        let fused = settings.fused.clone().or(preset.as_ref().and_then(|p| p.fused.clone()));
        let fused = fused.unwrap_or_else(|| Sourced { value: Vec::new(), origin: "none is known".to_string() });
        let receive_interval = interval.unwrap_or_else(each);
        if receive_interval.value == 0 {
            let place = "engine.receive_interval";
            return Err(Diag::input("never looks for requests").place(place).cure("write a whole number from 1 on"));
        }
        let mut kernels = preset.map_or_else(BTreeMap::new, |p| p.kernels);
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
            receive_interval,
            memory_share: share,
            fused,
            kernels,
            named,
        })
    }

    /// How well a family suits: the place of the pattern that it has, the first being the preferred one; `None` if the engine has other
    /// families for this use. Without families of its own every kernel suits an engine.
    pub fn suits(&self, of: Use, family: &str) -> Option<usize> {
        let Some(patterns) = self.kernels.get(&of) else { return Some(0) };
        patterns.value.iter().position(|p| matches(p, family))
    }

    /// The families that the experiment itself names for this use.
    pub fn asked(&self, of: Use) -> Option<&str> {
        let family = || self.kernels.get(&of)?.value.first().map(String::as_str);
        self.named.contains(&of).then(family).flatten()
    }

    /// Leaves it without families of its own, so that every kernel suits.
    pub fn without_kernels(&mut self) {
        self.kernels.clear();
        self.named.clear();
    }

    /// What words of costs call the engine.
    pub fn word(&self) -> &'static str {
        self.framework.unwrap_or("the engine")
    }
}

/// The policy's choice, or what the engine has in its place where the experiment leaves it to the engine.
pub fn dispatch(choice: &Choice, engine: Option<&Framework>) -> Choice {
    match choice.kind == Choice::AUTO {
        true => Choice::named(engine.map_or(DISPATCH, |e| e.dispatch.value.as_str())),
        false => choice.clone(),
    }
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
