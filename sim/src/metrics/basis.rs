//! On what a run's costs stand: how much of its critical path was measured, taken from another device, assumed.

use super::Ended;
use crate::costs::{DONOR, OTHER_PRECISION, ROOFLINE};
use crate::engine::OpKind;
use std::collections::BTreeMap;

/// What a cost stands on, the weakest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Basis {
    /// The rates that a data sheet or a paper gives for links and the host.
    Stated,
    /// Kernels measured on the device itself.
    Measured,
    /// Kernels measured on another device, or in another precision.
    Donor,
    /// Peaks with assumed fractions.
    Roofline,
}

impl Basis {
    fn name(self) -> &'static str {
        ["stated", "measured", "donor", "roofline"][self as usize]
    }

    /// By the words of a cost.
    fn of(words: &str) -> Self {
        if words.starts_with(ROOFLINE) {
            Self::Roofline
        } else if words.contains(DONOR) || words.contains(OTHER_PRECISION) {
            Self::Donor
        } else if words.starts_with("profile") || words.starts_with("table") {
            Self::Measured
        } else {
            Self::Stated
        }
    }
}

/// The kernels of an operation, by their words; none for what the hardware's file states.
fn kernels(kind: OpKind) -> &'static [&'static str] {
    match kind {
        OpKind::Attention => &["gemm", "decode attention", "prefill attention", "stream"],
        OpKind::Dense | OpKind::Gate | OpKind::Head => &["gemm", "stream"],
        OpKind::Embed => &["stream"],
        OpKind::Shared => &["gemm"],
        OpKind::Experts => &["experts"],
        OpKind::Dispatch => &["dispatch"],
        OpKind::Combine => &["combine"],
        OpKind::AllReduce => &["all-reduce"],
        OpKind::Host | OpKind::Load | OpKind::Join => &[],
    }
}

/// Shares of the critical path by what its operations' costs stand on, idle time left out. An operation of several kernels counts
/// with the weakest of them.
pub(super) fn basis(s: &Ended) -> BTreeMap<&'static str, f64> {
    let kinds = &s.totals.served.breakdown.kinds;
    let mut found: BTreeMap<&'static str, u64> = BTreeMap::new();
    for kind in OpKind::ALL {
        let of = |what: &&str| s.costs.get(what).map_or(Basis::Stated, |words| Basis::of(words));
        let weakest = kernels(kind).iter().map(of).max().unwrap_or(Basis::Stated);
        if kinds[kind as usize] > 0 {
            *found.entry(weakest.name()).or_default() += kinds[kind as usize];
        }
    }
    let whole = found.values().sum::<u64>().max(1) as f64;
    found.into_iter().map(|(name, time)| (name, time as f64 / whole)).collect()
}

/// Critical path that may stand on costs without an error, as a part, before there is no error of the whole.
const UNKNOWN: f64 = 0.01;

/// The sum over operations of their share of the critical path times the error of their cost's kernel: of several kernels
/// the largest error, streams beside other kernels left out. What the hardware's file states has none.
///
/// # Errors
/// More of the path than [`UNKNOWN`] stands on costs whose error nobody measured.
pub(super) fn cost_error(s: &Ended) -> Result<f64, &'static str> {
    let kinds = &s.totals.served.breakdown.kinds;
    let whole = kinds.iter().sum::<u64>().max(1) as f64;
    let (mut sum, mut unknown) = (0.0, 0.0);
    for kind in OpKind::ALL {
        let share = kinds[kind as usize] as f64 / whole;
        let used = kernels(kind).iter().filter(|what| **what != "stream" || kind == OpKind::Embed);
        let is_stated = |what: &&&str| s.costs.get(**what).is_none_or(|words| Basis::of(words) == Basis::Stated);
        let errors: Option<Vec<f64>> = used.filter(|w| !is_stated(w)).map(|w| s.errors.get(w).copied()).collect();
        match errors {
            Some(errors) => sum += share * errors.into_iter().fold(0.0, f64::max),
            None => unknown += share,
        }
    }
    if unknown > UNKNOWN {
        return Err("over 1 % of the critical path stands on rooflines, or on kernels whose error nobody measured");
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment;
    use crate::metrics::tables::Tables;
    use crate::registry::Registry;
    use crate::simulation::{Simulation, open_trace};

    fn of(set: &[&str]) -> (BTreeMap<&'static str, f64>, Result<f64, &'static str>) {
        let small = ["workload.arrivals.requests=4", "workload.arrivals.concurrency=2", "workload.routing.sequences=2"];
        let set: Vec<String> = small.iter().chain(set).map(|s| (*s).to_string()).collect();
        let resolved = experiment::load("quickstart", &set).unwrap();
        let mut s =
            Simulation::new(&resolved, &Registry::builtin(), || open_trace(&resolved), Tables::default()).unwrap();
        s.run(&mut |_| true).unwrap();
        (basis(&s.ended()), cost_error(&s.ended()))
    }

    #[test]
    fn words_say_the_basis() {
        for (words, basis) in [
            ("roofline with assumed fractions", Basis::Roofline),
            ("profile h100-sxm: fa3 bfloat16 (mean error 5.0 % on what was left out; data 1)", Basis::Measured),
            ("profile h800-sxm: mla bfloat16 (error; data 1, donor: measured on H800)", Basis::Donor),
            ("profile h100-sxm: x fp8 (error; data 1, used in another precision)", Basis::Donor),
            ("bytes over the links' achievable rates", Basis::Stated),
        ] {
            assert_eq!(Basis::of(words), basis, "{words}");
        }
    }

    #[test]
    fn shares_sum_to_one_and_rooflines_put_all_on_one_basis() {
        let (calibrated, error) = of(&[]);
        assert!((calibrated.values().sum::<f64>() - 1.0).abs() < 1e-12, "{calibrated:?}");
        assert!(calibrated.contains_key("measured"), "{calibrated:?}");
        assert!(error.is_ok_and(|e| e > 0.0 && e < 0.5), "{error:?}");
        let (roofline, error) = of(&["fidelity.costs=roofline"]);
        assert!(error.is_err_and(|why| why.contains("rooflines")));
        assert_eq!(roofline.keys().copied().collect::<Vec<_>>(), ["roofline", "stated"]);
    }
}
