//! The table of served points.

use crate::validate::OK;
use crate::validate::points::components::{Both, Component, Components};
use crate::validate::points::outcome::PointOutcome;
use crate::validate::points::statistics::{Errors, mean, median, rank_correlation};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Points that are shown as the worst.
const WORST: usize = 10;

/// Errors by group, components, the worst points, and what could not be expressed.
pub(super) fn table(outcomes: &[PointOutcome]) -> String {
    let mut t = String::new();
    groups(&mut t, outcomes);
    correlation(&mut t, outcomes);
    components(&mut t, outcomes);
    left_over(&mut t, outcomes);
    worst(&mut t, outcomes);
    lacking(&mut t, outcomes);
    let rounds: Vec<f64> = outcomes.iter().filter_map(|o| o.rounds).map(f64::from).collect();
    let measured = outcomes.first().map_or(0, |o| o.rounds_measured);
    let _ = writeln!(
        t,
        "\n{} points, {} simulated, {} of {measured} rounds in the mean (those between the fifth and the last are left out \
         where one more moves the means by 1 % or less); error: simulated over measured, less 1",
        outcomes.len(),
        rounds.len(),
        number(mean(&rounds).unwrap_or(0.0)),
    );
    t
}

/// The group of a point.
type GroupOf<'a> = &'a dyn Fn(&PointOutcome) -> String;

fn groups(t: &mut String, outcomes: &[PointOutcome]) {
    let _ = writeln!(
        t,
        "{:<22}{:>5}{:>8}{:>9}{:^38}{:^38}",
        "", "n", "lacking", "in 10 %", "TPOT error, %", "TTFT error, %"
    );
    let half = format!("{:>9}{:>9}{:>10}{:>10}", "mean", "median", "|mean|", "|median|");
    let _ = writeln!(t, "{:<44}{half}{half}", "");
    row(t, "all", &outcomes.iter().collect::<Vec<_>>());
    let by: [(&str, GroupOf); 4] = [
        ("model", &|o| o.point.model.clone()),
        ("device", &|o| o.point.system.clone()),
        ("framework", &|o| o.point.backend.clone()),
        ("clients", &|o| clients(o.point.conc).to_string()),
    ];
    for (name, group) in by {
        let _ = writeln!(t, "{name}");
        let mut members: BTreeMap<String, Vec<&PointOutcome>> = BTreeMap::new();
        outcomes.iter().for_each(|o| members.entry(group(o)).or_default().push(o));
        for (group, members) in &members {
            row(t, &format!("  {}", group.trim_start()), members);
        }
    }
}

/// Classes of concurrency; blanks before the names put them in order.
fn clients(n: u32) -> &'static str {
    match n {
        0..=9 => "   1 to 9",
        10..=63 => "  10 to 63",
        64..=127 => " 64 to 127",
        _ => "128 and more",
    }
}

fn row(t: &mut String, name: &str, outcomes: &[&PointOutcome]) {
    let errors =
        |of: &dyn Fn(&PointOutcome) -> Option<f64>| outcomes.iter().filter_map(|o| of(o)).collect::<Vec<f64>>();
    let tpot = errors(&|o| o.tpot_relative_error);
    let close = tpot.iter().filter(|e| e.abs() <= OK).count();
    let _ = write!(
        t,
        "{name:<22}{:>5}{:>8}{:>8.0} ",
        outcomes.len(),
        outcomes.len() - tpot.len(),
        100.0 * close as f64 / outcomes.len().max(1) as f64
    );
    for e in [Errors::of(&tpot), Errors::of(&errors(&|o| o.ttft_relative_error))] {
        let _ = match e {
            None => write!(t, "{:>9}{:>9}{:>10}{:>10}", "-", "-", "-", "-"),
            Some(e) => {
                let [a, b, c, d] = [e.mean, e.median, e.mean_absolute, e.median_absolute].map(|x| 100.0 * x);
                write!(t, "{a:>+9.1}{b:>+9.1}{c:>10.1}{d:>10.1}")
            }
        };
    }
    t.push('\n');
}

fn correlation(t: &mut String, outcomes: &[PointOutcome]) {
    let of = |measured: &dyn Fn(&PointOutcome) -> f64, simulated: &dyn Fn(&PointOutcome) -> Option<f64>| {
        let pairs = outcomes.iter().filter_map(|o| simulated(o).map(|s| (measured(o), s)));
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.unzip();
        rank_correlation(&a, &b).map_or("-".to_string(), |r| format!("{r:.3}"))
    };
    let tpot = of(&|o| o.point.mean_tpot_ms, &|o| o.tpot_ms);
    let ttft = of(&|o| o.point.mean_ttft_ms, &|o| o.ttft_ms);
    let _ = writeln!(t, "\nrank correlation (Spearman): TPOT {tpot}, TTFT {ttft}");
}

fn components(t: &mut String, outcomes: &[PointOutcome]) {
    let both = outcomes.iter().filter_map(|o| Some(Both { point: &o.point, ttft_ms: o.ttft_ms?, tpot_ms: o.tpot_ms? }));
    let c = Components::of(&both.collect::<Vec<_>>());
    let _ = writeln!(
        t,
        "\n{:<66}{:>5}{:>11}{:>11}{:>9}{:>10}",
        "components, medians", "n", "measured", "simulated", "error, %", "|error|"
    );
    for (name, component) in [
        ("a long prompt amid decodes, by TPOT, 8192/1024 less 1024/8192, ms", &c.prompt_in_decodes),
        ("a long prompt, by TTFT, 8192/1024 less 1024/8192, ms", &c.prompt_alone),
        ("TPOT at up to 4 clients, ms", &c.few_clients),
        ("slope of TPOT, fewest to most clients, ms a client", &c.slope),
    ] {
        component_row(t, name, component);
    }
}

fn component_row(t: &mut String, name: &str, component: &Component) {
    let of = |f: &dyn Fn(&(f64, f64)) -> f64| component.pairs.iter().map(f).collect::<Vec<f64>>();
    // A difference that was measured as nothing or less is noise, and has no relative error.
    let errors: Vec<f64> = component.pairs.iter().filter(|p| p.0 > 0.0).map(|p| p.1 / p.0 - 1.0).collect();
    let _ = write!(t, "{name:<66}{:>5}", component.pairs.len());
    let _ = match (median(&of(&|p| p.0)), median(&of(&|p| p.1)), Errors::of(&errors)) {
        (Some(m), Some(s), Some(e)) => {
            let (signed, absolute) = (100.0 * e.median, 100.0 * e.median_absolute);
            writeln!(t, "{:>11}{:>11}{signed:>+9.1}{absolute:>10.1}", number(m), number(s))
        }
        _ => writeln!(t, "{:>11}{:>11}{:>9}{:>10}", "-", "-", "-", "-"),
    };
}

/// Points with so few clients show what an engine adds to the machine: few requests wait for others.
const FEW_CLIENTS: u32 = 16;
/// Prompts of at most so many tokens show what comes beside the work on them.
const SHORT_PROMPT: u32 = 1024;

/// What was measured beyond the simulation, by framework: what the framework's host and front end take beyond what the run
/// has of them already.
fn left_over(t: &mut String, outcomes: &[PointOutcome]) {
    let mut by: BTreeMap<&str, [Vec<f64>; 2]> = BTreeMap::new();
    for o in outcomes.iter().filter(|o| o.point.conc <= FEW_CLIENTS) {
        if let (Some(ttft), Some(tpot)) = (o.ttft_ms, o.tpot_ms) {
            let [a, b] = by.entry(&o.point.backend).or_default();
            if o.point.isl <= SHORT_PROMPT {
                a.push(o.point.mean_ttft_ms - ttft);
            }
            b.push(o.point.mean_tpot_ms - tpot);
        }
    }
    let _ = writeln!(
        t,
        "\nmeasured less simulated at up to {FEW_CLIENTS} clients, TTFT of prompts of at most {SHORT_PROMPT} tokens, medians, ms"
    );
    for (framework, [ttft, tpot]) in by {
        let of = |x: &[f64]| median(x).map_or("-".to_string(), |m| format!("{m:+.3}"));
        let [n, m] = [ttft.len(), tpot.len()];
        let _ = writeln!(t, "  {framework:<12} TTFT {} of {n} points, TPOT {} of {m}", of(&ttft), of(&tpot));
    }
}

fn worst(t: &mut String, outcomes: &[PointOutcome]) {
    let mut by_error: Vec<(&PointOutcome, f64)> =
        outcomes.iter().filter_map(|o| o.tpot_relative_error.map(|e| (o, e))).collect();
    by_error.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let _ = writeln!(t, "\nfurthest off in TPOT, ms");
    for (o, error) in by_error.into_iter().take(WORST) {
        let parts: Vec<String> =
            o.largest_parts(3).iter().map(|(kind, share)| format!("{kind} {:.0} %", 100.0 * share)).collect();
        let _ = writeln!(
            t,
            "  {:<64}{:>9}{:>9}{:>+8.0} %  {} binds: {}",
            point(o),
            number(o.point.mean_tpot_ms),
            number(o.tpot_ms.unwrap_or(0.0)),
            100.0 * error,
            o.bottleneck.unwrap_or("nothing"),
            parts.join(", ")
        );
    }
}

/// A point in few words.
fn point(o: &PointOutcome) -> String {
    let p = &o.point;
    format!("{}, {}/{}, {} clients", server(o), p.isl, p.osl, p.conc)
}

fn server(o: &PointOutcome) -> String {
    let p = &o.point;
    let ranks = format!("tp{} dp{} moe {}x{}", p.tp, p.dp, p.moe_tp, p.moe_ep);
    format!("{} {} {} {} {ranks}", p.model, p.precision, p.system, p.backend)
}

/// What could not be expressed, by reason and server.
fn lacking(t: &mut String, outcomes: &[PointOutcome]) {
    let mut reasons: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for o in outcomes {
        if let Some(reason) = &o.reason {
            *reasons.entry(reason).or_default().entry(server(o)).or_default() += 1;
        }
    }
    if !reasons.is_empty() {
        let _ = writeln!(t, "\nnot expressed, counted as missed");
    }
    for (reason, servers) in reasons {
        let servers: Vec<String> = servers.iter().map(|(server, n)| format!("{n} of {server}")).collect();
        let _ = writeln!(t, "  {}: {reason}", servers.join(", "));
    }
    let mut notes: BTreeMap<&str, usize> = BTreeMap::new();
    outcomes
        .iter()
        .filter(|o| o.reason.is_none())
        .flat_map(|o| &o.notes)
        .for_each(|n| *notes.entry(n).or_default() += 1);
    for (note, n) in notes {
        let _ = writeln!(t, "  {n} simulated with a stand-in: {note}");
    }
}

fn number(x: f64) -> String {
    match x.abs() {
        a if a >= 100.0 => format!("{x:.0}"),
        a if a >= 1.0 => format!("{x:.2}"),
        _ => format!("{x:.4}"),
    }
}
