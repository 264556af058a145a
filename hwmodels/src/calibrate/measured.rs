//! Measurements of one kernel, whatever its form: how they are fitted, and how a profile's kernel is compared with
//! them.

use super::cross::{self, Cell, Errors};
use super::data::{Group, attention_heads, moe, tiling};
use super::profile::{Beyond, Data, DataFile, Fitted, FormName, Kernel, KernelForm, Op, TimeTable};
use crate::form::{
    AttentionForm, AttentionRow, CollectiveForm, CollectiveRow, CustomAllReduceForm, Form, FusedExchangeForm,
    FusedExchangeRow, FusedMoeForm, GemmForm, GemmKernel, GemmPairForm, GemmRow, LowLatencyForm, LowLatencyRow, MoeRow,
    NormalForm, NormalRow, StreamForm, StreamRow, StreamedForm, StreamedLoad, StreamedRow,
};
use moesim_core::Result;
use std::collections::{BTreeSet, HashMap};

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

/// A row beside what a kernel says of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Compared {
    /// The kernel family.
    pub family: String,
    /// Its precision.
    pub precision: String,
    /// The cell that its errors are counted in.
    pub cell: String,
    /// The shape, written out.
    pub shape: String,
    /// What makes it large: new tokens, bytes of a collective, devices of a fused exchange.
    pub size: f64,
    /// Measured seconds.
    pub measured_s: f64,
    /// Predicted seconds.
    pub predicted_s: f64,
    /// Seconds of a bare roofline.
    pub roofline_s: f64,
    /// The largest term of the prediction.
    pub bound: &'static str,
    /// Operations.
    pub flop: f64,
    /// Bytes to and from memory, or over links.
    pub bytes: f64,
    /// Whether its size is outside those of the profile's measurements.
    pub extrapolated: bool,
}

/// What a profile's kernel says of all rows.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Row by row.
    pub rows: Vec<Compared>,
    /// Errors by cell.
    pub cells: Vec<Cell>,
}

/// Measurements of a kernel.
pub trait Measured {
    /// What the kernel does.
    fn op(&self) -> Op;
    /// In which form.
    fn form(&self) -> FormName;
    /// The device, the family and the precision, as the file names them.
    fn names(&self) -> [&str; 3];
    /// Rows.
    fn rows(&self) -> usize;
    /// What the reader assumed, and which rows were left out.
    fn notes(&self) -> &[String];
    /// What each row asks for, for rows of several kernels to be told alike, and its measured seconds.
    fn times(&self) -> Vec<(String, f64)>;
    /// Fits the constants.
    fn fit(&self, from: &Source) -> Kernel;
    /// The measured times as a table, if the operation has tables.
    fn table(&self, from: &Source) -> Option<TimeTable>;
    /// Compares a table: rows that it has no time for are left out.
    fn compare_table(&self, table: &TimeTable) -> Comparison;
    /// Compares a kernel of the same form; `None` if it has another.
    ///
    /// # Errors
    /// Constants that are not sensible.
    fn compare(&self, kernel: &Kernel) -> Result<Option<Comparison>>;
}

/// A form that can be had from a kernel of a profile.
pub trait OfKernel: Form + Sized {
    /// Whether families may be for some heads alone.
    const HEADS: bool = false;
    /// The form with the kernel's choices, if it is of this form.
    fn of(form: &KernelForm) -> Option<Self>;
    /// A row as a kernel takes it, where what a row comes to is the kernel's choice.
    fn taken(_form: &KernelForm, row: &Self::Row) -> Self::Row {
        row.clone()
    }
    /// A row as a processor's kernel would take it, for which [`StreamedForm`] has the time: rows of experts are their
    /// mean.
    fn streamed(_row: &Self::Row, _few: u32) -> Option<StreamedRow> {
        None
    }
    /// A row's shape, and its size within it, as tables have them.
    fn tabled(_row: &Self::Row) -> Option<(Vec<u64>, f64)> {
        None
    }
}

/// Measurements of a kernel whose form is `F`.
pub struct Series<F: Form> {
    form: F,
    op: Op,
    choices: KernelForm,
    group: Group<F::Row>,
    /// What is left out together when errors on unseen rows are asked for.
    folds: &'static str,
    /// What counts devices or nodes, and its name: errors are also those of fits without the largest number, and
    /// without every other size.
    count: Option<Count<F::Row>>,
    /// The same rows as a more common form has them, for kernels of that form.
    other: Option<Box<dyn Measured>>,
}

/// How many a row has of something, and what that is.
type Count<R> = (fn(&R) -> f64, &'static str);

impl<F: OfKernel> Measured for Series<F> {
    fn op(&self) -> Op {
        self.op
    }
    fn form(&self) -> FormName {
        self.choices.name()
    }
    fn names(&self) -> [&str; 3] {
        [&self.group.device, &self.group.family, &self.group.precision]
    }
    fn rows(&self) -> usize {
        self.group.rows.len()
    }
    fn notes(&self) -> &[String] {
        &self.group.notes
    }
    fn times(&self) -> Vec<(String, f64)> {
        let g = &self.group;
        let one = |i: usize| {
            let (shape, cell) = (&g.shapes[g.shape[i] as usize], &g.cells[g.cell[i] as usize]);
            (format!("{shape}/{cell}/{}/{:?}", g.size[i], self.form.features(&g.rows[i])), g.seconds[i])
        };
        (0..g.rows.len()).map(one).collect()
    }
    fn table(&self, from: &Source) -> Option<TimeTable> {
        let g = &self.group;
        let balanced = |i: &usize| !g.cells[g.cell[*i] as usize].starts_with("power law");
        let rows = (0..g.rows.len()).filter(balanced).map(|i| {
            let (of, rows) = F::tabled(&g.rows[i])?;
            Some((of, rows, g.seconds[i]))
        });
        let rows: Vec<_> = rows.collect::<Option<Vec<_>>>().filter(|r| !r.is_empty())?;
        Some(TimeTable::new(self.op, [&g.family, &g.precision], &g.versions, self.data(from), rows))
    }
    fn compare_table(&self, table: &TimeTable) -> Comparison {
        let seconds = |row: &F::Row| F::tabled(row).and_then(|(of, rows)| table.at(&of, rows));
        let rows = (0..self.rows())
            .filter_map(|i| Some(self.compared(&self.form, i, seconds(&self.group.rows[i])?, "table", false)));
        Comparison { rows: rows.collect(), cells: Vec::new() }
    }
    fn fit(&self, from: &Source) -> Kernel {
        let form = &self.form;
        let sample = cross::sampled(&self.group);
        let group = sample.as_ref().unwrap_or(&self.group);
        let mut notes = group.notes.clone();
        if sample.is_some() {
            notes.push(format!("fitted to a sample of {} of {} rows", group.rows.len(), self.group.rows.len()));
        }
        let solution = cross::fit(form, &group.rows, &group.seconds);
        let constants = Fitted::all(&form.constants(), &solution);
        // Errors are those of the constants as they are written.
        let values: Vec<f64> = form.constants().iter().map(|c| constants[c.name].value).collect();
        let left_out = if from.cross { cross::leave_shapes_out(form, group, &values) } else { None };
        let mut beyond = Vec::new();
        if let Some((count, what)) = self.count.filter(|_| from.cross) {
            let odd = cross::every_other_size(group);
            beyond.extend(
                cross::leave_out(form, group, |i| odd[i])
                    .map(|errors| Beyond { without: "every other size".into(), errors }),
            );
            let most = cross::largest(group, count);
            let number = group.rows.iter().map(count).fold(0.0, f64::max);
            let without = format!("{number} {what}");
            beyond.extend(cross::leave_out(form, group, |i| most[i]).map(|errors| Beyond { without, errors }));
        }
        let (groups, widths) = if F::HEADS { attention_heads(&group.family) } else { Default::default() };
        Kernel {
            op: self.op,
            form: self.choices.clone(),
            groups,
            widths,
            family: group.family.clone(),
            precision: group.precision.clone(),
            versions: group.versions.clone(),
            notes,
            data: self.data(from),
            folds: left_out.is_some().then(|| self.folds.to_string()),
            constants,
            cell: cross::cells(form, group, &values, left_out.as_deref(), Some(&self.group)),
            beyond,
        }
    }
    fn compare(&self, kernel: &Kernel) -> Result<Option<Comparison>> {
        let (g, values, [least, most]) = (&self.group, kernel.values()?, kernel.data.sizes);
        let beyond = |i: usize| g.size[i] < least || g.size[i] > most;
        let other_rows = match (kernel.form(), &self.choices) {
            // Rows are split where the kernel that ran them does: one that does elsewhere takes them as another's.
            (KernelForm::Streamed { .. }, own) => kernel.form() != own,
            // Latent keys that are expanded to every head, or are not, are other work.
            (KernelForm::Attention { kernel: other }, KernelForm::Attention { kernel: own }) => {
                self.op == Op::LatentPrefillAttention && other.pack != own.pack
            }
            _ => false,
        };
        if let Some(form) = F::of(kernel.form()).filter(|_| !other_rows) {
            let rows = g.rows.iter().map(|row| F::taken(kernel.form(), row)).collect();
            let taken = Group { rows, ..g.clone() };
            let one = |(i, row): (usize, &F::Row)| {
                self.compared(&form, i, form.seconds(&values, row), form.bound(&values, row), beyond(i))
            };
            let rows = taken.rows.iter().enumerate().map(one).collect();
            return Ok(Some(Comparison { rows, cells: cross::cells(&form, &taken, &values, None, None) }));
        }
        if let Some(other) = &self.other {
            return other.compare(kernel);
        }
        let KernelForm::Streamed { few } = kernel.form() else { return Ok(None) };
        let one = |(i, row): (usize, &F::Row)| {
            let row = F::streamed(row, *few)?;
            let (seconds, bound) = (StreamedForm.seconds(&values, &row), StreamedForm.bound(&values, &row));
            Some(self.compared(&self.form, i, seconds, bound, beyond(i)))
        };
        let rows: Option<Vec<_>> = g.rows.iter().enumerate().map(one).collect();
        Ok(rows.map(|rows| Comparison { rows, cells: Vec::new() }))
    }
}

impl<F: OfKernel> Series<F> {
    fn data(&self, from: &Source) -> Data {
        let group = &self.group;
        let sizes = group.size.iter().fold([f64::INFINITY, 0.0f64], |[l, m], s| [l.min(*s), m.max(*s)]);
        Data {
            file: from.files.to_vec(),
            source: from.source.map(str::to_string),
            rows: group.rows.len(),
            shapes: group.shape.iter().collect::<BTreeSet<_>>().len(),
            sizes,
        }
    }

    fn compared(&self, form: &F, i: usize, predicted_s: f64, bound: &'static str, extrapolated: bool) -> Compared {
        let (g, row) = (&self.group, &self.group.rows[i]);
        let [flop, bytes] = form.amounts(row);
        Compared {
            family: g.family.clone(),
            precision: g.precision.clone(),
            cell: g.cells[g.cell[i] as usize].clone(),
            shape: g.shapes[g.shape[i] as usize].clone(),
            size: g.size[i],
            measured_s: g.seconds[i],
            predicted_s,
            roofline_s: form.roofline(row),
            bound,
            flop,
            bytes,
            extrapolated,
        }
    }
}

/// Puts the fastest kernel of every operation and precision first, which is what a run takes unless it is told: by the
/// geometric mean, over rows that others were measured at too, of its time over the least. Kernels with less than a
/// quarter of the rows of the one with the most come after the others; among equals goes first what was compared on
/// more rows.
pub fn fastest_first(all: Vec<Box<dyn Measured>>) -> Vec<Box<dyn Measured>> {
    const PART: usize = 4;
    let names: Vec<(Op, String)> = all.iter().map(|m| (m.op(), m.names()[2].to_string())).collect();
    let first = |name: &(Op, String)| names.iter().position(|n| n == name).unwrap_or(names.len());
    let times: Vec<Vec<(String, f64)>> = all.iter().map(|m| m.times()).collect();
    let mut least: HashMap<(usize, &str), (f64, usize)> = HashMap::new();
    for (at, (name, times)) in names.iter().zip(&times).enumerate() {
        for (row, seconds) in times {
            // The least time, and a kernel that has the row: another's number where several have.
            let here = least.entry((first(name), row)).or_insert((f64::INFINITY, at));
            *here = (here.0.min(*seconds), if here.1 == at { at } else { usize::MAX });
        }
    }
    let score = |at: usize| {
        let of = first(&names[at]);
        let shared = times[at].iter().filter_map(|(row, seconds)| {
            let (best, who) = least[&(of, row.as_str())];
            (who == usize::MAX).then(|| libm::log(seconds / best))
        });
        let (sum, rows) = shared.fold((0.0, 0u32), |(sum, rows), x| (sum + x, rows + 1));
        let most = (0..names.len()).filter(|i| names[*i] == names[at]).map(|i| times[i].len()).max().unwrap_or(0);
        let mean = if rows == 0 { f64::INFINITY } else { sum / f64::from(rows) };
        (of, PART * times[at].len() < most, mean, std::cmp::Reverse(rows))
    };
    let scores: Vec<_> = (0..all.len()).map(score).collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|a, b| {
        let ((of, few, mean, rows), (of2, few2, mean2, rows2)) = (scores[*a], scores[*b]);
        (of, few).cmp(&(of2, few2)).then(mean.total_cmp(&mean2)).then(rows.cmp(&rows2))
    });
    let mut all: Vec<Option<Box<dyn Measured>>> = all.into_iter().map(Some).collect();
    order.into_iter().filter_map(|at| all[at].take()).collect()
}

impl Comparison {
    /// Errors of the rows for which `keep` holds; none without any.
    pub fn errors(&self, keep: impl Fn(&Compared) -> bool) -> Option<Errors> {
        Errors::of(self.rows.iter().filter(|r| keep(r)).map(|r| (r.predicted_s / r.measured_s - 1.0).abs()).collect())
    }
}

impl OfKernel for FusedMoeForm {
    fn of(form: &KernelForm) -> Option<Self> {
        match form {
            KernelForm::FusedMoe { tiling, .. } => Some(Self { tiling: *tiling }),
            _ => None,
        }
    }
    fn streamed(row: &MoeRow, few: u32) -> Option<StreamedRow> {
        let MoeRow { load: l, shape: s, peaks } = row;
        let load = StreamedLoad::even(l.active, l.rows, few);
        let widths = [s.hidden, s.intermediate, s.first, s.experts];
        Some(StreamedRow::experts(load, l.tokens, widths, s.weight_bytes, *peaks))
    }
    fn tabled(row: &MoeRow) -> Option<(Vec<u64>, f64)> {
        let s = &row.shape;
        Some(([s.hidden, s.intermediate, s.first, s.experts].map(|x| x as u64).to_vec(), row.load.rows))
    }
}

impl OfKernel for GemmForm {
    fn of(form: &KernelForm) -> Option<Self> {
        match form {
            KernelForm::Gemm { warm, kernel } => Some(Self { warm: *warm, kernel: *kernel }),
            _ => None,
        }
    }
    fn streamed(row: &GemmRow, few: u32) -> Option<StreamedRow> {
        let dense = StreamedRow::dense(row.load.rows, [row.n, row.k], row.element_bytes[1], few, row.peaks);
        (row.load.groups == 1.0).then_some(dense)
    }
    fn tabled(row: &GemmRow) -> Option<(Vec<u64>, f64)> {
        (row.load.groups == 1.0).then(|| (vec![row.n as u64, row.k as u64], row.load.rows))
    }
}

impl OfKernel for StreamedForm {
    fn of(form: &KernelForm) -> Option<Self> {
        (form.name() == FormName::Streamed).then_some(Self)
    }
    fn tabled(row: &StreamedRow) -> Option<(Vec<u64>, f64)> {
        let ([[n, k], [hidden, inner]], rows) = (row.products, row.load.rows[0] + row.load.rows[1]);
        let of = if row.experts > 0.0 { vec![hidden, inner, n / inner, row.experts] } else { vec![n, k] };
        Some((of.into_iter().map(|x| x as u64).collect(), rows))
    }
}

impl OfKernel for GemmPairForm {
    fn of(form: &KernelForm) -> Option<Self> {
        match form {
            KernelForm::GemmPair { kernel } => Some(Self { kernel: *kernel }),
            _ => None,
        }
    }
}

impl OfKernel for AttentionForm {
    const HEADS: bool = true;
    fn of(form: &KernelForm) -> Option<Self> {
        (form.name() == FormName::Attention).then_some(Self)
    }
    fn taken(form: &KernelForm, row: &AttentionRow) -> AttentionRow {
        match form {
            KernelForm::Attention { kernel } => row.clone().under(*kernel),
            _ => row.clone(),
        }
    }
}

macro_rules! of_kernel {
    ($($form:ident $name:ident),*) => {
        $(impl OfKernel for $form {
            fn of(form: &KernelForm) -> Option<Self> {
                (form.name() == FormName::$name).then_some(Self)
            }
        })*
    };
}

of_kernel! {
    StreamForm Stream, CollectiveForm Collective, LowLatencyForm LowLatency,
    NormalForm Normal, FusedExchangeForm FusedExchange, CustomAllReduceForm CustomAllReduce
}

/// A fused MoE family.
pub fn fused_moe(group: Group<MoeRow>) -> Box<dyn Measured> {
    let tiling = tiling(&group.family, group.versions.first().map_or("", |v| v), &group.precision);
    let tuned = moe::tuned_shapes(&group.device, &group.precision, tiling).to_vec();
    let choices = KernelForm::FusedMoe { tiling, tuned };
    Box::new(Series {
        form: FusedMoeForm { tiling },
        op: Op::Experts,
        choices,
        group,
        folds: "each shape",
        count: None,
        other: None,
    })
}

/// GEMMs of one kernel, dense or grouped.
pub fn gemm(op: Op, form: GemmForm, group: Group<GemmRow>, folds: &'static str) -> Box<dyn Measured> {
    let choices = KernelForm::Gemm { warm: form.warm, kernel: form.kernel };
    Box::new(Series { form, op, choices, group, folds, count: None, other: None })
}

/// Both grouped GEMMs of experts by one kernel, timed as one.
pub fn pair(kernel: GemmKernel, group: Group<[GemmRow; 2]>, folds: &'static str) -> Box<dyn Measured> {
    let (form, choices) = (GemmPairForm { kernel }, KernelForm::GemmPair { kernel });
    Box::new(Series { form, op: Op::Experts, choices, group, folds, count: None, other: None })
}

/// Products on processors: experts, or a dense one; `other` has the same rows as kernels of devices would be fitted to
/// them.
pub fn streamed(op: Op, few: u32, group: Group<StreamedRow>, other: Box<dyn Measured>) -> Box<dyn Measured> {
    let folds = if op == Op::Experts { "each shape" } else { "each (n, k)" };
    let (choices, other) = (KernelForm::Streamed { few }, Some(other));
    Box::new(Series { form: StreamedForm, op, choices, group, folds, count: None, other })
}

/// Attention of one kernel.
pub fn attention(op: Op, group: Group<AttentionRow>, folds: &'static str) -> Option<Box<dyn Measured>> {
    let choices = KernelForm::Attention { kernel: group.rows.first()?.kernel };
    Some(Box::new(Series { form: AttentionForm, op, choices, group, folds, count: None, other: None }))
}

/// A layer that streams.
pub fn stream(group: Group<StreamRow>) -> Box<dyn Measured> {
    let (form, choices) = (StreamForm, KernelForm::Stream);
    Box::new(Series { form, op: Op::Stream, choices, group, folds: "each shape", count: None, other: None })
}

/// A collective.
pub fn collective(op: Op, group: Group<CollectiveRow>) -> Box<dyn Measured> {
    let count: Count<CollectiveRow> = (|r| r.devices, "devices");
    let (form, choices, folds) = (CollectiveForm, KernelForm::Collective, "each number of devices");
    Box::new(Series { form, op, choices, group, folds, count: Some(count), other: None })
}

/// An all-reduce of an inference engine's own.
pub fn custom_all_reduce(group: Group<CollectiveRow>) -> Box<dyn Measured> {
    let count: Count<CollectiveRow> = (|r| r.devices, "devices");
    let (form, choices, folds) = (CustomAllReduceForm, KernelForm::CustomAllReduce, "each number of devices");
    Box::new(Series { form, op: Op::AllReduce, choices, group, folds, count: Some(count), other: None })
}

/// An exchange for low latency.
pub fn low_latency(op: Op, group: Group<LowLatencyRow>) -> Box<dyn Measured> {
    let count: Count<LowLatencyRow> = (|r| r.nodes, "nodes");
    let (form, choices, folds) = (LowLatencyForm, KernelForm::LowLatency, "each number of nodes and model");
    Box::new(Series { form, op, choices, group, folds, count: Some(count), other: None })
}

/// An exchange for throughput.
pub fn normal(op: Op, group: Group<NormalRow>) -> Box<dyn Measured> {
    let units = group.rows.iter().fold([u64::MAX, 0], |[l, m], r| [l.min(r.units as u64), m.max(r.units as u64)]);
    let count: Count<NormalRow> = (|r| r.nodes, "nodes");
    let (form, choices, folds) = (NormalForm, KernelForm::Normal { units }, "each number of nodes and model");
    Box::new(Series { form, op, choices, group, folds, count: Some(count), other: None })
}

/// A fused exchange.
pub fn fused_exchange(op: Op, group: Group<FusedExchangeRow>) -> Box<dyn Measured> {
    let (form, choices, folds) = (FusedExchangeForm, KernelForm::FusedExchange, "each number of devices");
    Box::new(Series { form, op, choices, group, folds, count: None, other: None })
}
