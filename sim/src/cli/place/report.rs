//! What `moesim place` prints.

use super::args::Args;
use super::found::{Found, Report};
use crate::cli::terminal::Format;
use crate::output::json;
use moesim_core::Result;
use std::fmt::Write;

pub(super) fn print(r: &Report, a: &Args) -> Result<String> {
    match a.format {
        Format::Json => Ok(json(r)? + "\n"),
        Format::Table => Ok(table(r, a)),
    }
}

fn table(r: &Report, a: &Args) -> String {
    let mut t = String::new();
    let nodes = if r.nodes > 1 { format!(" on {} nodes", r.nodes) } else { String::new() };
    let redundant = if r.redundant > 0 { format!(" + {} redundant", r.redundant) } else { String::new() };
    let _ = writeln!(
        t,
        "{} layers of {} experts{redundant} on {} devices{nodes}; {} tokens an iteration",
        r.layers, r.experts, r.devices, r.iteration_tokens
    );
    let _ = writeln!(t, "objective: {}, in {}; trained on {}", r.objective, r.unit, r.trained_on);
    if let Some(held) = &r.held_out_on {
        let _ = writeln!(t, "held out: {held}");
    }
    let width = r.methods.iter().map(|m| m.method.chars().count()).max().unwrap_or(6).max(6);
    let rows: Vec<&Found> = r.methods.iter().filter_map(|m| m.found.as_ref()).collect();
    let (held, simulated, traffic) = (
        rows.iter().any(|f| f.held_out.is_some()),
        rows.iter().any(|f| f.held_out.as_ref().is_some_and(|h| h.simulated.is_some())),
        rows.iter().any(|f| f.traffic.is_some()),
    );
    let against = rows.iter().find_map(|f| f.held_out.as_ref()?.against);
    let _ = write!(
        t,
        "{:<width$} {:>11} {:>11} {:>9} {:>11} {:>11} {:>9}",
        "method", "objective", "bound", "above it", "load", "bound", "above it"
    );
    if traffic {
        let _ = write!(t, " {:>11}", "traffic");
    }
    if held {
        let _ = write!(t, " | {:>11}", "held-out");
    }
    if let Some(name) = against {
        let _ = write!(t, " {:>23}", format!("of {name}'s (95 %)"));
    }
    if simulated {
        let _ = write!(t, " | {:>10} {:>6} {:>6} {:>10} {:>10}", "tokens/s", "imb.", "p99", "GB device", "GB node");
    }
    let _ = writeln!(t, " | {:>8}  what ran", "seconds");
    for m in &r.methods {
        let Some(f) = &m.found else {
            let _ = writeln!(t, "{:<width$} -- {}", m.method, m.refused.as_deref().unwrap_or_default());
            continue;
        };
        let load_gap = moesim_solver::bound::gap(f.load, f.load_bound);
        let _ = write!(
            t,
            "{:<width$} {:>11} {:>11} {:>9} {:>11} {:>11} {:>9}",
            m.method,
            digits(f.objective),
            digits(f.bound),
            percent(f.gap),
            digits(f.load),
            digits(f.load_bound),
            percent(Some(load_gap).filter(|g| g.is_finite()))
        );
        if traffic {
            let _ = write!(t, " {:>11}", digits(f.traffic.unwrap_or(0.0)));
        }
        if let Some(h) = &f.held_out {
            let (load, ratio, interval) = h.words();
            let words = match (ratio, interval) {
                (Some(r), Some([low, high])) => format!("{r:.4} ({low:.4}-{high:.4})"),
                _ => "1".into(),
            };
            let _ = write!(t, " | {:>11}", digits(load));
            if against.is_some() {
                let _ = write!(t, " {words:>23}");
            }
            if let Some(s) = &h.simulated {
                let n = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.3}"));
                let _ = write!(
                    t,
                    " | {:>10.1} {:>6} {:>6} {:>10.4} {:>10.4}",
                    s.output_tokens_per_s,
                    n(s.imbalance_mean),
                    n(s.imbalance_p99),
                    s.cross_device_bytes as f64 / 1e9,
                    s.cross_node_bytes as f64 / 1e9
                );
            }
        }
        let cut = if f.reproducible { "" } else { ", cut by the clock: another run may end elsewhere" };
        let moved = f.moves.map_or(String::new(), |m| format!(", {m} replicas moved"));
        let ran = f.ran.as_deref().unwrap_or(&m.method);
        let _ = writeln!(t, " | {:>8.2}  {ran}{cut}{moved}", f.seconds);
    }
    t += "bound: what no placement beats, of the column before it; above it: that column over its bound, less one\n";
    if let Some(name) = against {
        let _ = writeln!(
            t,
            "of {name}'s: {} on the held-out part over that of {name}'s placement; 95 % of bootstrap samples are in the brackets",
            if r.objective == "time" { "the time" } else { "the load" }
        );
    }
    for n in &r.notes {
        let _ = writeln!(t, "note: {n}");
    }
    if let Some(out) = &a.out {
        let _ = writeln!(t, "written to {} ({})", out.display(), a.write_as);
    }
    t
}

/// Five digits, whatever the size.
fn digits(x: f64) -> String {
    if x != 0.0 && x.abs() < 0.1 { format!("{x:.4e}") } else { format!("{x:.2}") }
}

fn percent(gap: Option<f64>) -> String {
    gap.map_or("-".into(), |g| format!("{:.2} %", 100.0 * g))
}
