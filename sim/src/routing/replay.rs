//! Counts of an iteration: how many tokens each expert replica computes, and which devices tokens travel between.

use super::binding::Binding;
use super::source::{Provenance, Rows, Source};
use crate::prefetch::prefetch;
use moesim_core::rng;
use rayon::prelude::*;

/// An expert id that stands for "none".
pub const MISSING: u16 = u16::MAX;

/// Where the experts are: physical slots in the order of devices, for every layer.
#[derive(Clone, Debug)]
pub struct SlotMap {
    layers: usize,
    experts: usize,
    devices: usize,
    /// Slots of a layer; layers may have different numbers of replicas, this is the most.
    slots: usize,
    /// Per (layer, expert): where its replicas begin in `replicas`.
    first: Vec<u32>,
    /// (slot, group) of each replica.
    replicas: Vec<Home>,
    /// Per (layer, group): where its slots begin; `groups + 1` a layer.
    group_slots: Vec<u32>,
    /// Per (layer, slot): the expert.
    slot_expert: Vec<u16>,
    groups: usize,
    single: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Home {
    slot: u32,
    group: u32,
}

impl SlotMap {
    /// From the replicas of every (layer, expert) as expert-parallel groups, each non-empty and in `0..groups`.
    /// `devices` is how many sources tokens come from.
    pub fn new(groups_of: &[Vec<Vec<u32>>], groups: usize, devices: usize) -> Self {
        let layers = groups_of.len();
        let experts = groups_of.first().map_or(0, Vec::len);
        let slots = groups_of.iter().map(|l| l.iter().map(Vec::len).sum()).max().unwrap_or(0);
        let mut first = vec![0u32];
        let mut replicas = Vec::new();
        let mut group_slots = Vec::new();
        let mut slot_expert = vec![MISSING; layers * slots];
        for (l, layer) in groups_of.iter().enumerate() {
            let mut homes: Vec<Vec<Home>> = vec![Vec::new(); experts];
            let mut slot = 0u32;
            for g in 0..groups as u32 {
                group_slots.push(slot);
                for (e, on) in layer.iter().enumerate() {
                    if on.contains(&g) {
                        homes[e].push(Home { slot, group: g });
                        slot_expert[l * slots + slot as usize] = e as u16;
                        slot += 1;
                    }
                }
            }
            group_slots.push(slot);
            for h in homes {
                replicas.extend(h);
                first.push(replicas.len() as u32);
            }
        }
        let single = replicas.len() == layers * experts;
        Self { layers, experts, devices, slots, first, replicas, group_slots, slot_expert, groups, single }
    }

    /// MoE layers.
    pub fn layers(&self) -> usize {
        self.layers
    }
    /// Slots a layer.
    pub fn slots(&self) -> usize {
        self.slots
    }
    /// Expert-parallel groups.
    pub fn groups(&self) -> usize {
        self.groups
    }
    /// Slots of `group` in MoE layer `layer`.
    pub fn group_slots(&self, layer: usize, group: usize) -> std::ops::Range<usize> {
        let at = layer * (self.groups + 1) + group;
        self.group_slots[at] as usize..self.group_slots[at + 1] as usize
    }
    /// The expert in `slot` of MoE layer `layer`.
    pub fn expert(&self, layer: usize, slot: usize) -> usize {
        usize::from(self.slot_expert[layer * self.slots + slot])
    }

    fn home(&self, layer: usize, expert: usize, turn: u64) -> Home {
        let at = layer * self.experts + expert;
        let (a, b) = (self.first[at] as usize, self.first[at + 1] as usize);
        self.replicas[a + (turn % (b - a) as u64) as usize]
    }
}

/// Tokens of one request in an iteration.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Its binding.
    pub binding: Binding,
    /// Prompt tokens of the request.
    pub prompt: u32,
    /// First position computed.
    pub from: u32,
    /// How many.
    pub count: u32,
    /// Devices that hold the token after attention: `device..device + spread`, token by token in turn.
    pub device: u32,
    /// See `device`.
    pub spread: u32,
    /// Whose turn the first token is.
    pub turn: u32,
}

/// A token to count.
#[derive(Clone, Copy, Default)]
struct Row<'a> {
    ids: &'a [u16],
    device: u32,
    position: u64,
}

struct Block<'a> {
    rows: [Row<'a>; BLOCK],
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    slots: Vec<u32>,
    /// Per (source device, layer, group), so that the tokens of a device count close together.
    pairs: Vec<u32>,
    /// Devices whose pairs are not all zero.
    touched: Vec<bool>,
    stamps: Vec<u64>,
    stamp: u64,
    provenance: Provenance,
    assigned: u64,
}

/// Counts of the current iteration. Only [`Replay::reveal`] shows them, one layer at a time.
#[derive(Clone, Debug)]
pub struct Replay {
    map: SlotMap,
    counts: Counts,
    others: Vec<Counts>,
    totals: Vec<u64>,
    tokens: u64,
}

/// The routing of one layer, as its gate produced it.
#[derive(Clone, Copy, Debug)]
pub struct LayerRouting<'a> {
    /// Index among the MoE layers.
    pub moe_layer: usize,
    /// Tokens in the iteration.
    pub tokens: u64,
    map: &'a SlotMap,
    slots: &'a [u32],
    pairs: &'a [u32],
}

impl LayerRouting<'_> {
    /// Tokens of each slot on expert-parallel group `group`.
    pub fn group_tokens(&self, group: usize) -> &[u32] {
        &self.slots[self.map.group_slots(self.moe_layer, group)]
    }
    /// Tokens of `slot`.
    pub fn slot_tokens(&self, slot: usize) -> u32 {
        self.slots[slot]
    }
    /// Slots of `group`.
    pub fn group_slots(&self, group: usize) -> std::ops::Range<usize> {
        self.map.group_slots(self.moe_layer, group)
    }
    /// The expert in `slot`.
    pub fn expert(&self, slot: usize) -> usize {
        self.map.expert(self.moe_layer, slot)
    }
    /// Tokens on device `source` with at least one expert on `group`: copies sent when they are de-duplicated per group.
    pub fn tokens_between(&self, source: usize, group: usize) -> u32 {
        self.copies(source)[group]
    }
    /// The same for every group.
    pub fn copies(&self, source: usize) -> &[u32] {
        let at = (source * self.map.layers + self.moe_layer) * self.map.groups;
        &self.pairs[at..at + self.map.groups]
    }
    /// Expert-parallel groups.
    pub fn groups(&self) -> usize {
        self.map.groups
    }
    /// Source devices.
    pub fn sources(&self) -> usize {
        self.map.devices
    }
}

/// Tokens below which one thread counts faster than several.
const PARALLEL_TOKENS: u32 = 4096;
/// Rows that are counted together. A decode batch takes a row here and a row there: all are asked for before any is
/// counted.
const BLOCK: usize = 16;
/// Expert ids in a cache line of 64 bytes.
const IDS_A_LINE: usize = 64 / size_of::<u16>();
/// Fixed size of a parallel chunk, so that the split does not depend on the number of threads.
const CHUNK_TOKENS: u32 = 2048;

impl Replay {
    /// Counts over `map`.
    pub fn new(map: SlotMap) -> Self {
        let totals = vec![0; map.layers * map.slots];
        Self { map, counts: Counts::default(), others: Vec::new(), totals, tokens: 0 }
    }

    /// The placement being counted over.
    pub fn map(&self) -> &SlotMap {
        &self.map
    }

    /// Counts an iteration's tokens; how its (token, layer, expert) assignments came about.
    pub fn load(&mut self, source: &Source, segments: &[Segment]) -> Provenance {
        let tokens: u32 = segments.iter().map(|s| s.count).sum();
        self.tokens = u64::from(tokens);
        self.counts.clear(&self.map);
        if tokens < PARALLEL_TOKENS || rayon::current_num_threads() == 1 {
            self.counts.segments(&self.map, source, segments.iter());
        } else {
            let chunks = split(segments);
            let workers = rayon::current_num_threads();
            self.others.resize_with(workers, Counts::default);
            let map = &self.map;
            // Sums of integers do not depend on who adds which chunk.
            self.others.par_iter_mut().enumerate().for_each(|(w, counts)| {
                counts.clear(map);
                counts.segments(map, source, chunks.iter().skip(w).step_by(workers));
            });
            for other in &self.others {
                self.counts.add(other);
            }
        }
        let p = self.counts.provenance;
        let per_token = (source.trace().layers() * source.trace().k()) as u64;
        if self.counts.assigned == self.tokens * per_token {
            Provenance { traced: p.traced * per_token, wrapped: p.wrapped * per_token, drawn: p.drawn * per_token }
        } else {
            // Rows with fewer than k experts: split what was assigned in the tokens' proportion, the rest is traced.
            let part =
                |n: u64| (u128::from(n) * u128::from(self.counts.assigned) / u128::from(self.tokens.max(1))) as u64;
            let (wrapped, drawn) = (part(p.wrapped), part(p.drawn));
            Provenance { traced: self.counts.assigned - wrapped - drawn, wrapped, drawn }
        }
    }

    /// The routing of MoE layer `layer`, once its gate is done.
    pub fn reveal(&self, layer: usize) -> LayerRouting<'_> {
        let s = self.map.slots;
        LayerRouting {
            moe_layer: layer,
            tokens: self.tokens,
            map: &self.map,
            slots: &self.counts.slots[layer * s..(layer + 1) * s],
            pairs: &self.counts.pairs,
        }
    }

    /// Ends the iteration: its counts join the history.
    pub fn retire(&mut self) {
        for (total, &n) in self.totals.iter_mut().zip(&self.counts.slots) {
            *total += u64::from(n);
        }
    }

    /// Assignments of completed iterations by (MoE layer, slot), layer-major.
    pub fn history(&self) -> &[u64] {
        &self.totals
    }

    /// Assignments of the current iteration.
    pub fn assigned(&self) -> u64 {
        self.counts.assigned
    }

    /// (token, expert) assignments so far of every (MoE layer, expert), layer-major.
    pub fn totals(&self) -> Vec<u64> {
        let mut out = vec![0; self.map.layers * self.map.experts];
        for l in 0..self.map.layers {
            for slot in 0..self.map.slots {
                let expert = self.map.expert(l, slot);
                if expert < self.map.experts {
                    out[l * self.map.experts + expert] += self.totals[l * self.map.slots + slot];
                }
            }
        }
        out
    }
}

fn split(segments: &[Segment]) -> Vec<Segment> {
    let mut out = Vec::with_capacity(segments.len() * 2);
    for s in segments {
        let mut done = 0;
        while done < s.count {
            // Whole turns of the spread, so that each token keeps its device.
            let n = (s.count - done).min(CHUNK_TOKENS / s.spread.max(1) * s.spread.max(1));
            out.push(Segment { from: s.from + done, count: n, ..*s });
            done += n;
        }
    }
    out
}

impl Counts {
    fn clear(&mut self, map: &SlotMap) {
        self.slots.clear();
        self.slots.resize(map.layers * map.slots, 0);
        let block = map.layers * map.groups;
        self.pairs.resize(block * map.devices, 0);
        self.touched.resize(map.devices, false);
        // Most of the pairs of a large machine are still zero.
        for (device, touched) in self.touched.iter_mut().enumerate() {
            if std::mem::take(touched) {
                self.pairs[device * block..(device + 1) * block].fill(0);
            }
        }
        self.stamps.resize(map.groups, 0);
        self.provenance = Provenance::default();
        self.assigned = 0;
    }

    fn add(&mut self, other: &Self) {
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
        self.provenance.add(&other.provenance);
        self.assigned += other.assigned;
    }

    /// Counts `segments`, block by block.
    fn segments<'a>(&mut self, map: &SlotMap, source: &'a Source, segments: impl Iterator<Item = &'a Segment>) {
        let width = source.trace().width();
        let k = source.trace().k();
        let mut block = Block { rows: [Row::default(); BLOCK], len: 0 };
        let mut drawn = Vec::new();
        for s in segments {
            let mut turn = s.turn;
            self.touched[s.device as usize..(s.device + s.spread) as usize].fill(true);
            // Replicas are taken in turn by sequence and position: a pure function of the token.
            let mut position = u64::from(s.binding.sequence) + u64::from(s.from);
            let p = source.rows(s.binding, s.prompt, s.from, s.count, |rows| {
                let mut next = |counts: &mut Self, ids: Option<&'a [u16]>, drawn: &[u16]| {
                    let (device, position_now) = (s.device + turn, position);
                    position += 1;
                    turn = if turn + 1 == s.spread { 0 } else { turn + 1 };
                    let row = Row { ids: ids.unwrap_or_default(), device, position: position_now };
                    if ids.is_none() {
                        counts.count(map, &[Row { ids: drawn, ..row }], k);
                        return;
                    }
                    // The first lines; beyond, the hardware has seen the pattern.
                    row.ids.chunks(IDS_A_LINE).take(16).for_each(|line| prefetch(&line[0]));
                    block.rows[block.len] = row;
                    block.len += 1;
                    if block.len == BLOCK {
                        counts.count(map, &block.rows, k);
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
                            let row = rng::below(rng::draw(key, l as u64, 0, 0), n) as usize;
                            drawn.extend_from_slice(&pool[row * width + l * k..row * width + (l + 1) * k]);
                        }
                        next(self, None, &drawn);
                    }
                }
            });
            self.provenance.add(&p);
        }
        self.count(map, &block.rows[..block.len], k);
    }

    /// Counts rows layer by layer, so that a layer's counts stay in the innermost cache for all of them.
    fn count(&mut self, map: &SlotMap, rows: &[Row], k: usize) {
        for l in 0..map.layers {
            let counts = &mut self.slots[l * map.slots..(l + 1) * map.slots];
            let homes = if map.single { &map.replicas[l * map.experts..(l + 1) * map.experts] } else { &[][..] };
            for row in rows {
                let ids = &row.ids[l * k..(l + 1) * k];
                let at = (row.device as usize * map.layers + l) * map.groups;
                let pairs = &mut self.pairs[at..at + map.groups];
                let mut assigned = 0;
                if map.single && map.groups <= 64 {
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
        }
    }
}
