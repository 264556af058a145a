//! Dispatch and combine of tokens among experts: DeepEP's kernels for low latency and for throughput, CANN's fused
//! ones.
//!
//! What a device sends and receives comes from routing; [`LowLatencyRow::uniform`] and [`NormalRow::uniform`] are the
//! counts that uniform routing would give, which is what the public benchmarks draw. With known routing the busiest
//! device counts.
//!
//! Left out: skew between devices, receive hooks and overlap, routing limited to groups of nodes (count the groups
//! allowed).

use super::{Constant, Form, LinkPeaks, constant_within as constant, four_starts, largest, norm};

/// What is sent of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeOp {
    /// FP8 with a scale of four bytes for every 128 elements.
    Dispatch,
    /// 16 bits.
    Combine,
}

impl ExchangeOp {
    fn bytes(self, hidden: f64) -> f64 {
        match self {
            Self::Dispatch => hidden * (1.0 + 4.0 / 128.0),
            Self::Combine => hidden * 2.0,
        }
    }

    /// Bytes of a message of the low-latency kernels: a dispatched token carries 16 bytes of where it comes from.
    pub fn message(self, hidden: f64) -> f64 {
        self.bytes(hidden) + if self == Self::Dispatch { 16.0 } else { 0.0 }
    }
}

/// Who takes part, and what a device of them starts with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exchange {
    /// Nodes, and devices of each.
    pub nodes: f64,
    /// Devices of a node.
    pub devices: f64,
    /// Tokens a device.
    pub tokens: f64,
    /// Experts in all, evenly over the devices.
    pub experts: u32,
    /// Selections a token.
    pub top_k: u32,
    /// Model width.
    pub hidden: f64,
}

/// Expected number of `units` (equal parts of `experts`) that hold at least one of `k` different experts drawn
/// uniformly: `units (1 - Π (experts - experts / units - i) / (experts - i))`, i < k.
pub fn distinct(units: f64, experts: u32, k: u32) -> f64 {
    let all = f64::from(experts);
    let (others, mut miss) = (all - all / units, 1.0);
    for i in 0..k.min(experts) {
        miss *= (others - f64::from(i)).max(0.0) / (all - f64::from(i));
        if miss == 0.0 {
            break;
        }
    }
    units * (1.0 - miss)
}

/// A call of the low-latency kernels: a message a (token, expert), sent as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowLatencyRow {
    /// Bytes that a device sends inside its node.
    pub link_bytes: f64,
    /// Bytes that it sends to other nodes.
    pub nic_bytes: f64,
    /// Flags that it awaits from other nodes: one an expert and device there.
    pub flags: f64,
    /// Experts of the layer, over all devices.
    pub experts: f64,
    /// Nodes.
    pub nodes: f64,
    /// On which devices.
    pub peaks: LinkPeaks,
}

impl LowLatencyRow {
    /// Counts under uniform routing; `dropped` selections of a device go nowhere (public benchmarks mask some).
    pub fn uniform(x: &Exchange, op: ExchangeOp, dropped: f64, peaks: LinkPeaks) -> Self {
        let all = x.nodes * x.devices;
        let messages = (x.tokens * f64::from(x.top_k) - dropped).max(1.0);
        let message = op.message(x.hidden);
        let away = (all - x.devices) / all;
        Self {
            link_bytes: messages * (x.devices - 1.0) / all * message,
            nic_bytes: messages * away * message,
            flags: f64::from(x.experts) * away,
            experts: f64::from(x.experts),
            nodes: x.nodes,
            peaks,
        }
    }
}

/// The low-latency kernels: `t = t0 + c_x experts + t_r (several nodes) + c_f flags + norm(q, [link, NIC])`. Counts of
/// every expert are sent to all devices, whoever selected it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LowLatencyForm;

const LOW_LATENCY: [Constant; 7] = [
    constant("t0", "launch and barrier inside a node", "s", [1.3e-5, 2e-6, 6e-5, 2.0]),
    constant("t_r", "of the way to another node", "s", [5e-6, 5e-7, 5e-5, 2.0]),
    constant("c_f", "of a flag from another node", "s", [3e-8, 1e-9, 1e-6, 2.0]),
    constant("e_n", "fraction of the link rate, as the device can feed it", "", [0.5, 0.1, 1.0, 2.0]),
    constant("e_r", "fraction of the NIC rate", "", [0.9, 0.3, 1.0, 2.0]),
    constant("q", "overlap of link and NIC: 1 none, large full", "", [3.0, 1.0, 12.0, 2.0]),
    constant("c_x", "of an expert: its count, sent and awaited", "s", [1e-8, 1e-10, 2e-7, 2.0]),
];

impl Form for LowLatencyForm {
    type Row = LowLatencyRow;
    const ROBUST: f64 = 0.10;

    fn constants(&self) -> Vec<Constant> {
        LOW_LATENCY.to_vec()
    }

    fn starts(&self) -> Vec<Vec<f64>> {
        four_starts(LOW_LATENCY.len())
    }

    fn seconds(&self, constants: &[f64], row: &LowLatencyRow) -> f64 {
        let [t0, t_r, c_f, e_n, e_r, q, c_x] = [0, 1, 2, 3, 4, 5, 6].map(|i| constants[i]);
        let link = row.link_bytes / (e_n * row.peaks.link_bytes_per_s);
        let nic = row.nic_bytes / (e_r * row.peaks.nic_bytes_per_s);
        let fixed = t0 + c_x * row.experts + if row.nodes > 1.0 { t_r } else { 0.0 };
        fixed + c_f * row.flags + norm(q, [link, nic, 0.0])
    }

    fn roofline(&self, row: &LowLatencyRow) -> f64 {
        (row.link_bytes / row.peaks.link_bytes_per_s).max(row.nic_bytes / row.peaks.nic_bytes_per_s)
    }

    fn bound(&self, constants: &[f64], row: &LowLatencyRow) -> &'static str {
        let link = row.link_bytes / (constants[3] * row.peaks.link_bytes_per_s);
        let nic = row.nic_bytes / (constants[4] * row.peaks.nic_bytes_per_s);
        largest([(nic, "network card"), (link, "link"), (self.seconds(constants, row) - nic.max(link), "latency")])
    }

    fn amounts(&self, row: &LowLatencyRow) -> [f64; 2] {
        [0.0, row.link_bytes + row.nic_bytes]
    }

    fn features(&self, row: &LowLatencyRow) -> [f64; 5] {
        [row.link_bytes + 1.0, row.nic_bytes + 1.0, row.flags + 1.0, row.nodes, row.experts + 1.0].map(libm::log)
    }
}

/// A call of the kernels for throughput: a token goes to a node once, and to a device inside it once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormalRow {
    /// Bytes that a device sends inside its node, for others too.
    pub link_bytes: f64,
    /// Bytes that it sends to other nodes.
    pub nic_bytes: f64,
    /// Bytes that its processors copy.
    pub copied_bytes: f64,
    /// Processors that copy.
    pub units: f64,
    /// Nodes.
    pub nodes: f64,
    /// On which devices.
    pub peaks: LinkPeaks,
}

impl NormalRow {
    /// Counts under uniform routing.
    pub fn uniform(x: &Exchange, op: ExchangeOp, units: f64, peaks: LinkPeaks) -> Self {
        let bytes = x.tokens * op.bytes(x.hidden);
        let away = distinct(x.nodes, x.experts, x.top_k) * (x.nodes - 1.0) / x.nodes;
        let devices = distinct(x.nodes * x.devices, x.experts, x.top_k);
        Self {
            link_bytes: bytes * devices * (x.devices - 1.0) / x.devices,
            nic_bytes: bytes * away,
            copied_bytes: bytes * (away + devices),
            units,
            nodes: x.nodes,
            peaks,
        }
    }
}

/// The kernels for throughput: `t = t0 (one node) or t_r + t_n log2 nodes, + W (1 + s_a / (1 + W / s_t))` with
/// `W = norm(q, [NIC, link, copies])`: a pipeline that must fill, so that bandwidth saturates with size.
///
/// The time is that of transmission: notification is no part of a fit, so that over eight nodes a combine can be
/// measured faster than the NIC sends. `wide`, what is left of the NIC's rate beyond four nodes, is a property of the
/// cluster that was measured: [`NormalForm::elsewhere`] leaves it behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NormalForm;

impl NormalForm {
    /// Constants, in the form's order, as they hold on another cluster than the one that was measured.
    #[must_use]
    pub fn elsewhere(mut constants: Vec<f64>) -> Vec<f64> {
        if let Some(wide) = NORMAL.iter().position(|c| c.name == "wide") {
            constants[wide] = 1.0;
        }
        constants
    }
}

/// Nodes up to which a NIC keeps its rate.
const NEAR_NODES: f64 = 4.0;

const NORMAL: [Constant; 11] = [
    constant("t0", "launch inside a node", "s", [4e-5, 5e-6, 2e-4, 2.0]),
    constant("t_r", "the same over several nodes", "s", [3e-5, 2e-6, 2e-4, 2.0]),
    constant("t_n", "of a doubling of nodes", "s", [1e-5, 1e-6, 1e-4, 2.0]),
    constant("b1", "copies of a processor with one node; scales with its clock", "B/s", [1.8e10, 3e9, 6e10, 2.0]),
    constant("b2", "the same with several nodes", "B/s", [1.4e10, 3e9, 6e10, 2.0]),
    constant("e_n", "fraction of the link rate", "", [0.8, 0.2, 1.0, 0.2]),
    constant("e_r", "fraction of the NIC rate", "", [0.9, 0.3, 1.0, 2.0]),
    constant("wide", "what is left of it beyond four nodes", "", [0.999, 0.2, 1.0, 2.0]),
    constant("q", "overlap of NIC, link and copies: 1 none, large full", "", [4.0, 1.0, 12.0, 2.0]),
    constant("s_a", "how much longer the smallest transfers take", "", [0.4, 0.02, 4.0, 2.0]),
    constant("s_t", "transfer time at which half of that is gone", "s", [1.5e-4, 1e-5, 1e-2, 2.0]),
];

impl Form for NormalForm {
    type Row = NormalRow;
    const ROBUST: f64 = 0.10;

    fn constants(&self) -> Vec<Constant> {
        NORMAL.to_vec()
    }

    fn starts(&self) -> Vec<Vec<f64>> {
        four_starts(NORMAL.len())
    }

    fn seconds(&self, constants: &[f64], row: &NormalRow) -> f64 {
        let [t0, t_r, t_n, b1, b2, e_n, e_r, wide, q, s_a, s_t] =
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(|i| constants[i]);
        let (fixed, copies) = if row.nodes > 1.0 { (t_r + t_n * libm::log2(row.nodes), b2) } else { (t0, b1) };
        let nic = e_r * row.peaks.nic_bytes_per_s * if row.nodes > NEAR_NODES { wide } else { 1.0 };
        let work = norm(
            q,
            [
                row.nic_bytes / nic,
                row.link_bytes / (e_n * row.peaks.link_bytes_per_s),
                row.copied_bytes / (row.units * copies),
            ],
        );
        fixed + work * (1.0 + s_a / (1.0 + work / s_t))
    }

    fn roofline(&self, row: &NormalRow) -> f64 {
        (row.link_bytes / row.peaks.link_bytes_per_s).max(row.nic_bytes / row.peaks.nic_bytes_per_s)
    }

    fn bound(&self, constants: &[f64], row: &NormalRow) -> &'static str {
        let copies = constants[if row.nodes > 1.0 { 4 } else { 3 }];
        let link = row.link_bytes / (constants[5] * row.peaks.link_bytes_per_s);
        let nic = row.nic_bytes / (constants[6] * row.peaks.nic_bytes_per_s);
        let copied = row.copied_bytes / (row.units * copies);
        let rest = self.seconds(constants, row) - nic.max(link).max(copied);
        largest([(nic, "network card"), (link, "link"), (copied, "copies"), (rest, "latency")])
    }

    fn amounts(&self, row: &NormalRow) -> [f64; 2] {
        [0.0, row.link_bytes + row.nic_bytes]
    }

    fn features(&self, row: &NormalRow) -> [f64; 5] {
        [row.link_bytes + 1.0, row.nic_bytes + 1.0, row.copied_bytes + 1.0, row.nodes, row.units].map(libm::log)
    }
}

/// A call of CANN's fused dispatch or combine: vector cores write a message a (token, expert) into the peer's memory,
/// with no de-duplication (the size of its buffers says so; CloudMatrix384, arXiv 2506.12708, section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FusedExchangeRow {
    /// Devices.
    pub devices: f64,
    /// Messages of a device: tokens times selections.
    pub messages: f64,
    /// Bytes of one: 7.5 KiB to dispatch, 14 KiB to combine a width of 7168.
    pub message_bytes: f64,
    /// On which devices; the link's rate is what a device was measured to write to others.
    pub peaks: LinkPeaks,
}

/// CANN's fused kernels: `t = t0 + c log2 devices + messages that leave / link`. All wait for the slowest of all, and
/// the largest of n independent delays grows with ln n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FusedExchangeForm;

const FUSED: [Constant; 2] = [
    constant("t0", "launch and what does not grow", "s", [6e-5, 1e-6, 1e-3, 10.0]),
    constant("c", "of a doubling of devices", "s", [3e-6, 1e-9, 1e-4, 10.0]),
];

impl Form for FusedExchangeForm {
    type Row = FusedExchangeRow;
    const ROBUST: f64 = 0.10;

    fn constants(&self) -> Vec<Constant> {
        FUSED.to_vec()
    }

    fn starts(&self) -> Vec<Vec<f64>> {
        four_starts(FUSED.len())
    }

    fn seconds(&self, constants: &[f64], row: &FusedExchangeRow) -> f64 {
        constants[0] + constants[1] * libm::log2(row.devices.max(1.0)) + self.roofline(row)
    }

    fn roofline(&self, row: &FusedExchangeRow) -> f64 {
        row.messages * row.message_bytes * (1.0 - 1.0 / row.devices) / row.peaks.link_bytes_per_s
    }

    fn bound(&self, constants: &[f64], row: &FusedExchangeRow) -> &'static str {
        let link = self.roofline(row);
        if 2.0 * link > self.seconds(constants, row) { "link" } else { "latency" }
    }

    fn amounts(&self, row: &FusedExchangeRow) -> [f64; 2] {
        [0.0, row.messages * row.message_bytes]
    }

    fn features(&self, row: &FusedExchangeRow) -> [f64; 5] {
        [row.devices, row.messages + 1.0, row.message_bytes + 1.0, 1.0, 1.0].map(libm::log)
    }
}

#[cfg(test)]
mod tests;
