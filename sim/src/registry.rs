//! Every policy by name. A user's own crate adds to [`Registry::builtin`] and gets the whole command line.

use crate::experiment::Policies;
use crate::network::dispatch::{Dispatch, Flat, Hierarchical, PerSelection};
use crate::policy::execution::{ExpertParallel, OnDemand, OnDemandBelady, PimSplit};
use crate::policy::settings::Setting;
use crate::policy::{CacheFraction, Choice, ExecutionPolicy, Settings};
use crate::serving::{ChunkedPrefill, LeastLoaded, LoadBalancer, RoundRobin, Scheduler};
use moesim_core::{Diag, Result, diag};
use moesim_solver::Placement;

/// Makes a policy, asking for its settings.
pub type Make<T> = fn(&mut Settings) -> Result<Box<T>>;

impl<T: ?Sized> Entry<T> {
    /// Makes one whose settings have their defaults.
    ///
    /// # Errors
    /// A policy that cannot be made from its defaults.
    pub fn plain(&self) -> Result<Box<T>> {
        (self.make)(&mut Settings::new("policy", &Choice::named(self.name)))
    }
}

/// A policy that was made.
pub struct Made<T: ?Sized> {
    /// The policy.
    pub policy: Box<T>,
    /// Its name and settings, defaults included.
    pub choice: Choice,
    /// What the user should know of how they were read.
    pub note: Option<String>,
}

/// A policy by name.
pub struct Entry<T: ?Sized> {
    /// Its name in experiments.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Makes one.
    pub make: Make<T>,
}

/// The policies of a run.
pub struct RunPolicies {
    /// How a layer's experts are executed.
    pub execution: Box<dyn ExecutionPolicy>,
    /// How tokens travel to their experts and back.
    pub dispatch: Box<dyn Dispatch>,
    /// How batches are formed.
    pub scheduler: Box<dyn Scheduler>,
    /// Which rank a request goes to.
    pub balancer: Box<dyn LoadBalancer>,
    /// What the experiment says of them, with every setting as it is, defaults included.
    pub settled: Policies,
    /// How settings were read, where the user should know.
    pub notes: Vec<String>,
}

/// A policy of a user's own.
pub enum Extension {
    /// How a layer's experts are executed.
    Execution(Entry<dyn ExecutionPolicy>),
    /// How tokens travel to their experts and back.
    Dispatch(Entry<dyn Dispatch>),
    /// How batches are formed.
    Scheduler(Entry<dyn Scheduler>),
    /// Which rank a request goes to.
    Balancer(Entry<dyn LoadBalancer>),
    /// Where experts live.
    Placement(Entry<dyn Placement>),
}

/// Every policy by name.
pub struct Registry {
    execution: Vec<Entry<dyn ExecutionPolicy>>,
    dispatches: Vec<Entry<dyn Dispatch>>,
    schedulers: Vec<Entry<dyn Scheduler>>,
    balancers: Vec<Entry<dyn LoadBalancer>>,
    placements: Vec<Entry<dyn Placement>>,
}

impl Registry {
    /// The policies that come with moesim.
    pub fn builtin() -> Self {
        Self {
            execution: vec![
                Entry {
                    name: "expert-parallel",
                    about: "dispatch, grouped GEMM on the experts' devices, combine",
                    make: |_| Ok(Box::new(ExpertParallel)),
                },
                Entry {
                    name: "on-demand",
                    about: "experts in host memory, loaded when selected, behind an LRU cache on the device",
                    make: |s| Ok(Box::new(OnDemand::from_settings(s)?)),
                },
                Entry {
                    name: "pim-split",
                    about: "each expert on the cores or on the PIM units, whichever its Op/B favours",
                    make: |_| Ok(Box::new(PimSplit::default())),
                },
                Entry {
                    name: "on-demand-belady",
                    about: "oracle: on-demand, evicting what the iteration's remaining layers do not use",
                    make: |s| Ok(Box::new(OnDemandBelady::from_settings(s)?)),
                },
            ],
            dispatches: vec![
                Entry {
                    name: "flat",
                    about: "one copy of a token for each device of its experts, straight there",
                    make: |_| Ok(Box::new(Flat)),
                },
                Entry {
                    name: "per-selection",
                    about: "one message for each (token, expert), straight there, as low-latency kernels do",
                    make: |_| Ok(Box::new(PerSelection)),
                },
                Entry {
                    name: "hierarchical",
                    about: "one copy for each node, dealt out inside it, as high-throughput kernels do",
                    make: |_| Ok(Box::new(Hierarchical)),
                },
            ],
            schedulers: vec![Entry {
                name: "chunked-prefill",
                about: "continuous batching: decodes first, prefills in chunks, the youngest preempted",
                make: |_| Ok(Box::new(ChunkedPrefill)),
            }],
            balancers: vec![
                Entry {
                    name: "least-loaded",
                    about: "the rank with the fewest requests",
                    make: |_| Ok(Box::new(LeastLoaded)),
                },
                Entry {
                    name: "round-robin",
                    about: "one rank after the other",
                    make: |_| Ok(Box::new(RoundRobin::default())),
                },
            ],
            placements: vec![
                Entry {
                    name: "contiguous",
                    about: "blocks of consecutive experts",
                    make: |_| Ok(Box::new(moesim_solver::method::contiguous::Contiguous)),
                },
                Entry {
                    name: "round-robin",
                    about: "experts dealt out one by one",
                    make: |_| Ok(Box::new(moesim_solver::method::cyclic::Cyclic)),
                },
                Entry {
                    name: "home-die",
                    about: "the home dies of the wafer-scale study, arXiv 2510.05497",
                    make: |_| Ok(Box::new(moesim_solver::method::home_die::HomeDie)),
                },
                Entry {
                    name: "random",
                    about: "experts dealt out in a random order, another one in each layer",
                    make: |_| Ok(Box::new(moesim_solver::method::random::Random)),
                },
                Entry {
                    name: "longest-first",
                    about: "by loads: the costliest first to the group that is done first, then swaps",
                    make: |_| Ok(Box::new(moesim_solver::method::longest_first::LongestFirst)),
                },
                Entry {
                    name: "eplb",
                    about: "by loads: DeepSeek's load balancer, node by node where it can",
                    make: |_| Ok(Box::new(moesim_solver::method::eplb::Eplb { hierarchical: true })),
                },
                Entry {
                    name: "eplb-global",
                    about: "by loads: the same, all devices alike",
                    make: |_| Ok(Box::new(moesim_solver::method::eplb::Eplb { hierarchical: false })),
                },
                Entry {
                    name: "remap",
                    about: "by loads: prefill-guided remap, arXiv 2510.05497",
                    make: |_| Ok(Box::new(moesim_solver::method::remap::Remap)),
                },
                Entry {
                    name: "duplicate",
                    about: "by loads: prefill-guided copies beside contiguous blocks, arXiv 2510.05497",
                    make: |_| Ok(Box::new(moesim_solver::method::duplicate::Duplicate)),
                },
                Entry {
                    name: "cluster",
                    about: "by rows: experts that tokens select together share a device",
                    make: |_| Ok(Box::new(moesim_solver::method::cluster::Cluster)),
                },
                Entry {
                    name: "affinity",
                    about: "by rows: experts that tokens select together share a node, inside it by load",
                    make: |_| Ok(Box::new(moesim_solver::method::affinity::Affinity)),
                },
                Entry {
                    name: "two-stage",
                    about: "by rows: clusters by load, then clusters to devices by flow, as MoETuner, arXiv 2502.06643",
                    make: |_| Ok(Box::new(moesim_solver::program::stages::TwoStage)),
                },
                Entry {
                    name: "sweep",
                    about: "by rows, tokens that follow: layer by layer the best between its neighbours, from random starts",
                    make: |_| Ok(Box::new(moesim_solver::method::sweep::Sweep)),
                },
                Entry {
                    name: "windows",
                    about: "by rows, tokens that follow: integer programs of two layers, from what sweep finds",
                    make: |_| Ok(Box::new(moesim_solver::program::Windows)),
                },
                Entry {
                    name: "anneal",
                    about: "by loads, by rows for traffic: annealing on the objective itself",
                    make: |_| Ok(Box::new(moesim_solver::method::anneal::Anneal)),
                },
                Entry {
                    name: "ilp",
                    about: "by loads, by rows for traffic: an integer program where it is small enough, else annealing or longest-first; `place` names which",
                    make: |_| Ok(Box::new(moesim_solver::program::Ilp)),
                },
            ],
        }
    }

    /// Adds a policy; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, extension: Extension) -> Self {
        fn put<T: ?Sized>(list: &mut Vec<Entry<T>>, entry: Entry<T>) {
            list.retain(|e| e.name != entry.name);
            list.push(entry);
        }
        match extension {
            Extension::Execution(e) => put(&mut self.execution, e),
            Extension::Dispatch(e) => put(&mut self.dispatches, e),
            Extension::Scheduler(e) => put(&mut self.schedulers, e),
            Extension::Balancer(e) => put(&mut self.balancers, e),
            Extension::Placement(e) => put(&mut self.placements, e),
        }
        self
    }

    /// The execution policy of an experiment; keys of `policy` itself that are among its settings stand in for them.
    ///
    /// # Errors
    /// An unknown name, and settings that it does not have.
    pub fn execution(&self, p: &Policies) -> Result<Made<dyn ExecutionPolicy>> {
        let flat = p.cache_fraction.map(|f| Ok(("cache_fraction".to_string(), as_toml(&f)?)));
        let flat: toml::Table = flat.into_iter().collect::<Result<_>>()?;
        find("execution", &self.execution, &p.execution, flat)
    }
    /// The way of dispatch and combine of an experiment.
    ///
    /// # Errors
    /// As [`Registry::execution`].
    pub fn dispatch(&self, p: &Policies) -> Result<Made<dyn Dispatch>> {
        find("dispatch", &self.dispatches, &p.dispatch, toml::Table::new())
    }
    /// The scheduler of an experiment.
    ///
    /// # Errors
    /// As [`Registry::execution`].
    pub fn scheduler(&self, p: &Policies) -> Result<Made<dyn Scheduler>> {
        find("scheduler", &self.schedulers, &p.scheduler, toml::Table::new())
    }
    /// The load balancer of an experiment.
    ///
    /// # Errors
    /// As [`Registry::execution`].
    pub fn balancer(&self, p: &Policies) -> Result<Made<dyn LoadBalancer>> {
        find("load_balancer", &self.balancers, &p.load_balancer, toml::Table::new())
    }
    /// The placement method of this name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn placement(&self, name: &str) -> Result<Box<dyn Placement>> {
        Ok(find("placement", &self.placements, &Choice::named(name), toml::Table::new())?.policy)
    }

    /// Makes the policies of a run.
    ///
    /// # Errors
    /// Unknown names, and settings that policies do not have.
    pub fn make(&self, p: &Policies) -> Result<RunPolicies> {
        let (dispatch, execution) = (self.dispatch(p)?, self.execution(p)?);
        let (scheduler, balancer) = (self.scheduler(p)?, self.balancer(p)?);
        let notes = [&execution.note, &dispatch.note, &scheduler.note, &balancer.note];
        let notes = notes.into_iter().flatten().cloned().collect();
        // A key of `policy` that stood in for a setting stands in the policy's own table now.
        let stood_in = execution.choice.settings.contains_key("cache_fraction");
        let settled = Policies {
            cache_fraction: p.cache_fraction.filter(|f| !stood_in && *f != CacheFraction::Auto),
            execution: execution.choice,
            dispatch: dispatch.choice,
            scheduler: scheduler.choice,
            load_balancer: balancer.choice,
            ..p.clone()
        };
        Ok(RunPolicies {
            execution: execution.policy,
            dispatch: dispatch.policy,
            scheduler: scheduler.policy,
            balancer: balancer.policy,
            settled,
            notes,
        })
    }

    /// Every placement method.
    pub fn placements(&self) -> &[Entry<dyn Placement>] {
        &self.placements
    }

    /// Every policy, with the settings that it asks for.
    ///
    /// # Errors
    /// A policy that cannot be made from its defaults.
    pub fn list(&self) -> Result<Vec<Listed>> {
        fn rows<T: ?Sized>(seam: &'static str, list: &[Entry<T>]) -> impl Iterator<Item = Result<Listed>> {
            list.iter().map(move |e| {
                let mut settings = Settings::new(&format!("policy.{seam}"), &Choice::named(e.name));
                (e.make)(&mut settings)?;
                Ok(Listed { seam, name: e.name, about: e.about, settings: settings.asked().to_vec() })
            })
        }
        rows("execution", &self.execution)
            .chain(rows("dispatch", &self.dispatches))
            .chain(rows("scheduler", &self.schedulers))
            .chain(rows("load_balancer", &self.balancers))
            .chain(rows("placement", &self.placements))
            .collect()
    }
}

impl Registry {
    /// The schema of experiments with every policy that there is, and its settings, where the plain one has any name.
    ///
    /// # Errors
    /// As [`Registry::list`].
    pub fn schema(&self, experiment: schemars::Schema) -> Result<schemars::Schema> {
        let listed = self.list()?;
        let mut json = experiment.to_value();
        for seam in ["execution", "dispatch", "scheduler", "load_balancer"] {
            let own = || listed.iter().filter(|p| p.seam == seam);
            let names: Vec<&str> = own().map(|p| p.name).collect();
            let kinds = std::iter::once(serde_json::json!({ "enum": names })).chain(own().map(Listed::schema));
            let property = &mut json["$defs"]["Policies"]["properties"][seam];
            if let Some(property) = property.as_object_mut() {
                property.retain(|key, _| key == "description" || key == "default");
                property.insert("anyOf".into(), kinds.collect());
            }
        }
        schemars::Schema::try_from(json).map_err(|e| Diag::run(format!("the schema is none: {e}")))
    }
}

/// A policy as lists show it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The key of `policy` that names it.
    pub seam: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// What it can be told.
    pub settings: Vec<Setting>,
}

impl Listed {
    /// The table that names it.
    fn schema(&self) -> serde_json::Value {
        let setting = |s: &Setting| {
            let mut schema = s.schema.clone();
            schema["description"] = s.about.into();
            schema["default"] = serde_json::to_value(&s.default).unwrap_or_default();
            (s.key.to_string(), schema)
        };
        let kind = ("kind".to_string(), serde_json::json!({ "const": self.name }));
        let properties: serde_json::Map<_, _> =
            std::iter::once(kind).chain(self.settings.iter().map(setting)).collect();
        serde_json::json!({
            "type": "object",
            "description": self.about,
            "properties": properties,
            "required": ["kind"],
            "additionalProperties": false
        })
    }
}

fn find<T: ?Sized>(seam: &str, list: &[Entry<T>], choice: &Choice, flat: toml::Table) -> Result<Made<T>> {
    let Some(entry) = list.iter().find(|e| e.name == choice.kind) else {
        let names: Vec<&str> = list.iter().map(|e| e.name).collect();
        let what = format!("{} policy", seam.replace('_', " "));
        return Err(diag::unknown(&what, &choice.kind, &names).place(format!("policy.{seam}")));
    };
    let mut settings = Settings::new(&format!("policy.{seam}"), choice).or_flat(flat.clone());
    let policy = (entry.make)(&mut settings)?;
    let made = settings.finish()?;
    let stood_in: Vec<&String> = flat.keys().filter(|key| made.settings.contains_key(*key)).collect();
    let note = (!made.settings.is_empty() && (choice.alone || !stood_in.is_empty())).then(|| {
        let also: String = stood_in.iter().map(|key| format!(" with policy.{key}")).collect();
        let now: Vec<String> = made.settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        format!(
            "policy.{seam} = \"{}\"{also} is read as [policy.{seam}] kind = \"{}\", {}",
            choice.kind,
            choice.kind,
            now.join(", ")
        )
    });
    Ok(Made { policy, choice: made, note })
}

fn as_toml(value: &impl serde::Serialize) -> Result<toml::Value> {
    toml::Value::try_from(value).map_err(|e| Diag::run(format!("cannot be a setting: {e}")))
}
