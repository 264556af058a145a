//! Kernels that move bytes and compute little: norms, rotary embeddings, look-ups.
//!
//! `t = norm(q, [t0, bytes / (e_m bandwidth)])`. Above 1, `e_m` says that the bytes come from L2.

use super::{Constant, Form, Peaks, constant, four_starts, largest, norm};

/// One measurement, or one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamRow {
    /// Bytes read and written.
    pub bytes: f64,
    /// On which device.
    pub peaks: Peaks,
}

/// The form of a kernel that moves bytes and computes little: seconds a call, by the formula of this module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamForm;

const CONSTANTS: [Constant; 3] = [
    constant("t0", "launch", "s", [2e-6, 2e-7, 2e-5]),
    constant("e_m", "rate over the memory bandwidth; above 1 out of L2", "", [1.5, 0.3, 8.0]),
    constant("q", "overlap of launch and bytes: 1 none, large full", "", [2.0, 1.0, 12.0]),
];

impl Form for StreamForm {
    type Row = StreamRow;
    const ROBUST: f64 = 0.10;

    fn constants(&self) -> Vec<Constant> {
        CONSTANTS.to_vec()
    }

    fn starts(&self) -> Vec<Vec<f64>> {
        four_starts(CONSTANTS.len())
    }

    fn seconds(&self, constants: &[f64], row: &StreamRow) -> f64 {
        norm(constants[2], [constants[0], row.bytes / (constants[1] * row.peaks.bytes_per_s), 0.0])
    }

    fn roofline(&self, row: &StreamRow) -> f64 {
        row.bytes / row.peaks.bytes_per_s
    }

    fn bound(&self, constants: &[f64], row: &StreamRow) -> &'static str {
        let moved = row.bytes / (constants[1] * row.peaks.bytes_per_s);
        largest([(moved, "memory"), (constants[0], "launch")])
    }

    fn amounts(&self, row: &StreamRow) -> [f64; 2] {
        [0.0, row.bytes]
    }

    fn features(&self, row: &StreamRow) -> [f64; 5] {
        [libm::log(row.bytes + 1.0), 0.0, 0.0, 0.0, 0.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RTX: Peaks = Peaks { flop_per_s: 503.8e12, bytes_per_s: 1.597e12, units: 188.0, l2_bytes: 128e6 };

    /// Times of the form as written out in another language, apart.
    #[test]
    fn agrees_with_the_form_written_apart() {
        for (bytes, c, wanted) in [
            (3538944.0, [3.4316999017912796e-06, 3.937874756979128, 1.0000000000024678], 3.9944387209129856e-06),
            (7077888.0, [2.1561551436300314e-06, 4.559979733584489, 1.090961911347177], 2.9720916310286675e-06),
            (7077888.0, [2.1535649091312246e-06, 1.40167149004696, 3.1724871998774815], 3.4309525820327975e-06),
            (7962624.0, [1.892474864189091e-06, 1.1158780198229508, 1.0000000000002325], 6.360695082073404e-06),
            (7962624.0, [2.525130477696166e-06, 2.0884587787885205, 1.3184085369082947], 4.155832319721814e-06),
        ] {
            let t = StreamForm.seconds(&c, &StreamRow { bytes, peaks: RTX });
            assert!((t / wanted - 1.0f64).abs() < 1e-9, "{t} {wanted}");
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_cost_less(
            bytes in 0.0f64..1e15, more in 1.0f64..1e6, at in prop::collection::vec(0.0f64..1.0, 3),
        ) {
            let c: Vec<f64> = CONSTANTS.iter().zip(&at).map(|(c, at)| c.bounds[0] + at * (c.bounds[1] - c.bounds[0])).collect();
            let time = |bytes| StreamForm.seconds(&c, &StreamRow { bytes, peaks: RTX });
            let (a, b) = (time(bytes), time(bytes * more));
            prop_assert!(a.is_finite() && a > 0.0 && b.is_finite() && b >= a * (1.0 - 1e-9), "{a} {b}");
        }
    }
}
