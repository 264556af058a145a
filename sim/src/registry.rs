//! Every policy by name. A user's own crate adds to [`Registry::builtin`] and gets the whole command line.

use crate::policy::dispatch::{Flat, Hierarchical, PerSelection};
use crate::policy::expert_parallel::ExpertParallel;
use crate::policy::on_demand::OnDemand;
use crate::policy::on_demand_belady::OnDemandBelady;
use crate::policy::pim_split::PimSplit;
use crate::policy::{Dispatch, Executing, ExecutionPolicy, OraclePolicy, Policies};
use crate::serving::{ChunkedPrefill, LeastLoaded, LoadBalancer, RoundRobin, Scheduler};
use moesim_core::{Diag, Result, diag};
use moesim_solver::Placement;

/// Makes a policy from the experiment's settings.
pub type Make<T> = fn(&Policies) -> Box<T>;

/// A policy by name.
pub struct Entry<T: ?Sized> {
    /// Its name in experiments.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Makes one.
    pub make: Make<T>,
}

/// A policy of a user's own.
pub enum Extension {
    /// How a layer's experts are executed.
    Execution(Entry<dyn ExecutionPolicy>),
    /// The same, seeing routing that lies ahead.
    Oracle(Entry<dyn OraclePolicy>),
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
    oracles: Vec<Entry<dyn OraclePolicy>>,
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
                    make: |_| Box::new(ExpertParallel),
                },
                Entry {
                    name: "on-demand",
                    about: "experts in host memory, loaded when selected, behind an LRU cache on the device",
                    make: |p| Box::new(OnDemand::new(p.cache_fraction)),
                },
                Entry {
                    name: "pim-split",
                    about: "each expert on the cores or on the PIM units, whichever its Op/B favours",
                    make: |_| Box::new(PimSplit::default()),
                },
            ],
            oracles: vec![Entry {
                name: "on-demand-belady",
                about: "oracle: on-demand, evicting what the iteration's remaining layers do not use",
                make: |p| Box::new(OnDemandBelady::new(p.cache_fraction)),
            }],
            dispatches: vec![
                Entry {
                    name: "flat",
                    about: "one copy of a token for each device of its experts, straight there",
                    make: |_| Box::new(Flat),
                },
                Entry {
                    name: "per-selection",
                    about: "one message for each (token, expert), straight there, as low-latency kernels do",
                    make: |_| Box::new(PerSelection),
                },
                Entry {
                    name: "hierarchical",
                    about: "one copy for each node, dealt out inside it, as high-throughput kernels do",
                    make: |_| Box::new(Hierarchical),
                },
            ],
            schedulers: vec![Entry {
                name: "chunked-prefill",
                about: "continuous batching: decodes first, prefills in chunks, the youngest preempted",
                make: |_| Box::new(ChunkedPrefill),
            }],
            balancers: vec![
                Entry {
                    name: "least-loaded",
                    about: "the rank with the fewest requests",
                    make: |_| Box::new(LeastLoaded),
                },
                Entry {
                    name: "round-robin",
                    about: "one rank after the other",
                    make: |_| Box::new(RoundRobin::default()),
                },
            ],
            placements: vec![
                Entry {
                    name: "contiguous",
                    about: "blocks of consecutive experts",
                    make: |_| Box::new(moesim_solver::method::contiguous::Contiguous),
                },
                Entry {
                    name: "round-robin",
                    about: "experts dealt out one by one",
                    make: |_| Box::new(moesim_solver::method::cyclic::Cyclic),
                },
                Entry {
                    name: "home-die",
                    about: "the home dies of the wafer-scale study, arXiv 2510.05497",
                    make: |_| Box::new(moesim_solver::method::home_die::HomeDie),
                },
                Entry {
                    name: "random",
                    about: "experts dealt out in a random order, another one in each layer",
                    make: |_| Box::new(moesim_solver::method::random::Random),
                },
                Entry {
                    name: "longest-first",
                    about: "by loads: the costliest first to the group that is done first, then swaps",
                    make: |_| Box::new(moesim_solver::method::longest_first::LongestFirst),
                },
                Entry {
                    name: "eplb",
                    about: "by loads: DeepSeek's load balancer, node by node where it can",
                    make: |_| Box::new(moesim_solver::method::eplb::Eplb { hierarchical: true }),
                },
                Entry {
                    name: "eplb-global",
                    about: "by loads: the same, all devices alike",
                    make: |_| Box::new(moesim_solver::method::eplb::Eplb { hierarchical: false }),
                },
                Entry {
                    name: "remap",
                    about: "by loads: prefill-guided remap, arXiv 2510.05497",
                    make: |_| Box::new(moesim_solver::method::remap::Remap),
                },
                Entry {
                    name: "duplicate",
                    about: "by loads: prefill-guided copies beside contiguous blocks, arXiv 2510.05497",
                    make: |_| Box::new(moesim_solver::method::duplicate::Duplicate),
                },
                Entry {
                    name: "cluster",
                    about: "by rows: experts that tokens select together share a device",
                    make: |_| Box::new(moesim_solver::method::cluster::Cluster),
                },
                Entry {
                    name: "affinity",
                    about: "by rows: experts that tokens select together share a node, inside it by load",
                    make: |_| Box::new(moesim_solver::method::affinity::Affinity),
                },
                Entry {
                    name: "two-stage",
                    about: "by rows: clusters by load, then clusters to devices by flow, as MoETuner, arXiv 2502.06643",
                    make: |_| Box::new(moesim_solver::program::stages::TwoStage),
                },
                Entry {
                    name: "sweep",
                    about: "by rows, tokens that follow: layer by layer the best between its neighbours, from random starts",
                    make: |_| Box::new(moesim_solver::method::sweep::Sweep),
                },
                Entry {
                    name: "windows",
                    about: "by rows, tokens that follow: integer programs of two layers, from what sweep finds",
                    make: |_| Box::new(moesim_solver::program::Windows),
                },
                Entry {
                    name: "anneal",
                    about: "by loads, by rows for traffic: annealing on the objective itself",
                    make: |_| Box::new(moesim_solver::method::anneal::Anneal),
                },
                Entry {
                    name: "ilp",
                    about: "by loads, by rows for traffic: an integer program where it is small enough, else annealing or longest-first; `place` names which",
                    make: |_| Box::new(moesim_solver::program::Ilp),
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
            // Both kinds are chosen by the same key, so a name is of one kind.
            Extension::Execution(e) => {
                self.oracles.retain(|o| o.name != e.name);
                put(&mut self.execution, e);
            }
            Extension::Oracle(e) => {
                self.execution.retain(|o| o.name != e.name);
                put(&mut self.oracles, e);
            }
            Extension::Dispatch(e) => put(&mut self.dispatches, e),
            Extension::Scheduler(e) => put(&mut self.schedulers, e),
            Extension::Balancer(e) => put(&mut self.balancers, e),
            Extension::Placement(e) => put(&mut self.placements, e),
        }
        self
    }

    /// The execution policy that an experiment names, an oracle or not.
    ///
    /// # Errors
    /// An unknown name.
    pub fn execution(&self, p: &Policies) -> Result<Executing> {
        if let Some(e) = self.oracles.iter().find(|e| e.name == p.execution) {
            return Ok(Executing::Oracle((e.make)(p)));
        }
        match self.execution.iter().find(|e| e.name == p.execution) {
            Some(e) => Ok(Executing::Causal((e.make)(p))),
            None => {
                let names: Vec<&str> =
                    self.execution.iter().map(|e| e.name).chain(self.oracles.iter().map(|e| e.name)).collect();
                Err(unknown("execution", &p.execution, &names))
            }
        }
    }
    /// The way of dispatch and combine that an experiment names.
    ///
    /// # Errors
    /// An unknown name.
    pub fn dispatch(&self, p: &Policies) -> Result<Box<dyn Dispatch>> {
        find("dispatch", &self.dispatches, &p.dispatch, p)
    }
    /// The scheduler that an experiment names.
    ///
    /// # Errors
    /// An unknown name.
    pub fn scheduler(&self, p: &Policies) -> Result<Box<dyn Scheduler>> {
        find("scheduler", &self.schedulers, &p.scheduler, p)
    }
    /// The load balancer that an experiment names.
    ///
    /// # Errors
    /// An unknown name.
    pub fn balancer(&self, p: &Policies) -> Result<Box<dyn LoadBalancer>> {
        find("load_balancer", &self.balancers, &p.load_balancer, p)
    }
    /// The placement rule that an experiment names.
    ///
    /// # Errors
    /// An unknown name.
    pub fn placement(&self, p: &Policies) -> Result<Box<dyn Placement>> {
        find("placement", &self.placements, &p.placement, p)
    }

    /// Every placement method.
    pub fn placements(&self) -> &[Entry<dyn Placement>] {
        &self.placements
    }

    /// (key, name, about) of every policy.
    pub fn list(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        fn rows<T: ?Sized>(
            key: &'static str,
            list: &[Entry<T>],
        ) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
            list.iter().map(move |e| (key, e.name, e.about))
        }
        rows("execution", &self.execution)
            .chain(rows("execution", &self.oracles))
            .chain(rows("dispatch", &self.dispatches))
            .chain(rows("scheduler", &self.schedulers))
            .chain(rows("load_balancer", &self.balancers))
            .chain(rows("placement", &self.placements))
            .collect()
    }
}

fn find<T: ?Sized>(key: &str, list: &[Entry<T>], name: &str, settings: &Policies) -> Result<Box<T>> {
    match list.iter().find(|e| e.name == name) {
        Some(e) => Ok((e.make)(settings)),
        None => {
            let names: Vec<&str> = list.iter().map(|e| e.name).collect();
            Err(unknown(key, name, &names))
        }
    }
}

fn unknown(key: &str, name: &str, names: &[&str]) -> Diag {
    let what = format!("{} policy", key.replace('_', " "));
    diag::unknown(&what, name, names).place(format!("policy.{key}"))
}
