//! Fits of groups of measurements as kernels of a profile.

use super::cross;
use super::data::{Group, moe, tiling};
use super::profile::{Data, DataFile, Fitted, Kernel, KernelForm, Op};
use crate::form::{Form, FusedMoe, MoeRow};

/// Where rows come from, and how they are fitted.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The files.
    pub files: &'a [DataFile],
    /// Origin and licence, if told.
    pub source: Option<&'a str>,
    /// Whether fits that have not seen some of the rows say how far off they are on those.
    pub cross: bool,
}

/// A fused MoE family.
pub fn fused_moe(group: &Group<MoeRow>, from: &Source) -> Kernel {
    let tiling = tiling(&group.family, group.versions.first().map_or("", |v| v), &group.precision);
    let tuned = moe::tuned_shapes(&group.device, &group.precision, tiling).to_vec();
    kernel(&FusedMoe { tiling }, Op::Experts, KernelForm::FusedMoe { tiling, tuned }, group, from)
}

fn kernel<F: Form>(form: &F, op: Op, choices: KernelForm, group: &Group<F::Row>, from: &Source) -> Kernel {
    let solution = cross::fit(form, &group.rows, &group.seconds);
    let constants = Fitted::all(&form.constants(), &solution);
    // Errors are those of the constants as they are written.
    let values: Vec<f64> = form.constants().iter().map(|c| constants[c.name].value).collect();
    let left_out = if from.cross { cross::leave_shapes_out(form, group, &values) } else { None };
    let sizes = group.size.iter().fold([f64::INFINITY, 0.0f64], |[l, m], s| [l.min(*s), m.max(*s)]);
    Kernel {
        op,
        form: choices,
        family: group.family.clone(),
        precision: group.precision.clone(),
        versions: group.versions.clone(),
        notes: group.notes.clone(),
        data: Data {
            file: from.files.to_vec(),
            source: from.source.map(str::to_string),
            rows: group.rows.len(),
            shapes: group.shapes.len(),
            sizes,
        },
        folds: left_out.is_some().then(|| "each shape".to_string()),
        constants,
        cell: cross::cells(form, group, &values, left_out.as_deref()),
        beyond: Vec::new(),
    }
}
