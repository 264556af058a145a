//! Counts of an iteration: how many tokens each expert replica computes, and which devices tokens travel between.

use super::binding::Binding;
use super::counts::Counts;
use super::padded::Padded;
use super::slot_map::{LayerShape, SlotMap};
use super::source::{Provenance, Source};
use rayon::prelude::*;
use serde::Serialize;

/// An expert id that stands for "none".
pub const MISSING: u16 = u16::MAX;

/// Tokens of one request in an iteration.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Number of the request, in order of arrival.
    pub request: u64,
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

/// What became of the selections that were replayed. Routed = computed + taken by zero-compute experts + dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Selections {
    /// By an expert with weights.
    pub computed: u64,
    /// Taken by zero-compute experts: no device, no bytes, no FLOP.
    pub zero_compute: u64,
    /// Beyond the capacity of their expert.
    pub dropped: u64,
    /// Places of rows without an id, because the gate chose fewer experts than a row has places.
    pub absent: u64,
}

impl Selections {
    /// Selections of all kinds.
    pub fn routed(&self) -> u64 {
        self.computed + self.zero_compute + self.dropped
    }
    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.computed += other.computed;
        self.zero_compute += other.zero_compute;
        self.dropped += other.dropped;
        self.absent += other.absent;
    }
}

/// Counts of the current iteration. Only [`Replay::reveal`] shows them, one layer at a time.
#[derive(Clone, Debug)]
pub struct Replay {
    map: SlotMap,
    counts: Counts,
    others: Vec<Counts>,
    /// What policies see instead where capacities are padded.
    padded: Option<Padded>,
    totals: Vec<u64>,
    /// By (layer, id): assignments to replicas that are gone.
    gone: Vec<u64>,
    tokens: u64,
    /// Places for ids in the rows of the iteration.
    places: u64,
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
    /// [`Self::pairs`] without padding.
    came: &'a [u32],
    parts: &'a [u32],
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
    /// Tokens of each common part of groups of experts on `group`: each counts once, however many members it hit.
    pub fn part_tokens(&self, group: usize) -> &[u32] {
        &self.parts[self.map.group_parts(self.moe_layer, group)]
    }
    /// Tokens sent to `group`, its own included: those with at least one expert there.
    pub fn tokens_at(&self, group: usize) -> u64 {
        (0..self.sources()).map(|s| u64::from(self.tokens_between(s, group))).sum()
    }
    /// The same of tokens alone, where buffers are padded.
    pub fn real_tokens_at(&self, group: usize) -> u64 {
        (0..self.sources()).map(|s| u64::from(self.came[self.row(s) + group])).sum()
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
        let at = self.row(source);
        &self.pairs[at..at + self.map.groups]
    }
    /// What the map's [`super::Counting`] asks for of the tokens on device `source`: those with an expert on each node, or the
    /// selections on each group; nothing unless it asks.
    pub fn counted(&self, source: usize) -> &[u32] {
        let at = self.row(source);
        &self.pairs[at + self.map.counted_at..at + self.map.returned_at.unwrap_or(self.map.ways)]
    }
    /// Whether tokens follow their experts: then what comes back goes elsewhere than it came from.
    pub fn follows(&self) -> bool {
        self.map.follows()
    }
    /// What comes back to `device` from each group, in copies of a token, if tokens follow; nothing otherwise.
    pub fn returned(&self, device: usize) -> &[u32] {
        let at = self.row(device);
        self.map.returned_at.map_or(&[], |r| &self.pairs[at + r..at + r + self.map.groups])
    }
    fn row(&self, source: usize) -> usize {
        (source * self.map.layers + self.moe_layer) * self.map.ways
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
/// Fixed size of a parallel chunk, so that the split does not depend on the number of threads.
const CHUNK_TOKENS: u32 = 2048;

impl Replay {
    /// Counts over `map`.
    pub fn new(map: SlotMap) -> Self {
        let (totals, gone) = (vec![0; map.layers * map.slots], vec![0; map.layers * map.ids]);
        Self { map, counts: Counts::default(), others: Vec::new(), padded: None, totals, gone, tokens: 0, places: 0 }
    }

    /// Counts over `map` from the next iteration on: the same layers, ids and groups, other homes. The history of a replica that
    /// stays on its group goes with it.
    pub fn place(&mut self, map: SlotMap) {
        let old = std::mem::replace(&mut self.map, map);
        let (map, ids) = (&self.map, old.ids);
        let mut totals = vec![0; map.layers * map.slots];
        for l in 0..old.layers {
            for (slot, &n) in
                self.totals[l * old.slots..(l + 1) * old.slots].iter().enumerate().filter(|(_, n)| **n > 0)
            {
                let id = old.expert(l, slot);
                if id >= ids {
                    continue;
                }
                let group = old.homes(l, id).iter().find(|h| h.slot as usize == slot).map(|h| h.group);
                match map.homes(l, id).iter().find(|h| Some(h.group) == group) {
                    Some(home) => totals[l * map.slots + home.slot as usize] += n,
                    None => self.gone[l * ids + id] += n,
                }
            }
        }
        self.totals = totals;
        self.padded = None;
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
        self.counts.limits.clear();
        if self.map.limited() {
            let limit = |s: &LayerShape| s.capacity.map_or(u32::MAX, |c| c.of(self.tokens));
            self.counts.limits.extend(self.map.shapes.iter().map(limit));
        }
        // Who is dropped depends on who came before.
        if tokens < PARALLEL_TOKENS || self.map.limited() || rayon::current_num_threads() == 1 {
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
        self.padded = Padded::of(&self.map, &self.counts, segments);
        let p = self.counts.provenance;
        let per_token = (source.trace().layers() * source.trace().k()) as u64;
        self.places = self.tokens * per_token;
        if self.counts.assigned == self.places {
            Provenance { traced: p.traced * per_token, wrapped: p.wrapped * per_token, drawn: p.drawn * per_token }
        } else {
            // Rows with fewer than k experts: split what was assigned in the tokens' proportion, the rest is traced.
            let part =
                |n: u64| (u128::from(n) * u128::from(self.counts.assigned) / u128::from(self.tokens.max(1))) as u64;
            let (wrapped, drawn) = (part(p.wrapped), part(p.drawn));
            Provenance { traced: self.counts.assigned - wrapped - drawn, wrapped, drawn }
        }
    }

    /// Tokens that each device holds before MoE layer `layer`, where they follow: what the gate of the layer before decided.
    /// Empty where they return home.
    pub fn held(&self, layer: usize) -> &[u32] {
        let d = self.map.devices;
        if self.map.follows() { &self.counts.held[layer * d..(layer + 1) * d] } else { &[] }
    }

    /// The routing of MoE layer `layer`, once its gate is done.
    pub fn reveal(&self, layer: usize) -> LayerRouting<'_> {
        let s = self.map.slots;
        let (slots, pairs) =
            self.padded.as_ref().map_or((&self.counts.slots, &self.counts.pairs), |p| (&p.slots, &p.pairs));
        LayerRouting {
            moe_layer: layer,
            tokens: self.tokens,
            map: &self.map,
            slots: &slots[layer * s..(layer + 1) * s],
            pairs,
            came: &self.counts.pairs,
            parts: &self.counts.parts[layer * self.map.parts..(layer + 1) * self.map.parts],
        }
    }

    /// Ends the iteration: its counts join the history.
    pub fn retire(&mut self) {
        for (total, &n) in self.totals.iter_mut().zip(&self.counts.slots) {
            *total += u64::from(n);
        }
    }

    /// Assignments of completed iterations by (MoE layer, slot), layer-major; of a replica that came during the run, since then.
    pub fn history(&self) -> &[u64] {
        &self.totals
    }

    /// Assignments of the current iteration.
    pub fn assigned(&self) -> u64 {
        self.counts.assigned
    }

    /// What became of them, from the counts that policies see.
    pub fn selections(&self) -> Selections {
        let sum = |counts: &[u32]| counts.iter().map(|&n| u64::from(n)).sum::<u64>();
        let (absent, dropped) = (self.places - self.counts.assigned, self.counts.dropped);
        let mut out = Selections { absent, dropped, ..Selections::default() };
        for (l, slots) in self.counts.slots.chunks_exact(self.map.slots).enumerate() {
            let placed = self.map.placed(l);
            out.computed += sum(&slots[..placed]);
            out.zero_compute += sum(&slots[placed..placed + self.map.shapes[l].zero_compute]);
        }
        out
    }

    /// (token, expert) assignments so far of every (MoE layer, id), layer-major, zero-compute experts included.
    pub fn totals(&self) -> Vec<u64> {
        let (ids, slots) = (self.map.ids, self.map.slots);
        let mut out = self.gone.clone();
        for l in 0..self.map.layers {
            for slot in 0..slots {
                let id = self.map.expert(l, slot);
                if id < ids {
                    out[l * ids + id] += self.totals[l * slots + slot];
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
            let spread = s.spread.max(1);
            let n = (s.count - done).min((CHUNK_TOKENS / spread * spread).max(spread));
            out.push(Segment { from: s.from + done, count: n, ..*s });
            done += n;
        }
    }
    out
}
