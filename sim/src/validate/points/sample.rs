//! Some of many points, spread over models, devices, frameworks and clients.

use super::Point;
use moesim_core::output::content_hash;
use std::collections::BTreeMap;

/// One of so many points of a sample is half of a pair that says what a long prompt takes.
const PAIRS: usize = 8;

/// Which `n` of `points` are taken, in their order; the same file gives the same ones.
///
/// A quarter are pairs of one server and as many clients with long prompts and with short ones, so that components can be told; the
/// others are single points. Both are ordered by model, device, framework and clients, equals by a hash of what they are, and one is
/// taken in each of so many parts of equal length, so that every group is there in proportion.
pub fn sample(points: &[Point], n: usize) -> Vec<usize> {
    if n >= points.len() {
        return (0..points.len()).collect();
    }
    let mut pairs: Vec<[usize; 2]> = pairs(points);
    pairs.sort_by_cached_key(|p| key(&points[p[0]]));
    let mut taken: Vec<usize> = spread(&pairs, n / PAIRS).into_iter().flatten().collect();
    let mut others: Vec<usize> = (0..points.len()).filter(|i| !taken.contains(i)).collect();
    others.sort_by_cached_key(|i| key(&points[*i]));
    taken.extend(spread(&others, n - taken.len()));
    taken.sort_unstable();
    taken
}

fn key(p: &Point) -> (String, String, String, u32, String) {
    let hash = content_hash(format!("{} {} {}", p.series(), p.conc, p.date).as_bytes());
    (p.model.clone(), p.system.clone(), p.backend.clone(), p.conc, hash)
}

/// Points of one server and as many clients, with long prompts and with short ones.
fn pairs(points: &[Point]) -> Vec<[usize; 2]> {
    let mut servers: BTreeMap<(String, u32), [Option<usize>; 2]> = BTreeMap::new();
    for (i, p) in points.iter().enumerate() {
        for (which, long_or_short) in [p.is_long_prompt(), p.is_short_prompt()].into_iter().enumerate() {
            if long_or_short {
                servers.entry((p.server(), p.conc)).or_default()[which].get_or_insert(i);
            }
        }
    }
    servers.into_values().filter_map(|[long, short]| Some([long?, short?])).collect()
}

/// `n` of `all`, or all of them, at equal distances.
fn spread<T: Copy>(all: &[T], n: usize) -> Vec<T> {
    let n = n.min(all.len());
    (0..n).map(|i| all[(2 * i + 1) * all.len() / (2 * n)]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::point;
    use super::*;
    use std::collections::BTreeSet;

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
        let clients: BTreeSet<u32> = taken.iter().map(|i| points[*i].conc).collect();
        assert!(clients.len() >= 4, "{clients:?}");
        assert_eq!(sample(&points, 100), (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn a_quarter_are_pairs_of_one_server() {
        let mut points = Vec::new();
        for conc in 1..=16 {
            for (isl, osl) in [(1024, 1024), (1024, 8192), (8192, 1024)] {
                points.push(Point { conc, isl, osl, ..point() });
            }
        }
        let taken = sample(&points, 16);
        assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 16);
        let picked: Vec<Point> = taken.iter().map(|i| points[*i].clone()).collect();
        assert!(pairs(&picked).len() >= 2, "{taken:?}");
    }
}
