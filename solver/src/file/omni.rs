//! omni-infer's placement pattern: a numpy array `[device, layer, expert]` of 0 and 1 in a `.npy`, named as `pattern_path` in
//! the YAML of omni_placement. A `.npz` with several patterns is read, but not loaded by the engine, so it is not written.
//!
//! omni-infer puts the experts of a device in ascending order (the slot is the running sum over expert ids), lets devices
//! have different numbers of experts, and counts MoE layers only. Facts from omni-ai-npu/omni-infer,
//! `components/omni-eplb/omni_placement/expert_mapping.py` and `../config.yaml`; it casts the array to int32, so that any numeric
//! type will do.

use super::{CELLS, Format, Placed, PlacementFile, ReadOptions, npy, numbered, placed, text};
use moesim_core::output::AtomicFile;
use moesim_core::{Diag, Result};
use moesim_traces::arrays::{self, Want};
use std::path::Path;

pub(super) struct Omni;

impl Format for Omni {
    fn name(&self) -> &'static str {
        "omni"
    }
    fn description(&self) -> &'static str {
        "omni-infer's pattern: a numpy array [device, layer, expert] of 0 and 1 (.npy; one of an .npz can be read)"
    }
    fn detect(&self, path: &Path) -> bool {
        arrays::is_numpy(path, 3)
    }
    fn read(&self, path: &Path, options: &ReadOptions) -> Result<PlacementFile> {
        let want = Want {
            name: options.array.as_deref(),
            what: "a pattern [device, layer, expert] of 0 and 1",
            dimensions: 3,
            most: CELLS,
        };
        let array = arrays::numpy(path, &want)?;
        let &[devices, layers, experts] = &array.shape[..] else {
            return Err(Diag::input(format!("has the shape {:?}", array.shape)).place("shape").cure(want.what));
        };
        placed::bounds(layers, devices, experts)?;
        let experts = super::experts(Some(experts), || None, options)?;
        let mut placed = Placed { experts, devices: vec![vec![Vec::new(); devices]; layers] };
        for (i, value) in array.data.iter().enumerate() {
            let (device, layer, expert) = (i / experts / layers, i / experts % layers, i % experts);
            match value {
                0 => {}
                1 => placed.devices[layer][device].push(expert as u16),
                _ => {
                    return Err(Diag::input(format!("has {value} where 0 or 1 should be"))
                        .place(format!("device {device}, layer {layer}, expert {expert}"))
                        .cure("write 1 where the device holds the expert; it cannot hold it twice"));
                }
            }
        }
        let mut notes = Vec::new();
        let layer_numbers = numbered(layers, options, &mut notes)?;
        Ok(PlacementFile { format: self.name(), model: None, layer_numbers, placed, result: None, notes })
    }
    fn write(&self, file: &PlacementFile, path: &Path) -> Result<()> {
        let p = &file.placed;
        if !text::named(path, &["npy"]) {
            return Err(Diag::input("is not named .npy").cure("omni-infer loads a .npy: name it so"));
        }
        let (devices, layers) = (p.devices(), p.layers());
        let cells = devices * layers * p.experts;
        if cells > CELLS {
            return Err(placed::too_large(format!("is an array of {cells} elements")));
        }
        let mut data = vec![0u16; cells];
        for (l, layer) in p.devices.iter().enumerate() {
            for (d, experts) in layer.iter().enumerate() {
                for e in experts {
                    let cell = &mut data[(d * layers + l) * p.experts + usize::from(*e)];
                    if *cell > 0 {
                        return Err(Diag::input(format!("device {d} holds expert {e} twice"))
                            .place(format!("layer {l}"))
                            .cure("place replicas on distinct devices: a pattern of 0 and 1 cannot say twice"));
                    }
                    *cell = 1;
                }
            }
        }
        AtomicFile::write(path, &npy::array(&[devices, layers, p.experts], 1, data.into_iter()))
    }
}
