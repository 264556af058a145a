//! Maps from physical slots to experts, [layer][slot]: what DeepSeek's EPLB computes and several engines load. A device has
//! consecutive slots, all devices the same number; the map does not say how many devices there are.

use super::{CELLS, EXPERTS, LAYERS, LISTS, Placed, ReadOptions, experts, placed};
use moesim_core::{Diag, Result};
use moesim_traces::arrays::{Array, Want};

/// Keys under which maps are saved: the first two by EPLB's users and SGLang, the last by SGLang's recorder.
pub(super) const KEYS: [&str; 3] = ["phy2log", "physical_to_logical_map", "last_physical_to_logical_map"];

/// An array that is a map.
pub(super) fn want(name: Option<&str>) -> Want<'_> {
    Want { name, what: "a map from slots to experts, [layers, slots]", dimensions: 2, most: CELLS }
}

/// The rows of an array.
pub(super) fn of_array(array: &Array) -> Result<Vec<Vec<u16>>> {
    let slots = array.shape.get(1).copied().unwrap_or(0).max(1);
    let row = |(l, row): (usize, &[i64])| {
        let id = |(s, id): (usize, &i64)| {
            let known = u16::try_from(*id).ok().filter(|id| usize::from(*id) < EXPERTS);
            known.ok_or_else(|| {
                Diag::input(format!("{id} is no expert"))
                    .place(format!("layer {l}, slot {s}"))
                    .cure("give the number of an expert, from 0 to 65533, for each slot")
            })
        };
        row.iter().enumerate().map(id).collect::<Result<Vec<u16>>>()
    };
    if array.shape.first().is_none_or(|l| *l > LAYERS) {
        return Err(placed::too_large(format!("has the shape {:?}", array.shape)).place("shape"));
    }
    array.data.chunks(slots).enumerate().map(row).collect()
}

/// The placement of rows, by the number of devices that the caller knows.
pub(super) fn place(rows: &[Vec<u16>], options: &ReadOptions) -> Result<Placed> {
    let slots = rows.first().map_or(0, Vec::len);
    if let Some(l) = rows.iter().position(|r| r.len() != slots) {
        let problem = format!("has {} slots, not {slots}", rows[l].len());
        return Err(Diag::input(problem).place(format!("layer {l}")).cure("give every layer the same slots"));
    }
    let Some(devices) = options.devices else {
        return Err(Diag::input(format!("maps {slots} slots and does not say to how many devices"))
            .place("devices")
            .cure("say how many with --devices: each has as many consecutive slots"));
    };
    if devices == 0 || !slots.is_multiple_of(devices) || slots == 0 {
        return Err(Diag::input(format!("has {slots} slots, which {devices} devices cannot share evenly"))
            .place("devices")
            .cure("give the number of devices that the map was made for"));
    }
    if rows.len() * devices > LISTS {
        return Err(placed::too_large(format!("has {} layers on {devices} devices", rows.len())));
    }
    let experts = experts(None, || rows.iter().flatten().max().copied(), options)?;
    let split = |row: &Vec<u16>| row.chunks(slots / devices).map(<[u16]>::to_vec).collect();
    Ok(Placed { experts, devices: rows.iter().map(split).collect() })
}

/// The slots of each device, if `who` can load the placement.
///
/// # Errors
/// Devices with different numbers of slots, or, unless `twice`, an expert twice on one.
pub(super) fn equal(placed: &Placed, who: &str, twice: bool) -> Result<usize> {
    let checked = placed.check()?;
    let Some(each) = checked.slots else {
        let first = placed.devices[0][0].len();
        let find = |(l, layer): (usize, &Vec<Vec<u16>>)| {
            layer.iter().position(|s| s.len() != first).map(|d| (l, d, layer[d].len()))
        };
        let (l, d, other) = placed.devices.iter().enumerate().find_map(find).unwrap_or_default();
        return Err(Diag::input(format!("device {d} has {other} slots, others {first}"))
            .place(format!("layer {l}"))
            .cure(format!("give all devices the same slots, as {who} requires, or write the format moesim or omni")));
    };
    if !twice && checked.repeated > 0 {
        return Err(Diag::input(format!("{} slots repeat an expert that their device holds", checked.repeated))
            .place("layers")
            .cure(format!("place replicas on distinct devices: {who} finds only one of two on a device")));
    }
    Ok(each)
}

/// The experts of a layer in the order of all slots.
pub(super) fn row(layer: &[Vec<u16>]) -> impl Iterator<Item = &u16> {
    layer.iter().flatten()
}
