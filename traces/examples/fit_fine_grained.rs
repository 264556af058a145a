//! Fits the synthetic source to counts of fine-grained models and prints the file that the library embeds:
//!
//! `cargo run -p moesim-traces --example fit_fine_grained -- shared/data/routing > traces/data/fine-grained.toml`

mod print;

use moesim_core::output::content_hash;
use moesim_core::{Diag, Result};
use moesim_traces::arrays::{Want, numpy};
use moesim_traces::counts::{self, ExpertCounts};
use moesim_traces::synth::{FINE_GRAINED, Fit, LayerFit, fitted};
use print::print;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

const HEAD: &str = "\
# Fine-grained models in few figures, from which synthetic routers of 64 experts and more are drawn. Written by the
# example fit_fine_grained.
# counts: Qwen3-30B-A3B's, of 75,773 output tokens.
# topic_spread: the spread of log-normal factors under which popularity would differ from subject to subject as it
#   does in Gemma-4-26B-A4B (families of text of at least 1,000 tokens, 91 % prompt tokens) and OLMoE-1B-7B (arXiv,
#   C4, GitHub and Tulu, prompt tokens): the mean of both, without what chance makes of small counts, layers matched
#   by relative depth.
# overlap, mix, alpha, next_spread, pair_spread: assumed. No rows of fine-grained models are public, so they are those
#   of gpt-oss-20b's recorded rows: overlaps as the same part of what popularity leaves, spreads such that eight
#   experts change as much as four did.
";

/// Selections of one model's layers by subject.
pub struct SubjectCounts {
    /// Where in the model the layers are, from 0 (the first) to 1 (the last).
    pub depth: Vec<f64>,
    /// Experts a layer.
    pub experts: usize,
    /// Experts a token.
    pub k: usize,
    /// Each subject's selections, `layers x experts`.
    pub counts: Vec<Vec<u64>>,
}

/// Fewest tokens of a subject: those with fewer are a text or two, which do not stand for their kind.
const TOKENS: u64 = 1000;

impl SubjectCounts {
    /// Refuses what no spread can be told from: a single subject, and layers without selections.
    fn check(self, path: &Path) -> Result<Self> {
        let empty = |l: usize| self.shares(l).iter().any(|(_, sum)| *sum == 0.0);
        let problem = match self.counts.len() {
            n if n < 2 => format!("has {n} subjects of {TOKENS} tokens and more, of which two are needed"),
            _ if (0..self.depth.len()).any(empty) => "has a subject without selections in a layer".to_string(),
            _ => return Ok(self),
        };
        Err(Diag::input(problem).file(path).cure("copy it again"))
    }
    /// Shares of a layer's experts under each subject, and the subject's selections in the layer.
    fn shares(&self, l: usize) -> Vec<(Vec<f64>, f64)> {
        let share = |counts: &Vec<u64>| {
            let layer = &counts[l * self.experts..(l + 1) * self.experts];
            let sum = layer.iter().sum::<u64>() as f64;
            (layer.iter().map(|c| *c as f64 / sum).collect(), sum)
        };
        self.counts.iter().map(share).collect()
    }
    /// Of each layer, the variance of the quotient of an expert's popularity under a subject and over all subjects,
    /// weighted by the latter. Two corrections: the mean of n subjects contains the subject itself, which makes the
    /// variance smaller by a factor of (n - 1) / n, and chance makes it larger by (experts - k) / selections.
    pub fn variances(&self) -> Vec<f64> {
        let layer = |l: usize| {
            let shares = self.shares(l);
            let n = shares.len() as f64;
            let all = |e: usize| shares.iter().map(|s| s.0[e]).sum::<f64>() / n;
            let of = |(share, sum): &(Vec<f64>, f64)| {
                let part = |(e, q): (usize, &f64)| (q - all(e)) * (q - all(e)) / all(e).max(1e-12);
                let seen = share.iter().enumerate().map(part).sum::<f64>() * n / (n - 1.0);
                seen - (self.experts - self.k) as f64 / sum
            };
            (shares.iter().map(of).sum::<f64>() / n).max(0.0)
        };
        (0..self.depth.len()).map(layer).collect()
    }
    /// The most selected expert over the mean, averaged over layers: of each subject averaged, and of all together.
    pub fn imbalance(&self) -> [f64; 2] {
        let most = |p: &mut dyn Iterator<Item = f64>| p.fold(0.0, f64::max) * self.experts as f64;
        let layer = |l: usize| {
            let shares = self.shares(l);
            let n = shares.len() as f64;
            let own = shares.iter().map(|s| most(&mut s.0.iter().copied())).sum::<f64>() / n;
            [own, most(&mut (0..self.experts).map(|e| shares.iter().map(|s| s.0[e]).sum::<f64>() / n))]
        };
        let layers: Vec<[f64; 2]> = (0..self.depth.len()).map(layer).collect();
        [0, 1].map(|i| layers.iter().map(|l| l[i]).sum::<f64>() / layers.len() as f64)
    }
}

/// Qwen3-30B-A3B's counts in the folder of routing data.
pub fn qwen3(folder: &Path) -> Result<ExpertCounts> {
    counts::read(&folder.join("popularity/coactivation_qwen3-30b-a3b.json.gz"), Some("coactivation"))
}

/// Gemma-4-26B-A4B's counts by family of text: 30 layers of 128 experts, 8 a token.
pub fn gemma(folder: &Path) -> Result<SubjectCounts> {
    let path = folder.join("gemma-4-26b-a4b/counts.csv.gz");
    let mut text = String::new();
    let file = std::fs::File::open(&path).map_err(|e| Diag::cannot_read(&path, &e))?;
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).map_err(|e| Diag::cannot_read(&path, &e))?;
    let (layers, experts, k) = (30, 128, 8);
    let mut families: Vec<(&str, Vec<u64>)> = Vec::new();
    for line in text.lines().skip(1) {
        let wrong =
            || Diag::input("is not a row family,layer,expert,count").file(&path).place(line).cure("copy it again");
        let (family, numbers) = line.split_once(',').ok_or_else(wrong)?;
        let numbers: Option<Vec<usize>> = numbers.split(',').map(|n| n.parse().ok()).collect();
        let [layer, expert, count] = numbers.unwrap_or_default()[..] else { return Err(wrong()) };
        let at = families.iter().position(|f| f.0 == family).unwrap_or_else(|| {
            families.push((family, vec![0; layers * experts]));
            families.len() - 1
        });
        *cell(&mut families[at].1, layer, (expert, experts)).ok_or_else(wrong)? += count as u64;
    }
    let long = |counts: &Vec<u64>| counts[..experts].iter().sum::<u64>() >= TOKENS * k as u64;
    let counts = families.into_iter().map(|f| f.1).filter(long).collect();
    let depth = (0..layers).map(|l| l as f64 / (layers - 1) as f64).collect();
    SubjectCounts { depth, experts, k, counts }.check(&path)
}

/// The count of an expert of a layer, if there are so many layers and experts.
fn cell(counts: &mut [u64], layer: usize, (expert, experts): (usize, usize)) -> Option<&mut u64> {
    if expert < experts { counts.get_mut(layer.checked_mul(experts)? + expert) } else { None }
}

/// OLMoE-1B-7B's counts by kind of text: layers 0, 7 and 15 of 16, 64 experts, 8 a token.
pub fn olmoe(folder: &Path) -> Result<SubjectCounts> {
    let (folder, layers, experts, k) = (folder.join("olmoe-counts"), [0, 7, 15], 64, 8);
    let array = |path: &Path, name: Option<&str>, dimensions| {
        Ok::<Vec<i64>, Diag>(numpy(path, &Want { name, what: "counts", dimensions, most: 1 << 24 })?.data)
    };
    let mut counts = Vec::new();
    for text in ["arxiv", "c4", "tulu"] {
        let path = folder.join(format!("olmoe_{text}.npy"));
        let table = array(&path, None, 2)?;
        if table.len() != layers.len() * experts {
            let problem = format!("has {} counts, not {} layers of {experts} experts", table.len(), layers.len());
            return Err(Diag::input(problem).file(&path).cure("copy it again"));
        }
        counts.push(table.into_iter().map(|c| c as u64).collect());
    }
    let github = folder.join("token_expert_github.npz");
    let [layer, expert, count] = ["layer", "expert", "count"].map(|name| array(&github, Some(name), 1));
    let mut table = vec![0; layers.len() * experts];
    for ((layer, expert), count) in layer?.iter().zip(&expert?).zip(&count?) {
        if let Some(l) = layers.iter().position(|l| l == layer) {
            let wrong =
                || Diag::input(format!("has an expert {expert} of {experts}")).file(&github).cure("copy it again");
            let expert = usize::try_from(*expert).map_err(|_| wrong())?;
            *cell(&mut table, l, (expert, experts)).ok_or_else(wrong)? += *count as u64;
        }
    }
    counts.push(table);
    SubjectCounts { depth: layers.map(|l| l as f64 / 15.0).to_vec(), experts, k, counts }.check(&folder)
}

/// The value at a depth, between those of two layers linearly.
fn at(depth: f64, depths: &[f64], values: &[f64]) -> f64 {
    let after = depths.partition_point(|d| *d < depth).clamp(1, depths.len() - 1);
    let part = (depth - depths[after - 1]) / (depths[after] - depths[after - 1]);
    values[after - 1] + (values[after] - values[after - 1]) * part
}

/// The file, out of the folder of routing data.
///
/// # Errors
/// Data that cannot be read.
pub fn text(folder: &Path) -> Result<String> {
    // The memory is that of recorded rows, which models of fewer experts are drawn from.
    let (popular, memory) = (qwen3(folder)?, fitted(FINE_GRAINED - 1)?);
    let layers = popular.layer_numbers.len();
    let k = popular.k.ok_or_else(|| {
        let problem = "Qwen3-30B-A3B's counts do not say how many experts a token has";
        Diag::input(problem).file(folder).place("k").cure("copy the counts again")
    })?;
    let models = [gemma(folder)?, olmoe(folder)?].map(|m| (m.variances(), m));
    // As many of these experts as a token has change as much as those of gpt-oss-20b.
    let narrow = libm::sqrtf(memory.k as f32 / k as f32);
    let layer = |l: usize| {
        let like = memory.layer_at(l, layers);
        let depth = l as f64 / (layers - 1) as f64;
        let variance = models.iter().map(|(values, m)| at(depth, &m.depth, values)).sum::<f64>() / models.len() as f64;
        let counts = popular.layer(l).to_vec();
        let total = popular.total(l) as f64;
        let shares: Vec<f64> = counts.iter().map(|c| *c as f64 / total).collect();
        LayerFit {
            counts,
            overlap: memory.overlap_at((l, layers), &shares, k),
            // Of log-normal factors with mean 1 and this variance: s^2 = ln(1 + variance).
            topic_spread: libm::sqrt(libm::log1p(variance)) as f32,
            next_spread: like.next_spread * narrow,
            pair_spread: like.pair_spread * narrow,
            ..like.clone()
        }
    };
    let fit = Fit {
        model: "counts of Qwen3-30B-A3B".into(),
        source:
            "popularity of doramirdor/mbolt, subjects of crankysmh47/Expertflow and allenai/OLMoE, memory assumed: \
                 that of gpt-oss-20b's rows, since none of fine-grained models is public"
                .into(),
        licence: "MIT and Apache-2.0".into(),
        hash: content_hash(format!("{:?} {:?}", popular.counts, models.each_ref().map(|m| &m.1.counts)).as_bytes()),
        experts: popular.experts,
        k,
        topics: memory.topics,
        layer: (0..layers).map(layer).collect(),
    };
    fit.to_text(HEAD)
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: fit_fine_grained FOLDER, the one with gemma-4-26b-a4b, olmoe-counts and popularity");
        return ExitCode::from(2);
    };
    print(text(Path::new(&folder)))
}
