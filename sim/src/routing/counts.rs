//! Counting of rows: the innermost loop of a run.

use super::replay::{MISSING, Segment};
use super::slot_map::SlotMap;
use super::source::{Provenance, Rows, Source, drawn_row};
use crate::cache_line::prefetch;

/// Rows that are counted together. A decode batch takes a row here and a row there: all are asked for before any is
/// counted.
const BLOCK: usize = 16;
/// Expert ids in a cache line of 64 bytes.
const IDS_A_LINE: usize = 64 / size_of::<u16>();

/// A token to count.
#[derive(Clone, Copy, Default)]
struct TokenRow<'a> {
    ids: &'a [u16],
    device: u32,
    position: u64,
}

struct Block<'a> {
    rows: [TokenRow<'a>; BLOCK],
    len: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) slots: Vec<u32>,
    /// Per (source device, layer, way), so that the tokens of a device count close together.
    pub(super) pairs: Vec<u32>,
    /// Devices whose pairs are not all zero.
    touched: Vec<bool>,
    /// Tokens that each device holds before each layer, layer-major; empty unless tokens follow.
    pub(super) held: Vec<u32>,
    /// Tokens of each common part of groups of experts, layer-major.
    pub(super) parts: Vec<u32>,
    /// Per layer: the most tokens of an expert. Empty without capacities.
    pub(super) limits: Vec<u32>,
    /// Tokens of each (layer, id) so far, where there are capacities.
    taken: Vec<u32>,
    /// Selections beyond their expert's capacity.
    pub(super) dropped: u64,
    stamps: Vec<u64>,
    part_stamps: Vec<u64>,
    stamp: u64,
    pub(super) provenance: Provenance,
    pub(super) assigned: u64,
}

impl Counts {
    pub(super) fn clear(&mut self, map: &SlotMap) {
        self.slots.clear();
        self.slots.resize(map.layers * map.slots, 0);
        let block = map.layers * map.ways;
        if self.pairs.len() != block * map.devices {
            self.pairs.clear();
            self.touched.clear();
        }
        self.pairs.resize(block * map.devices, 0);
        self.touched.resize(map.devices, false);
        // Most of the pairs of a large machine are still zero.
        for (device, touched) in self.touched.iter_mut().enumerate() {
            if std::mem::take(touched) {
                self.pairs[device * block..(device + 1) * block].fill(0);
            }
        }
        self.stamps.resize(map.ways, 0);
        self.held.clear();
        self.held.resize(if map.follows() { map.layers * map.devices } else { 0 }, 0);
        self.parts.clear();
        self.parts.resize(map.layers * map.parts, 0);
        self.part_stamps.resize(map.parts, 0);
        self.provenance = Provenance::default();
        self.assigned = 0;
        self.dropped = 0;
        if map.limited() {
            self.taken.clear();
            self.taken.resize(map.layers * map.ids, 0);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (a, b) in self.slots.iter_mut().zip(&other.slots) {
            *a += b;
        }
        let block = self.pairs.len() / self.touched.len().max(1);
        for (device, _) in other.touched.iter().enumerate().filter(|(_, t)| **t) {
            self.touched[device] = true;
            let range = device * block..(device + 1) * block;
            for (a, b) in self.pairs[range.clone()].iter_mut().zip(&other.pairs[range]) {
                *a += b;
            }
        }
        for (a, b) in self.parts.iter_mut().zip(&other.parts).chain(self.held.iter_mut().zip(&other.held)) {
            *a += b;
        }
        self.provenance.add(&other.provenance);
        self.assigned += other.assigned;
    }

    /// Counts `segments`, block by block.
    pub(super) fn segments<'a>(
        &mut self,
        map: &SlotMap,
        source: &'a Source,
        segments: impl Iterator<Item = &'a Segment>,
    ) {
        let width = source.trace().width();
        let k = source.trace().k();
        let mut block = Block { rows: [TokenRow::default(); BLOCK], len: 0 };
        let mut drawn = Vec::new();
        for s in segments {
            let mut turn = s.turn;
            self.touched[s.device as usize..(s.device + s.spread) as usize].fill(true);
            // Replicas are taken in turn by sequence and position: a pure function of the token.
            let mut position = u64::from(s.binding.sequence) + u64::from(s.from);
            let p = source.rows(s.binding, s.prompt, s.from, s.count, |rows| {
                let mut next = |counts: &mut Self, ids: Option<&'a [u16]>, drawn: &[u16]| {
                    // Who follows starts where its turn says, whatever else is in the batch.
                    let first = if map.follows() { (position % u64::from(s.spread)) as u32 } else { turn };
                    let (device, position_now) = (s.device + first, position);
                    position += 1;
                    turn = if turn + 1 == s.spread { 0 } else { turn + 1 };
                    let row = TokenRow { ids: ids.unwrap_or_default(), device, position: position_now };
                    if ids.is_none() {
                        // Who is dropped depends on who came before.
                        if map.limited() {
                            counts.count(map, &mut block.rows[..block.len], k);
                            block.len = 0;
                        }
                        counts.count(map, &mut [TokenRow { ids: drawn, ..row }], k);
                        return;
                    }
                    // The first lines; beyond, the hardware has seen the pattern.
                    row.ids.chunks(IDS_A_LINE).take(16).for_each(|line| prefetch(&line[0]));
                    block.rows[block.len] = row;
                    block.len += 1;
                    if block.len == BLOCK {
                        counts.count(map, &mut block.rows, k);
                        block.len = 0;
                    }
                };
                match rows {
                    Rows::Slice(ids) => {
                        for row in ids.chunks_exact(width) {
                            next(self, Some(row), &[]);
                        }
                    }
                    Rows::Drawn(pool, key) => {
                        let n = (pool.len() / width) as u64;
                        drawn.clear();
                        for l in 0..map.layers {
                            let row = drawn_row(key, l, n);
                            drawn.extend_from_slice(&pool[row * width + l * k..row * width + (l + 1) * k]);
                        }
                        next(self, None, &drawn);
                    }
                }
            });
            self.provenance.add(&p);
        }
        self.count(map, &mut block.rows[..block.len], k);
    }

    /// Counts rows layer by layer, so that a layer's counts stay in the innermost cache for all of them.
    fn count(&mut self, map: &SlotMap, rows: &mut [TokenRow], k: usize) {
        for l in 0..map.layers {
            if map.follows() {
                rows.iter().for_each(|row| self.held[l * map.devices + row.device as usize] += 1);
            }
            if map.shapes[l].capacity.is_some() {
                rows.iter().for_each(|row| self.count_limited(map, l, row, k));
                continue;
            }
            if map.shapes[l].expert_groups > 0 {
                rows.iter().for_each(|row| self.count_parts(map, l, row, k));
            }
            if !map.counted.is_empty() {
                rows.iter().for_each(|row| self.count_more(map, l, row, k));
            }
            let counts = &mut self.slots[l * map.slots..(l + 1) * map.slots];
            let homes = if map.single { &map.replicas[l * map.ids..(l + 1) * map.ids] } else { &[][..] };
            for row in &*rows {
                let ids = &row.ids[l * k..(l + 1) * k];
                let at = (row.device as usize * map.layers + l) * map.ways;
                let pairs = &mut self.pairs[at..at + map.ways];
                let mut assigned = 0;
                if map.alone {
                    for &id in ids {
                        if id == MISSING {
                            continue;
                        }
                        let id = usize::from(id);
                        let home = if map.single { homes[id] } else { map.home(l, id, row.position) };
                        counts[home.slot as usize] += 1;
                        pairs[home.group as usize] += 1;
                        assigned += 1;
                    }
                } else if map.single && map.counted_at <= 64 {
                    let mut seen = 0u64;
                    for &id in ids {
                        if id == MISSING {
                            continue;
                        }
                        let home = homes[usize::from(id)];
                        counts[home.slot as usize] += 1;
                        pairs[home.group as usize] += (seen >> home.group & 1 ^ 1) as u32;
                        seen |= 1 << home.group;
                        assigned += 1;
                    }
                } else {
                    self.stamp += 1;
                    for &id in ids {
                        if id == MISSING {
                            continue;
                        }
                        let id = usize::from(id);
                        let home = if map.single { homes[id] } else { map.home(l, id, row.position) };
                        counts[home.slot as usize] += 1;
                        let stamp = &mut self.stamps[home.group as usize];
                        pairs[home.group as usize] += u32::from(*stamp != self.stamp);
                        *stamp = self.stamp;
                        assigned += 1;
                    }
                }
                self.assigned += assigned;
            }
            if let Some(returned) = map.returned_at {
                rows.iter_mut().for_each(|row| self.follow(map, l, row, k, returned));
            }
        }
    }

    /// The outputs of a token's experts go to the group of the first of them, and so does the token.
    fn follow(&mut self, map: &SlotMap, l: usize, row: &mut TokenRow, k: usize, returned: usize) {
        self.stamp += 1;
        let ids = &row.ids[l * k..(l + 1) * k];
        let placed =
            ids.iter().filter(|id| **id != MISSING).map(|id| map.home(l, usize::from(*id), row.position).group);
        let placed = placed.filter(|g| (*g as usize) < map.groups);
        row.device = placed.clone().next().unwrap_or(row.device);
        let at = (row.device as usize * map.layers + l) * map.ways + returned;
        for group in placed {
            let stamp = &mut self.stamps[group as usize];
            self.pairs[at + group as usize] += u32::from(!map.once || *stamp != self.stamp);
            *stamp = self.stamp;
        }
    }

    /// Counts the common parts that a token computes in layer `l`: each once, however many members of its group it hit.
    fn count_parts(&mut self, map: &SlotMap, l: usize, row: &TokenRow, k: usize) {
        self.stamp += 1;
        for &id in row.ids[l * k..(l + 1) * k].iter().filter(|id| **id != MISSING) {
            let slot = map.home(l, usize::from(id), row.position).slot as usize;
            if slot < map.placed(l) {
                self.count_part(map, l, slot);
            }
        }
    }

    /// Counts a token in the columns of [`super::Counting`].
    fn count_more(&mut self, map: &SlotMap, l: usize, row: &TokenRow, k: usize) {
        let at = (row.device as usize * map.layers + l) * map.ways;
        let ids = row.ids[l * k..(l + 1) * k].iter().filter(|id| **id != MISSING).map(|id| usize::from(*id));
        if !map.once && map.single {
            // A column a group, every selection counts; what is nowhere lies behind the last one.
            let homes = &map.replicas[l * map.ids..(l + 1) * map.ids];
            let pairs = &mut self.pairs[at + map.counted_at..at + map.ways];
            for id in ids {
                if let Some(n) = pairs.get_mut(homes[id].group as usize) {
                    *n += 1;
                }
            }
            return;
        }
        self.stamp += 1;
        for id in ids {
            self.count_way(map, at, map.home(l, id, row.position).group as usize);
        }
    }

    fn count_way(&mut self, map: &SlotMap, at: usize, group: usize) {
        // What is nowhere has no column.
        let Some(&column) = map.counted.get(group) else { return };
        let stamp = &mut self.stamps[column as usize];
        self.pairs[at + column as usize] += u32::from(!map.once || *stamp != self.stamp);
        *stamp = self.stamp;
    }

    fn count_part(&mut self, map: &SlotMap, l: usize, slot: usize) {
        let part = map.part(l, slot);
        self.parts[l * map.parts + part] += u32::from(self.part_stamps[part] != self.stamp);
        self.part_stamps[part] = self.stamp;
    }

    /// Counts a token in layer `l`, whose experts are full at their capacity.
    fn count_limited(&mut self, map: &SlotMap, l: usize, row: &TokenRow, k: usize) {
        self.stamp += 1;
        let at = (row.device as usize * map.layers + l) * map.ways;
        for &id in row.ids[l * k..(l + 1) * k].iter().filter(|id| **id != MISSING) {
            self.assigned += 1;
            let id = usize::from(id);
            let home = map.home(l, id, row.position);
            let (slot, group) = (home.slot as usize, home.group as usize);
            if slot < map.placed(l) {
                let taken = &mut self.taken[l * map.ids + id];
                if *taken == self.limits[l] {
                    self.dropped += 1;
                    continue;
                }
                *taken += 1;
                if map.shapes[l].expert_groups > 0 {
                    self.count_part(map, l, slot);
                }
            }
            self.count_way(map, at, group);
            self.slots[l * map.slots + slot] += 1;
            self.pairs[at + group] += u32::from(self.stamps[group] != self.stamp);
            self.stamps[group] = self.stamp;
        }
    }
}
