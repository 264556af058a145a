//! Fidelity `phase`: one linear pass over a block of operations that share nothing.
//!
//! The pass is exact where it applies: it gives the start and end of every operation that [`super::des`] would give.
//! It refuses (and the caller runs the events instead) wherever that is not certain: operations that overlap on a
//! shared channel, a lane of several units, a lane whose first-come order differs from the order of appending, several
//! lanes that were not all free at once, waiting where a priority or a pause could matter.

use super::graph::{Graph, NONE};
use super::resources::Resources;

/// Per lane and channel, what the pass knows so far; entries of older passes are recognised by their epoch.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    epoch: u32,
    lanes: Vec<LaneMark>,
    channels: Vec<ChannelMark>,
}

#[derive(Clone, Copy, Debug, Default)]
struct LaneMark {
    free_at: u64,
    last_ready: u64,
    last_op: u32,
    epoch: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct ChannelMark {
    free_at: u64,
    epoch: u32,
}

/// Sets start and end of the operations `from..` of a graph whose earlier operations ended by `now`, with all
/// resources idle at `now`. Returns false, leaving the times unknown, where the events must decide.
pub(super) fn advance(graph: &mut Graph, resources: &Resources, s: &mut Scratch, from: usize, now: u64) -> bool {
    s.lanes.resize(resources.lanes.len(), LaneMark::default());
    s.channels.resize(resources.channels.len(), ChannelMark::default());
    s.epoch = s.epoch.wrapping_add(1);
    if s.epoch == 0 {
        s.lanes.fill(LaneMark::default());
        s.channels.fill(ChannelMark::default());
        s.epoch = 1;
    }
    let n = graph.len();
    let first = |ends: &[u32]| if from == 0 { 0 } else { ends[from - 1] as usize };
    let (mut dep, mut hold, mut demand) = (first(&graph.deps_end), first(&graph.holds_end), first(&graph.demands_end));
    for i in from..n {
        let mut ready = now;
        let deps_end = graph.deps_end[i] as usize;
        for &d in &graph.deps[dep..deps_end] {
            ready = ready.max(graph.end[d as usize]);
        }
        dep = deps_end;

        let mut start = ready;
        let mut waited_for = NONE;
        let holds_end = graph.holds_end[i] as usize;
        let holds = &graph.holds[hold..holds_end];
        hold = holds_end;
        for h in holds {
            let mark = &s.lanes[h.lane.0 as usize];
            if resources.lanes[h.lane.0 as usize].units != h.units {
                return undo(graph, from);
            }
            if mark.epoch == s.epoch {
                if ready < mark.last_ready {
                    return undo(graph, from);
                }
                if mark.free_at > start {
                    start = mark.free_at;
                    waited_for = mark.last_op;
                }
            }
        }
        if start > ready && (holds.len() > 1 || !(graph.is_plain(i) && graph.is_plain(waited_for as usize))) {
            return undo(graph, from);
        }
        let end = start.saturating_add(graph.duration[i]);
        for h in holds {
            s.lanes[h.lane.0 as usize] =
                LaneMark { free_at: end, last_ready: ready, last_op: i as u32, epoch: s.epoch };
        }
        let demands_end = graph.demands_end[i] as usize;
        for d in &graph.demands[demand..demands_end] {
            let mark = &mut s.channels[d.channel.0 as usize];
            if mark.epoch == s.epoch && start < mark.free_at {
                return undo(graph, from);
            }
            *mark = ChannelMark { free_at: end, epoch: s.epoch };
        }
        demand = demands_end;
        graph.start[i] = start;
        graph.end[i] = end;
        graph.waited_for[i] = waited_for;
    }
    true
}

pub(super) fn undo(graph: &mut Graph, from: usize) -> bool {
    graph.start[from..].fill(super::graph::UNKNOWN);
    graph.end[from..].fill(super::graph::UNKNOWN);
    graph.waited_for[from..].fill(NONE);
    false
}
