//! Dispatch and combine where every link carries a sum over devices or nodes: behind switches, on planes and fat trees.

use super::{Network, at_least, busiest, later};
use crate::engine::Work;
use crate::machine::Plan;

/// Which way tokens travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Tokens to the devices of their experts.
    Dispatch,
    /// Outputs of experts back to the devices of their tokens.
    Combine,
}

impl Network {
    /// Prices and counts legs that were summed up; nothing if none of them leaves its device.
    pub(super) fn by_sums(&mut self, plan: &Plan, direction: Direction) -> Option<Work> {
        let (links, (sums, way)) = (self.summed.as_ref()?, self.legs.summed(direction)?);
        let (bytes, kernel) = match direction {
            Direction::Dispatch => (plan.dispatch_token_bytes, &self.kernels.dispatch),
            Direction::Combine => (plan.combine_token_bytes, &self.kernels.combine),
        };
        let (sent, crossing) = (sums.total() * bytes, sums.crossing() * bytes);
        if sums.total() == 0 {
            return None;
        }
        let least_s = kernel.as_ref().map(|kernel| {
            let [link, nic, copied] = sums.busiest(way).map(|copies| (copies * bytes) as f64);
            kernel.seconds(&busiest::exchanged(plan, [link, nic, copied], bytes, self.most_tokens, self.experts))
        });
        let phase = links.phase(sums, way, bytes, Some(&mut self.link_bytes));
        self.cross_node_bytes += crossing;
        match direction {
            Direction::Dispatch => {
                self.dispatch_bytes += sent;
                self.dispatch_cross_node_bytes += crossing;
            }
            Direction::Combine => self.combine_bytes += sent,
        }
        Some(self.on_the_clock(match least_s {
            Some(least_s) => at_least(phase, least_s),
            None => later(phase, self.launch_s),
        }))
    }
}
