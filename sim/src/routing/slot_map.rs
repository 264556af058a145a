//! Where the experts are.

use super::replay::MISSING;

/// What a layer's ids are besides experts with a home each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerShape {
    /// Ids after the experts' that compute nothing, wherever the token is.
    pub zero_compute: usize,
    /// Groups of consecutive experts with a part in common; 0: none.
    pub expert_groups: usize,
    /// How many tokens an expert takes at most.
    pub capacity: Option<Capacity>,
}

/// A capacity that grows with the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// Tokens that an expert takes, for each token of the batch.
    pub per_token: f64,
    /// Payload and compute are sized by the capacity.
    pub padded: bool,
}

impl Capacity {
    /// Tokens that an expert takes of a batch of `tokens`: never more than all, as none comes twice.
    pub fn of(&self, tokens: u64) -> u32 {
        // A product that is whole may come out a rounding above.
        (self.per_token * tokens as f64 * (1.0 - 1e-12)).ceil().min(tokens as f64).max(1.0) as u32
    }
}

/// What is counted of the tokens of a device, beside those with an expert on each group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    /// Nothing.
    #[default]
    Groups,
    /// Tokens with an expert on each node, where group g is on node `of[g]`.
    Nodes {
        /// The node of each group.
        of: Vec<u32>,
    },
    /// Selections on each group.
    Selections,
}

/// Where the experts are: physical slots in the order of devices, for every layer. Zero-compute experts are nowhere; they
/// have a slot each behind all others, for their counts alone.
#[derive(Clone, Debug)]
pub struct SlotMap {
    pub(super) layers: usize,
    /// The most ids of a layer.
    pub(super) ids: usize,
    pub(super) devices: usize,
    /// Slots of a layer; layers may have different numbers of replicas, this is the most.
    pub(super) slots: usize,
    pub(super) shapes: Vec<LayerShape>,
    /// Per (layer, id): where its replicas begin in `replicas`.
    first: Vec<u32>,
    /// (slot, group) of each replica.
    pub(super) replicas: Vec<Home>,
    /// Per (layer, group): where its slots begin; `groups + 1` a layer.
    group_slots: Vec<u32>,
    /// Per (layer, slot): the id.
    slot_expert: Vec<u16>,
    pub(super) groups: usize,
    /// Common parts of a layer, the most.
    pub(super) parts: usize,
    /// Per (layer, group): where its common parts begin; `groups + 1` a layer. Empty if no layer has any.
    group_parts: Vec<u32>,
    /// Per (layer, slot): the common part on the same group that its expert has.
    slot_part: Vec<u32>,
    /// Columns of a device's tokens: groups, one more for what is nowhere if there is such a thing, and what is
    /// [`Counting`].
    pub(super) ways: usize,
    /// Where the columns of [`Counting`] begin.
    pub(super) counted_at: usize,
    /// By group: its column of these; empty if there are none.
    pub(super) counted: Vec<u32>,
    /// A token counts once in such a column, and not by selection.
    pub(super) once: bool,
    /// Where the columns begin of what comes back from each group, if tokens follow their experts.
    pub(super) returned_at: Option<usize>,
    /// Every id has one home, so that `replicas` has one entry an id.
    pub(super) single: bool,
    /// No group has two slots of a layer, so that a token, which selects no id twice, selects a group once at most: its
    /// selections on a group are the tokens with an expert there.
    pub(super) alone: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Home {
    pub(super) slot: u32,
    pub(super) group: u32,
}

impl SlotMap {
    /// From the replicas of every (layer, expert) as expert-parallel groups, each non-empty and in `0..groups`.
    /// `devices` is how many sources tokens come from.
    pub fn new(groups_of: &[Vec<Vec<u32>>], groups: usize, devices: usize) -> Self {
        Self::shaped(groups_of, &vec![LayerShape::default(); groups_of.len()], groups, devices)
    }

    /// The same for layers with more than experts, one shape each.
    pub fn shaped(groups_of: &[Vec<Vec<u32>>], shapes: &[LayerShape], groups: usize, devices: usize) -> Self {
        let layers = groups_of.len();
        let both = || groups_of.iter().zip(shapes);
        let ids = both().map(|(l, s)| l.len() + s.zero_compute).max().unwrap_or(0);
        let lacks = |l: &Vec<_>, s: &LayerShape| usize::from(l.len() + s.zero_compute < ids);
        let of =
            |l: &Vec<Vec<u32>>, s: &LayerShape| l.iter().map(Vec::len).sum::<usize>() + s.zero_compute + lacks(l, s);
        let slots = both().map(|(l, s)| of(l, s)).max().unwrap_or(0);
        let mut first = vec![0u32];
        let mut replicas = Vec::new();
        let mut group_slots = Vec::new();
        let mut slot_expert = vec![MISSING; layers * slots];
        for (l, (layer, shape)) in both().enumerate() {
            let mut homes: Vec<Vec<Home>> = vec![Vec::new(); ids];
            let mut slot = 0u32;
            let mut put = |slot: &mut u32, id: usize, group: u32| {
                homes[id].push(Home { slot: *slot, group });
                slot_expert[l * slots + *slot as usize] = id as u16;
                *slot += 1;
            };
            for g in 0..groups as u32 {
                group_slots.push(slot);
                for (e, _) in layer.iter().enumerate().filter(|(_, on)| on.contains(&g)) {
                    put(&mut slot, e, g);
                }
            }
            group_slots.push(slot);
            for id in layer.len()..layer.len() + shape.zero_compute {
                put(&mut slot, id, groups as u32);
            }
            // Ids that other layers have and this one lacks were refused with their sequence. Should a file change under
            // the run, they count where nothing looks, and assignments are no longer conserved.
            for home in &mut homes[layer.len() + shape.zero_compute..] {
                home.push(Home { slot, group: groups as u32 });
            }
            for h in homes {
                replicas.extend(h);
                first.push(replicas.len() as u32);
            }
        }
        let single = replicas.len() == layers * ids;
        let ways = groups + usize::from(both().any(|(l, s)| s.zero_compute + lacks(l, s) > 0));
        let held = group_slots.chunks_exact(groups + 1);
        let alone = ways == groups
            && shapes.iter().all(|s| s.capacity.is_none())
            && held.flat_map(|l| l.windows(2)).all(|g| g[1] - g[0] <= 1);
        let shapes = shapes.to_vec();
        let mut map = Self {
            layers,
            ids,
            devices,
            slots,
            shapes,
            first,
            replicas,
            group_slots,
            slot_expert,
            groups,
            parts: 0,
            group_parts: Vec::new(),
            slot_part: Vec::new(),
            ways,
            counted_at: ways,
            counted: Vec::new(),
            once: true,
            returned_at: None,
            single,
            alone,
        };
        if map.shapes.iter().any(|s| s.expert_groups > 0) {
            map.number_parts(groups_of);
        }
        map
    }

    /// The same, counting more.
    #[must_use]
    pub fn counting(mut self, counting: &Counting) -> Self {
        let at = self.counted_at as u32;
        self.once = *counting != Counting::Selections;
        if self.alone && !self.once {
            // The columns of groups have it.
            self.counted_at = 0;
            return self;
        }
        self.counted = match counting {
            Counting::Groups => Vec::new(),
            Counting::Nodes { of } => of.iter().map(|node| at + node).collect(),
            Counting::Selections => (0..self.groups as u32).map(|g| at + g).collect(),
        };
        self.ways = self.counted.iter().map(|c| *c as usize + 1).fold(self.counted_at, usize::max);
        self
    }

    /// The same, where a token is on the group of the first of its experts of the layer before, and groups are devices.
    #[must_use]
    pub fn following(mut self) -> Self {
        self.returned_at = Some(self.ways);
        self.ways += self.groups;
        self
    }

    /// Whether tokens follow their experts.
    pub fn follows(&self) -> bool {
        self.returned_at.is_some()
    }

    /// Numbers common parts: those of a group in ascending order, group after group.
    fn number_parts(&mut self, groups_of: &[Vec<Vec<u32>>]) {
        self.slot_part = vec![0; self.layers * self.slots];
        for (l, layer) in groups_of.iter().enumerate() {
            let mut next = 0u32;
            for g in 0..self.groups {
                self.group_parts.push(next);
                let mut last = None;
                for slot in self.group_slots(l, g).filter(|_| self.shapes[l].expert_groups > 0) {
                    // Slots of a group are in the order of experts, and so of their groups.
                    let part = self.expert(l, slot) * self.shapes[l].expert_groups / layer.len();
                    next += u32::from(last.is_some_and(|p| p != part));
                    last = Some(part);
                    self.slot_part[l * self.slots + slot] = next;
                }
                next += u32::from(last.is_some());
            }
            self.group_parts.push(next);
            self.parts = self.parts.max(next as usize);
        }
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
    /// Common parts of groups of experts on `group` in MoE layer `layer`, numbered over the layer.
    pub fn group_parts(&self, layer: usize, group: usize) -> std::ops::Range<usize> {
        let at = layer * (self.groups + 1) + group;
        self.group_parts.get(at..at + 2).map_or(0..0, |p| p[0] as usize..p[1] as usize)
    }
    pub(super) fn part(&self, layer: usize, slot: usize) -> usize {
        self.slot_part[layer * self.slots + slot] as usize
    }
    /// The expert in `slot` of MoE layer `layer`.
    pub fn expert(&self, layer: usize, slot: usize) -> usize {
        usize::from(self.slot_expert[layer * self.slots + slot])
    }
    /// Slots of MoE layer `layer` that are on a device; behind them are those of zero-compute experts.
    pub(super) fn placed(&self, layer: usize) -> usize {
        self.group_slots[layer * (self.groups + 1) + self.groups] as usize
    }

    /// Whether a layer's experts take a limited number of tokens, so that what one token does depends on those before it.
    pub(super) fn limited(&self) -> bool {
        self.shapes.iter().any(|s| s.capacity.is_some())
    }
    /// The replicas of `id` in MoE layer `layer`.
    pub(super) fn homes(&self, layer: usize, id: usize) -> &[Home] {
        let at = layer * self.ids + id;
        &self.replicas[self.first[at] as usize..self.first[at + 1] as usize]
    }
    pub(super) fn home(&self, layer: usize, id: usize, turn: u64) -> Home {
        let homes = self.homes(layer, id);
        homes[(turn % homes.len() as u64) as usize]
    }
}
