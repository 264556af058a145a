//! Series of experts' times that are far slower than another kernel's at the same load: a tactic chosen badly, not the
//! kernel.

use super::Group;
use crate::form::MoeRow;
use std::collections::BTreeMap;

/// How the note of a family begins that is slow as a whole.
pub const SLOW_THROUGHOUT: &str = "slow throughout";
/// How many times the fastest other kernel's time is slow.
const SLOW: f64 = 2.0;
/// Tokens at which kernels are compared: there all of them are bound by the weights.
const TOKENS: std::ops::RangeInclusive<f64> = 32.0..=512.0;

/// A series: shape and cell.
type Series = (u32, u32);

/// Leaves out, by name, every series whose median ratio to the fastest other kernel of its device and precision is
/// above two at 32 to 512 tokens. A family most of whose series are so is slow as a whole: it stays as it is, and says
/// so.
pub fn leave_out_slow(groups: &mut [Group<MoeRow>]) {
    let found: Vec<(Vec<Series>, usize)> = (0..groups.len()).map(|g| slow(groups, g)).collect();
    for (group, (slow, compared)) in groups.iter_mut().zip(found).filter(|(_, (slow, _))| !slow.is_empty()) {
        let what = format!(
            "{} of {compared} series take more than twice the fastest other kernel at 32 to 512 tokens",
            slow.len()
        );
        if 2 * slow.len() > compared {
            group.notes.push(format!("{SLOW_THROUGHOUT}: {what}; kept"));
            continue;
        }
        let name =
            |(shape, cell): &Series| format!("{}, {}", group.shapes[*shape as usize], group.cells[*cell as usize]);
        let names: Vec<String> = slow.iter().map(name).collect();
        let keep: Vec<bool> = group.shape.iter().zip(&group.cell).map(|(s, c)| !slow.contains(&(*s, *c))).collect();
        group.retain(|i| keep[i]);
        group.notes.push(format!("{what}; left out: {}", names.join("; ")));
    }
}

/// The slow series of a group, in order, and how many could be compared.
fn slow(groups: &[Group<MoeRow>], of: usize) -> (Vec<Series>, usize) {
    type Key<'a> = (&'a str, &'a str, u64);
    let key = |g: &Group<MoeRow>, i: usize| -> (u32, u32, u64) { (g.shape[i], g.cell[i], g.size[i].to_bits()) };
    let own = &groups[of];
    let mut fastest: BTreeMap<Key, f64> = BTreeMap::new();
    let alike = |g: &Group<MoeRow>| g.device == own.device && g.precision == own.precision;
    for other in groups.iter().enumerate().filter(|(at, g)| *at != of && alike(g)).map(|(_, g)| g) {
        for i in (0..other.rows.len()).filter(|i| TOKENS.contains(&other.size[*i])) {
            let (shape, cell, size) = key(other, i);
            let name = (other.shapes[shape as usize].as_str(), other.cells[cell as usize].as_str(), size);
            let best = fastest.entry(name).or_insert(f64::INFINITY);
            *best = best.min(other.seconds[i]);
        }
    }
    let mut ratios: BTreeMap<Series, Vec<f64>> = BTreeMap::new();
    for i in 0..own.rows.len() {
        let (shape, cell, size) = key(own, i);
        let name = (own.shapes[shape as usize].as_str(), own.cells[cell as usize].as_str(), size);
        if let Some(best) = fastest.get(&name) {
            ratios.entry((shape, cell)).or_default().push(own.seconds[i] / best);
        }
    }
    let compared = ratios.len();
    let median = |mut r: Vec<f64>| {
        r.sort_by(f64::total_cmp);
        r[r.len() / 2]
    };
    let slow = ratios.into_iter().filter_map(|(series, r)| (median(r) > SLOW).then_some(series)).collect();
    (slow, compared)
}
