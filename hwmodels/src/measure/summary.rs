//! What rows come to: limits, ratios, spread, and the hardware file of this machine.

use super::sample::QUIET;
use super::{Facts, MeasuredRow};
use moesim_core::{Diag, Result};
use std::fmt::Write;

/// Limits and ratios of one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Rows.
    pub rows: usize,
    /// Bytes a second read, at best.
    pub read_bytes_per_s: Option<f64>,
    /// Bytes a second written, at best.
    pub write_bytes_per_s: Option<f64>,
    /// Bytes a second of a copy, those read and those written, at best.
    pub copy_bytes_per_s: Option<f64>,
    /// Operations a second of the library's product, at best.
    pub flop_per_s: Option<f64>,
    /// Operations a second of the own dense product, at best.
    pub gemm_flop_per_s: Option<f64>,
    /// Operations a second of a layer of experts, at best.
    pub experts_flop_per_s: Option<f64>,
    /// Bytes a second of a layer's weights, at best, of layers with at most four tokens an expert.
    pub experts_bytes_per_s: Option<f64>,
    /// Seconds of a start.
    pub launch_s: Option<f64>,
    /// Points measured twice.
    pub twice: usize,
    /// Of these, the mean of |second over first - 1|: the run-to-run spread.
    pub spread: Option<f64>,
    /// Of these, the median of the same.
    pub spread_median: Option<f64>,
    /// Rows during which others took more than a tenth of the processors: limits take them, the spread does not.
    pub disturbed: usize,
    /// Rows with outliers.
    pub with_outliers: usize,
}

impl Summary {
    /// Of the rows of one device.
    pub fn new(all: &[MeasuredRow]) -> Self {
        let quiet: Vec<MeasuredRow> = all.iter().filter(|r| r.is_quiet()).cloned().collect();
        let best = |what: &str, rate: &dyn Fn(&MeasuredRow) -> Option<f64>| {
            // The best of all: a disturbance makes none better.
            all.iter().filter(|r| r.text("what") == what).filter_map(rate).reduce(f64::max)
        };
        let seconds = |r: &MeasuredRow| r.number("latency_us") * 1e-6;
        let moved = |times: f64| move |r: &MeasuredRow| Some(times * r.number("bytes") / seconds(r));
        let product = |r: &MeasuredRow| Some(2.0 * r.number("m") * r.number("n") * r.number("k") / seconds(r));
        let weights = |r: &MeasuredRow| 3.0 * r.number("hidden_size") * r.number("inter_size");
        let pairs = |r: &MeasuredRow| r.number("tokens") * r.number("topk");
        let few = |r: &MeasuredRow| {
            let bytes = match r.text("precision") {
                "float32" => 4.0,
                "bfloat16" => 2.0,
                _ => 1.0,
            };
            let active = r.number("active_experts");
            (pairs(r) <= 4.0 * active).then(|| active * weights(r) * bytes / seconds(r))
        };
        let twice = again(&quiet);
        let mut off = twice.clone();
        off.sort_by(f64::total_cmp);
        let n = off.len();
        Self {
            rows: all.len(),
            disturbed: all.len() - quiet.len(),
            read_bytes_per_s: best("read", &moved(1.0)),
            write_bytes_per_s: best("write", &moved(1.0)),
            copy_bytes_per_s: best("copy", &moved(2.0)),
            flop_per_s: best("library-gemm", &product),
            gemm_flop_per_s: best("gemm", &product),
            experts_flop_per_s: best("experts", &|r| Some(2.0 * pairs(r) * weights(r) / seconds(r))),
            experts_bytes_per_s: best("experts", &few),
            launch_s: best("launch", &|r| Some(1.0 / seconds(r))).map(|r| 1.0 / r),
            twice: n,
            spread: (n > 0).then(|| off.iter().sum::<f64>() / n as f64),
            spread_median: (n > 0).then(|| off[n / 2]),
            with_outliers: all.iter().filter(|r| r.number("outliers") > 0.0).count(),
        }
    }

    /// In words.
    pub fn text(&self, facts: &Facts) -> String {
        let mut t = format!("{}, {} ({})\n", facts.device, facts.code, facts.date);
        let gb = |x: Option<f64>| x.map_or("not measured".into(), |x| format!("{:.1} GB/s", x / 1e9));
        let gf = |x: Option<f64>| x.map_or("not measured".into(), |x| format!("{:.1} GFLOP/s", x / 1e9));
        let part = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) if b > 0.0 => format!(" ({:.0} %)", 100.0 * a / b),
            _ => String::new(),
        };
        let (read, write, copy) = (self.read_bytes_per_s, self.write_bytes_per_s, self.copy_bytes_per_s);
        let _ = writeln!(t, "memory: read {}, write {}, copy {} (read and written)", gb(read), gb(write), gb(copy));
        let _ = writeln!(t, "library's product: {}", gf(self.flop_per_s));
        let own = [self.gemm_flop_per_s, self.experts_flop_per_s].map(|x| gf(x) + &part(x, self.flop_per_s));
        let _ = writeln!(t, "own product: {}; a layer of experts: {}", own[0], own[1]);
        let few = self.experts_bytes_per_s;
        let _ = writeln!(t, "weights of experts with few tokens: {}{} of what is read", gb(few), part(few, read));
        let launch = self.launch_s.map_or("not measured".into(), |s| format!("{:.1} us", s * 1e6));
        let _ = writeln!(t, "start of the threads: {launch}");
        let percent = |x: Option<f64>| x.map_or("not measured".into(), |x| format!("{:.1} %", 100.0 * x));
        let _ = writeln!(
            t,
            "run-to-run spread: mean {}, median {} of {} points measured twice; {} of {} rows have outliers",
            percent(self.spread),
            percent(self.spread_median),
            self.twice,
            self.with_outliers,
            self.rows
        );
        if self.disturbed > 0 {
            let _ = writeln!(
                t,
                "{} rows were disturbed (others took over {:.0} % of the processors): --resume measures them again",
                self.disturbed,
                100.0 * QUIET
            );
        }
        if facts.llc_bytes > 0 {
            let times = facts.rotated_bytes as f64 / facts.llc_bytes as f64;
            let _ = writeln!(
                t,
                "weights come in turn from {:.2} GB, {times:.1} times the last cache{}",
                facts.rotated_bytes as f64 / 1e9,
                if times < 2.0 { ": TOO LITTLE, some may have been in it" } else { "" }
            );
        }
        t
    }

    /// The hardware file of a machine whose limits were measured.
    ///
    /// # Errors
    /// A limit is lacking.
    pub fn hardware(&self, facts: &Facts, name: &str) -> Result<String> {
        let need = |x: Option<f64>, what: &str| {
            x.ok_or_else(|| {
                Diag::run(format!("{what} was not measured, so there is no hardware file"))
                    .cure("go on with --resume and a longer --time-budget")
            })
        };
        let bandwidth = need(self.read_bytes_per_s, "memory bandwidth")?;
        let flop = need([self.flop_per_s, self.gemm_flop_per_s].into_iter().flatten().reduce(f64::max), "a product")?;
        let launch = need(self.launch_s, "the start of threads")?;
        let origin = format!("measured here on {}", facts.date);
        // What cannot be above one is what was measured of what was measured.
        let part = |x: Option<f64>, of: f64| x.map_or(0.7, |x| x / of).clamp(0.01, 1.0);
        let words = |x: Option<f64>, what: &str| match x {
            Some(_) => format!("{origin}: {what}"),
            None => format!("assumed: {what} was not measured"),
        };
        let memory = self.copy_bytes_per_s.map(|c| c.min(bandwidth));
        let quote = |text: &str| format!("{text:?}");
        let device = quote(&facts.device);
        let mut t = format!(
            "name = {}\ndescription = {}\n\n[device]\nname = {device}\n",
            quote(name),
            quote(&format!("{}, limits measured by moesim calibrate measure", facts.device))
        );
        let mut line = |text: String| t += &(text + "\n");
        let row =
            |key: &str, value: &str, origin: &str| format!("{key} = {{ value = {value}, origin = {} }}", quote(origin));
        line(row("units", &facts.threads.to_string(), "threads that computed"));
        if facts.llc_bytes > 0 {
            line(row("llc", &quote(&format!("{} B", facts.llc_bytes)), "the operating system: the largest cache"));
        }
        line(row("launch", &quote(&format!("{:.0} ns", launch * 1e9)), &format!("{origin}: an empty parallel region")));
        line(row("reserve", "0.1", "assumed: the operating system and buffers"));
        line("\n[device.memory]".into());
        line(row("capacity", &quote(&format!("{} B", facts.memory_bytes)), "the operating system"));
        line(row("bandwidth", &quote(&format!("{:.4} GB/s", bandwidth / 1e9)), &format!("{origin}: reading")));
        line("\n[device.peak]".into());
        let rate = quote(&format!("{:.4} GFLOP/s", flop / 1e9));
        let note = "the fastest dense product in FP32, to which all weights are widened";
        for key in ["bf16", "fp8", "int8"] {
            line(row(key, &rate, &format!("{origin}: {note}")));
        }
        line("\n[device.achievable]".into());
        let fraction = |x: f64| format!("{x:.4}");
        let gemm = self.gemm_flop_per_s;
        line(row("compute", &fraction(part(gemm, flop)), &words(gemm, "the own dense product at best")));
        let grouped = self.experts_flop_per_s;
        line(row("grouped", &fraction(part(grouped, flop)), &words(grouped, "a layer of experts at best")));
        line(row("attention", &fraction(part(gemm, flop)), "assumed: as dense products; attention was not measured"));
        line(row("memory", &fraction(part(memory, bandwidth)), &words(memory, "copying over reading")));
        line("\n[topology]\nkind = \"single\"\n\n[host]".into());
        line(row("iteration_overhead", "\"100 us\"", "assumed: scheduling and sampling on the same processors"));
        Ok(t)
    }
}

/// |second over first - 1| of points measured twice.
fn again(rows: &[MeasuredRow]) -> Vec<f64> {
    let second = |first: &MeasuredRow| rows.iter().find(|r| r.is_again(first));
    let firsts = rows.iter().filter(|r| r.text("pass") == "1");
    firsts.filter_map(|f| Some((second(f)?.number("latency_us") / f.number("latency_us") - 1.0).abs())).collect()
}
