//! Some of many points, spread over models, devices, frameworks and clients.

use super::Point;
use moesim_core::output::content_hash;

/// Which `n` of `points` are taken, in their order. Points are ordered by model, device, framework and clients, and equals by a hash of
/// what they are; one is taken in each of `n` parts of equal length, so that every group is there in proportion. The same file gives
/// the same points.
pub fn sample(points: &[Point], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    let key = |i: &usize| {
        let p = &points[*i];
        let hash = content_hash(format!("{} {} {}", p.series(), p.conc, p.date).as_bytes());
        (p.model.clone(), p.system.clone(), p.backend.clone(), p.conc, hash)
    };
    order.sort_by_cached_key(key);
    if n >= order.len() {
        return (0..points.len()).collect();
    }
    let mut taken: Vec<usize> = (0..n).map(|i| order[(2 * i + 1) * order.len() / (2 * n)]).collect();
    taken.sort_unstable();
    taken
}

#[cfg(test)]
mod tests {
    use super::super::tests::point;
    use super::*;

    #[test]
    fn a_sample_has_every_group_in_proportion_and_is_the_same_again() {
        let mut points = Vec::new();
        for (model, many) in [("a", 30), ("b", 10)] {
            for i in 0..many {
                points.push(Point { model: model.into(), conc: 1 << (i % 5), isl: 100 + i, ..point() });
            }
        }
        let taken = sample(&points, 8);
        assert_eq!(taken, sample(&points, 8));
        assert!(taken.is_sorted() && taken.windows(2).all(|w| w[0] != w[1]) && taken.len() == 8);
        let of = |model: &str| taken.iter().filter(|i| points[**i].model == model).count();
        assert_eq!((of("a"), of("b")), (6, 2));
        let clients: std::collections::BTreeSet<u32> = taken.iter().map(|i| points[*i].conc).collect();
        assert!(clients.len() >= 4, "{clients:?}");
        assert_eq!(sample(&points, 100), (0..40).collect::<Vec<_>>());
    }
}
