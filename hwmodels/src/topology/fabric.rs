//! Topologies whose links carry sums over the transfers of a phase.

use super::{CrossRail, Striping, TopologySpec, planes, rail, switch};

/// What the links of a [`Fabric`] carry follows from: an entry a device each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loads<'a> {
    pub(crate) per_node: usize,
    pub(crate) sent_inside: &'a [u64],
    pub(crate) received_inside: &'a [u64],
    /// To and from devices of other nodes.
    pub(crate) sent_across: &'a [u64],
    pub(crate) received_across: &'a [u64],
    /// Of these, on the device's own rail.
    pub(crate) sent_along: &'a [u64],
    pub(crate) received_along: &'a [u64],
    /// What the device's node sends to devices of other nodes in the device's place, the device's own included.
    pub(crate) relayed: &'a [u64],
}

/// A topology whose links carry sums; which, its own file says beside its routing rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fabric {
    /// [`TopologySpec::Switch`].
    Switch,
    /// [`TopologySpec::Planes`], striped evenly.
    Planes,
    /// [`TopologySpec::FatTreeRail`].
    Rail(CrossRail),
}

impl Fabric {
    pub(super) fn of(spec: &TopologySpec) -> Option<Self> {
        match spec {
            TopologySpec::Switch { .. } => Some(Self::Switch),
            TopologySpec::Planes { striping: Striping::Even, .. } => Some(Self::Planes),
            TopologySpec::FatTreeRail { cross_rail, .. } => Some(Self::Rail(*cross_rail)),
            _ => None,
        }
    }

    /// Whether it matters to a link which rail a transfer is on.
    pub(crate) fn has_rails(&self) -> bool {
        matches!(self, Self::Rail(_))
    }

    /// Tells `visit` of every link what it carries by class of pairs (inside a node, along a rail, others), in the
    /// order of links.
    pub(crate) fn loads(&self, x: &Loads, visit: impl FnMut(usize, [u64; 3])) {
        match self {
            Self::Switch => switch::loads(x, visit),
            Self::Planes => planes::loads(x, visit),
            Self::Rail(cross_rail) => rail::loads(x, *cross_rail, visit),
        }
    }
}
