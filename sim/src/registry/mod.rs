//! Every policy by name. A user's own crate adds to [`Registry::builtin`] and gets the whole command line.
//!
//! `builtin` has those that come with moesim; [`listed`] shows what there is.

mod builtin;
pub mod listed;

pub use listed::Listed;

use crate::experiment::Policies;
use crate::framework;
use crate::network::dispatch::Dispatch;
use crate::policy::{CacheFraction, Choice, ExecutionPolicy, Settings};
use crate::serving::{LoadBalancer, Scheduler};
use moesim_core::{Diag, Result, diag};
use moesim_solver::Placement;

/// Makes a policy, asking for its settings.
pub type Make<T> = fn(&mut Settings) -> Result<Box<T>>;

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

impl<T: ?Sized> Entry<T> {
    /// Makes one whose settings have their defaults.
    ///
    /// # Errors
    /// A policy that cannot be made from its defaults.
    pub fn plain(&self) -> Result<Box<T>> {
        (self.make)(&mut Settings::new("policy", &Choice::named(self.name)))
    }
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
        find("dispatch", &self.dispatches, &framework::dispatch(&p.dispatch, None), toml::Table::new())
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
