//! Little's law: mean number in the system = arrival rate x mean time in the system.

use super::common::{Exponential, Interval, SERVICE_PS, Station, replicate};

const LOAD: f64 = 0.8;
const CUSTOMERS: usize = 200_000;

/// The number in the system is integrated along the events, by looking at which operations have ended after each
/// instant; the times in the system come from the operations' ends. Both over the same window, from the first fifth of
/// the arrivals to the last arrival: they differ by the few customers that the window cuts.
#[test]
fn number_in_system_is_rate_times_time_in_system() {
    let number = |station: &mut Station, seed: u64| {
        let mut gap = Exponential::new(seed, "theory.law.arrival", 0, SERVICE_PS / LOAD);
        let mut service = Exponential::new(seed, "theory.law.service", 0, SERVICE_PS);
        station.append(CUSTOMERS, || gap.draw(), || service.draw());
        station.submit();

        let first = CUSTOMERS / 5;
        let (mut arrived, mut left, mut since, mut area) = (0, 0, station.des.now(), 0.0);
        while arrived < CUSTOMERS {
            assert!(station.des.step(&mut station.graph, &station.resources));
            let now = station.des.now();
            if arrived > first {
                area += (arrived - left) as f64 * (now - since) as f64;
            }
            since = now;
            // One server, first come first served: customers leave in the order they came.
            arrived += usize::from(station.graph.end(2 * arrived).is_some());
            left += usize::from(left < arrived && station.graph.end(2 * left + 1).is_some());
        }
        station.des.run_to_idle(&mut station.graph, &station.resources);

        let end = |op: usize| station.graph.end(op).expect("every operation ended").0;
        let window = (end(2 * (CUSTOMERS - 1)) - end(2 * first)) as f64;
        let counted = first..CUSTOMERS - 1;
        let rate = counted.len() as f64 / window;
        let time = counted.clone().map(|i| (end(2 * i + 1) - end(2 * i)) as f64).sum::<f64>() / counted.len() as f64;
        let (l, law) = (area / window, rate * time);
        assert!((l / law - 1.0).abs() < 1e-2, "seed {seed}: {l} in the system, rate x time {law}");
        l
    };
    let got = Interval::of(&replicate(|| Station::new(1), number));
    let theory = LOAD / (1.0 - LOAD);
    println!("M/M/1 at {LOAD}: {theory} in the system, counted {:.4} +- {:.4}", got.mean, got.half);
    assert!(got.contains(theory) && got.relative(theory) <= 0.02, "{got:?}");
}
