//! How far a fit is off on shapes that it has not seen, cell by cell, and what else would have said.

use super::data::Group;
use super::solve::{FitProblem, FitSolution, solve};
use crate::form::{Constant, Form};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Spread of relative errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Errors {
    /// Rows.
    pub rows: usize,
    /// Mean of |predicted / measured - 1|.
    pub mean: f64,
    /// Its median.
    pub median: f64,
    /// Its 90th percentile.
    pub p90: f64,
}

impl Errors {
    /// Of these |errors|; `None` without any.
    pub fn of(mut errors: Vec<f64>) -> Option<Self> {
        errors.sort_by(f64::total_cmp);
        let n = errors.len();
        let at = |q: f64| errors[((n - 1) as f64 * q).round() as usize];
        (n > 0).then(|| Self { rows: n, mean: errors.iter().sum::<f64>() / n as f64, median: at(0.5), p90: at(0.9) })
    }
}

/// One cell of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Its name.
    pub cell: String,
    /// Shapes in it.
    pub shapes: usize,
    /// Roughness of the data themselves: mean |ln t - interpolation between the two neighbouring sizes of the series|.
    pub roughness: Option<f64>,
    /// Errors on shapes left out of the fit.
    pub left_out: Option<Errors>,
    /// Errors of the fit on all rows.
    pub fitted: Errors,
    /// Errors of a bare roofline.
    pub roofline: Errors,
    /// Errors of the nearest other shape's time, scaled by the ratio of bare rooflines.
    pub nearest: Option<Errors>,
}

/// Fits all rows, from the constants' starts.
pub fn fit<F: Form>(form: &F, rows: &[F::Row], seconds: &[f64]) -> FitSolution {
    fit_from(form, rows, seconds, None)
}

fn fit_from<F: Form>(form: &F, rows: &[F::Row], seconds: &[f64], start: Option<&[f64]>) -> FitSolution {
    let constants: Vec<Constant> = form.constants();
    let predict = |c: &[f64], out: &mut [f64]| {
        const CHUNK: usize = 256;
        let each = |(rows, out): (&[F::Row], &mut [f64])| {
            rows.iter().zip(out).for_each(|(row, t)| *t = form.seconds(c, row));
        };
        rows.par_chunks(CHUNK).zip(out.par_chunks_mut(CHUNK)).for_each(each);
    };
    let problem =
        FitProblem { constants: &constants, measured: seconds, predict: &predict, robust: F::ROBUST, noise: F::ROBUST };
    let starts = match start {
        Some(values) => vec![values.iter().zip(&constants).map(|(v, c)| v / c.start).collect()],
        None => form.starts(),
    };
    solve(&problem, &starts)
}

/// Rows of a group that are fitted at most; of more a sample is, which takes minutes less and says the same.
pub const MOST_ROWS: usize = 2000;
/// Fits without some of the shapes at most: of more shapes every so many are left out together.
pub const MOST_FOLDS: usize = 6;

/// The part of a group's rows that is fitted where it has more than [`MOST_ROWS`], spread evenly over their order by
/// multiples of the golden ratio, which no period of a table's sizes meets; the same for the same rows.
pub fn sampled<R: Clone>(group: &Group<R>) -> Option<Group<R>> {
    let rows = group.rows.len();
    let part = (MOST_ROWS as f64 / rows.max(1) as f64 * 4_294_967_296.0) as u64;
    (rows > MOST_ROWS).then(|| {
        let mut few = group.clone();
        few.retain(|i| u64::from((i as u32).wrapping_mul(0x9e37_79b1)) < part);
        few
    })
}

/// Predictions for every row by fits that have not seen its shape; `None` for a group of one shape. Fits start from
/// `all`, the fit on all rows, which spares most of the way and decides nothing. Beyond [`MOST_FOLDS`] shapes, several
/// are left out at a time.
pub fn leave_shapes_out<F: Form>(form: &F, group: &Group<F::Row>, all: &[f64]) -> Option<Vec<f64>> {
    let folds: Vec<u32> = group.shape.iter().map(|s| s % MOST_FOLDS as u32).collect();
    leave_each_out(form, group, if group.shapes.len() > MOST_FOLDS { &folds } else { &group.shape }, all)
}

/// [`leave_shapes_out`] with folds of one's own: rows of one `fold` are left out together; `None` if there is but one.
pub fn leave_each_out<F: Form>(form: &F, group: &Group<F::Row>, fold: &[u32], all: &[f64]) -> Option<Vec<f64>> {
    let mut names = fold.to_vec();
    names.sort_unstable();
    names.dedup();
    if names.len() < 2 {
        return None;
    }
    let fit = |name: &u32| {
        let (rows, seconds) = group.select(|i| fold[i] != *name);
        fit_from(form, &rows, &seconds, Some(all)).values
    };
    let fits: Vec<Vec<f64>> = names.par_iter().map(fit).collect();
    let own = |name: &u32| &fits[names.partition_point(|n| n < name)];
    Some(group.rows.iter().zip(fold).map(|(row, name)| form.seconds(own(name), row)).collect())
}

/// Errors on the rows that `held` names of a fit on the others, which starts from the form's own starts and has seen
/// nothing else; `None` if either side is empty.
pub fn leave_out<F: Form>(form: &F, group: &Group<F::Row>, held: impl Fn(usize) -> bool) -> Option<Errors> {
    let (rows, seconds) = group.select(|i| !held(i));
    let (left, measured) = group.select(held);
    if rows.is_empty() || left.is_empty() {
        return None;
    }
    let values = fit(form, &rows, &seconds).values;
    Errors::of(left.iter().zip(measured).map(|(row, t)| (form.seconds(&values, row) / t - 1.0).abs()).collect())
}

/// The rows of every other size, the second smallest first: what [`leave_out`] is asked for interpolation in size.
pub fn every_other_size<R>(group: &Group<R>) -> Vec<bool> {
    let mut sizes = group.size.clone();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    group.size.iter().map(|s| sizes.partition_point(|t| t < s) % 2 == 1).collect()
}

/// The rows with the largest `count` (of nodes, of devices): what [`leave_out`] is asked for extrapolation.
pub fn largest<R>(group: &Group<R>, count: impl Fn(&R) -> f64) -> Vec<bool> {
    let most = group.rows.iter().map(&count).fold(0.0, f64::max);
    group.rows.iter().map(|r| count(r) >= most).collect()
}

/// The cells of a group; `left_out` are predictions of [`leave_shapes_out`]. The roughness is that of all rows of a
/// group that was sampled: neighbours of a sample are further apart.
pub fn cells<F: Form>(
    form: &F,
    group: &Group<F::Row>,
    constants: &[f64],
    left_out: Option<&[f64]>,
    whole: Option<&Group<F::Row>>,
) -> Vec<Cell> {
    let n = group.rows.len();
    let roofline: Vec<f64> = group.rows.iter().map(|r| form.roofline(r)).collect();
    let fitted: Vec<f64> = group.rows.iter().map(|r| form.seconds(constants, r)).collect();
    let all = whole.unwrap_or(group);
    let (rough, near) = (roughness(all), nearest(form, group, &roofline));
    let cell = |(c, name): (usize, &String)| {
        let own: Vec<usize> = (0..n).filter(|i| group.cell[*i] as usize == c).collect();
        let off = |predicted: &[f64]| {
            Errors::of(own.iter().map(|i| (predicted[*i] / group.seconds[*i] - 1.0).abs()).collect())
        };
        let mut shapes: Vec<u32> = own.iter().map(|i| group.shape[*i]).collect();
        shapes.sort_unstable();
        shapes.dedup();
        let in_cell = (0..all.rows.len()).filter(|i| all.cell[*i] as usize == c);
        let rough: Vec<f64> = in_cell.filter_map(|i| rough[i]).collect();
        let near = own.iter().filter_map(|i| near[*i].map(|t| (t / group.seconds[*i] - 1.0).abs())).collect();
        Cell {
            cell: name.clone(),
            shapes: shapes.len(),
            roughness: (!rough.is_empty()).then(|| rough.iter().sum::<f64>() / rough.len() as f64),
            left_out: left_out.and_then(off),
            fitted: off(&fitted).unwrap_or_default(),
            roofline: off(&roofline).unwrap_or_default(),
            nearest: Errors::of(near),
        }
    };
    group.cells.iter().enumerate().map(cell).filter(|c| c.fitted.rows > 0).collect()
}

/// |ln t - interpolation| of every row that has a neighbour on either side in its series.
fn roughness<R>(group: &Group<R>) -> Vec<Option<f64>> {
    let mut order: Vec<usize> = (0..group.rows.len()).collect();
    let series = |i: usize| (group.shape[i], group.cell[i]);
    order.sort_by(|a, b| series(*a).cmp(&series(*b)).then(group.size[*a].total_cmp(&group.size[*b])));
    let mut rough = vec![None; group.rows.len()];
    for w in order.windows(3) {
        let [a, i, b] = [w[0], w[1], w[2]];
        let [x, at, y] = [a, i, b].map(|i| libm::log(group.size[i]));
        if series(a) == series(b) && y > x {
            let [ta, t, tb] = [a, i, b].map(|i| libm::log(group.seconds[i]));
            let part = (at - x) / (y - x);
            rough[i] = Some((t - ta * (1.0 - part) - tb * part).abs());
        }
    }
    rough
}

/// For every row the time of the nearest other shape of its cell at the same size, scaled by the ratio of rooflines.
fn nearest<F: Form>(form: &F, group: &Group<F::Row>, roofline: &[f64]) -> Vec<Option<f64>> {
    let features: Vec<[f64; 5]> = group.rows.iter().map(|r| form.features(r)).collect();
    let near = |i: usize| {
        let far = |j: &usize| features[i].iter().zip(&features[*j]).map(|(a, b)| (a - b).abs()).sum::<f64>();
        let same = |j: &usize| {
            group.shape[*j] != group.shape[i] && group.cell[*j] == group.cell[i] && group.size[*j] == group.size[i]
        };
        let others = (0..group.rows.len()).filter(same).map(|j| (far(&j), j));
        let (_, j) = others.min_by(|a, b| a.0.total_cmp(&b.0))?;
        Some(group.seconds[j] * roofline[i] / roofline[j])
    };
    (0..group.rows.len()).into_par_iter().map(near).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::{FusedExchangeForm, FusedExchangeRow, LinkPeaks};

    const UB: LinkPeaks = LinkPeaks { link_bytes_per_s: 135e9, nic_bytes_per_s: 50e9, bytes_per_s: 3.35e12 };

    /// Two constants go through two points: the published latencies at 8 and 256 dies.
    #[test]
    fn two_points_are_met() {
        let row = |devices| FusedExchangeRow { devices, messages: 1024.0, message_bytes: 7680.0, peaks: UB };
        let rows = [row(8.0), row(256.0)];
        let solution = fit(&FusedExchangeForm, &rows, &[116e-6, 152e-6]);
        for (row, wanted) in rows.iter().zip([116e-6, 152e-6]) {
            assert!((FusedExchangeForm.seconds(&solution.values, row) / wanted - 1.0).abs() < 2e-3, "{solution:?}");
        }
    }
}
