//! A point as an experiment: which model, machine and deployment it was measured on, in the words of an experiment file.

use super::Point;
use super::rounds::MEASURED;
use super::servers;
use crate::experiment::{self, Assignment, Profiles, Resolved};
use moesim_core::{Diag, Result};
use moesim_hwmodels::hardware;
use std::path::PathBuf;
use toml::Value;

/// How experts are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PointRouting {
    /// As in a measured trace.
    #[default]
    Synthetic,
    /// Independent uniform draws.
    Uniform,
}

/// Sequences of the routing; more clients than that share some, each at an offset of its own.
const SEQUENCES: i64 = 32;
/// Rows of a sequence, prompt and decode; longer requests go round.
const ROWS: [i64; 2] = [128, 256];

/// A point that can be run.
#[derive(Clone, Debug)]
pub struct Expressed {
    /// The experiment.
    pub resolved: Resolved,
    /// The name of the hardware.
    pub hardware: String,
    /// What stands in for something that is not known or not there.
    pub notes: Vec<String>,
}

/// The experiment of a point.
///
/// # Errors
/// What cannot be expressed, and why.
pub fn express(point: &Point, routing: PointRouting, profiles: &Profiles) -> Result<Expressed> {
    let mut notes = Vec::new();
    let model = model(point)?;
    let (preset, size) = machine(point, &mut notes)?;
    let tokens = batched_tokens(point, &mut notes)?;
    notes.extend(servers::stand_in(point).map(str::to_string));
    let mut table = toml::Table::new();
    table.insert("name".into(), format!("{} on {}, {} clients", point.model, point.system, point.conc).into());
    table.insert("model".into(), model.preset.into());
    table.insert("hardware".into(), preset.into());
    let mut set = Vec::new();
    let mut assign = |key: &str, value: Value| set.push((key.split('.').map(str::to_string).collect(), value));
    for (class, bits) in model.bits {
        assign(&format!("model.precision.{class}"), (*bits).into());
    }
    for (key, value) in servers::settings(point) {
        assign(key, value);
    }
    for (key, count) in size {
        assign(&format!("hardware.topology.{key}"), count.into());
    }
    assign("workload.arrivals.kind", "closed-loop".into());
    assign("workload.arrivals.concurrency", i64::from(point.conc).into());
    assign("workload.arrivals.requests", (i64::from(point.conc) * i64::from(MEASURED)).into());
    assign("workload.arrivals.prompt_tokens", lengths(point.isl));
    assign("workload.arrivals.output_tokens", lengths(point.osl));
    let kind = match routing {
        PointRouting::Synthetic => "synthetic",
        PointRouting::Uniform => "uniform",
    };
    assign("workload.routing.kind", kind.into());
    assign("workload.routing.sequences", SEQUENCES.into());
    assign("workload.routing.prompt_rows", ROWS[0].into());
    assign("workload.routing.decode_rows", ROWS[1].into());
    for (key, count) in [
        ("attention_tp", point.tp),
        ("attention_dp", point.dp),
        ("expert_tp", point.moe_tp),
        ("expert_parallel", point.moe_ep),
        ("max_batched_tokens", tokens),
        // SGLang has no such limit, but there are no more requests than clients.
        ("max_sequences", point.conc),
    ] {
        assign(&format!("deployment.{key}"), i64::from(count).into());
    }
    assign("output.plots", false.into());
    assign("output.iterations", false.into());
    let set: Vec<Assignment> = set;
    let resolved = experiment::resolve_sharing(&point.model, table, PathBuf::from("."), &set, profiles)?;
    Ok(Expressed { resolved, hardware: preset.to_string(), notes })
}

/// Lengths spread evenly over 0.8 to 1.0 of the longest. The mean is a whole number, so that it is rounded and the spread made to
/// end at the longest; half a token more, because half of the width is cut to whole tokens.
fn lengths(longest: u32) -> Value {
    let mean = (f64::from(longest) * 0.9).round().max(1.0);
    let spread = (f64::from(longest) - mean + 0.5) / mean;
    let table = [("mean".to_string(), Value::from(mean as i64)), ("spread".to_string(), spread.into())];
    Value::Table(table.into_iter().collect())
}

/// A model in a precision.
#[derive(Debug)]
struct InPrecision {
    preset: &'static str,
    /// Bits of a weight by class, where they are not the preset's.
    bits: &'static [(&'static str, f64)],
}

/// NVFP4 is 4 bits and one of 8 for 16 elements. What NVIDIA publishes so has its feed-forward parts in it and attention in 16 bits.
const NVFP4: &[(&str, f64)] =
    &[("experts", 4.5), ("shared", 4.5), ("dense", 4.5), ("attention", 16.0), ("gemm_input", 4.5)];

fn model(point: &Point) -> Result<InPrecision> {
    let (preset, bits): (_, &[_]) = match (point.model.as_str(), point.precision.as_str()) {
        // As released: MXFP4, FP8 in blocks, 4-bit integers.
        ("gpt-oss-120b", "fp4") => ("gpt-oss-120b", &[]),
        ("gpt-oss-20b", "fp4") => ("gpt-oss-20b", &[]),
        ("DeepSeek-R1", "fp8") => ("deepseek-r1", &[]),
        ("DeepSeek-V3", "fp8") => ("deepseek-v3", &[]),
        ("MiniMax-M2.5", "fp8") => ("minimax-m2.5", &[]),
        ("Kimi-K2.5", "int4") => ("kimi-k2.5", &[]),
        ("DeepSeek-R1", "fp4") => ("deepseek-r1", NVFP4),
        ("DeepSeek-V3", "fp4") => ("deepseek-v3", NVFP4),
        ("MiniMax-M2.5", "fp4") => ("minimax-m2.5", NVFP4),
        ("Kimi-K2.5", "fp4") => ("kimi-k2.5", NVFP4),
        (model, precision) => {
            return Err(Diag::input(format!("{model} in {precision} is not known here"))
                .place("model")
                .cure("known: gpt-oss in fp4, DeepSeek and MiniMax-M2.5 in fp8 and fp4, Kimi-K2.5 in int4 and fp4"));
        }
    };
    Ok(InPrecision { preset, bits })
}

/// The hardware preset, and the keys of its topology that say how many devices it has.
fn machine(point: &Point, notes: &mut Vec<String>) -> Result<(&'static str, Vec<(&'static str, i64)>)> {
    let (one, two): (&[&'static str], &[&'static str]) = match point.system.as_str() {
        "h100_sxm" => (&["h100-8"], &["h100-2x8"]),
        "h200_sxm" => (&["h200-8"], &["h200-2x8"]),
        "b200_sxm" => (&["b200-8"], &["b200-2x8"]),
        "b300_sxm" => (&["b300-8", "b200-8"], &["b300-2x8", "b200-2x8"]),
        "gb200" => (&["gb200-nvl72"], &[]),
        "gb300" => (&["gb300-nvl72", "gb200-nvl72"], &[]),
        "h20_sxm" => (&["h20-8"], &["h20-2x8"]),
        system => {
            return Err(Diag::input(format!("{system} has no preset"))
                .place("system")
                .cure("known: h100_sxm, h200_sxm, b200_sxm, b300_sxm, gb200, gb300, h20_sxm"));
        }
    };
    let gpus = i64::from(point.gpus);
    let (wanted, size) = match (one[0].ends_with("nvl72"), gpus) {
        (true, 1..=72) => (one, vec![("devices_per_node", gpus)]),
        (false, 1..=8) => (one, vec![("devices", gpus)]),
        // Two nodes are a preset of their own, of eight devices each.
        (false, 16) => (two, Vec::new()),
        (_, n) => {
            let problem = format!("{n} devices of {} are not one node or two", point.system);
            return Err(Diag::input(problem).place("gpus").cure("write 1 to 8 or 16; of gb200 1 to 72"));
        }
    };
    let there = |name: &&&str| hardware::preset_text(name).is_some();
    let found = wanted.iter().find(there).ok_or_else(|| {
        Diag::input(format!("there is no preset {}", wanted.join(" or ")))
            .place("system")
            .cure("see `moesim list hardware`")
    })?;
    if found != &wanted[0] {
        notes.push(format!("{found} stands for {}, of which there is no preset", point.system));
    }
    Ok((found, size))
}

/// The version of vLLM from which its budget on large devices is 8,192 tokens; it was 2,048 with chunked prefill before.
const WIDE_SINCE: [u32; 2] = [0, 10];

/// The most tokens of an iteration, by the point's rule.
fn batched_tokens(point: &Point, notes: &mut Vec<String>) -> Result<u32> {
    let rule = point.batched_tokens.as_str();
    let vllm = || if wide(&point.version) { 8192 } else { 2048 };
    let tokens = match rule {
        "" => {
            notes.push(format!("batched_tokens is not known: {} are taken", vllm()));
            Some(vllm())
        }
        "default" => Some(vllm()),
        "max(8192, conc + isl + 64)" => Some((point.conc + point.isl + 64).max(8192)),
        _ => match rule.split_once(" (") {
            None => rule.parse().ok(),
            // "N (chunked prefill)", and "N (YYYY-MM), default before", by the date of the row.
            Some((tokens, "chunked prefill)")) => tokens.parse().ok(),
            Some((tokens, rest)) => match rest.strip_suffix("), default before") {
                Some(month) if is_month(month) && !point.date.is_empty() => {
                    if point.date.as_str() >= month {
                        tokens.parse().ok()
                    } else {
                        Some(vllm())
                    }
                }
                _ => None,
            },
        },
    };
    tokens.filter(|t| *t > 0).ok_or_else(|| {
        Diag::input(format!("{rule:?} is no rule that is known here, or needs a date")).place("batched_tokens").cure(
            "write a number, default, \"N (chunked prefill)\", \"N (YYYY-MM), default before\" or \"max(8192, conc + isl + 64)\"",
        )
    })
}

fn is_month(text: &str) -> bool {
    let digits = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| b.is_ascii_digit());
    text.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2))
}

/// Whether a version of vLLM has the wide budget; one that is not known is taken as new.
fn wide(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => [major, minor] >= WIDE_SINCE,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::point;
    use super::*;
    use crate::machine::Ranks;

    fn expressed(change: impl FnOnce(&mut Point)) -> Result<Expressed> {
        let mut p = point();
        change(&mut p);
        express(&p, PointRouting::Uniform, &Profiles::default())
    }

    #[test]
    fn every_rule_of_the_budget() {
        for (rule, version, date, tokens) in [
            ("20000", "0.18.0", "2026-01-01", Some(20_000)),
            ("32768 (chunked prefill)", "0.5.9", "2026-01-01", Some(32_768)),
            ("max(8192, conc + isl + 64)", "1.2", "2026-01-01", Some(8192)),
            ("default", "0.9.2", "2026-01-01", Some(2048)),
            ("default", "0.10.0", "2026-01-01", Some(8192)),
            ("default", "0.18.0", "2026-01-01", Some(8192)),
            ("default", "", "2026-01-01", Some(8192)),
            ("", "0.9.0", "2026-01-01", Some(2048)),
            ("32768 (2026-04), default before", "0.19.0", "2026-04-01", Some(32_768)),
            ("32768 (2026-04), default before", "0.19.0", "2026-05", Some(32_768)),
            ("32768 (2026-04), default before", "0.19.0", "2026-03-31", Some(8192)),
            ("32768 (2026-04), default before", "0.19.0", "", None),
            ("32768 (April), default before", "0.19.0", "2026-04-01", None),
            ("lots", "0.19.0", "2026-04-01", None),
            ("0", "0.19.0", "2026-04-01", None),
        ] {
            let found = expressed(|p| {
                (p.batched_tokens, p.version, p.date) = (rule.into(), version.into(), date.into());
            });
            let found = found.map(|e| e.resolved.experiment.deployment.max_batched_tokens);
            assert_eq!(found.clone().ok(), tokens, "{rule:?} {version} {date}: {found:?}");
            if let Err(e) = found {
                assert_eq!((e.exit_code(), e.place.as_deref()), (2, Some("batched_tokens")), "{e}");
            }
        }
        let long = expressed(|p| (p.batched_tokens, p.isl) = ("max(8192, conc + isl + 64)".into(), 8192)).unwrap();
        assert_eq!(long.resolved.experiment.deployment.max_batched_tokens, 8192 + 64 + 4);
    }

    #[test]
    fn weights_have_the_bits_of_the_precision() {
        for (model, precision, experts, attention) in [
            ("gpt-oss-120b", "fp4", 4.25, 16.0),
            ("DeepSeek-R1", "fp4", 4.5, 16.0),
            ("DeepSeek-R1", "fp8", 8.001953125, 8.001953125),
            ("MiniMax-M2.5", "fp8", 8.001953125, 8.001953125),
            ("MiniMax-M2.5", "fp4", 4.5, 16.0),
            ("Kimi-K2.5", "int4", 4.5, 16.0),
            ("Kimi-K2.5", "fp4", 4.5, 16.0),
        ] {
            let e = expressed(|p| (p.model, p.precision) = (model.into(), precision.into())).unwrap();
            let bits = e.resolved.model.precision;
            assert_eq!((bits.experts, bits.attention), (experts, attention), "{model} {precision}");
        }
        let e = expressed(|p| p.precision = "fp16".into()).unwrap_err();
        assert!(e.to_string().contains("gpt-oss-120b in fp16 is not known here"), "{e}");
    }

    #[test]
    fn ranks_and_machines() {
        let e = expressed(|p| (p.gpus, p.tp, p.dp, p.moe_tp, p.moe_ep) = (4, 2, 2, 1, 4)).unwrap();
        let d = &e.resolved.experiment.deployment;
        let ranks = Ranks::new(d, &e.resolved.model, e.resolved.hardware.devices()).unwrap();
        assert_eq!((ranks.tp, ranks.dp, ranks.etp, ranks.ep, d.max_sequences), (2, 2, 1, 4, 4));
        // What does not cover the devices is refused by the run.
        let e = expressed(|p| (p.gpus, p.tp) = (4, 2)).unwrap();
        assert!(Ranks::new(&e.resolved.experiment.deployment, &e.resolved.model, 4).is_err());
        let e = expressed(|p| (p.system, p.gpus) = ("gb200".into(), 36)).unwrap();
        assert_eq!((e.hardware.as_str(), e.resolved.hardware.devices()), ("gb200-nvl72", 36));
        let e = expressed(|p| (p.system, p.gpus) = ("h100_sxm".into(), 16)).unwrap();
        assert_eq!((e.hardware.as_str(), e.resolved.hardware.devices()), ("h100-2x8", 16));
        for (system, gpus, words) in [
            ("tpu", 8, "tpu has no preset"),
            ("h100_sxm", 12, "12 devices of h100_sxm are not one node or two"),
            ("gb200", 144, "144 devices of gb200 are not"),
        ] {
            let e = expressed(|p| (p.system, p.gpus) = (system.into(), gpus)).unwrap_err();
            assert!(e.to_string().contains(words), "{e}");
        }
    }

    #[test]
    fn requests_are_as_measured() {
        use moesim_traces::arrivals::{ArrivalSpec, Arrivals};
        let e = expressed(|p| (p.isl, p.osl, p.conc) = (1024, 8192, 16)).unwrap();
        let spec = &e.resolved.experiment.workload.arrivals;
        assert!(matches!(spec, ArrivalSpec::ClosedLoop { concurrency: 16, requests: 160, .. }));
        let Ok(Arrivals::Closed { requests, .. }) = spec.open(1, &PathBuf::new()) else { panic!("{spec:?}") };
        let (mut shortest, mut longest) = ([u32::MAX; 2], [0; 2]);
        for r in requests {
            let r = r.unwrap();
            for (i, n) in [r.prompt_tokens, r.output_tokens].into_iter().enumerate() {
                (shortest[i], longest[i]) = (shortest[i].min(n), longest[i].max(n));
            }
        }
        assert!(longest[0] <= 1024 && longest[1] <= 8192, "{longest:?}");
        assert!(shortest[0] >= 819 && shortest[1] >= 6553, "{shortest:?}");
        assert!(longest[0] > 1000 && shortest[0] < 850, "{shortest:?} {longest:?}");
    }
}
