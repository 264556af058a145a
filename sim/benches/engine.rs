//! Whole operations: appended, released, granted, completed, and read by the critical path.

use divan::{Bencher, counter::ItemsCount};
use moesim::engine::{
    Bound, Execution, Executor, LaneId, NO_DEVICE, OpId, OpKind, Resources, SharedId, Work, critical,
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
