//! Whole operations: appended, released, granted, completed, and read by the critical path.

use divan::{Bencher, counter::ItemsCount};
use moesim::engine::{
    Bound, Execution, Executor, Graph, LaneId, NO_DEVICE, OpId, OpKind, Resources, SharedId, Work, critical,
};
use moesim_core::{Picos, rng};

const DEVICES: u32 = 8;
const LAYERS: u16 = 58;
/// Operations of the random graph.
const RANDOM: usize = 10_000;

fn main() {
    divan::main();
}

/// A uniform draw below `n`, a pure function of its coordinates.
fn draw(entity: u64, index: u64, n: u64) -> u64 {
    rng::below(rng::draw(1, 2, entity, index), n)
}

fn work(launch: u64, body: u64) -> Work {
    Work { launch: Picos(launch), body: Picos(body), flop: 1, at_peak: Picos::ZERO, bound: Bound::Memory }
}

struct Machine {
    resources: Resources,
    compute: Vec<LaneId>,
    copy: Vec<LaneId>,
    hbm: Vec<SharedId>,
    network: SharedId,
}

impl Machine {
    fn new() -> Self {
        let mut resources = Resources::default();
        let compute = (0..DEVICES).map(|d| resources.lane(format!("gpu{d}.compute"), 1)).collect();
        let copy = (0..DEVICES).map(|d| resources.lane(format!("gpu{d}.copy"), 2)).collect();
        let hbm = (0..DEVICES).map(|d| resources.channel(format!("gpu{d}.hbm"), 3e12)).collect();
        let network = resources.channel("network", 4e11);
        Self { resources, compute, copy, hbm, network }
    }
}

/// An expert-parallel iteration, layer by layer as gates complete: attention on every device, a rendezvous, dispatch,
/// experts on every device, combine.
#[divan::bench(args = [Execution::Op, Execution::Phase])]
fn expert_parallel(bencher: Bencher, execution: Execution) {
    let machine = Machine::new();
    let mut executor = Executor::new(machine.resources.clone(), execution);
    let times: Vec<u64> = (0..u64::from(LAYERS)).map(|i| 1_000_000 + draw(0, i, 1_000_000)).collect();
    let mut of_layer: Vec<OpId> = Vec::new();
    let per_layer = 2 * DEVICES as usize + 3;
    bencher.counter(ItemsCount::new(per_layer * usize::from(LAYERS))).bench_local(|| {
        executor.begin();
        let (mut now, mut last) = (Picos::ZERO, None);
        for layer in 0..LAYERS {
            let g = &mut executor.graph;
            let on = |d: u32| times[(usize::from(layer) + 7 * d as usize) % times.len()];
            of_layer.clear();
            for d in 0..DEVICES {
                let op = g.op(OpKind::Attention, layer, d, work(2_000, on(d))).hold(machine.compute[d as usize]);
                of_layer.push(op.after(last.as_slice()).draw(machine.hbm[d as usize], on(d)).id());
            }
            let gate = g.join(layer, &of_layer);
            now = executor.advance(gate, now);
            let g = &mut executor.graph;
            let dispatch = g.op(OpKind::Dispatch, layer, NO_DEVICE, work(5_000, on(0))).after(&[gate]);
            let dispatch = dispatch.draw(machine.network, 50_000).id();
            of_layer.clear();
            for d in 0..DEVICES {
                let op = g.op(OpKind::Experts, layer, d, work(3_000, on(d + 1))).hold(machine.compute[d as usize]);
                of_layer.push(op.after(&[dispatch]).draw(machine.hbm[d as usize], on(d + 1)).id());
            }
            let combine = g.op(OpKind::Combine, layer, NO_DEVICE, work(5_000, on(2))).after(&of_layer);
            last = Some(combine.draw(machine.network, 50_000).id());
        }
        executor.finish(now);
        critical::path(&executor.graph, Picos::ZERO, |_, _| ())
    });
}

/// A random graph whose operations overlap on the channels of their devices: up to three at once draw on each. With one
/// in `coupled` also on the network, all devices are one problem of sharing.
#[divan::bench(args = [None, Some(4)])]
fn contended(bencher: Bencher, coupled: Option<u64>) {
    let machine = Machine::new();
    let mut executor = Executor::new(machine.resources.clone(), Execution::Op);
    let one_in = coupled.unwrap_or(1);
    let below = [u64::from(DEVICES), 16, 16, 3, 1_000_000, 3, one_in];
    let drawn: Vec<_> =
        (0..RANDOM as u64).map(|i| std::array::from_fn::<_, 7, _>(|j| draw(1 + j as u64, i, below[j]))).collect();
    bencher.counter(ItemsCount::new(RANDOM)).bench_local(|| {
        executor.begin();
        for (i, &[device, back_a, back_b, waits, longer, copy, network]) in drawn.iter().enumerate() {
            let d = device as usize;
            let deps = [back_a, back_b].map(|back| OpId((i as u32).saturating_sub(1 + back as u32)));
            let deps = &deps[..if i < 16 { 0 } else { waits as usize }];
            let body = 1_000_000 + longer;
            // Two in three run on the device, the others copy beside it; each alone could draw two thirds of its memory.
            let (bytes, copies) = (body * 2, copy == 0);
            let kind = if copies { OpKind::Load } else { OpKind::Experts };
            let op = executor.graph.op(kind, 0, d as u32, work(2_000, body)).after(deps).draw(machine.hbm[d], bytes);
            let op = if coupled.is_some() && network == 0 { op.draw(machine.network, body / 10) } else { op };
            op.hold(if copies { machine.copy[d] } else { machine.compute[d] });
        }
        executor.finish(Picos::ZERO);
        critical::path(&executor.graph, Picos::ZERO, |_, _| ())
    });
}

/// Devices of the overlapping passes.
const DIES: usize = 320;

/// Two passes in flight over 320 devices and 58 layers, each on processors of its own, both on the same memories, in
/// turn as their gates complete. Operations a second; a sample is an iteration.
#[divan::bench(args = [Execution::Op, Execution::Phase], sample_count = 10)]
fn two_passes(bencher: Bencher, execution: Execution) {
    let mut resources = Resources::default();
    let lanes: Vec<LaneId> = (0..2 * DIES).map(|i| resources.lane(format!("compute{i}"), 1)).collect();
    let memory: Vec<SharedId> = (0..DIES).map(|d| resources.channel(format!("hbm{d}"), 3e12)).collect();
    let mut executor = Executor::new(resources, execution);
    let mut begin = Picos::ZERO;
    bencher.counter(ItemsCount::new(2 * usize::from(LAYERS) * (4 * DIES + 3))).bench_local(|| {
        executor.begin();
        let mut drawn = 0;
        let mut on = |g: &mut Graph, kind: OpKind, pass: usize, d: usize, us: u64, after: &[OpId]| {
            drawn += 1;
            let body = us * (900_000 + draw(3, drawn, 200_000));
            let op = g.op(kind, 0, d as u32, work(2_000_000, body)).after(after);
            // Seven tenths of the bandwidth while it runs alone.
            op.hold(lanes[2 * d + pass]).draw(memory[d], body / 10 * 21).id()
        };
        let (mut frontier, mut gates) = ([vec![None; DIES], vec![None; DIES]], [None; 2]);
        let mut now = begin;
        let mut ops = Vec::new();
        for step in 0..2 * (usize::from(LAYERS) + 1) {
            let (pass, layer) = (step % 2, step / 2);
            if let Some(gate) = gates[pass].take() {
                now = executor.advance(gate, now);
                let g = &mut executor.graph;
                let dispatch = g.op(OpKind::Dispatch, 0, NO_DEVICE, work(60_000_000, 0)).after(&[gate]).id();
                ops.clear();
                ops.extend((0..DIES).map(|d| on(g, OpKind::Experts, pass, d, 120, &[dispatch])));
                let combine = g.op(OpKind::Combine, 0, NO_DEVICE, work(90_000_000, 0)).after(&ops).id();
                frontier[pass].fill(Some(combine));
            }
            if layer < usize::from(LAYERS) {
                let g = &mut executor.graph;
                ops.clear();
                for (d, last) in frontier[pass].iter_mut().enumerate() {
                    let attention = on(g, OpKind::Attention, pass, d, 150, last.as_slice());
                    *last = Some(on(g, OpKind::Gate, pass, d, 5, &[attention]));
                    ops.extend(*last);
                }
                gates[pass] = Some(g.join(0, &ops));
            }
        }
        begin = executor.finish(now);
        begin
    });
    if execution == Execution::Phase {
        executor.begin();
        assert_eq!(executor.linear_operations(), executor.operations(), "no operation needs the heap");
    }
}
