//! Uniform routing: every token and layer on its own, each set of k experts as likely as any other, perhaps limited to some
//! groups of consecutive experts. What benchmarks of communication draw; routing of a model is neither independent nor even.

use super::SynthSpec;
use crate::trace::{Meta, OwnedSequence, Trace};
use moesim_core::rng::{Stream, below, stream};
use moesim_core::{Diag, Result};
use rand::Rng;
use rayon::prelude::*;

/// A limit on where a token's experts are: it picks `top` of `groups` equal groups of consecutive experts uniformly, then its
/// experts among theirs. (Gates with this limit, DeepSeek-V3's for one, pick the groups by their experts' scores.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimit {
    /// Groups that the experts are divided into.
    pub groups: u32,
    /// Groups of a token.
    pub top: u32,
}

/// Draws a trace of uniform routing. The same arguments give the same rows, on every machine.
///
/// # Errors
/// A shape that is out of range, a limit that leaves a token fewer than k experts.
pub fn uniform(spec: &SynthSpec, limit: Option<GroupLimit>, seed: u64) -> Result<Trace> {
    let meta = Meta {
        model: spec.model.clone(),
        layer_numbers: spec.layer_numbers.clone(),
        experts: spec.experts,
        k: spec.k,
        source: format!("uniform draws, seed {seed}"),
        licence: "generated".into(),
    };
    spec.check(&meta)?;
    let limit = limit.unwrap_or(GroupLimit { groups: 1, top: 1 });
    let wrong = |problem: String, cure: &str| Err(Diag::input(problem).place("groups").cure(cure));
    if limit.groups == 0 || !spec.experts.is_multiple_of(limit.groups) {
        let problem = format!("{} groups do not divide {} experts", limit.groups, spec.experts);
        return wrong(problem, "choose a divisor of the experts");
    }
    let each = spec.experts / limit.groups;
    if limit.top == 0 || limit.top > limit.groups || limit.top * each < spec.k {
        let problem = format!("{} of {} groups of {each} experts for top-{}", limit.top, limit.groups, spec.k);
        return wrong(problem, "let a token take at least as many groups as hold k experts, at most all");
    }
    let width = meta.width();
    let choices = (spec.prompt_rows + spec.decode_rows) as usize * meta.layer_numbers.len();
    let draw = |id: u32| {
        let mut r = stream(seed, "uniform-routing", id.into());
        let mut ids = Vec::with_capacity(choices * spec.k as usize);
        let mut groups: Vec<u16> = (0..limit.groups as u16).collect();
        let mut open: Vec<u16> = Vec::with_capacity((limit.top * each) as usize);
        for _ in 0..choices {
            if limit.top < limit.groups {
                shuffle_first(&mut groups, limit.top as usize, &mut r);
            }
            open.clear();
            for g in &groups[..limit.top as usize] {
                open.extend(g * each as u16..(g + 1) * each as u16);
            }
            shuffle_first(&mut open, spec.k as usize, &mut r);
            ids.extend_from_slice(&open[..spec.k as usize]);
        }
        let decode = ids.split_off(spec.prompt_rows as usize * width);
        OwnedSequence { id, prefill: ids, decode, decode_first_position: spec.prompt_rows, ..Default::default() }
    };
    let sequences = (0..spec.sequences).into_par_iter().map(draw).collect();
    Trace::from_sequences(meta, sequences)
}

/// Puts a uniform choice of `n` different elements first, in uniform order.
fn shuffle_first(list: &mut [u16], n: usize, r: &mut Stream) {
    for i in 0..n {
        let j = i + below(r.next_u64(), (list.len() - i) as u64) as usize;
        list.swap(i, j);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Subjects;
    use super::*;

    fn spec(experts: u32, k: u32) -> SynthSpec {
        let layer_numbers = vec![0, 1];
        SynthSpec {
            model: "t".into(),
            layer_numbers,
            experts,
            k,
            sequences: 50,
            prompt_rows: 10,
            decode_rows: 90,
            subjects: Subjects::Many,
        }
    }

    /// (times each expert was selected, groups of each token and layer) over all rows.
    fn count(t: &Trace, each: u16) -> (Vec<f64>, Vec<usize>) {
        let (mut counts, mut groups) = (vec![0.0; t.experts()], Vec::new());
        for s in (0..t.sequences()).map(|i| t.sequence(i)) {
            for ids in s.prefill.chunks_exact(t.k()).chain(s.decode.chunks_exact(t.k())) {
                ids.iter().for_each(|e| counts[usize::from(*e)] += 1.0);
                let mut of: Vec<u16> = ids.iter().map(|e| e / each).collect();
                of.sort_unstable();
                of.dedup();
                groups.push(of.len());
            }
        }
        (counts, groups)
    }

    #[test]
    fn every_expert_is_as_likely_and_none_comes_twice() {
        let t = uniform(&spec(32, 4), None, 1).unwrap();
        (0..t.sequences()).for_each(|i| t.check_sequence(i).unwrap());
        let (counts, _) = count(&t, 32);
        // 1,250 each of 10,000 rows, with a deviation of 33: five of them.
        assert!(counts.iter().all(|n| (n - 1250.0).abs() < 165.0), "{counts:?}");
    }

    /// Groups of eight experts, limited to two: mean number that four experts of sixteen touch, 2 (1 - C(8, 4) / C(16, 4)).
    #[test]
    fn groups_are_limited() {
        let t = uniform(&spec(32, 4), Some(GroupLimit { groups: 4, top: 2 }), 1).unwrap();
        let (counts, groups) = count(&t, 8);
        assert!(counts.iter().all(|n| (n - 1250.0).abs() < 250.0), "{counts:?}");
        assert!(groups.iter().all(|n| *n <= 2));
        let mean = groups.iter().sum::<usize>() as f64 / groups.len() as f64;
        assert!((mean - 2.0 * (1.0 - 70.0 / 1820.0)).abs() < 0.02, "{mean}");
    }

    #[test]
    fn limits_that_cannot_be_are_refused() {
        for (groups, top, wanted) in
            [(5, 1, "do not divide"), (8, 0, "0 of 8 groups"), (8, 9, "9 of 8"), (32, 3, "top-4")]
        {
            let text = uniform(&spec(32, 4), Some(GroupLimit { groups, top }), 1).unwrap_err().to_string();
            assert!(text.contains(wanted), "{text}");
        }
    }
}
