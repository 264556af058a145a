//! All-to-all, flat and over relays.

use super::Collective;
use crate::network::{Transfer, real};
use crate::topology::Topology;

/// Where what goes to another node changes its place among the devices of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// In the sender's node: to the neighbour with the receiver's place, which sends all that it has for that receiver
    /// as one message (Tutel's 2DH, arXiv 2206.03382; HetuMoE's gather, arXiv 2203.14685).
    Sender,
    /// In the receiver's node: to the device with the sender's place, which deals it out inside.
    Receiver,
}

impl Collective {
    /// Every transfer at once.
    pub fn all_to_all(transfers: &[Transfer]) -> Self {
        Self::default().then(1, transfers.iter().copied())
    }

    /// The transfers in two steps, one inside nodes and one between them; what stays in its node goes with the step
    /// inside. Messages between the same devices in one step are one. Nothing is left out twice: without
    /// de-duplication.
    pub fn all_to_all_hierarchical(topology: &Topology, transfers: &[Transfer], relay: Relay) -> Self {
        let per_node = (topology.devices() / topology.nodes()) as u32;
        let (mut inside, mut between) = (Vec::new(), Vec::new());
        for t in transfers.iter().filter(|t| real(t)) {
            let (from, to) = (t.src / per_node, t.dst / per_node);
            if from == to {
                inside.push(*t);
                continue;
            }
            let (node, place) = if relay == Relay::Sender { (from, t.dst) } else { (to, t.src) };
            let over = node * per_node + place % per_node;
            let (first, second) = (Transfer { dst: over, ..*t }, Transfer { src: over, ..*t });
            let (near, far) = if relay == Relay::Sender { (first, second) } else { (second, first) };
            inside.push(near);
            between.push(far);
        }
        let (first, second) = if relay == Relay::Sender { (inside, between) } else { (between, inside) };
        Self::default().then(1, joined(first)).then(1, joined(second))
    }
}

/// Messages between the same devices as one.
fn joined(mut transfers: Vec<Transfer>) -> Vec<Transfer> {
    transfers.sort_unstable_by_key(|t| (t.src, t.dst));
    transfers.dedup_by(|next, kept| {
        let same = (next.src, next.dst) == (kept.src, kept.dst);
        if same {
            kept.bytes += next.bytes;
        }
        same
    });
    transfers
}
