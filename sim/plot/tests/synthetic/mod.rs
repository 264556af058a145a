//! Run directories made by code: plausible shapes, any size, the same on every call.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// What to make.
#[derive(Clone, Copy)]
pub struct Size {
    pub requests: u32,
    pub devices: u32,
    pub layers: u32,
    pub experts: u32,
}

/// A small run: one node of four devices.
pub const SMALL: Size = Size { requests: 200, devices: 4, layers: 6, experts: 16 };
/// A large run: 25 devices, 24 layers.
pub const LARGE: Size = Size { requests: 5000, devices: 25, layers: 24, experts: 128 };

/// The least run.
pub const ONE: Size = Size { requests: 1, devices: 1, layers: 1, experts: 1 };
/// More devices than a picture has rows for.
pub const HUGE: Size = Size { requests: 40, devices: 100, layers: 61, experts: 256 };

/// A small generator (the multiplier is Knuth's, MMIX).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
    /// Uniform in 0..1.
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }
}

/// Writes the whole run directory.
pub fn run(dir: &Path, size: Size) {
    let put = |name: &str, text: String| fs::write(dir.join(name), text).unwrap();
    put("summary.json", summary());
    put("requests.csv", requests(size));
    put("experts.csv", experts(size));
    put("series.csv", series(size));
    put("operations.csv", operations(size));
}

fn summary() -> String {
    r#"{"name": "decode-batch-64", "hardware": "supernode-25", "model": "mixtral-like-24-layers", "simulated_s": 12.5,
        "breakdown": {"attention": 3.1, "gate": 0.21, "dispatch": 1.9, "experts": 4.05, "shared": 0.4, "combine": 1.62,
        "load": 0, "allreduce": 0.33, "dense": 0.12, "host": 0.25, "embed": 0.02, "head": 0.2, "idle": 0.3}}"#
        .into()
}

fn requests(size: Size) -> String {
    let mut r = Random::new(1);
    let mut text =
        "id,arrival_s,prompt_tokens,output_tokens,rank,sequence,offset,scheduled_s,first_token_s,finished_s,\
                    ttft_ms,tpot_ms,e2e_ms,preemptions,recomputed_tokens\n"
            .to_string();
    for id in 0..size.requests {
        let tail = 1.0 / (1.02 - r.next());
        let (ttft, tpot, tokens) =
            (18.0 + 25.0 * tail + 40.0 * r.next(), 11.0 + 9.0 * r.next() * r.next(), 1.0 + (300.0 * r.next()).floor());
        let shown = if tokens > 1.0 { format!("{tpot:.4}") } else { String::new() };
        writeln!(
            text,
            "{id},{:.3},512,{tokens},0,{id},0,0,0,0,{ttft:.4},{shown},{:.4},0,0",
            f64::from(id) * 0.01,
            ttft + tpot * (tokens - 1.0)
        )
        .unwrap();
    }
    text
}

fn experts(size: Size) -> String {
    let mut r = Random::new(2);
    let mut text = "layer,expert,assignments,devices\n".to_string();
    for layer in 0..size.layers {
        for expert in 0..size.experts {
            let load = 4000.0 / (1.0 + 25.0 * r.next() * r.next()) * (0.5 + r.next());
            writeln!(text, "{},{expert},{},1", layer + 1, load.floor()).unwrap();
        }
    }
    text
}

fn series(size: Size) -> String {
    let mut r = Random::new(3);
    let mut names = Vec::new();
    for what in ["busy", "memory"] {
        names.extend((0..size.devices).map(|d| format!("gpu{d} {what}")));
    }
    for d in 0..size.devices {
        names.push(format!("link gpu{d}>switch"));
        names.push(format!("link switch>gpu{d}"));
    }
    let mut text = format!("start_s,width_s,{}\n", names.join(","));
    for bin in 0..160 {
        write!(text, "{:.6},0.078125", f64::from(bin) * 0.078125).unwrap();
        let swing = if (40..70).contains(&bin) { 0.35 } else { 0.8 };
        for name in &names {
            let base = if name.ends_with("busy") {
                0.12
            } else if name.ends_with("memory") {
                0.85
            } else {
                0.3
            };
            write!(text, ",{:.4}", base * swing * (0.75 + 0.4 * r.next())).unwrap();
        }
        text.push('\n');
    }
    text
}

fn operations(size: Size) -> String {
    let mut r = Random::new(4);
    let mut text = "iteration,operation,kind,layer,device,start_s,end_s,bound,critical\n".to_string();
    let (mut t, mut id) = (3.0, 0);
    let mut row = |kind: &str, layer: &str, device: &str, from: f64, to: f64, critical: bool| {
        writeln!(text, "17,{id},{kind},{layer},{device},{from:.9},{to:.9},memory,{}", u8::from(critical)).unwrap();
        id += 1;
    };
    row("host", "", "", t, t + 60e-6, true);
    t += 60e-6;
    for layer in 0..size.layers {
        let l = layer.to_string();
        let kinds: &[(&str, f64)] = if layer == 0 {
            &[("attention", 55e-6), ("dense", 40e-6)]
        } else {
            &[("attention", 55e-6), ("gate", 6e-6), ("dispatch", 25e-6), ("experts", 80e-6), ("combine", 28e-6)]
        };
        for &(kind, lasts) in kinds {
            if matches!(kind, "dispatch" | "combine") {
                row(kind, &l, "", t, t + lasts, true);
                if kind == "dispatch" {
                    for d in 0..size.devices {
                        row("shared", &l, &format!("gpu{d}"), t, t + lasts * 1.4, false);
                    }
                }
                t += lasts;
                continue;
            }
            let ends: Vec<f64> = (0..size.devices).map(|_| t + lasts * (0.6 + 0.5 * r.next())).collect();
            let last = ends.iter().copied().fold(t, f64::max);
            for (d, &end) in ends.iter().enumerate() {
                row(kind, &l, &format!("gpu{d}"), t, end, end == last);
            }
            t = last;
        }
    }
    row("head", "", "gpu0", t, t + 50e-6, true);
    text
}

/// A sweep of 8 batch sizes by 4 placements on 2 fabrics as `sweep.csv`.
pub fn sweep() -> String {
    let mut text = "batch,placement,fabric,status,tokens_per_s,tpot_ms,binding\n".to_string();
    for (f, fabric) in ["450 GB/s", "900 GB/s", "1.8 TB/s"].iter().enumerate() {
        for (p, placement) in ["round-robin", "greedy", "ilp", "replicated"].iter().enumerate() {
            for batch in [1, 4, 16, 32, 64, 128, 256, 512] {
                let (b, gain) = (f64::from(batch), 1.0 + 0.2 * p as f64 + 0.1 * f as f64);
                let tpot = 9.0 + b * 0.09 / gain;
                let binding = if b < 64.0 { "gpu memory" } else { "link gpu0>switch" };
                match (batch, p) {
                    (512, 0) => writeln!(text, "{batch},{placement},{fabric},failed,,,").unwrap(),
                    _ => writeln!(text, "{batch},{placement},{fabric},ok,{:.3},{tpot:.4},{binding}", 1000.0 * b / tpot)
                        .unwrap(),
                }
            }
        }
    }
    text
}
