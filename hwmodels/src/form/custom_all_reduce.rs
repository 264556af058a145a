//! The all-reduce that inference engines run in place of NCCL's where messages are small: devices read each other's
//! buffers.
//!
//! Of two ways to sum `S` bytes over `n` devices the kernel takes about the faster:
//! * one shot: every device reads all buffers and sums them, `a_1 + l (n - 1) + r (1 - exp(-x)) + S (n - 1) / (e_1
//!   link)`, where `r` are the seconds that reads lose until they stream at full rate, and `x` is `S (n - 1)` divided
//!   by 64 KiB;
//! * two shots: every device sums a part, then reads the others' sums, `a_2 + 2 l (n - 1) + 2 S (n - 1) / n / (e_2
//!   link)`.
//!
//! `t = (t_1^-8 + t_2^-8)^(-1/8)`: the least, rounded off where both are alike. (The public kernels of vLLM, SGLang and
//! TensorRT-LLM.)
//!
//! Left out: the sizes at which each engine changes over, sums in the switch.

use super::{CollectiveRow, Constant, Form, constant, four_starts};

/// The form of an engine's own all-reduce: seconds a call over message bytes and devices, by the formula of this
/// module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CustomAllReduceForm;

/// Bytes read from others over which reads come to their full rate: the scale at which `r` is fitted, a choice of the
/// form and no figure of a device.
const FILL_BYTES: f64 = 65536.0;

const CONSTANTS: [Constant; 6] = [
    constant("a_1", "launch and flags of one shot", "s", [4e-6, 5e-7, 3e-4]),
    constant("l", "of a device more", "s", [1e-7, 1e-9, 2e-5]),
    constant("e_1", "fraction of the link rate of one shot", "", [0.5, 0.01, 1.0]),
    constant("a_2", "launch and flags of two shots", "s", [8e-6, 5e-7, 3e-4]),
    constant("e_2", "fraction of the link rate of two shots", "", [0.5, 0.01, 1.0]),
    constant("r", "of reads that come to their full rate", "s", [2e-7, 1e-9, 5e-6]),
];

impl Form for CustomAllReduceForm {
    type Row = CollectiveRow;
    const ROBUST: f64 = 0.10;

    fn constants(&self) -> Vec<Constant> {
        CONSTANTS.to_vec()
    }

    fn starts(&self) -> Vec<Vec<f64>> {
        four_starts(CONSTANTS.len())
    }

    fn seconds(&self, constants: &[f64], row: &CollectiveRow) -> f64 {
        let [a_1, l, e_1, a_2, e_2, r] = [0, 1, 2, 3, 4, 5].map(|i| constants[i]);
        let (link, others) = (row.peaks.link_bytes_per_s, (row.devices - 1.0).max(0.0));
        let fill = r * (1.0 - libm::exp(-row.bytes * others / FILL_BYTES));
        let one = a_1 + l * others + fill + row.bytes * others / (e_1 * link);
        let two = a_2 + 2.0 * l * others + 2.0 * row.bytes * others / row.devices / (e_2 * link);
        let (least, most) = (one.min(two), one.max(two));
        let ratio = least / most;
        let fourth = ratio * ratio * ratio * ratio;
        least / (1.0 + fourth * fourth).sqrt().sqrt().sqrt()
    }

    fn roofline(&self, row: &CollectiveRow) -> f64 {
        row.wire() / row.peaks.link_bytes_per_s
    }

    fn bound(&self, constants: &[f64], row: &CollectiveRow) -> &'static str {
        let link = row.wire() / (constants[4] * row.peaks.link_bytes_per_s);
        if 2.0 * link > self.seconds(constants, row) { "link" } else { "latency" }
    }

    fn amounts(&self, row: &CollectiveRow) -> [f64; 2] {
        [0.0, row.wire()]
    }

    fn features(&self, row: &CollectiveRow) -> [f64; 5] {
        [libm::log(row.devices), libm::log(row.bytes), 0.0, 0.0, 0.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::{CollectiveOp, LinkPeaks};
    use proptest::prelude::*;

    const H100: LinkPeaks = LinkPeaks { link_bytes_per_s: 450e9, nic_bytes_per_s: 50e9, bytes_per_s: 3.35e12 };

    fn row(devices: f64, bytes: f64) -> CollectiveRow {
        CollectiveRow { op: CollectiveOp::AllReduce, devices, bytes, in_switch: false, peaks: H100 }
    }

    /// By hand: 1 KiB among eight devices is a launch, seven steps and 7 KiB; 8 MiB takes two shots of 7/8 each.
    #[test]
    fn small_messages_take_one_shot_and_large_ones_two() {
        let c = [3e-6, 1e-7, 0.5, 9e-6, 0.6, 1e-9];
        let (small, large) =
            (CustomAllReduceForm.seconds(&c, &row(8.0, 1024.0)), CustomAllReduceForm.seconds(&c, &row(8.0, 8388608.0)));
        let filled = CustomAllReduceForm.seconds(&[3e-6, 1e-7, 0.5, 9e-6, 0.6, 1e-6], &row(2.0, 65536.0));
        assert!((filled / (3.1e-6 + 1e-6 * (1.0 - libm::exp(-1.0)) + 65536.0 / 225e9) - 1.0).abs() < 1e-3, "{filled}");
        assert!((small / (3e-6 + 7e-7 + 7.0 * 1024.0 / 225e9) - 1.0).abs() < 1e-3, "{small}");
        assert!((large / (9e-6 + 14e-7 + 1.75 * 8388608.0 / 270e9) - 1.0).abs() < 1e-3, "{large}");
    }

    proptest! {
        #[test]
        fn more_bytes_or_devices_never_cost_less(
            at in prop::collection::vec(0.0f64..1.0, 6), devices in 2u32..72, bytes in 1.0f64..1e8, more in 1.0f64..100.0,
        ) {
            let c: Vec<f64> = CONSTANTS.iter().zip(&at).map(|(c, at)| c.bounds[0] + at * (c.bounds[1] - c.bounds[0])).collect();
            let n = f64::from(devices);
            let a = CustomAllReduceForm.seconds(&c, &row(n, bytes));
            for b in [CustomAllReduceForm.seconds(&c, &row(n, bytes * more)), CustomAllReduceForm.seconds(&c, &row(n + 1.0, bytes))] {
                prop_assert!(a.is_finite() && a > 0.0 && b >= a * (1.0 - 1e-9), "{a} {b}");
            }
        }
    }
}
