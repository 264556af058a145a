//! Single rows of attention that their neighbours contradict.

use super::Group;
use crate::form::AttentionRow;

/// How many robust standard deviations a row may be off.
const LIMIT: f64 = 20.0;
/// Rows that are dropped at most.
const MOST: usize = 32;
/// Least standard deviation of a logarithm, where rows lie on a line.
const LEAST: f64 = 1e-4;

/// Drops measurements of decode that went wrong, and says which in the group's notes.
///
/// A series is one set of heads at one batch size, by length of keys. A row's deviation is `ln t` minus the
/// interpolation between its neighbours, linear in `ln length`; at the short end, by how much it exceeds the next
/// longer row, which it may not; at the long end none. The standard deviation is 1.4826 times the median distance from
/// the median, over all rows once. The row that deviates most goes if it is off by more than 20 of them, and its
/// neighbours are judged anew. Rows of more than one class are passed over.
pub fn drop_outliers(group: &mut Group<AttentionRow>) {
    type Series = [u64; 4];
    let point = |(i, row): (usize, &AttentionRow)| {
        let [class] = row.classes[..] else { return None };
        let series: Series = [row.heads.query, row.heads.kv, class.sequences, class.tokens];
        Some((series, class.keys, i))
    };
    let mut live: Vec<(Series, u64, usize)> = group.rows.iter().enumerate().filter_map(point).collect();
    live.sort_unstable();
    let mut sigma = None;
    let mut dropped = Vec::new();
    while dropped.len() < MOST {
        let off = deviations(&live, &group.seconds);
        let sigma = *sigma.get_or_insert_with(|| spread(off.iter().flatten().copied().collect()));
        let far = |i: &usize| off[*i].map_or(0.0, f64::abs);
        let Some(worst) = (0..live.len()).max_by(|a, b| far(a).total_cmp(&far(b)).then(b.cmp(a))) else { break };
        if far(&worst) <= LIMIT * sigma {
            break;
        }
        let (series, keys, row) = live.remove(worst);
        dropped.push(row);
        group.notes.push(format!(
            "left out as an outlier: heads {}-{} batch {} keys {keys}, {:.1} us, {:.0} standard deviations off its neighbours",
            series[0],
            series[1],
            series[2],
            group.seconds[row] * 1e6,
            far(&worst).min(1e6) / sigma,
        ));
    }
    group.retain(|i| !dropped.contains(&i));
}

/// Deviation of every row from its neighbours, where it has some.
fn deviations(live: &[([u64; 4], u64, usize)], seconds: &[f64]) -> Vec<Option<f64>> {
    let one = |at: usize| {
        let (series, _, row) = live[at];
        let near = |at: usize| live.get(at).filter(|p| p.0 == series);
        let time = |p: &([u64; 4], u64, usize)| libm::log(seconds[p.2]);
        let (before, after) = (at.checked_sub(1).and_then(near), near(at + 1)?);
        let t = libm::log(seconds[row]);
        let Some(before) = before else { return Some((t - time(after)).max(0.0)) };
        let [x, here, y] = [before.1, live[at].1, after.1].map(|keys| libm::log(keys.max(1) as f64));
        let part = if y > x { (here - x) / (y - x) } else { 0.5 };
        Some(t - time(before) * (1.0 - part) - time(after) * part)
    };
    (0..live.len()).map(one).collect()
}

/// A standard deviation that few wild values do not move.
fn spread(mut off: Vec<f64>) -> f64 {
    let middle = |list: &mut [f64]| {
        list.sort_by(f64::total_cmp);
        let n = list.len();
        if n == 0 { 0.0 } else { (list[(n - 1) / 2] + list[n / 2]) / 2.0 }
    };
    let median = middle(&mut off);
    let mut far: Vec<f64> = off.iter().map(|d| (d - median).abs()).collect();
    (1.4826 * middle(&mut far)).max(LEAST)
}
