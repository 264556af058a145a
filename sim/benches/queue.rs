//! The hold model (Jones, CACM 29(4), 1986): with a fixed number of pending events, take the earliest and schedule one
//! an exponential delay later. Ours beside the standard heap, and beside a whole engine, which also dispatches each
//! event to a handler.

use divan::{Bencher, counter::ItemsCount};
use moesim::engine::EventQueue;
use moesim_core::rng;
use rand::Rng;
use simcore::{Event, EventHandler, Simulation, SimulationContext};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

const PENDING: [usize; 3] = [1_000, 100_000, 10_000_000];
/// Holds in one timed sample.
const HOLDS: usize = 1_000_000;

fn main() {
    divan::main();
}

/// Exponential delays of mean 1 us in picoseconds, drawn ahead of the timing; so few that they stay in the cache.
struct Delays {
    table: Vec<u64>,
    at: usize,
}

impl Delays {
    fn new() -> Self {
        let mut stream = rng::stream(1, "bench.delay", 0);
        let mut draw = || {
            let uniform = (stream.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            (-libm::log(1.0 - uniform) * 1e6) as u64
        };
        Self { table: (0..1 << 13).map(|_| draw()).collect(), at: 0 }
    }
    fn next(&mut self) -> u64 {
        self.at = (self.at + 1) % self.table.len();
        self.table[self.at]
    }
}

/// What the hold model asks of a queue.
trait Pending: Default {
    fn push(&mut self, time: u64, payload: u32);
    fn pop(&mut self) -> (u64, u32);
}

impl Pending for EventQueue<u32> {
    fn push(&mut self, time: u64, payload: u32) {
        EventQueue::push(self, time, payload);
    }
    fn pop(&mut self) -> (u64, u32) {
        EventQueue::pop(self).expect("the number pending is constant")
    }
}

/// The standard binary heap with the same order.
#[derive(Default)]
struct Std {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    next: u64,
}

impl Pending for Std {
    fn push(&mut self, time: u64, payload: u32) {
        self.heap.push(Reverse((time, self.next, payload)));
        self.next += 1;
    }
    fn pop(&mut self) -> (u64, u32) {
        let Reverse((time, _, payload)) = self.heap.pop().expect("the number pending is constant");
        (time, payload)
    }
}

#[divan::bench(types = [EventQueue<u32>, Std], args = PENDING, sample_count = 10, sample_size = 1)]
fn hold<Q: Pending>(bencher: Bencher, pending: usize) {
    let (mut delays, mut queue) = (Delays::new(), Q::default());
    for i in 0..pending {
        queue.push(delays.next(), i as u32);
    }
    bencher.counter(ItemsCount::new(HOLDS)).bench_local(|| {
        for _ in 0..HOLDS {
            let (time, payload) = queue.pop();
            queue.push(time + delays.next(), payload);
        }
    });
}

#[derive(Clone, serde::Serialize)]
struct Tick {
    payload: u32,
}

struct Holder {
    context: SimulationContext,
    delays: Delays,
}

impl EventHandler for Holder {
    fn on(&mut self, event: Event) {
        if let Ok(tick) = event.data.downcast::<Tick>() {
            let delay = self.delays.next() as f64;
            self.context.emit_self(*tick, delay);
        }
    }
}

#[divan::bench(args = PENDING, sample_count = 10, sample_size = 1)]
fn simcore(bencher: Bencher, pending: usize) {
    let mut simulation = Simulation::new(1);
    let context = simulation.create_context("holder");
    let holder = Rc::new(RefCell::new(Holder { context, delays: Delays::new() }));
    simulation.add_handler("holder", holder.clone());
    for i in 0..pending {
        let mut holder = holder.borrow_mut();
        let delay = holder.delays.next() as f64;
        holder.context.emit_self(Tick { payload: i as u32 }, delay);
    }
    bencher.counter(ItemsCount::new(HOLDS)).bench_local(|| {
        for _ in 0..HOLDS {
            simulation.step();
        }
    });
}
