//! Which works, in which order.

use super::{MeasuredShape, Precision, Skew, Work};
use crate::measure::work::Way;
use moesim_core::rng::{draw, purpose_key};

/// What a sweep spans.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shapes of layers.
    pub shapes: Vec<MeasuredShape>,
    /// Tokens.
    pub tokens: Vec<usize>,
    /// Experts with tokens.
    pub active: Vec<usize>,
    /// How tokens are spread.
    pub skews: Vec<Skew>,
    /// How weights are stored.
    pub precisions: Vec<Precision>,
    /// Counts of a routing trace, by shape and tokens.
    pub traced: Vec<(MeasuredShape, usize, Vec<u32>)>,
    /// Whether the device has a link to a host.
    pub host_link: bool,
    /// Rows, columns and depth of the library's products, the limit of arithmetic, and how their operands are stored.
    pub library: (Precision, Vec<[usize; 3]>),
    /// Bytes of reads, writes and copies.
    pub streams: Vec<usize>,
    /// Works that would need more than so many bytes of weights at once are left out.
    pub most_bytes: u64,
}

impl Options {
    /// The limits of a device alone.
    pub fn limits(is_cuda: bool, most_bytes: u64) -> Self {
        let library = match is_cuda {
            true => (Precision::Bf16, vec![[8192; 3]]),
            false => (Precision::F32, vec![[1024; 3], [2048; 3]]),
        };
        Self {
            shapes: Vec::new(),
            tokens: Vec::new(),
            active: Vec::new(),
            skews: Vec::new(),
            precisions: Vec::new(),
            traced: Vec::new(),
            host_link: is_cuda,
            library,
            streams: [16 << 20, 256 << 20].into_iter().filter(|b| 4 * *b as u64 <= most_bytes).collect(),
            most_bytes,
        }
    }
}

/// A work, and which time it is that it is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The work.
    pub work: Work,
    /// 1, or 2 where it is measured again: what the run-to-run spread is taken from.
    pub pass: u32,
}

/// All points, in the order in which they are measured: limits of the device first; then layers and products in an
/// order that is shuffled, the same every time, so that whatever part a time budget allows is a fair one. Every fourth
/// is measured again, long after it was first. Limits are measured again at the end.
pub fn plan(o: &Options) -> Vec<Point> {
    let mut limits = vec![Work::Launch];
    for bytes in &o.streams {
        limits.extend([Work::Read(*bytes), Work::Write(*bytes), Work::Copy(*bytes)]);
        if o.host_link {
            for pinned in [true, false] {
                limits.extend([Way::ToDevice, Way::FromDevice].map(|way| Work::HostCopy {
                    way,
                    pinned,
                    bytes: *bytes,
                }));
            }
        }
    }
    limits.extend(o.library.1.iter().map(|size| Work::Library { precision: o.library.0, size: *size }));
    let mut sweep: Vec<Work> = Vec::new();
    let mut add = |work: Work| {
        if work.bytes() <= o.most_bytes as f64 && !sweep.contains(&work) {
            sweep.push(work);
        }
    };
    for shape in &o.shapes {
        for tokens in &o.tokens {
            add(Work::Norm { tokens: *tokens, hidden: shape.hidden });
            for precision in &o.precisions {
                for [n, k] in [[shape.hidden, shape.hidden], [2 * shape.intermediate, shape.hidden]] {
                    add(Work::Gemm { precision: *precision, size: [*tokens, n, k] });
                }
                let experts = |skew: Skew, counts: Vec<u32>| Work::Experts {
                    shape: *shape,
                    precision: *precision,
                    tokens: *tokens,
                    counts,
                    skew,
                };
                for skew in &o.skews {
                    for active in &o.active {
                        let counts = skew.counts(*tokens, shape, *active);
                        // Spread over experts with a token each, or every token each, nothing is skewed.
                        let even = counts.iter().filter(|n| **n > 0).all(|n| *n == counts[0]);
                        add(experts(if even { Skew::Balanced } else { *skew }, counts));
                    }
                }
                let own = o.traced.iter().filter(|(s, t, _)| s == shape && t == tokens);
                own.for_each(|(_, _, counts)| add(experts(Skew::Trace, counts.clone())));
            }
        }
    }
    let purpose = purpose_key("measure-order");
    let mut order: Vec<usize> = (0..sweep.len()).collect();
    order.sort_by_key(|i| draw(0, purpose, 0, *i as u64));
    let point = |work: &Work, pass| Point { work: work.clone(), pass };
    let mut points: Vec<Point> = limits.iter().map(|w| point(w, 1)).collect();
    for (i, at) in order.iter().enumerate() {
        points.push(point(&sweep[*at], 1));
        if i % 4 == 3 {
            points.push(point(&sweep[order[i / 2]], 2));
        }
    }
    points.extend(limits.iter().map(|w| point(w, 2)));
    points
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn options() -> Options {
        Options {
            shapes: vec![
                MeasuredShape { hidden: 256, intermediate: 128, experts: 16, top_k: 2 },
                MeasuredShape { hidden: 128, intermediate: 512, experts: 8, top_k: 1 },
                MeasuredShape { hidden: 512, intermediate: 64, experts: 16, top_k: 4 },
            ],
            tokens: vec![1, 4, 16, 64],
            active: vec![2, 8],
            skews: vec![Skew::Balanced, Skew::Zipf(1.2)],
            precisions: vec![Precision::Bf16, Precision::Int8],
            traced: Vec::new(),
            host_link: true,
            library: (Precision::F32, vec![[256; 3]]),
            streams: vec![1 << 20],
            most_bytes: 1 << 30,
        }
    }

    #[test]
    fn every_point_once_and_some_again() {
        let points = plan(&options());
        for (i, p) in points.iter().enumerate() {
            assert!(!points[..i].contains(p), "{p:?} twice");
            if p.pass == 2 {
                assert!(points[..i].iter().any(|q| q.work == p.work && q.pass == 1), "{p:?} again before it was first");
            }
        }
        let experts = points.iter().filter(|p| p.work.name() == "experts");
        let again = experts.clone().filter(|p| p.pass == 2).count();
        assert!(again * 6 > experts.count(), "{again}");
        assert_eq!(points, plan(&options()));
        let small = plan(&Options { most_bytes: 200_000, ..options() });
        assert!(small.len() < points.len());
        let fits = |p: &Point| p.work.name() != "experts" || p.work.bytes() <= 200_000.0;
        assert!(small.iter().all(fits));
    }
}
