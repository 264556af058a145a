//! Collectives of NCCL among the devices of one scale-up domain: all-gather, all-reduce, reduce-scatter, all-to-all.
//!
//! Of three ways to move `S` bytes among `n` devices the library takes about the fastest:
//! * its latency protocols (LL, LL128): `a_l + l_l steps + wire / (e_l link) + local / (e_c memory)`;
//! * its bandwidth protocol (Simple): the same with `a_s`, `l_s`, `e_s`;
//! * sums inside the switch: `a_l + a_s + S (1 + 1/n) / (0.85 e_s link)`; all-reduces of floats among more than two.
//!
//! `t = (Σ t_i^-8)^(-1/8)`: the least, rounded off where two are alike. `wire` is `S (n-1)/n`, twice that for
//! all-reduce: what a device sends; for the latency protocols of all-to-all `S/n`, the message of one pair, since pairs
//! run in parallel and the protocol is chosen by their size. `steps` are those of a ring, n - 1, twice that for
//! all-reduce; `local` is the copy of a device's own part, `S/n`, all of `S` for all-reduce. (NCCL's public sources:
//! protocols, rings, NVLS and its efficiency of 0.85 on Hopper.)
//!
//! Left out: trees, several nodes, numbers of channels that change with n, CUDA graphs.

use super::{Constant, Form, constant, four_starts};

/// What a device can send at best, from its data sheet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkPeaks {
    /// Bytes per second one way over its scale-up links.
    pub link_bytes_per_s: f64,
    /// Bytes per second one way over its share of the network between nodes.
    pub nic_bytes_per_s: f64,
    /// Memory bandwidth in bytes per second.
    pub bytes_per_s: f64,
}

/// Efficiency of sums inside the switch (NCCL's own constant for Hopper).
const IN_SWITCH: f64 = 0.85;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CollectiveOp {
    /// Every device gets all parts.
    AllGather,
    /// Every device gets the sum.
    AllReduce,
    /// Every device gets its part of the sum.
    ReduceScatter,
    /// Every device gets a part of every other's.
    AllToAll,
}

/// One measurement, or one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CollectiveRow {
    /// What is done.
    pub op: CollectiveOp,
    /// Devices.
    pub devices: f64,
    /// Bytes of the whole buffer: what is gathered; the input of one device of the others.
    pub bytes: f64,
    /// Whether the switch can sum the elements: floats, on a switch that does so.
    pub in_switch: bool,
    /// On which devices.
    pub peaks: LinkPeaks,
}

impl CollectiveRow {
    fn all_reduce(&self) -> bool {
        self.op == CollectiveOp::AllReduce
    }
    /// Bytes that a device sends.
    pub fn wire(&self) -> f64 {
        let once = self.bytes * (self.devices - 1.0).max(0.0) / self.devices;
        if self.all_reduce() { 2.0 * once } else { once }
    }
}

/// The form of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectiveForm;

const CONSTANTS: [Constant; 7] = [
    constant("a_l", "launch with a latency protocol", "s", [5e-6, 1e-6, 3e-5]),
    constant("l_l", "of a step of it", "s", [7e-7, 5e-8, 4e-6]),
    constant("e_l", "its fraction of the link rate", "", [0.2, 0.005, 1.0]),
    constant("a_s", "launch with the bandwidth protocol", "s", [1.2e-5, 2e-6, 8e-5]),
    constant("l_s", "of a step of it", "s", [5e-7, 5e-8, 1e-5]),
    constant("e_s", "its fraction of the link rate", "", [0.75, 0.2, 1.0]),
    constant("e_c", "rate of the copy of the own part over the memory bandwidth", "", [0.3, 0.05, 1.0]),
];

impl Form for CollectiveForm {
    type Row = CollectiveRow;
    const ROBUST: f64 = 0.10;

    fn constants(&self) -> Vec<Constant> {
        CONSTANTS.to_vec()
    }

    fn starts(&self) -> Vec<Vec<f64>> {
        four_starts(CONSTANTS.len())
    }

    fn seconds(&self, constants: &[f64], row: &CollectiveRow) -> f64 {
        let [a_l, l_l, e_l, a_s, l_s, e_s, e_c] = [0, 1, 2, 3, 4, 5, 6].map(|i| constants[i]);
        let CollectiveRow { op, devices, bytes, in_switch, peaks } = *row;
        let (link, wire) = (peaks.link_bytes_per_s, row.wire());
        let steps = (devices - 1.0).max(0.0) * if row.all_reduce() { 2.0 } else { 1.0 };
        let local = if row.all_reduce() { bytes } else { bytes / devices } / (e_c * peaks.bytes_per_s);
        let low = if op == CollectiveOp::AllToAll { bytes / devices } else { wire };
        let latency = a_l + l_l * steps + low / (e_l * link) + local;
        let simple = a_s + l_s * steps + wire / (e_s * link) + local;
        let switch = if in_switch && row.all_reduce() && devices > 2.0 {
            a_l + a_s + bytes * (1.0 + 1.0 / devices) / (IN_SWITCH * e_s * link)
        } else {
            f64::INFINITY
        };
        let least = latency.min(simple).min(switch);
        let part = |t: f64| {
            let r = least / t;
            let r = r * r;
            let r = r * r;
            r * r
        };
        least / (part(latency) + part(simple) + part(switch)).sqrt().sqrt().sqrt()
    }

    fn roofline(&self, row: &CollectiveRow) -> f64 {
        row.wire() / row.peaks.link_bytes_per_s
    }

    fn bound(&self, constants: &[f64], row: &CollectiveRow) -> &'static str {
        // What the link takes at the bandwidth protocol's rate, against all else.
        let link = row.wire() / (constants[5] * row.peaks.link_bytes_per_s);
        if 2.0 * link > self.seconds(constants, row) { "link" } else { "latency" }
    }

    fn amounts(&self, row: &CollectiveRow) -> [f64; 2] {
        [0.0, row.wire()]
    }

    fn features(&self, row: &CollectiveRow) -> [f64; 5] {
        [row.devices, row.bytes + 1.0, 1.0 + f64::from(row.in_switch), 1.0, 1.0].map(libm::log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const H100: LinkPeaks = LinkPeaks { link_bytes_per_s: 450e9, nic_bytes_per_s: 50e9, bytes_per_s: 3.35e12 };
    const OPS: [CollectiveOp; 4] =
        [CollectiveOp::AllGather, CollectiveOp::AllReduce, CollectiveOp::ReduceScatter, CollectiveOp::AllToAll];

    /// An operation, its constants, and (devices, bytes, in the switch, seconds).
    type Cases<'a> = (CollectiveOp, [f64; 7], &'a [(f64, f64, bool, f64)]);

    /// Times of the form as written out in another language, apart: same constants, same calls.
    #[test]
    fn agrees_with_the_form_written_apart() {
        let all: [Cases; 4] = [
            (
                CollectiveOp::AllGather,
                [
                    4.975862232015182e-06,
                    8.565802525968061e-07,
                    0.2667634608425112,
                    2.335068480460225e-05,
                    1.8057801464940983e-07,
                    0.7698620181922028,
                    0.273468177717652,
                ],
                &[
                    (2.0, 4096.0, true, 5.851727809046793e-06),
                    (2.0, 4194304.0, false, 2.508696390079709e-05),
                    (4.0, 2048.0, false, 7.558862550028236e-06),
                ],
            ),
            (
                CollectiveOp::AllReduce,
                [
                    5.175065514727631e-06,
                    8.044489758755704e-07,
                    0.3085122904437007,
                    2.5641722330162322e-05,
                    1.3224683830664234e-07,
                    0.7408977272182429,
                    0.9999999999997198,
                ],
                &[
                    (2.0, 4096.0, true, 6.814670301778695e-06),
                    (2.0, 4194304.0, false, 3.5698252615532424e-05),
                    (4.0, 2048.0, false, 1.0023964317229569e-05),
                ],
            ),
            (
                CollectiveOp::AllToAll,
                [
                    6.1378655900152475e-06,
                    2.4187234580024546e-07,
                    0.012610063118266655,
                    1.3183416089544083e-05,
                    8.016754159251307e-08,
                    0.6527400765648812,
                    0.7366421728994889,
                ],
                &[
                    (2.0, 4096.0, true, 6.73775243881248e-06),
                    (2.0, 4194304.0, false, 2.1253059915880476e-05),
                    (4.0, 2048.0, false, 6.949437899714525e-06),
                ],
            ),
            (
                CollectiveOp::ReduceScatter,
                [
                    5.100567434471724e-06,
                    7.807529605991087e-07,
                    0.3320090154788604,
                    1.9114640252784038e-05,
                    3.0105548834894683e-07,
                    0.7809214939455013,
                    0.18451760655982735,
                ],
                &[
                    (2.0, 4096.0, true, 5.8982881016972875e-06),
                    (2.0, 4194304.0, false, 2.282036705866082e-05),
                    (4.0, 2048.0, false, 7.453591858438434e-06),
                ],
            ),
        ];
        for (op, c, rows) in all {
            for (devices, bytes, in_switch, wanted) in rows {
                let row = CollectiveRow { op, devices: *devices, bytes: *bytes, in_switch: *in_switch, peaks: H100 };
                let t = CollectiveForm.seconds(&c, &row);
                assert!((t / wanted - 1.0).abs() < 1e-9, "{op:?}: {t} {wanted}");
            }
        }
    }

    #[test]
    fn one_device_and_no_bytes_take_a_launch() {
        let c: Vec<f64> = CONSTANTS.iter().map(|c| c.start).collect();
        for op in OPS {
            let row = CollectiveRow { op, devices: 1.0, bytes: 0.0, in_switch: true, peaks: H100 };
            let t = CollectiveForm.seconds(&c, &row);
            assert!(t > 0.9 * c[0] && t <= c[0], "{t}");
        }
    }

    proptest! {
        /// More bytes never cost less; very many of them cost their way over the link, and are finite.
        #[test]
        fn more_bytes_never_cost_less(
            op in 0usize..4, devices in 2u32..64, bytes in 1.0f64..1e12, more in 1.0f64..1e6,
            at in prop::collection::vec(0.0f64..1.0, 7), in_switch: bool,
        ) {
            let c: Vec<f64> = CONSTANTS.iter().zip(&at).map(|(c, at)| c.bounds[0] + at * (c.bounds[1] - c.bounds[0])).collect();
            let row = CollectiveRow { op: OPS[op], devices: f64::from(devices), bytes, in_switch, peaks: H100 };
            let (a, b) = (CollectiveForm.seconds(&c, &row), CollectiveForm.seconds(&c, &CollectiveRow { bytes: bytes * more, ..row }));
            prop_assert!(a.is_finite() && a > 0.0 && b.is_finite() && b >= a * (1.0 - 1e-9), "{a} {b}");
        }
    }
}
