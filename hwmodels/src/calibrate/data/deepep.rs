//! DeepEP's dispatch and combine with aiconfigurator's columns, for low latency and for throughput.

use super::nccl::LinksOf;
use super::{Group, Label, MeasurementTable, group};
use crate::form::{Exchange, ExchangeOp, LowLatencyRow, NormalRow};
use moesim_core::Result;

/// Devices of a node in these tables.
const DEVICES: f64 = 8.0;
const OPS: [(&str, ExchangeOp); 2] = [("dispatch", ExchangeOp::Dispatch), ("combine", ExchangeOp::Combine)];

/// Columns that both tables have.
struct Columns {
    device: usize,
    version: Option<usize>,
    nodes: usize,
    hidden: usize,
    tokens: usize,
    top_k: usize,
    experts: usize,
}

impl Columns {
    fn of(table: &MeasurementTable) -> Result<Self> {
        let c = |name: &str| table.column(name);
        Ok(Self {
            device: c("device")?,
            version: table.find("version"),
            nodes: c("node_num")?,
            hidden: c("hidden_size")?,
            tokens: c("num_token")?,
            top_k: c("num_topk")?,
            experts: c("num_experts")?,
        })
    }

    fn exchange(&self, table: &MeasurementTable, row: usize, links: LinksOf) -> Result<Exchange> {
        if table.text(row, self.device).is_empty() {
            let d = table.wrong(row, self.device, "names no device".into());
            return Err(d.cure("write what was measured, as in NVIDIA H100"));
        }
        let whole = |column, most| table.whole(row, column, [1, most]);
        let (nodes, experts) = (whole(self.nodes, 1 << 10)?, whole(self.experts, 1 << 14)?);
        let top_k = whole(self.top_k, 256)?;
        if nodes > 1 && links(table.text(row, self.device))?.nic_bytes_per_s.is_infinite() {
            let problem = format!("{nodes} nodes, and the hardware has no network between nodes");
            let d = table.wrong(row, self.nodes, problem);
            return Err(d.cure("name hardware of several nodes with --hardware, as in h100-2x8"));
        }
        if top_k > experts {
            let problem = format!("top-{top_k} of {experts} experts");
            return Err(table.wrong(row, self.top_k, problem).cure("select at most all experts"));
        }
        Ok(Exchange {
            nodes: nodes as f64,
            devices: DEVICES,
            tokens: whole(self.tokens, 1 << 24)? as f64,
            experts: experts as u32,
            top_k: top_k as u32,
            hidden: whole(self.hidden, 1 << 20)? as f64,
        })
    }

    /// Adds a row: cells are numbers of nodes, folds of leave-out a number of nodes with a model's width, choices and
    /// experts. Sizes are tokens a device.
    fn push<R: Clone>(
        &self,
        table: &MeasurementTable,
        (row, out): (usize, &mut Vec<Group<R>>),
        (family, one): (&str, R),
        x: &Exchange,
        seconds: f64,
    ) {
        let cell = format!("{} nodes", x.nodes);
        let version = self.version.map_or("", |v| table.text(row, v));
        let Exchange { hidden, top_k, experts, .. } = x;
        let shape = format!("{cell}, hidden {hidden} top-{top_k} of {experts}");
        let label = Label { shape: &shape, cell: &cell, size: x.tokens, version };
        group(out, table.text(row, self.device), family, "fp8").push(one, seconds, &label);
    }
}

/// Reads a low-latency table: families `low_latency_dispatch` and `low_latency_combine`. `num_token` is a device's.
/// Where the table prints a bandwidth, in GB/s of 10^9 bytes, messages are those that time times bandwidth gives: some
/// benchmarks mask selections. An empty field is no bandwidth.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number.
pub fn read_low_latency(table: &MeasurementTable, links: LinksOf) -> Result<Vec<Group<LowLatencyRow>>> {
    let columns = Columns::of(table)?;
    let mut times = [(0, None); 2];
    for (at, (name, _)) in times.iter_mut().zip(OPS) {
        *at = (table.column(&format!("{name}_avg_t_us"))?, table.find(&format!("{name}_bandwidth_gbps")));
    }
    let mut out = Vec::new();
    for row in 0..table.rows() {
        let x = columns.exchange(table, row, links)?;
        let peaks = links(table.text(row, columns.device))?;
        for ((name, op), (time, rate)) in OPS.into_iter().zip(times) {
            let seconds = table.micros(row, time)?;
            let all = x.tokens * f64::from(x.top_k);
            let sent = match rate.filter(|rate| !table.text(row, *rate).is_empty()) {
                Some(rate) => table.number(row, rate, [0.0, 1e6])? * 1e9 * seconds / op.message(x.hidden),
                None => all,
            };
            let one = LowLatencyRow::uniform(&x, op, (all - sent).max(0.0), peaks);
            columns.push(table, (row, &mut out), (&format!("low_latency_{name}"), one), &x, seconds);
        }
    }
    Ok(out)
}

/// Reads a throughput table: families `normal_dispatch` and `normal_combine`, of transmission alone. Notification is
/// said in the notes and left out: over eight nodes the table has it at up to 16 ms, which no other measurement of the
/// kernels shows.
///
/// # Errors
/// A column that is lacking, a field that is no sensible number.
pub fn read_normal(table: &MeasurementTable, links: LinksOf) -> Result<Vec<Group<NormalRow>>> {
    let columns = Columns::of(table)?;
    let mut own = [[0; 3]; 2];
    for (at, (name, _)) in own.iter_mut().zip(OPS) {
        *at = [
            table.column(&format!("{name}_sms"))?,
            table.column(&format!("{name}_transmit_us"))?,
            table.column(&format!("{name}_notify_us"))?,
        ];
    }
    let (mut out, mut notified) = (Vec::new(), Vec::new());
    for row in 0..table.rows() {
        let x = columns.exchange(table, row, links)?;
        let peaks = links(table.text(row, columns.device))?;
        for ((name, op), [units, transmit, notify]) in OPS.into_iter().zip(own) {
            let units = table.whole(row, units, [1, 1 << 12])? as f64;
            let one = NormalRow::uniform(&x, op, units, peaks);
            let seconds = table.micros(row, transmit)?;
            let family = format!("normal_{name}");
            columns.push(table, (row, &mut out), (&family, one), &x, seconds);
            let waited = table.number(row, notify, [0.0, 3.6e9])?;
            if waited > 0.0 {
                notified.push((table.text(row, columns.device), family, waited));
            }
        }
    }
    for group in &mut out {
        let of = |n: &&(&str, String, f64)| n.0 == group.device && n.1 == group.family;
        let mut waited: Vec<f64> = notified.iter().filter(of).map(|n| n.2).collect();
        waited.sort_by(f64::total_cmp);
        if let Some(most) = waited.last() {
            let median = waited[waited.len() / 2];
            group.notes.push(format!("notification left out: median {median:.0} us, at most {most:.0} us"));
        }
    }
    Ok(out)
}
