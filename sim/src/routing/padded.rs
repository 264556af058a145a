//! Buffers of a fixed capacity instead of the tokens that came.

use super::counts::Counts;
use super::replay::Segment;
use super::slot_map::SlotMap;

/// Tokens a slot, and rows from every device to every group, as buffers of the experts' capacity have them; in layers
/// without padding as they came.
#[derive(Clone, Debug)]
pub(super) struct Padded {
    pub(super) slots: Vec<u32>,
    pub(super) pairs: Vec<u32>,
}

impl Padded {
    /// Of the counts of `segments`; nothing if no layer is padded.
    pub(super) fn of(map: &SlotMap, counts: &Counts, segments: &[Segment]) -> Option<Self> {
        let padded = |l: &usize| map.shapes[*l].capacity.is_some_and(|c| c.padded);
        (0..map.layers).any(|l| padded(&l)).then(|| {
            let mut out = Self { slots: counts.slots.clone(), pairs: counts.pairs.clone() };
            let before = before(map.devices, segments);
            for l in (0..map.layers).filter(padded) {
                out.layer(map, l, counts.limits[l], &before);
            }
            out
        })
    }

    fn layer(&mut self, map: &SlotMap, l: usize, limit: u32, before: &[u64]) {
        let ids = (0..map.placed(l)).map(|slot| map.expert(l, slot));
        let experts = ids.max().map_or(0, |last| last + 1);
        // Replicas share their expert's buffer.
        for homes in (0..experts).map(|e| map.homes(l, e)) {
            for (i, home) in homes.iter().enumerate() {
                self.slots[l * map.slots + home.slot as usize] =
                    part(limit, i as u64, i as u64 + 1, homes.len() as u64);
            }
        }
        for group in 0..map.groups {
            let held = map.group_slots(l, group).map(|slot| self.slots[l * map.slots + slot]);
            let held: Vec<u32> = held.collect();
            for device in 0..map.devices {
                let block = (device * map.layers + l) * map.ways;
                if group == 0 {
                    self.pairs[block + map.counted_at..block + map.ways].fill(0);
                }
                let (from, to, all) = (before[device], before[device + 1], before[map.devices]);
                let rows: u64 = held.iter().map(|&limit| u64::from(part(limit, from, to, all))).sum();
                let rows = rows.try_into().unwrap_or(u32::MAX);
                self.pairs[block + group] = rows;
                // A buffer is sent whole: nothing is left out twice.
                if let Some(&column) = map.counted.get(group) {
                    let sum = &mut self.pairs[block + column as usize];
                    *sum = sum.saturating_add(rows);
                }
            }
        }
    }
}

/// Of `limit` rows, those of the tokens `from..to` of `all`; the parts of adjoining ranges sum to `limit`.
fn part(limit: u32, from: u64, to: u64, all: u64) -> u32 {
    let at = |tokens: u64| (u128::from(limit) * u128::from(tokens) / u128::from(all.max(1))) as u32;
    at(to) - at(from)
}

/// Tokens on the devices before each, and at the end all.
fn before(devices: usize, segments: &[Segment]) -> Vec<u64> {
    let mut tokens = vec![0u64; devices + 1];
    for s in segments {
        for turn in 0..s.spread {
            // Token t is on device (turn + t) mod spread of the segment's.
            let first = (turn + s.spread - s.turn) % s.spread;
            let n = (s.count + s.spread - 1).saturating_sub(first) / s.spread;
            tokens[(s.device + turn) as usize + 1] += u64::from(n);
        }
    }
    for d in 0..devices {
        tokens[d + 1] += tokens[d];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::Binding;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_sum_and_tokens_are_dealt(count in 0u32..50, spread in 1u32..6, turn in 0u32..6, limit in 0u32..100) {
            let binding = Binding { sequence: 0, offset: 0 };
            let s = Segment { request: 0, binding, prompt: 1, from: 0, count, device: 1, spread, turn: turn % spread };
            let devices = spread as usize + 2;
            let before = before(devices, &[s]);
            let mut dealt = vec![0u64; devices];
            (0..count).for_each(|t| dealt[(1 + (s.turn + t) % spread) as usize] += 1);
            let tokens: Vec<u64> = before.windows(2).map(|w| w[1] - w[0]).collect();
            prop_assert_eq!(tokens, dealt);
            if count > 0 {
                let rows: u32 = before.windows(2).map(|w| part(limit, w[0], w[1], u64::from(count))).sum();
                prop_assert_eq!(rows, limit);
            }
        }
    }
}
