//! What the solver counts is what a run moves.

use super::*;
use crate::experiment;
use crate::metrics::tables::Tables;
use crate::routing::Binder;
use crate::simulation::Simulation;
use moesim_core::config;
use moesim_core::rng::{below, stream};
use moesim_solver::method::{cyclic::Cyclic, eplb::Eplb};
use moesim_solver::traffic::{Routes, copies};
use moesim_solver::{Homes, Placement};
use moesim_traces::{Meta, OwnedSequence};
use rand::Rng;

const SEQUENCES: u32 = 24;
const PROMPT: usize = 3;
const DECODE: usize = 5;

/// Sequences of three prompt rows and five decode rows, top-4 of 32 experts with a skew.
fn trace() -> Arc<Trace> {
    let mut draw = stream(3, "test", 0);
    let mut rows = |n: usize| {
        let mut ids: Vec<u16> = Vec::new();
        for _ in 0..n * 24 {
            let from = ids.len();
            while ids.len() < from + 4 {
                let id = (below(draw.next_u64(), 32).min(below(draw.next_u64(), 32))) as u16;
                if !ids[from..].contains(&id) {
                    ids.push(id);
                }
            }
        }
        ids
    };
    let sequence = |id: u32, rows: &mut dyn FnMut(usize) -> Vec<u16>| OwnedSequence {
        id,
        prefill: rows(PROMPT),
        decode: rows(DECODE),
        decode_first_position: PROMPT as u32,
        ..OwnedSequence::default()
    };
    let meta = Meta {
        model: "gpt-oss-20b".into(),
        layer_numbers: (0..24).collect(),
        experts: 32,
        k: 4,
        source: "drawn".into(),
        licence: "none".into(),
    };
    let all = (0..SEQUENCES).map(|id| sequence(id, &mut rows)).collect();
    Arc::new(Trace::from_sequences(meta, all).unwrap())
}

/// Every row is computed once: prompts of three tokens, and five of the six output tokens are fed back.
fn resolved(more: &str) -> Resolved {
    let text = format!(
        "name = \"t\"\nmodel = \"gpt-oss-20b\"\nhardware = \"h100-2x8\"\n\
         [policy]\nload_balancer = \"round-robin\"\n{more}\n\
         [workload.arrivals]\nkind = \"closed-loop\"\nconcurrency = {SEQUENCES}\nrequests = {SEQUENCES}\n\
         prompt_tokens = {{ mean = {PROMPT} }}\noutput_tokens = {{ mean = {} }}\n\
         [workload.routing]\nkind = \"trace\"\npath = \"none.arrow\"\nmissing = \"refuse\"\n",
        DECODE + 1
    );
    experiment::resolve("t", config::table(&text, "t").unwrap(), "".into(), &[]).unwrap()
}

/// Placements with and without replicas.
fn placements() -> Vec<Homes> {
    let mut p = Problem::even(24, 32, 16);
    p.tokens = (0..24 * 32).map(|i| f64::from(33 - i % 32)).collect();
    let more = p.clone().with_redundant(16);
    vec![Cyclic.place(&p).unwrap().homes, Eplb { hierarchical: false }.place(&more).unwrap().homes]
}

#[test]
fn bytes_of_a_run_are_those_of_the_objective() {
    let trace = trace();
    let binder = Binder::new(vec![DECODE as u32; SEQUENCES as usize], 1);
    let follow = "[deployment]\nattention_tp = 16\ntokens = \"token-follows\"";
    for (way, more) in
        [("flat", ""), ("per-selection", ""), ("hierarchical", ""), ("flat", follow), ("per-selection", follow)]
    {
        let mut r = resolved(&format!("dispatch = \"{way}\"\n{more}"));
        let site = Site::new(&r, &Registry::builtin()).unwrap();
        for homes in placements() {
            r.homes = Some(Arc::new(homes.clone()));
            let mut s = Simulation::new(&r, &Registry::builtin(), || Ok(trace.clone()), Tables::default()).unwrap();
            s.run(&mut |_| true).unwrap();
            assert_eq!(s.ended().provenance.traced, (24 * 4 * SEQUENCES as usize * (PROMPT + DECODE)) as u64);
            // Requests go round the ranks, in the order in which they are bound.
            let mut home = vec![0u32; SEQUENCES as usize];
            for id in 0..SEQUENCES {
                home[binder.bind(u64::from(id)).sequence as usize] = id % 16;
            }
            let node_of = site.node_of();
            let routes = Routes { mode: site.plan.deployment.tokens, way: site.way(), node_of: &node_of };
            let c = copies(&trace, 0..trace.sequences(), &homes, routes, |i| home[i]).unwrap();
            let (out, back) = (site.plan.dispatch_token_bytes, site.plan.combine_token_bytes);
            let n = &s.network;
            let said = (
                (c.dispatch_inside + c.dispatch_across) * out,
                (c.combine_inside + c.combine_across) * back,
                c.dispatch_across * out,
                c.combine_across * back,
            );
            let moved = (
                n.dispatch_bytes,
                n.combine_bytes,
                n.dispatch_cross_node_bytes,
                n.cross_node_bytes - n.dispatch_cross_node_bytes,
            );
            assert_eq!(said, moved, "{way} {more}");
            assert!(moved.2 > 0);
        }
    }
}

/// One link of 450 GB/s at 80 % inside a node of eight, one of 400 Gb/s at 90 % between two.
#[test]
fn exchange_rates_are_those_of_a_devices_links() {
    let site = Site::new(&resolved(""), &Registry::builtin()).unwrap();
    let [inside, across] = site.exchange_rates();
    assert!((inside * 450e9 * 0.8 - 1.0).abs() < 1e-6, "{}", inside * 450e9 * 0.8);
    assert!((across * 50e9 * 0.9 - 1.0).abs() < 1e-6, "{}", across * 50e9 * 0.9);
}

/// A kernel's part grows with tokens, and an expert without any costs nothing.
#[test]
fn kernels_grow_with_tokens() {
    let site = Site::new(&resolved(""), &Registry::builtin()).unwrap();
    let kernel = site.kernel(4);
    assert_eq!(kernel.of(0.0), 0.0);
    for n in 1..2000 {
        assert!(kernel.of(f64::from(n)) >= kernel.of(f64::from(n - 1)));
    }
    assert!(kernel.of(1.0) > 100.0 * (kernel.of(2.0) - kernel.of(1.0)), "one token reads the weights");
}
