//! The records of a file, checked.

use super::requests::Pass;
use crate::torch::{Tensor, TorchFile, Value};
use moesim_core::{Diag, Result};

/// What to do about a file that has no selections a token.
const CURE: &str = "read counts with `moesim trace counts`; for a trace, record with \
                    --expert-distribution-recorder-mode per_token";
/// Bounds on the map; a model has fewer.
const LAYERS: usize = 4096;
const PHYSICAL: usize = 65_534;

/// The records of a file.
pub(super) struct Recording<'a> {
    pub(super) file: &'a TorchFile,
    pub(super) records: Vec<Record<'a>>,
    /// Logical experts that the map names.
    pub(super) experts: Option<u32>,
    /// Logical expert of each layer's physical ones, and how many a layer has.
    map: Option<(Vec<u16>, usize)>,
}

/// A forward pass.
pub(super) struct Record<'a> {
    /// [layers, tokens, columns].
    pub(super) ids: &'a Tensor,
    pub(super) positions: &'a [Value],
    extend: Option<&'a [Value]>,
    mode: Option<i64>,
}

impl<'a> Recording<'a> {
    pub(super) fn of(file: &'a TorchFile) -> Result<Self> {
        let Some(list) = file.get(file.root, "records").and_then(|r| file.items(r)) else {
            let counts = file.get(file.root, "logical_count").is_some() || file.tensor(file.root).is_some();
            let problem = if counts { "has counts alone, which are no trace" } else { "is no recording of SGLang" };
            return Err(Diag::input(problem).place("data.pkl").cure(CURE));
        };
        // What a few bytes name again and again would take time and memory without bound.
        if list.len() > file.pickle_bytes() / 32 {
            let problem = "lists one record again and again";
            return Err(Diag::input(problem).place("records").cure("it is damaged: copy or record it again"));
        }
        let mut bytes = 0;
        let record =
            |(i, v): (usize, &Value)| Record::of(file, *v, &mut bytes).map_err(|d| d.place(format!("record {i}")));
        let records: Vec<Record> = list.iter().enumerate().map(record).collect::<Result<_>>()?;
        let map = last_map(file)?;
        let layers = records.iter().map(|r| r.ids.shape[0]).max().unwrap_or(0);
        let map = map.map(|m| read_map(file, m, layers)).transpose()?;
        let experts = map.as_ref().and_then(|m| m.0.iter().max()).map(|top| u32::from(*top) + 1);
        Ok(Self { file, records, experts, map })
    }
    pub(super) fn passes(&self) -> Result<Vec<Pass>> {
        self.records.iter().enumerate().map(|(i, r)| r.pass().map_err(|d| d.place(format!("record {i}")))).collect()
    }
    /// The logical expert at [layer, token, column] of a record, if there is one.
    pub(super) fn id(&self, record: usize, index: [usize; 3]) -> Result<Option<u16>> {
        let ids = self.records[record].ids;
        // A k beyond the columns is the option's or the model's.
        if index[2] >= ids.shape[2] {
            return Ok(None);
        }
        let found = self.file.integer(ids, index);
        let Some(id) = usize::try_from(found).ok().filter(|_| found != -1) else {
            return if found == -1 { Ok(None) } else { Err(no_expert(found, PHYSICAL, record, index)) };
        };
        match &self.map {
            None => {
                let known = u16::try_from(id).ok().filter(|id| usize::from(*id) < PHYSICAL);
                known.map(Some).ok_or_else(|| no_expert(found, PHYSICAL, record, index))
            }
            Some((_, physical)) if id >= *physical => Err(no_expert(found, *physical, record, index)),
            Some((logical, physical)) => Ok(Some(logical[index[0] * physical + id])),
        }
    }
}

fn no_expert(found: i128, physical: usize, record: usize, index: [usize; 3]) -> Diag {
    Diag::input(format!("physical expert {found} of {physical} does not exist"))
        .place(format!("record {record}, layer {}, token {}", index[0], index[1]))
        .cure("it is damaged: copy or record it again")
}

/// The map from physical to logical experts that a recording ends with, if it has one; in `model_maps` that of the only model.
///
/// # Errors
/// Maps of several models: nothing in a record says which one it is of.
pub(crate) fn last_map(file: &TorchFile) -> Result<Option<&Tensor>> {
    let keys = ["last_physical_to_logical_map", "physical_to_logical_map"];
    let of = |v: Value| keys.iter().find_map(|key| file.tensor(file.get(v, key)?));
    let Some(maps) = file.get(file.root, "model_maps") else { return Ok(of(file.root)) };
    let only = file.only(maps);
    let found = of(file.root).or_else(|| of(maps)).or_else(|| file.tensor(only?)).or_else(|| of(only?));
    found.map(Some).ok_or_else(|| {
        Diag::input("has no map of the one model that was recorded")
            .place("model_maps")
            .cure("record one model, without a draft model, so that its physical experts have one map")
    })
}

/// The logical expert of each physical one, [layers, physical].
pub(crate) fn read_map(file: &TorchFile, map: &Tensor, layers: usize) -> Result<(Vec<u16>, usize)> {
    let wrong = |problem: String| {
        Diag::input(problem).place("last_physical_to_logical_map").cure("it is damaged: copy or record it again")
    };
    let &[found, physical] = &map.shape[..] else {
        return Err(wrong(format!("has the shape {:?}, not [layers, physical experts]", map.shape)));
    };
    if found < layers || found > LAYERS || physical == 0 || physical > PHYSICAL || !map.element.is_integer() {
        return Err(wrong(format!("has the shape {:?} for records of {layers} layers", map.shape)));
    }
    let logical = |id: f64| {
        let known = id >= 0.0 && id < physical as f64;
        known.then_some(id as u16).ok_or_else(|| wrong(format!("names the logical expert {id} of at most {physical}")))
    };
    Ok((file.numbers(map).map(logical).collect::<Result<_>>()?, physical))
}

impl<'a> Record<'a> {
    /// The record `v`; `bytes` are those of the ids of the records before it.
    fn of(file: &'a TorchFile, v: Value, bytes: &mut u64) -> Result<Self> {
        let wrong = |problem: String| Diag::input(problem).cure("it is damaged: copy or record it again");
        let Some(ids) = file.get(v, "topk_ids_of_layer").and_then(|t| file.tensor(t)) else {
            let counts = file.get(v, "global_physical_count").is_some();
            let problem = if counts { "has counts alone, which are no trace" } else { "has no topk_ids_of_layer" };
            return Err(Diag::input(problem).cure(CURE));
        };
        let positions = file.get(v, "positions").and_then(|p| file.items(p));
        let positions = positions.ok_or_else(|| wrong("has no list of positions".into()))?;
        if ids.shape.len() != 3 || ids.shape[1] != positions.len() || !ids.element.is_integer() {
            let problem = format!(
                "has {} positions and topk_ids_of_layer of shape {:?}, not integers [layers, tokens, columns]",
                positions.len(),
                ids.shape
            );
            return Err(wrong(problem));
        }
        *bytes += (ids.count() * ids.element.bytes) as u64;
        if *bytes > file.bytes() || (ids.count() == 0 && !positions.is_empty()) {
            return Err(wrong("shares its ids with other records, or has none".into()));
        }
        Ok(Self {
            ids,
            positions,
            extend: file.get(v, "extend_seq_lens").and_then(|l| file.items(l)),
            mode: file.get(v, "forward_mode").and_then(Value::int),
        })
    }
    fn pass(&self) -> Result<Pass> {
        let numbers = |list: &[Value], what: &str| {
            let number = |v: &Value| v.int().and_then(|p| u32::try_from(p).ok());
            let list: Option<Vec<u32>> = list.iter().map(number).collect();
            list.ok_or_else(|| {
                Diag::input(format!("{what} are not all whole numbers of 32 bits"))
                    .cure("it is damaged: copy or record it again")
            })
        };
        Ok(Pass {
            positions: numbers(self.positions, "positions")?,
            extend: self.extend.map(|l| numbers(l, "extend_seq_lens")).transpose()?,
            mode: self.mode,
        })
    }
}
