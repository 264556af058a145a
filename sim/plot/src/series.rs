//! Utilisation over time, with a bounded number of bins.

use crate::data::RunData;
use moesim_core::diag::Result;

/// More bins than this are merged in pairs: a picture is not wider.
const BINS: usize = 1024;

/// Mean utilisation of every resource in bins of time.
pub(crate) struct Series {
    /// Names of the resources.
    pub(crate) names: Vec<String>,
    /// Where each bin starts, and at the end where the last ends, in seconds; one more than bins.
    pub(crate) edges: Vec<f64>,
    /// One row of means a bin, in the order of `names`; cells without number count as 0.
    pub(crate) bins: Vec<Vec<f64>>,
}

impl Series {
    /// Reads `series.csv`; `None` if the run has none or it is empty.
    ///
    /// # Errors
    /// An input error, with file and row, if the table is malformed.
    pub(crate) fn read(data: &RunData) -> Result<Option<Self>> {
        let Some(mut table) = data.table("series.csv", &["start_s", "width_s"])? else { return Ok(None) };
        let columns: Vec<(usize, String)> = table
            .header()
            .enumerate()
            .filter(|(_, name)| !matches!(*name, "start_s" | "width_s"))
            .map(|(i, name)| (i, name.to_string()))
            .collect();
        // Bins under way: `stride` rows make one bin; each cell is the sum of value x width, `open.1` of the widths.
        let (mut stride, mut rows) = (1usize, 0usize);
        let mut bins: Vec<(f64, f64, Vec<f64>)> = Vec::new();
        let mut end = 0.0;
        while let Some(row) = table.next_row()? {
            let (start, width) = (row.amount(0)?, row.amount(1)?);
            let values = columns.iter().map(|(i, _)| Ok(row.cell_number(*i)?.unwrap_or(0.0).max(0.0) * width));
            let values = values.collect::<Result<Vec<f64>>>()?;
            end = start + width;
            match bins.last_mut().filter(|_| !rows.is_multiple_of(stride)) {
                Some(open) => merge(open, (start, width, values)),
                None => bins.push((start, width, values)),
            }
            rows += 1;
            if bins.len() == BINS && rows.is_multiple_of(stride) {
                let mut pairs = Vec::with_capacity(BINS);
                let mut all = bins.into_iter();
                while let (Some(mut a), Some(b)) = (all.next(), all.next()) {
                    merge(&mut a, b);
                    pairs.push(a);
                }
                (bins, stride) = (pairs, stride * 2);
            }
        }
        if bins.is_empty() || columns.is_empty() {
            return Ok(None);
        }
        let edges = bins.iter().map(|b| b.0).chain([end]).collect();
        let mean = |(_, width, sums): (f64, f64, Vec<f64>)| {
            sums.into_iter().map(|s| if width > 0.0 { s / width } else { 0.0 }).collect()
        };
        let names = columns.into_iter().map(|c| c.1).collect();
        Ok(Some(Self { names, edges, bins: bins.into_iter().map(mean).collect() }))
    }
    /// Mean over all bins of resource `i`, by their widths.
    pub(crate) fn mean(&self, i: usize) -> f64 {
        let widths = self.edges.windows(2).map(|e| (e[1] - e[0]).max(0.0));
        let (sum, width) = self.bins.iter().zip(widths).fold((0.0, 0.0), |(s, w), (b, bw)| (s + b[i] * bw, w + bw));
        if width > 0.0 { sum / width } else { 0.0 }
    }
}

fn merge(a: &mut (f64, f64, Vec<f64>), b: (f64, f64, Vec<f64>)) {
    a.1 += b.1;
    for (x, y) in a.2.iter_mut().zip(b.2) {
        *x += y;
    }
}
