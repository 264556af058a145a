//! How tokens travel to the devices of their experts, and what experts make of them back: one file a way.
//!
//! * [`flat`]: one copy for each device of a token's experts, straight there.
//! * [`per_selection`]: one message for each of a token's experts, straight there.
//! * [`all_gather`]: every token to every device.
//! * [`hierarchical`]: one copy for each node of a token's experts, dealt out inside it.

pub mod all_gather;
pub mod flat;
pub mod hierarchical;
pub mod per_selection;

pub use all_gather::AllGather;
pub use flat::Flat;
pub use hierarchical::Hierarchical;
pub use per_selection::PerSelection;

use super::summed::Direction;
use crate::machine::Plan;
use crate::routing::{Counting, LayerRouting};
use moesim_core::Result;
use moesim_hwmodels::calibrate::profile::{FormName, Op};
use moesim_hwmodels::network::{Sums, Way};
use moesim_hwmodels::topology::Topology;

/// A way of dispatch and combine.
///
/// * `legs` is called once a layer and iteration, when all gates of the layer are done; it lists what the dispatch sends, and
///   what the combine sends back, each in copies of a token.
/// * Legs of one direction start together: what is forwarded is forwarded piece by piece.
pub trait Dispatch: Send + std::fmt::Debug {
    /// Refuses machines and deployments that it cannot run on.
    ///
    /// # Errors
    /// What is missing, and what to choose instead.
    fn check(&self, _plan: &Plan) -> Result<()> {
        Ok(())
    }
    /// What it needs to know beside the tokens of each device with an expert on each group.
    fn counting(&self, _plan: &Plan) -> Counting {
        Counting::Groups
    }
    /// Whether it knows where to where tokens go that follow their experts.
    fn follows(&self) -> bool {
        false
    }
    /// Whether every token goes to every device, and its combine sums what all of them made of it; if not, the devices of an expert
    /// group sum up their parts before it.
    fn everywhere(&self) -> bool {
        false
    }
    /// The calibrated kernels that send so: operations of dispatch and of combine, and forms.
    fn kernels(&self) -> ([Op; 2], &'static [FormName]);
    /// Lists the legs; `tokens[d]`: tokens on device d.
    fn legs(&self, plan: &Plan, routing: &LayerRouting, tokens: &[u64], legs: &mut Legs);
}

/// Copies of tokens from one device to another; those that stay are listed too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leg {
    /// From here.
    pub src: u32,
    /// To here.
    pub dst: u32,
    /// How many.
    pub copies: u32,
}

/// The legs of a dispatch and of its combine, one by one or, where links carry sums, summed up. The combine takes those
/// of the dispatch in reverse unless it has its own.
#[derive(Clone, Debug, Default)]
pub struct Legs {
    out: Vec<Leg>,
    len: usize,
    back: Vec<Leg>,
    own_way_back: bool,
    /// Of the dispatch, and of a combine with legs of its own.
    sums: Option<Box<[Sums; 2]>>,
}

impl Legs {
    /// Forgets all, keeps the memory; from now on legs are summed up for `topology`, or kept one by one.
    pub(super) fn clear(&mut self, summed: Option<&Topology>) {
        (self.len, self.own_way_back) = (0, false);
        self.back.clear();
        match summed {
            Some(topology) => self.sums.get_or_insert_default().iter_mut().for_each(|s| s.clear(topology)),
            None => self.sums = None,
        }
    }

    /// Ends the listing of legs: sums can be read from now on.
    pub(super) fn done(&mut self) {
        self.sums.iter_mut().flat_map(|s| s.iter_mut()).for_each(Sums::done);
    }

    /// Makes room for `most` more legs of the dispatch.
    pub fn reserve(&mut self, most: usize) {
        if self.sums.is_none() && self.out.len() < self.len + most {
            self.out.resize(self.len + most, Leg::default());
        }
    }

    /// Adds a leg of the dispatch, for which there is room; one without copies is left out.
    #[inline]
    pub fn out(&mut self, src: usize, dst: usize, copies: u32) {
        if let Some(sums) = &mut self.sums {
            return sums[0].one(src, dst, copies);
        }
        // Without a branch, which would be mispredicted in small batches: the next write covers what is not kept.
        self.out[self.len] = Leg { src: src as u32, dst: dst as u32, copies };
        self.len += usize::from(copies > 0);
    }

    /// Adds a leg of the dispatch from `src` to every device, with `copies[device]`; makes room for them.
    pub fn row(&mut self, src: usize, copies: &[u32]) {
        if let Some(sums) = &mut self.sums {
            return sums[0].row(src, copies);
        }
        self.reserve(copies.len());
        copies.iter().enumerate().for_each(|(dst, &n)| self.out(src, dst, n));
    }

    /// Adds a leg of the combine, which then takes no other way than those added so.
    pub fn back(&mut self, src: usize, dst: usize, copies: u32) {
        self.own_way_back = true;
        match &mut self.sums {
            Some(sums) => sums[1].one(src, dst, copies),
            None if copies > 0 => self.back.push(Leg { src: src as u32, dst: dst as u32, copies }),
            None => {}
        }
    }

    /// Whether legs are summed up.
    pub(super) fn are_summed(&self) -> bool {
        self.sums.is_some()
    }

    /// What travels in a direction, summed up, and which way; nothing if legs are listed one by one.
    pub(super) fn summed(&self, direction: Direction) -> Option<(&Sums, Way)> {
        let [out, own] = &**self.sums.as_ref()?;
        Some(match direction {
            Direction::Combine if self.own_way_back => (own, Way::There),
            Direction::Combine => (out, Way::Back),
            Direction::Dispatch => (out, Way::There),
        })
    }

    /// What the dispatch sends, one by one; nothing if legs are summed up.
    pub fn of_dispatch(&self) -> &[Leg] {
        &self.out[..self.len]
    }

    /// What the combine sends, one by one: the legs of the dispatch to be taken in reverse, none if it has its own, and
    /// its own.
    pub fn of_combine(&self) -> (&[Leg], &[Leg]) {
        (if self.own_way_back { &[] } else { self.of_dispatch() }, &self.back)
    }
}

/// Legs from every device with tokens to the devices of every group, `copies(source)` by group; back from one device of the
/// group, taken in turn by source. Where tokens follow their experts, what comes back goes where they are then.
fn straight<'a>(
    plan: &Plan,
    routing: &LayerRouting<'a>,
    tokens: &[u64],
    copies: impl Fn(usize) -> &'a [u32],
    legs: &mut Legs,
) {
    let etp = plan.ranks.etp;
    if routing.follows() {
        for device in 0..tokens.len() {
            routing.returned(device).iter().enumerate().for_each(|(group, &n)| legs.back(group, device, n));
        }
    }
    for source in (0..tokens.len()).filter(|&s| tokens[s] > 0) {
        let copies = copies(source);
        if etp == 1 {
            legs.row(source, copies);
            continue;
        }
        legs.reserve(copies.len() * etp);
        for (group, &n) in copies.iter().enumerate() {
            plan.ranks.group_devices(group).for_each(|dst| legs.out(source, dst, n));
            legs.back(group * etp + source % etp, source, n);
        }
    }
}

#[cfg(test)]
mod tests;
