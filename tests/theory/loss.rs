//! The capacity discipline under a Poisson stream: a pool of four places, those who find none are lost (M/M/4/4).

use super::common::{Exponential, Interval, SERVICE_PS, Station, replicate};
use moesim::engine::{NO_DEVICE, OpId, OpKind, Pool};

const PLACES: u64 = 4;
const BYTES: u64 = 1 << 30;
/// Offered load in places.
const LOAD: f64 = 3.0;
const CUSTOMERS: usize = 100_000;

/// The probability of loss with `servers` at load `a` in servers: B(n) = a B(n-1) / (n + a B(n-1)), B(0) = 1
/// (Kleinrock, Queueing Systems I, section 3.6).
pub fn erlang_b(servers: u32, a: f64) -> f64 {
    (1..=servers).fold(1.0, |b, n| a * b / (f64::from(n) + a * b))
}

/// Never above capacity, always what is held, refused only when full; and refused as often as Erlang B says.
/// Operations are appended while others run, one customer at a time.
#[test]
fn a_full_pool_refuses_as_often_as_erlang_says() {
    let lost = |station: &mut Station, seed: u64| {
        let Station { graph, des, resources, .. } = station;
        graph.clear();
        des.reset();
        let mut gap = Exponential::new(seed, "theory.loss.arrival", 0, SERVICE_PS / LOAD);
        let mut stay = Exponential::new(seed, "theory.loss.service", 0, SERVICE_PS);
        let mut pool = Pool::new(PLACES * BYTES);
        let mut held: Vec<OpId> = Vec::new();
        let (mut lost, mut taken) = (0, 0);
        for i in 0..CUSTOMERS {
            let arrival = graph.op(OpKind::Host, 0, NO_DEVICE, gap.draw()).id();
            let now = des.now();
            des.submit(graph, resources, taken, now);
            des.run_until(graph, resources, arrival);
            held.retain(|op| {
                let over = graph.end(op.0 as usize).is_some();
                if over {
                    pool.give(BYTES);
                }
                !over
            });
            assert_eq!(pool.used(), held.len() as u64 * BYTES);
            taken = graph.len();
            if pool.try_take(BYTES) {
                held.push(graph.op(OpKind::Load, 0, NO_DEVICE, stay.draw()).id());
            } else {
                assert_eq!(held.len() as u64, PLACES);
                // Empty at first: the first fifth does not count.
                lost += usize::from(i >= CUSTOMERS / 5);
            }
            assert!(pool.used() <= pool.capacity() && pool.free() == pool.capacity() - pool.used());
        }
        let now = des.now();
        des.submit(graph, resources, taken, now);
        des.run_to_idle(graph, resources);
        assert_eq!(pool.peak(), pool.capacity());
        lost as f64 / (CUSTOMERS - CUSTOMERS / 5) as f64
    };
    let got = Interval::of(&replicate(|| Station::new(1), lost));
    let theory = erlang_b(PLACES as u32, LOAD);
    println!("M/M/4/4 at {LOAD} Erlang: loss {theory:.5}, counted {:.5} +- {:.5}", got.mean, got.half);
    assert!(got.contains(theory) && got.relative(theory) <= 0.01, "{got:?}");
}
