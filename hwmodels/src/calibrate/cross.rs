//! How far a fit is off on shapes that it has not seen, cell by cell, and what else would have said.

use super::data::Group;
use super::solve::{Constant, Problem, Solution, solve};
use crate::form::Form;
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
pub fn fit<F: Form>(form: &F, rows: &[F::Row], seconds: &[f64]) -> Solution {
    fit_from(form, rows, seconds, None)
}

fn fit_from<F: Form>(form: &F, rows: &[F::Row], seconds: &[f64], start: Option<&[f64]>) -> Solution {
    let constants: Vec<Constant> = form.constants();
    let predict = |c: &[f64], out: &mut [f64]| {
        const CHUNK: usize = 256;
        let each = |(rows, out): (&[F::Row], &mut [f64])| {
            rows.iter().zip(out).for_each(|(row, t)| *t = form.seconds(c, row));
        };
        rows.par_chunks(CHUNK).zip(out.par_chunks_mut(CHUNK)).for_each(each);
    };
    let problem =
        Problem { constants: &constants, measured: seconds, predict: &predict, robust: F::ROBUST, noise: F::ROBUST };
    let start = match start {
        Some(values) => values.iter().zip(&constants).map(|(v, c)| v / c.start).collect(),
        None => vec![1.0; constants.len()],
    };
    solve(&problem, &[start])
}

/// Predictions for every row by fits that have not seen its shape; `None` for a group of one shape. Fits start from
/// `all`, the fit on all rows, which spares most of the way and decides nothing.
pub fn leave_shapes_out<F: Form>(form: &F, group: &Group<F::Row>, all: &[f64]) -> Option<Vec<f64>> {
    if group.shapes.len() < 2 {
        return None;
    }
    let fold = |s: u32| {
        let (rows, seconds) = group.select(|i| group.shape[i] != s);
        fit_from(form, &rows, &seconds, Some(all)).values
    };
    let folds: Vec<Vec<f64>> = (0..group.shapes.len() as u32).into_par_iter().map(fold).collect();
    Some(group.rows.iter().zip(&group.shape).map(|(row, s)| form.seconds(&folds[*s as usize], row)).collect())
}

/// The cells of a group; `left_out` are predictions of [`leave_shapes_out`].
pub fn cells<F: Form>(form: &F, group: &Group<F::Row>, constants: &[f64], left_out: Option<&[f64]>) -> Vec<Cell> {
    let n = group.rows.len();
    let roofline: Vec<f64> = group.rows.iter().map(|r| form.roofline(r)).collect();
    let fitted: Vec<f64> = group.rows.iter().map(|r| form.seconds(constants, r)).collect();
    let (rough, near) = (roughness(group), nearest(form, group, &roofline));
    let cell = |(c, name): (usize, &String)| {
        let own: Vec<usize> = (0..n).filter(|i| group.cell[*i] as usize == c).collect();
        let off = |predicted: &[f64]| {
            Errors::of(own.iter().map(|i| (predicted[*i] / group.seconds[*i] - 1.0).abs()).collect())
        };
        let mut shapes: Vec<u32> = own.iter().map(|i| group.shape[*i]).collect();
        shapes.sort_unstable();
        shapes.dedup();
        let rough: Vec<f64> = own.iter().filter_map(|i| rough[*i]).collect();
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
    group.cells.iter().enumerate().map(cell).collect()
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
