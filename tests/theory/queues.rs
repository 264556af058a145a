//! Mean waiting times against Pollaczek-Khinchine and Erlang C.

use super::common::{Exponential, Interval, SERVICE_PS, Station, fixed, replicate};

/// A station fed by a Poisson stream.
#[derive(Clone, Copy, Debug)]
struct System {
    name: &'static str,
    servers: u32,
    /// Service times are all equal, not exponential.
    deterministic: bool,
}

const SYSTEMS: [System; 3] = [
    System { name: "M/M/1", servers: 1, deterministic: false },
    System { name: "M/D/1", servers: 1, deterministic: true },
    System { name: "M/M/4", servers: 4, deterministic: false },
];

/// Utilisation, customers a replication, and the relative half-width that these must give.
///
/// The widths follow from the asymptotic variance of the mean wait (M/M/1: Daley 1968), which grows with the fourth
/// power of 1 / (1 - utilisation); the counts keep the whole test within a minute on two cores.
const LOADS: [(f64, usize, f64); 3] = [(0.5, 150_000, 0.01), (0.8, 200_000, 0.015), (0.95, 600_000, 0.04)];

impl System {
    /// The mean wait in queue in mean service times.
    ///
    /// One server: Pollaczek-Khinchine, u (1 + c2) / (2 (1 - u)) with c2 the squared coefficient of variation of the
    /// service. Several: Erlang C over c (1 - u) (Kleinrock, Queueing Systems I, sections 5.6 and 3.5).
    fn theory(&self, u: f64) -> f64 {
        if self.servers == 1 {
            let c2 = if self.deterministic { 0.0 } else { 1.0 };
            return u * (1.0 + c2) / (2.0 * (1.0 - u));
        }
        let c = f64::from(self.servers);
        erlang_c(self.servers, u * c) / (c * (1.0 - u))
    }

    /// The mean wait of the customers after the warm-up, at utilisation `u`, in mean service times.
    ///
    /// Warm-up: the first fifth of the customers. The station starts empty; what remains of that decays as
    /// exp(-t c (1 - sqrt u)^2) in mean service times (M/M/c; faster for M/D/1). At the highest load here a fifth is
    /// 120 000 customers, at one server 126 000 service times, 81 times the relaxation time of 1 560: the remaining bias
    /// is far below any digit printed.
    fn simulate(&self, station: &mut Station, seed: u64, u: f64, customers: usize, service_ps: f64) -> f64 {
        let case = u64::from(self.servers) << 32 | u64::from(self.deterministic) << 16 | (u * 100.0) as u64;
        let gap_ps = SERVICE_PS / (u * f64::from(self.servers));
        let mut gap = Exponential::new(seed, "theory.arrival", case, gap_ps);
        let mut service = Exponential::new(seed, "theory.service", case, service_ps);
        let draw = || if self.deterministic { fixed(service_ps) } else { service.draw() };
        station.append(customers, || gap.draw(), draw);
        station.submit();
        station.des.run_to_idle(&mut station.graph, &station.resources);
        let counted = customers / 5..customers;
        let n = counted.len() as f64;
        counted.map(|i| station.wait(i)).sum::<f64>() / n
    }

    fn interval(&self, u: f64, customers: usize, service_ps: f64) -> Interval {
        let make = || Station::new(self.servers);
        Interval::of(&replicate(make, |s, seed| self.simulate(s, seed, u, customers, service_ps)))
    }
}

/// The probability that a customer has to wait in M/M/c at load `a` (in servers), from the recursion of Erlang B.
fn erlang_c(servers: u32, a: f64) -> f64 {
    let b = super::loss::erlang_b(servers, a);
    let u = a / f64::from(servers);
    b / (1.0 - u * (1.0 - b))
}

#[test]
fn mean_waits_are_those_of_theory() {
    println!("{:6} {:>5} {:>10} {:>10} {:>10} {:>8}", "system", "load", "theory", "mean", "95 % +-", "off");
    let mut failures = Vec::new();
    for system in SYSTEMS {
        for (u, customers, tight) in LOADS {
            let theory = system.theory(u);
            let got = system.interval(u, customers, SERVICE_PS);
            let off = (got.mean / theory - 1.0) * 100.0;
            println!("{:6} {u:5.2} {theory:10.5} {:10.5} {:10.5} {off:+7.2}%", system.name, got.mean, got.half);
            if !got.contains(theory) || got.relative(theory) > tight {
                failures.push((system.name, u, theory, got, tight));
            }
        }
    }
    assert!(failures.is_empty(), "outside the interval, or it is wider than it must be: {failures:?}");
}

/// The test above would notice services that take 3 % longer than they should.
#[test]
fn a_service_time_three_percent_off_is_noticed() {
    let (u, customers, _) = LOADS[1];
    for system in SYSTEMS {
        let theory = system.theory(u);
        let got = system.interval(u, customers, 1.03 * SERVICE_PS);
        println!("{:6} {u:5.2} {theory:10.5} {:10.5} {:10.5}  3 % slow", system.name, got.mean, got.half);
        assert!(got.mean - got.half > theory, "{}: {got:?} holds {theory}", system.name);
    }
}

#[test]
fn erlang_c_of_one_server_is_its_load() {
    for u in [0.1, 0.5, 0.95] {
        assert!((erlang_c(1, u) - u).abs() < 1e-15);
    }
    // Kleinrock's chart for four servers at load 0.5; 4 servers, 2 Erlang: 4/23.
    assert!((erlang_c(4, 2.0) - 4.0 / 23.0).abs() < 1e-15);
}
