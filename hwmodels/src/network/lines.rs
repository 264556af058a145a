//! Transfers by link and links by transfer, in flat arrays.

use super::{Transfer, real};
use crate::topology::Topology;

/// The links of every transfer of a call, and for each link the transfers that are on it now.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    /// Where a transfer's links start in `hops`; one more at the end.
    start: Vec<u32>,
    hops: Vec<u32>,
    /// Beside `hops`: where in its link's part of `on` the transfer is.
    place: Vec<u32>,
    /// Where a link's part of `on` starts, and how much of it is in use.
    first: Vec<u32>,
    used: Vec<u32>,
    on: Vec<u32>,
    /// Beside `on`: the place in `hops`.
    slot: Vec<u32>,
}

impl Lines {
    pub(super) fn new(links: usize) -> Self {
        Self {
            start: Vec::new(),
            hops: Vec::new(),
            place: Vec::new(),
            first: vec![0; links + 1],
            used: vec![0; links],
            on: Vec::new(),
            slot: Vec::new(),
        }
    }

    /// Takes the paths of `count` transfers; none is on a link yet. Those that take no part have no links.
    pub(super) fn load(&mut self, topology: &Topology, count: usize, transfer: impl Fn(usize) -> Transfer) {
        self.start.clear();
        self.hops.clear();
        self.first.fill(0);
        for i in 0..count {
            self.start.push(self.hops.len() as u32);
            let t = transfer(i);
            if real(&t) {
                self.hops.extend_from_slice(topology.path(t.src as usize, t.dst as usize));
            }
        }
        self.start.push(self.hops.len() as u32);
        self.hops.iter().for_each(|&l| self.first[l as usize + 1] += 1);
        (1..self.first.len()).for_each(|l| self.first[l] += self.first[l - 1]);
        self.used.fill(0);
        for list in [&mut self.place, &mut self.on, &mut self.slot] {
            list.clear();
            list.resize(self.hops.len(), 0);
        }
    }

    /// The links of a transfer.
    pub(super) fn path(&self, i: u32) -> &[u32] {
        &self.hops[self.start[i as usize] as usize..self.start[i as usize + 1] as usize]
    }

    /// The transfers on a link.
    pub(super) fn on(&self, link: u32) -> &[u32] {
        let first = self.first[link as usize] as usize;
        &self.on[first..first + self.used[link as usize] as usize]
    }

    /// Puts transfer `i` on its links.
    pub(super) fn enter(&mut self, i: u32) {
        for slot in self.start[i as usize]..self.start[i as usize + 1] {
            let link = self.hops[slot as usize] as usize;
            let at = self.first[link] + self.used[link];
            self.used[link] += 1;
            (self.on[at as usize], self.slot[at as usize]) = (i, slot);
            self.place[slot as usize] = at;
        }
    }

    /// Takes transfer `i` off its links; the last on each takes its place.
    pub(super) fn leave(&mut self, i: u32) {
        for slot in self.start[i as usize]..self.start[i as usize + 1] {
            let link = self.hops[slot as usize] as usize;
            self.used[link] -= 1;
            let (at, last) = (self.place[slot as usize] as usize, (self.first[link] + self.used[link]) as usize);
            (self.on[at], self.slot[at]) = (self.on[last], self.slot[last]);
            self.place[self.slot[at] as usize] = at as u32;
        }
    }

    /// Adds the bytes of the transfers of the last `load` to their links.
    pub(super) fn add_bytes(&self, transfers: impl Iterator<Item = Transfer>, link_bytes: Option<&mut [u64]>) {
        let Some(total) = link_bytes else { return };
        for (i, t) in transfers.enumerate() {
            self.path(i as u32).iter().for_each(|&l| total[l as usize] += t.bytes);
        }
    }
}
