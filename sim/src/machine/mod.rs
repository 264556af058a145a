//! The machine of a run: hardware, its resources for the engine, and how ranks map onto its devices.

mod attention;
mod experts;
mod memory;
mod plan;
mod ranks;
mod slots;

pub use attention::AttentionDemand;
pub(crate) use plan::work;
pub use plan::{AttentionClass, Fused, Habits, Plan};
pub use ranks::{Deployment, Layout, Ranks};

use crate::engine::{LaneId, Resources, SharedId};
use moesim_core::Result;
use moesim_hwmodels::cost::{Cost, Engine, Kernels};
use moesim_hwmodels::hardware::Hardware;
use moesim_hwmodels::topology::Topology;
use std::sync::Arc;

/// Hardware with its engines, topology and resources.
#[derive(Clone, Debug)]
pub struct Machine {
    /// As described.
    pub hardware: Hardware,
    /// The graph of its links.
    pub topology: Arc<Topology>,
    /// The rates of a device's own cores.
    pub gpu: Engine,
    /// The rates of its processing in memory.
    pub pim: Option<Engine>,
    /// What operations hold and draw on.
    pub resources: Resources,
    /// The host's thread that drives iterations.
    pub host: LaneId,
    /// Per device: its cores.
    pub compute: Vec<LaneId>,
    /// Per device: its memory channel, at the peak rate. What a kernel reaches of it is said by its cost alone.
    pub memory: Vec<SharedId>,
    /// Per device: its PIM units, if there are any.
    pub pim_lane: Vec<LaneId>,
    /// Per device: the internal bandwidth of its PIM units. Their own channel: they read banks that the device's cores do
    /// not read at that moment (Duplex, arXiv 2409.01141, section IV: bank bundles).
    pub pim_memory: Vec<SharedId>,
    /// Per device: its copy engine from host memory, if there is a link.
    pub copy: Vec<LaneId>,
    /// Per device: its link to the host.
    pub host_link: Vec<SharedId>,
}

impl Machine {
    /// Builds the resources of `hardware`.
    ///
    /// # Errors
    /// A topology that cannot be built.
    pub fn new(hardware: Hardware) -> Result<Self> {
        Self::calibrated(hardware, Kernels::default(), 1.0)
    }

    /// The same; operations cost what calibrated kernels say, where there are any, and rooflines on `share` of the processors
    /// elsewhere.
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub fn calibrated(hardware: Hardware, kernels: Kernels, share: f64) -> Result<Self> {
        let topology = Arc::new(hardware.build_topology()?);
        let mut gpu = Engine::gpu(&hardware.device).with_share(share);
        gpu.kernels = kernels;
        let pim = Engine::pim(&hardware.device);
        let mut r = Resources::default();
        let devices = hardware.devices();
        let host = r.lane("host", 1);
        let each = |r: &mut Resources, on: bool, add: &dyn Fn(&mut Resources, usize) -> u32| -> Vec<u32> {
            if on { (0..devices).map(|d| add(r, d)).collect() } else { Vec::new() }
        };
        let lanes = |r: &mut Resources, on: bool, what: &str| -> Vec<LaneId> {
            each(r, on, &|r, d| r.lane(format!("gpu{d}.{what}"), 1).0).into_iter().map(LaneId).collect()
        };
        let channels = |r: &mut Resources, rate: Option<f64>, what: &str| -> Vec<SharedId> {
            let rate_of = rate.unwrap_or(0.0);
            each(r, rate.is_some(), &|r, d| r.channel(format!("gpu{d}.{what}"), rate_of).0)
                .into_iter()
                .map(SharedId)
                .collect()
        };
        let link = hardware.host.link.as_ref();
        Ok(Self {
            compute: lanes(&mut r, true, "compute"),
            memory: channels(&mut r, Some(hardware.device.memory.bandwidth.value.per_second()), "memory"),
            pim_lane: lanes(&mut r, pim.is_some(), "pim"),
            pim_memory: channels(
                &mut r,
                hardware.device.pim.as_ref().map(|p| p.bandwidth.value.per_second()),
                "pim-memory",
            ),
            copy: lanes(&mut r, link.is_some(), "copy"),
            host_link: channels(&mut r, link.map(|l| l.bandwidth.value.per_second() * l.achievable.value), "host-link"),
            host,
            gpu,
            pim,
            topology,
            resources: r,
            hardware,
        })
    }

    /// Bytes that an operation of `cost` draws from `channel`; a kernel that is faster than the channel has the rest from a cache.
    pub(crate) fn drawn(&self, channel: SharedId, cost: &Cost) -> u64 {
        cost.drawn(self.resources.channels[channel.0 as usize].per_second)
    }

    /// Number of devices.
    pub fn devices(&self) -> usize {
        self.compute.len()
    }
}
