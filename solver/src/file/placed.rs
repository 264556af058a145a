//! Experts in physical slots.

use super::{CELLS, DEVICES, EXPERTS, LAYERS, LISTS};
use crate::Homes;
use moesim_core::{Diag, Result};

/// Which expert is in which physical slot: what engines load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Experts a layer; ids are below.
    pub experts: usize,
    /// `[layer][device]`: the experts in the order of the device's slots. Every layer has the same devices; slots may differ
    /// from device to device, and a device may hold an expert twice.
    pub devices: Vec<Vec<Vec<u16>>>,
}

/// What [`Placed::check`] finds of a sound placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Slots of a device, if all devices have the same number in all layers.
    pub slots: Option<usize>,
    /// Slots with an expert that a slot before them on the same device holds: weights held twice that balance nothing.
    pub repeated: u64,
}

/// Where replicas are, over all layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Slots.
    pub slots: u64,
    /// Slots beyond one for each expert of each layer.
    pub redundant: u64,
    /// Experts, counted in each layer, that more than one device holds.
    pub replicated: u64,
    /// The most devices that hold one expert.
    pub most: usize,
    /// The fewest and the most slots of a device in a layer.
    pub per_device: (usize, usize),
}

impl Placed {
    /// Layers.
    pub fn layers(&self) -> usize {
        self.devices.len()
    }
    /// Devices.
    pub fn devices(&self) -> usize {
        self.devices.first().map_or(0, Vec::len)
    }
    /// Slots of a layer, over all devices.
    pub fn slots(&self, layer: usize) -> usize {
        self.devices[layer].iter().map(Vec::len).sum()
    }
    /// `[layer][expert]`: the devices that hold a replica, ascending, none twice. Ids beyond the experts are left out.
    pub fn homes(&self) -> Homes {
        let layer = |devices: &Vec<Vec<u16>>| {
            let mut homes = vec![Vec::new(); self.experts];
            for (d, experts) in (0u32..).zip(devices) {
                for e in experts {
                    if let Some(home) = homes.get_mut(usize::from(*e)).filter(|h: &&mut Vec<u32>| h.last() != Some(&d))
                    {
                        home.push(d);
                    }
                }
            }
            homes
        };
        self.devices.iter().map(layer).collect()
    }
    /// The replicas of `homes` in slots, on each device in the order of their numbers.
    ///
    /// # Errors
    /// A home beyond the devices, layers of different experts, what [`Placed::check`] refuses, or more than a placement may have.
    pub fn from_homes(homes: &Homes, devices: usize) -> Result<Self> {
        let experts = homes.first().map_or(0, Vec::len);
        bounds(homes.len(), devices, experts)?;
        let mut placed = Self { experts, devices: vec![vec![Vec::new(); devices]; homes.len()] };
        for (l, layer) in homes.iter().enumerate() {
            let wrong =
                |problem: String| Diag::input(problem).place(format!("layer {l}")).cure("correct the placement rule");
            if layer.len() != experts {
                return Err(wrong(format!("has {} experts, not {experts}", layer.len())));
            }
            for (e, expert) in (0u16..).zip(layer) {
                for home in expert {
                    let slots = placed.devices[l].get_mut(*home as usize);
                    let slots = slots.ok_or_else(|| wrong(format!("expert {e} is on device {home} of {devices}")))?;
                    if slots.last() != Some(&e) {
                        slots.push(e);
                    }
                }
            }
        }
        placed.check()?;
        Ok(placed)
    }
    /// Checks that the placement is one: every layer has the same devices, ids exist, and every expert is somewhere.
    ///
    /// # Errors
    /// What is not so, with the layer (counted from 0) and the device.
    pub fn check(&self) -> Result<Checked> {
        bounds(self.layers(), self.devices(), self.experts)?;
        let mut slots: Option<usize> = None;
        let (mut equal, mut repeated, mut cells) = (true, 0, 0usize);
        // The last (layer, device) that held each expert, as one number from 1 on.
        let mut seen = vec![0u64; self.experts];
        let mut first_of_layer = 1;
        let mut stamp = 0;
        for (l, layer) in self.devices.iter().enumerate() {
            if layer.len() != self.devices() {
                let problem = format!("has {} devices, not {}", layer.len(), self.devices());
                return Err(Diag::input(problem)
                    .place(format!("layer {l}"))
                    .cure("give every layer the same devices, those without experts too"));
            }
            for (d, experts) in layer.iter().enumerate() {
                stamp += 1;
                equal &= *slots.get_or_insert(experts.len()) == experts.len();
                cells += experts.len();
                if cells > CELLS {
                    return Err(too_large(format!("has more than 2^24 slots up to layer {l}")));
                }
                for e in experts {
                    let Some(last) = seen.get_mut(usize::from(*e)) else {
                        return Err(Diag::input(format!("expert {e} of {} does not exist", self.experts))
                            .place(format!("layer {l}, device {d}"))
                            .cure("number experts from 0; give the model's number of experts"));
                    };
                    repeated += u64::from(*last == stamp);
                    *last = stamp;
                }
            }
            if let Some(e) = seen.iter().position(|s| *s < first_of_layer) {
                return Err(Diag::input(format!("expert {e} of {} is on no device", self.experts))
                    .place(format!("layer {l}"))
                    .cure("place every expert of every layer at least once; give the model's number of experts"));
            }
            first_of_layer = stamp + 1;
        }
        Ok(Checked { slots: slots.filter(|_| equal), repeated })
    }
    /// Where replicas are. Without layers all is zero.
    pub fn replicas(&self) -> Replicas {
        let lengths = || self.devices.iter().flatten().map(Vec::len);
        let slots = lengths().map(|n| n as u64).sum::<u64>();
        let (mut replicated, mut most) = (0, 0);
        // Devices with each expert, and the last of them, counted from 1.
        let mut held = vec![(0usize, 0usize); self.experts];
        for layer in &self.devices {
            held.fill((0, 0));
            for (d, experts) in (1..).zip(layer) {
                for e in experts {
                    if let Some(h) = held.get_mut(usize::from(*e)).filter(|h| h.1 != d) {
                        *h = (h.0 + 1, d);
                    }
                }
            }
            replicated += held.iter().filter(|h| h.0 > 1).count() as u64;
            most = most.max(held.iter().map(|h| h.0).max().unwrap_or(0));
        }
        Replicas {
            slots,
            redundant: slots.saturating_sub((self.layers() * self.experts) as u64),
            replicated,
            most,
            per_device: (lengths().min().unwrap_or(0), lengths().max().unwrap_or(0)),
        }
    }
    /// Experts' weights that devices load to get from this placement to `other`: pairs of device and expert, counted in each
    /// layer, that `other` has and this one has not. Where it lies on the device makes no difference.
    pub fn moves(&self, other: &Self) -> u64 {
        let none = Vec::new();
        let mut held = vec![0u64; self.experts.max(other.experts)];
        let (mut stamp, mut moves) = (0, 0);
        for (l, layer) in other.devices.iter().enumerate() {
            for (d, wanted) in layer.iter().enumerate() {
                stamp += 1;
                let before = self.devices.get(l).and_then(|layer| layer.get(d)).unwrap_or(&none);
                for e in before {
                    if let Some(h) = held.get_mut(usize::from(*e)) {
                        *h = stamp;
                    }
                }
                for e in wanted {
                    // What is loaded once is held from then on.
                    if let Some(h) = held.get_mut(usize::from(*e)).filter(|h| **h != stamp) {
                        *h = stamp;
                        moves += 1;
                    }
                }
            }
        }
        moves
    }
}

pub(super) fn too_large(problem: String) -> Diag {
    Diag::input(problem)
        .cure("give at most 4096 layers, 65534 experts, 65536 devices, 2^20 devices over all layers, and 2^24 slots")
}

/// Refuses what is empty or larger than a placement may be.
pub(super) fn bounds(layers: usize, devices: usize, experts: usize) -> Result<()> {
    let sound = (1..=LAYERS).contains(&layers)
        && (1..=DEVICES).contains(&devices)
        && (1..=EXPERTS).contains(&experts)
        && layers * devices <= LISTS;
    let problem = || format!("has {layers} layers, {devices} devices and {experts} experts");
    if sound { Ok(()) } else { Err(too_large(problem())) }
}
