//! Hardware as data: strict TOML in which every constant carries its origin.
//!
//! A link's bandwidth is one way; where a data sheet gives both ways together, the origin says the sheet's figure and
//! the division. `assumed: why` marks what no source gives, `donor: PRESET` a dimensionless efficiency taken over from
//! another device.

mod check;
mod device;
mod host;
mod preset;

pub use device::{Achievable, Device, Memory, Peak, Pim};
pub use host::{Host, HostLink};
pub use preset::{Preset, preset_text, presets};

use crate::topology::{Topology, TopologySpec};
use moesim_core::{Bytes, Diag, Result, Sourced, config, diag, input};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;

/// A file with more bytes is not a hardware file; larger input is not read.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A machine: equal devices, how they are joined, and their host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Short name, as in `h100-8`.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Price of one device for one hour, in US dollars; without it a run gives no cost.
    pub price_per_device_hour: Option<Sourced<f64>>,
    /// Links that do not work, by the names that `moesim show` and `links.csv` print, as in `["gpu0>gpu1"]`. Where the
    /// route of a pair of devices has one, the pair takes the path with the fewest links that work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_links: Vec<String>,
    /// Every device.
    pub device: Device,
    /// How the devices are joined.
    pub topology: TopologySpec,
    /// The host side.
    pub host: Host,
}

impl Hardware {
    /// Reads a preset by name, or a TOML file by path.
    ///
    /// # Errors
    /// Input that is neither, cannot be read, does not parse, or states what no machine has.
    pub fn load(name_or_path: &str) -> Result<Self> {
        if let Some(text) = preset_text(name_or_path) {
            return Self::from_text(text, name_or_path);
        }
        let path = Path::new(name_or_path);
        if !path.exists() && path.extension().is_none() && path.components().count() <= 1 {
            let names: Vec<&str> = presets().iter().map(|p| p.name).collect();
            return Err(diag::unknown("hardware preset or file", name_or_path, &names));
        }
        let mut text = String::new();
        let file = input::open(path)?;
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|e| Diag::cannot_read(path, &e))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(Diag::input("is larger than 16 MiB").file(path).cure("name a hardware file in TOML"));
        }
        Self::from_text(&text, name_or_path)
    }

    /// Reads a tree (a preset with overrides, an inline table); `label` names it in messages.
    ///
    /// # Errors
    /// As [`Hardware::load`].
    pub fn from_table(table: toml::Table, label: &str) -> Result<Self> {
        config::from_table::<Self>(table, label).map_err(cure)?.checked(label)
    }

    fn from_text(text: &str, label: &str) -> Result<Self> {
        config::from_toml::<Self>(text, label).map_err(cure)?.checked(label)
    }

    fn checked(self, label: &str) -> Result<Self> {
        self.check().map_err(|e| e.file(label))?;
        Ok(self)
    }

    /// Number of devices.
    pub fn devices(&self) -> usize {
        self.topology.devices()
    }

    /// The graph of devices, switches and links, without those that failed.
    ///
    /// # Errors
    /// As [`Topology::with_failed`].
    pub fn build_topology(&self) -> Result<Topology> {
        Topology::with_failed(&self.topology, &self.failed_links)
    }

    /// Device memory left for weights, KV cache and activations: capacity less the reserve.
    pub fn usable_memory(&self) -> Bytes {
        let memory = &self.device.memory;
        Bytes((memory.capacity.value.as_f64() * (1.0 - self.device.reserve.value)) as u64)
    }
}

/// Whatever does not parse has a cure, at least an example that does.
fn cure(e: Diag) -> Diag {
    if e.cure.is_empty() { e.cure("compare with a preset: moesim show h100-8") } else { e }
}
