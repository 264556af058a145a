use crate::engine::critical;
use crate::engine::des::Des;
use crate::engine::graph::{Bound, Graph, NO_DEVICE, OpId, OpKind, Work};
use crate::engine::resources::{LaneId, Resources, SharedId};
use moesim_core::Picos;
use proptest::prelude::*;

const S: u64 = 1_000_000_000_000;

fn work(launch: u64, body: u64) -> Work {
    Work { launch: Picos(launch), body: Picos(body), flop: 0, at_peak: Picos::ZERO, bound: Bound::Memory }
}

/// An operation that ends at `time`.
fn timer(g: &mut Graph, time: u64) -> OpId {
    g.op(OpKind::Host, 0, NO_DEVICE, work(0, time)).id()
}

/// (start, end, held) of every operation.
fn run(graph: &mut Graph, resources: &Resources) -> Vec<(u64, u64, u64)> {
    let mut des = Des::default();
    des.submit(graph, resources, 0, 0);
    let end = des.run_to_idle(graph, resources);
    assert_eq!(critical::path(graph, Picos(0), |_, _| ()).total(), graph.end.iter().copied().max().unwrap_or(end));
    (0..graph.len()).map(|i| (graph.start[i], graph.end[i], graph.held(i).0)).collect()
}

/// A pausable operation from 0 on with chunks of 10, and one of higher priority for 5, ready at `arrival`.
fn low_and_high(launch: u64, body: u64, arrival: u64) -> Vec<(u64, u64, u64)> {
    let mut r = Resources::default();
    let lane = r.lane("gpu", 1);
    let mut g = Graph::default();
    g.op(OpKind::Experts, 0, 0, work(launch, body)).hold(lane).pausable(Picos(10));
    let at = timer(&mut g, arrival);
    g.op(OpKind::Attention, 0, 0, work(0, 5)).after(&[at]).hold(lane).priority(1);
    let times = run(&mut g, &r);
    vec![times[0], times[2]]
}

#[test]
fn lines_are_served_by_priority_then_first_come_first_served() {
    let mut r = Resources::default();
    let lane = r.lane("gpu", 1);
    let mut g = Graph::default();
    g.op(OpKind::Experts, 0, 0, work(0, 10)).hold(lane);
    let at = timer(&mut g, 1);
    for priority in [0, 2, 1, 2] {
        g.op(OpKind::Experts, 0, 0, work(0, 10)).after(&[at]).hold(lane).priority(priority);
    }
    let starts: Vec<u64> = run(&mut g, &r).iter().map(|t| t.0).collect();
    assert_eq!(starts, [0, 0, 40, 10, 30, 20]);
}

#[test]
fn of_those_ready_at_one_instant_the_highest_priority_starts() {
    let mut r = Resources::default();
    let lane = r.lane("gpu", 1);
    let mut g = Graph::default();
    g.op(OpKind::Experts, 0, 0, work(0, 10)).hold(lane);
    g.op(OpKind::Experts, 0, 0, work(0, 10)).hold(lane).priority(1);
    assert_eq!(run(&mut g, &r), [(10, 20, 10), (0, 10, 10)]);
}

#[test]
fn a_pause_comes_at_the_boundary_and_not_before() {
    // Ready inside the second chunk: nothing at 19, everything at 20; 15 are left at 25.
    assert_eq!(low_and_high(0, 35, 12), [(0, 40, 35), (20, 25, 5)]);
    assert_eq!(low_and_high(0, 35, 19), [(0, 40, 35), (20, 25, 5)]);
    // Ready on the boundary: at once. A picosecond later: a chunk later.
    assert_eq!(low_and_high(0, 35, 20), [(0, 40, 35), (20, 25, 5)]);
    assert_eq!(low_and_high(0, 35, 21), [(0, 40, 35), (30, 35, 5)]);
    // The next boundary would be behind, or at, the end: it ends first.
    assert_eq!(low_and_high(0, 35, 31), [(0, 35, 35), (35, 40, 5)]);
    assert_eq!(low_and_high(0, 30, 21), [(0, 30, 30), (30, 35, 5)]);
}

#[test]
fn a_launch_that_was_interrupted_goes_on_and_one_that_was_done_does_not_come_again() {
    assert_eq!(low_and_high(15, 20, 3), [(0, 40, 35), (10, 15, 5)]);
    assert_eq!(low_and_high(15, 20, 13), [(0, 40, 35), (20, 25, 5)]);
}

#[test]
fn chunks_count_from_the_resumption_and_the_paused_go_first_in_their_class() {
    let mut r = Resources::default();
    let lane = r.lane("gpu", 1);
    let mut g = Graph::default();
    g.op(OpKind::Experts, 0, 0, work(0, 100)).hold(lane).pausable(Picos(10));
    // In line since 0, and still behind the paused one.
    g.op(OpKind::Experts, 0, 0, work(0, 1)).hold(lane);
    for arrival in [12, 31] {
        let at = timer(&mut g, arrival);
        g.op(OpKind::Load, 0, 0, work(0, 5)).after(&[at]).hold(lane).priority(1);
    }
    let t = run(&mut g, &r);
    // Runs 0..20, 25..35, 40..110.
    assert_eq!([t[0], t[1], t[3], t[5]], [(0, 110, 100), (110, 111, 1), (20, 25, 5), (35, 40, 5)]);
}

#[test]
fn nobody_is_paused_for_an_equal_nor_in_vain() {
    let mut r = Resources::default();
    let (a, b) = (r.lane("a", 1), r.lane("b", 1));
    let mut g = Graph::default();
    g.op(OpKind::Experts, 0, 0, work(0, 100)).hold(a).pausable(Picos(10)).priority(1);
    g.op(OpKind::Experts, 0, 0, work(0, 55)).hold(b);
    let at = timer(&mut g, 5);
    // Of equal priority: waits for the end.
    g.op(OpKind::Load, 0, 0, work(0, 5)).after(&[at]).hold(a).priority(1);
    // Higher, but b cannot be had before 55: a is paused at its next boundary after that.
    g.op(OpKind::Load, 0, 0, work(0, 5)).after(&[at]).hold(a).hold(b).priority(2);
    let t = run(&mut g, &r);
    assert_eq!([t[0], t[1], t[3], t[4]], [(0, 105, 100), (0, 55, 55), (105, 110, 5), (60, 65, 5)]);
}

#[test]
fn no_more_are_paused_than_it_takes() {
    let mut r = Resources::default();
    let lane = r.lane("sm", 3);
    let mut g = Graph::default();
    g.op(OpKind::Experts, 0, 0, work(0, 30)).hold_units(lane, 2).pausable(Picos(10));
    g.op(OpKind::Experts, 0, 0, work(0, 30)).hold_units(lane, 1).pausable(Picos(10));
    let at = timer(&mut g, 5);
    g.op(OpKind::Load, 0, 0, work(0, 7)).after(&[at]).hold(lane).priority(1);
    let t = run(&mut g, &r);
    assert_eq!([t[0], t[1], t[3]], [(0, 30, 30), (0, 37, 30), (10, 17, 7)]);
}

#[test]
fn a_paused_one_leaves_its_channel_and_keeps_its_fraction() {
    let mut r = Resources::default();
    let (lane, hbm) = (r.lane("gpu", 1), r.channel("hbm", 100.0));
    let mut g = Graph::default();
    g.op(OpKind::Experts, 0, 0, work(0, S)).hold(lane).draw(hbm, 100).pausable(Picos(S / 2));
    g.op(OpKind::Load, 0, 0, work(0, S)).draw(hbm, 100);
    let at = timer(&mut g, S / 10);
    g.op(OpKind::Attention, 0, 0, work(0, S / 2)).after(&[at]).hold(lane).priority(1);
    let t = run(&mut g, &r);
    // By 0.5 s each moved 25 B. Alone, the copy moves 50 B more by 1 s, when the kernel resumes with 75 B; both share
    // until the copy is done at 1.5 s; 50 B are left, alone again.
    assert_eq!([t[0], t[1], t[3]], [(0, 2 * S, 3 * S / 2), (0, 3 * S / 2, 3 * S / 2), (S / 2, S, S / 2)]);
}

#[test]
fn one_that_resumes_into_company_counts_what_it_did_alone() {
    let mut r = Resources::default();
    let (lane, hbm) = (r.lane("gpu", 1), r.channel("hbm", 100.0));
    let mut g = Graph::default();
    // Launch 0.25 s, body 1 s alone.
    g.op(OpKind::Experts, 0, 0, work(S / 4, S)).hold(lane).draw(hbm, 100).pausable(Picos(S / 2));
    let early = timer(&mut g, S / 10);
    g.op(OpKind::Attention, 0, 0, work(0, S / 2)).after(&[early]).hold(lane).priority(1);
    let late = timer(&mut g, S);
    g.op(OpKind::Load, 0, 0, work(0, S)).after(&[late]).draw(hbm, 100);
    let t = run(&mut g, &r);
    // Paused at 0.5 s with 75 B left; both begin at 1 s; the kernel is done at 2.5 s, the copy's last 25 B at 2.75 s.
    assert_eq!([t[0], t[4]], [(0, 5 * S / 2, 2 * S), (S, 11 * S / 4, 7 * S / 4)]);
}

#[test]
fn a_paused_one_can_be_cancelled() {
    let mut r = Resources::default();
    let lane = r.lane("gpu", 1);
    let mut g = Graph::default();
    let low = g.op(OpKind::Experts, 0, 0, work(0, 100)).hold(lane).pausable(Picos(10)).id();
    let at = timer(&mut g, 15);
    g.op(OpKind::Attention, 0, 0, work(0, 5)).after(&[at]).hold(lane).priority(1);
    let stop = timer(&mut g, 22);
    g.op(OpKind::Head, 0, 0, work(0, 4)).after(&[low]);
    let mut des = Des::default();
    des.submit(&mut g, &r, 0, 0);
    des.run_until(&mut g, &r, stop);
    des.cancel(&mut g, &r, low);
    des.run_to_idle(&mut g, &r);
    assert_eq!((g.start[0], g.end[0], g.held(0)), (0, 22, Picos(20)));
    assert_eq!((g.start[2], g.end[2]), (20, 25));
    assert_eq!((g.start[4], g.end[4]), (22, 26));
    // The head, then a gap in which the cancelled one waited, then its run.
    let b = critical::path(&g, Picos(0), |_, _| ());
    assert_eq!((b.kinds[OpKind::Head as usize], b.idle, b.kinds[OpKind::Experts as usize], b.total()), (4, 2, 20, 26));
}

#[test]
fn a_pause_on_the_critical_path_is_charged_to_who_held_the_lane() {
    let mut r = Resources::default();
    let lane = r.lane("gpu", 1);
    let mut g = Graph::default();
    g.op(OpKind::Experts, 0, 0, work(0, 35)).hold(lane).pausable(Picos(10));
    let at = timer(&mut g, 12);
    g.op(OpKind::Attention, 0, 0, work(0, 5)).after(&[at]).hold(lane).priority(1);
    run(&mut g, &r);
    let mut seen = Vec::new();
    let b = critical::path(&g, Picos(0), |i, time| seen.push((i, time.0)));
    assert_eq!(seen, [(0, 15), (2, 5), (0, 20)]);
    assert_eq!((b.kinds[OpKind::Experts as usize], b.kinds[OpKind::Attention as usize], b.idle), (35, 5, 0));
}

/// (ready at, duration, lanes and units, priority, chunk).
type Op = (u64, u64, Vec<(u32, u32)>, u8, u64);

fn op() -> impl Strategy<Value = Op> {
    let holds = prop::collection::btree_map(0u32..3, 1u32..4, 0..3).prop_map(|m| m.into_iter().collect());
    (1u64..40, 1u64..40, holds, 0u8..4, 0u64..6)
}

/// Sums of `amount` over the runs of the operations at every instant; the largest.
fn most(g: &Graph, amount: impl Fn(usize) -> u32) -> u32 {
    let mut changes = Vec::new();
    for i in 0..g.len() {
        let runs: Vec<_> = g.runs.of(i).map(|r| (r.start, r.end)).collect();
        let runs = if runs.is_empty() { vec![(g.start[i], g.end[i])] } else { runs };
        for (start, end) in runs {
            changes.extend([(start, i64::from(amount(i))), (end, -i64::from(amount(i)))]);
        }
    }
    // Releases before grants.
    changes.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, change) in changes {
        now += change;
        most = most.max(now);
    }
    most as u32
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Every operation is served its duration, no more and no less, in runs of whole chunks but the last, and no lane is
    /// ever over its capacity.
    #[test]
    fn service_is_conserved_and_lanes_hold(ops in prop::collection::vec(op(), 1..14)) {
        let mut r = Resources::default();
        let lanes: Vec<LaneId> = (0..3).map(|i| r.lane(format!("lane{i}"), 3)).collect();
        let mut g = Graph::default();
        for (ready, duration, holds, priority, chunk) in &ops {
            let at = timer(&mut g, *ready);
            let op = g.op(OpKind::Experts, 0, 0, work(0, *duration)).after(&[at]).priority(*priority);
            let op = if *chunk > 0 { op.pausable(Picos(*chunk)) } else { op };
            holds.iter().fold(op, |op, &(lane, units)| op.hold_units(lanes[lane as usize], units));
        }
        let times = run(&mut g, &r);
        for (n, (_, duration, _, _, chunk)) in ops.iter().enumerate() {
            let i = 2 * n + 1;
            prop_assert_eq!(times[i].2, *duration);
            let runs: Vec<_> = g.runs.of(i).collect();
            prop_assert!(runs.is_empty() || *chunk > 0);
            for run in runs.iter().skip(1) {
                prop_assert!(run.end > run.start && (run.end - run.start) % chunk == 0);
            }
        }
        for &lane in &lanes {
            let units = |i: usize| g.holds(i).iter().filter(|h| h.lane == lane).map(|h| h.units).sum();
            prop_assert!(most(&g, units) <= 3);
        }
    }

    /// On a shared channel, what is paused draws nothing and loses nothing: every operation runs at least as long as alone,
    /// and the channel moves everything in no less time than its capacity allows.
    #[test]
    fn shared_service_is_conserved(
        ops in prop::collection::vec((1u64..40, 5u64..40, 0u64..5, 1u64..60, any::<bool>(), 0u8..3, 0u64..6), 1..10),
    ) {
        let mut r = Resources::default();
        let (lane, channel): (LaneId, SharedId) = (r.lane("lane", 2), r.channel("hbm", 1.5e12));
        let mut g = Graph::default();
        for &(ready, body, launch, amount, holds, priority, chunk) in &ops {
            let at = timer(&mut g, ready);
            // Alone none is faster than the channel.
            let amount = amount.min(body * 3 / 2);
            let op = g.op(OpKind::Experts, 0, 0, work(launch, body)).after(&[at]).draw(channel, amount).priority(priority);
            let op = if chunk > 0 { op.pausable(Picos(chunk)) } else { op };
            if holds { op.hold(lane) } else { op };
        }
        let times = run(&mut g, &r);
        let (mut bytes, mut busy) = (0, 0);
        for (n, &(_, body, launch, ..)) in ops.iter().enumerate() {
            prop_assert!(times[2 * n + 1].2 >= launch + body);
            bytes += g.demands(2 * n + 1).iter().map(|d| d.amount).sum::<u64>();
        }
        for t in 0..times.iter().map(|t| t.1).max().unwrap() {
            let runs = |i: usize| {
                let runs: Vec<_> = g.runs.of(i).map(|r| (r.start, r.end)).collect();
                if runs.is_empty() { vec![(g.start[i], g.end[i])] } else { runs }
            };
            busy += u64::from((0..g.len()).any(|i| !g.demands(i).is_empty() && runs(i).iter().any(|r| r.0 <= t && t < r.1)));
        }
        prop_assert!(bytes as f64 <= 1.5 * busy as f64 + 1e-6, "{} bytes in {} ps", bytes, busy);
        prop_assert!(most(&g, |i| g.holds(i).iter().map(|h| h.units).sum()) <= 2);
    }
}
