//! Products on a host's processors: a dense one, or the two of a layer of experts.
//!
//! `t = t0 + sum of norm(p, [compute, memory]) + passes`. An expert with at most `few` rows has its weights streamed
//! through the registers; one with more has them repacked for a product that is blocked for the caches, which costs as
//! much as `m_g` rows. So for every product of `n` columns and depth `k`
//!
//! `compute = 2 n (k + k0) / peak ((rows_few + m_s experts_few) / e_s + (rows_many + m_g experts_many) / e_g)`,
//! `memory = n (k bytes_of_a_weight + s0) experts / (e_m bandwidth)`.
//!
//! `k0` is what sums that lie across a vector cost at the end, in elements of K; `s0` what it costs that every row of
//! weights is a stream of its own, which the processor recognises anew, in bytes. Row passes gather rows, lay out what
//! lies between the products, and add up results.
//!
//! The structure is that of [`crate::kernel::cpu`], whose `few` is [`crate::kernel::cpu::few`].
//!
//! Left out: caches that hold weights from one call to the next, sockets, clocks that fall under wide vectors.

use super::{Constant, Form, Peaks, constant, largest, norm};

/// Rows, and groups that have any: of groups with few rows, and of those with more.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StreamedLoad {
    /// Groups.
    pub groups: [f64; 2],
    /// Their rows.
    pub rows: [f64; 2],
}

impl StreamedLoad {
    /// Sums over the rows of each group; up to `few` are few.
    pub fn of(counts: impl IntoIterator<Item = u32>, few: u32) -> Self {
        let (mut groups, mut rows) = ([0u32; 2], [0u64; 2]);
        for n in counts {
            let which = usize::from(n > few);
            groups[which] += u32::from(n > 0);
            rows[which] += u64::from(n);
        }
        Self { groups: groups.map(f64::from), rows: rows.map(|r| r as f64) }
    }
    /// Groups that share so many rows evenly.
    pub fn even(groups: f64, rows: f64, few: u32) -> Self {
        let here = |x: f64| if rows <= groups * f64::from(few) { [x, 0.0] } else { [0.0, x] };
        Self { groups: here(groups), rows: here(rows) }
    }
}

/// One measurement, or one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamedRow {
    /// Rows of the groups.
    pub load: StreamedLoad,
    /// Columns and depth of either product; zeros where there is one alone.
    pub products: [[f64; 2]; 2],
    /// Bytes of a weight.
    pub weight_bytes: f64,
    /// Bytes that row passes read and write.
    pub pass_bytes: f64,
    /// Experts on the device, with rows or without; 0 of a dense product.
    pub experts: f64,
    /// On which device.
    pub peaks: Peaks,
}

impl StreamedRow {
    /// A dense product of `rows` by a matrix of `n` columns and depth `k`.
    pub fn dense(rows: f64, [n, k]: [f64; 2], weight_bytes: f64, few: u32, peaks: Peaks) -> Self {
        let load = StreamedLoad::even(f64::from(u8::from(rows > 0.0)), rows, few);
        // Results leave their blocks for rows: read once and written once in 32 bits.
        Self { load, products: [[n, k], [0.0; 2]], weight_bytes, pass_bytes: 8.0 * rows * n, experts: 0.0, peaks }
    }

    /// A layer of `experts` experts, whose first product has `first` matrices of the inner width.
    pub fn experts(
        load: StreamedLoad,
        tokens: f64,
        [hidden, inner, first, experts]: [f64; 4],
        weight_bytes: f64,
        peaks: Peaks,
    ) -> Self {
        let rows = load.rows[0] + load.rows[1];
        // In 32 bits, each read and written: rows gathered, activations laid out, results added to a token's.
        let pass_bytes = rows * (12.0 * hidden + 12.0 * inner) + 8.0 * tokens * hidden;
        let products = [[first * inner, hidden], [hidden, inner]];
        Self { load, products, weight_bytes, pass_bytes, experts, peaks }
    }

    fn flop(&self) -> f64 {
        let rows = self.load.rows[0] + self.load.rows[1];
        2.0 * rows * self.products.iter().map(|[n, k]| n * k).sum::<f64>()
    }

    fn bytes(&self) -> f64 {
        let [first, second] = self.products;
        let rows = self.load.rows[0] + self.load.rows[1];
        let weights = (self.load.groups[0] + self.load.groups[1]) * self.weight_bytes;
        // What enters and what leaves, in 32 bits.
        let out = if second[0] > 0.0 { second[0] } else { first[0] };
        weights * (first[0] * first[1] + second[0] * second[1]) + 4.0 * rows * (first[1] + out)
    }
}

/// The form of products on a host's processors: seconds a call, by the formula of this module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamedForm;

/// The time of a call, in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StreamedTime {
    /// Starts of the threads.
    pub fixed_s: f64,
    /// What compute alone would take.
    pub compute_s: f64,
    /// What memory alone would take of the weights.
    pub memory_s: f64,
    /// Row passes.
    pub passes_s: f64,
    /// Seconds in all.
    pub seconds: f64,
}

const CONSTANTS: [Constant; 10] = [
    constant("t0", "starts of the threads and whatever else does not grow", "s", [20e-6, 1e-7, 1e-3]),
    // Above 1: reading one stream a thread, which the bandwidth was measured by, is not the best that memory gives.
    constant("e_m", "rate at which weights stream over the bandwidth of reading", "", [0.9, 0.05, 1.5]),
    constant("s0", "what it costs to begin a row of weights", "B", [300.0, 1.0, 16384.0]),
    constant("e_s", "fraction of the peak rate while weights stream", "", [0.5, 0.02, 1.2]),
    constant("m_s", "rows that reading an expert's weights into registers costs", "rows", [2.0, 0.01, 100.0]),
    constant("e_g", "fraction of the peak rate of blocked products", "", [0.9, 0.02, 1.2]),
    constant("m_g", "rows that repacking an expert's weights costs", "rows", [80.0, 0.1, 2000.0]),
    constant("k0", "sums across a vector at the end of K", "elements", [60.0, 0.1, 4096.0]),
    constant("p", "overlap of compute and memory: 1 none, large full", "", [2.0, 1.0, 10.0]),
    constant("a", "row passes over the bytes that they move", "", [0.5, 0.01, 8.0]),
];

impl StreamedForm {
    /// The time of a call, in parts.
    pub fn time(self, constants: &[f64], row: &StreamedRow) -> StreamedTime {
        let [t0, e_m, s0, e_s, m_s, e_g, m_g, k0, p, a]: [f64; 10] = std::array::from_fn(|i| constants[i]);
        let StreamedRow { load: StreamedLoad { groups, rows }, products, weight_bytes, pass_bytes, peaks, .. } = row;
        let worth = (rows[0] + m_s * groups[0]) / e_s + (rows[1] + m_g * groups[1]) / e_g;
        let mut t = StreamedTime { fixed_s: t0, passes_s: a * pass_bytes / peaks.bytes_per_s, ..Default::default() };
        t.seconds = t.fixed_s + t.passes_s;
        for [n, k] in products {
            let compute = 2.0 * n * (k + k0) * worth / peaks.flop_per_s;
            let memory = n * (k * weight_bytes + s0) * (groups[0] + groups[1]) / (e_m * peaks.bytes_per_s);
            t.compute_s += compute;
            t.memory_s += memory;
            t.seconds += norm(p, [compute, memory, 0.0]);
        }
        t
    }
}

impl Form for StreamedForm {
    type Row = StreamedRow;
    const ROBUST: f64 = 0.05;

    fn constants(&self) -> Vec<Constant> {
        CONSTANTS.to_vec()
    }

    fn seconds(&self, constants: &[f64], row: &StreamedRow) -> f64 {
        self.time(constants, row).seconds
    }

    fn roofline(&self, row: &StreamedRow) -> f64 {
        (row.flop() / row.peaks.flop_per_s).max(row.bytes() / row.peaks.bytes_per_s)
    }

    fn bound(&self, constants: &[f64], row: &StreamedRow) -> &'static str {
        let t = self.time(constants, row);
        largest([(t.memory_s, "memory"), (t.compute_s, "compute"), (t.passes_s, "row passes"), (t.fixed_s, "launch")])
    }

    fn amounts(&self, row: &StreamedRow) -> [f64; 2] {
        [row.flop(), row.bytes()]
    }

    fn features(&self, row: &StreamedRow) -> [f64; 5] {
        let StreamedLoad { groups, rows } = row.load;
        let [n, k] = row.products[0];
        [n, k, groups[0] + groups[1] + 1.0, rows[0] + rows[1] + 1.0, groups[1] + 1.0].map(libm::log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: Peaks = Peaks { flop_per_s: 300e9, bytes_per_s: 25e9, units: 2.0, l2_bytes: 1e6 };

    /// By hand: 4 and 100 rows of two experts, few being 80.
    #[test]
    fn by_hand() {
        let load = StreamedLoad::of([4, 0, 100], 80);
        assert_eq!(load, StreamedLoad { groups: [1.0, 1.0], rows: [4.0, 100.0] });
        let row = StreamedRow::experts(load, 52.0, [1000.0, 500.0, 2.0, 3.0], 2.0, HERE);
        let c = [1e-5, 0.8, 1000.0, 0.5, 2.0, 0.75, 50.0, 24.0, 1.0, 0.5];
        let t = StreamedForm.time(&c, &row);
        // (4 + 2) / 0.5 + (100 + 50) / 0.75 = 212 rows; 2 x 1000 x 1024 and 2 x 1000 x 524 operations each.
        let compute = 212.0 * 2000.0 * (1024.0 + 524.0) / 300e9;
        // Two experts; 1000 rows of 3000 bytes and 1000 of 2000.
        let memory = 2.0 * 1000.0 * 5000.0 / 20e9;
        let passes = 0.5 * (104.0 * 18000.0 + 8.0 * 52.0 * 1000.0) / 25e9;
        for (found, wanted) in [(t.compute_s, compute), (t.memory_s, memory), (t.passes_s, passes)] {
            assert!((found / wanted - 1.0).abs() < 1e-12, "{found} {wanted}");
        }
        assert!((t.seconds / (1e-5 + compute + memory + passes) - 1.0).abs() < 1e-12);
        assert_eq!(StreamedForm.amounts(&row), [2.0 * 104.0 * 1.5e6, 2.0 * 2.0 * 1.5e6 + 4.0 * 104.0 * 2000.0]);
        // An expert alone is a dense product but for the passes.
        let one = StreamedRow::dense(7.0, [300.0, 200.0], 4.0, 80, HERE);
        assert_eq!((one.load, one.pass_bytes), (StreamedLoad::of([7], 80), 8.0 * 7.0 * 300.0));
        assert_eq!(StreamedRow::dense(81.0, [300.0, 200.0], 4.0, 80, HERE).load, StreamedLoad::of([81], 80));
        assert_eq!(StreamedRow::dense(0.0, [300.0, 200.0], 4.0, 80, HERE).load, StreamedLoad::default());
    }

    proptest! {
        /// More of anything never costs less, while an expert stays on its side of `few`.
        #[test]
        fn more_never_costs_less(
            counts in prop::collection::vec(0u32..300, 1..20), at in prop::collection::vec(0.0f64..1.0, 10),
            hidden in 1.0f64..9000.0, inner in 1.0f64..9000.0, wider in 1.0f64..4.0,
        ) {
            let c: Vec<f64> = CONSTANTS.iter().zip(&at).map(|(c, at)| c.bounds[0] + at * (c.bounds[1] - c.bounds[0])).collect();
            let time = |counts: &[u32], hidden: f64, inner: f64| {
                let row = StreamedRow::experts(StreamedLoad::of(counts.iter().copied(), 80), 300.0, [hidden, inner, 2.0, 20.0], 2.0, HERE);
                StreamedForm.seconds(&c, &row)
            };
            let base = time(&counts, hidden, inner);
            prop_assert!(base.is_finite() && base > 0.0);
            let more: Vec<u32> = counts.iter().map(|n| n + u32::from(*n != 80)).collect();
            for other in [time(&more, hidden, inner), time(&counts, wider * hidden, inner), time(&counts, hidden, wider * inner)] {
                prop_assert!(other >= base * (1.0 - 1e-12), "{base} {other}");
            }
        }
    }
}
