//! Policies as lists and schemas show them, with what they ask for.

use super::{Entry, Registry};
use crate::policy::settings::Setting;
use crate::policy::{Choice, Settings};
use moesim_core::{Diag, Result};

impl Registry {
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
