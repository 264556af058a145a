//! Does the on-demand policy's cache do what its documentation says, look-up by look-up?

use crate::common::{Place, number};
use moesim_traces::Model;
use moesim_traces::synth::{SynthSpec, synthesize};

const SEQUENCES: u32 = 6;
const PROMPT_ROWS: u32 = 40;
const DECODE_ROWS: u32 = 24;

/// A cache written from the documentation: a list, least recently used first.
struct Lru {
    order: Vec<(usize, u16)>,
    capacity: usize,
    hits: u64,
    loads: u64,
}

impl Lru {
    /// Looks up the activated experts of a layer, ascending. While the layer is looked up, none of them may leave.
    fn layer(&mut self, layer: usize, activated: &[u16]) {
        for &expert in activated {
            let key = (layer, expert);
            if let Some(at) = self.order.iter().position(|k| *k == key) {
                self.order.remove(at);
                self.order.push(key);
                self.hits += 1;
                continue;
            }
            self.loads += 1;
            if self.order.len() == self.capacity {
                let pinned = |k: &(usize, u16)| k.0 == layer && activated.contains(&k.1);
                match self.order.iter().position(|k| !pinned(k)) {
                    Some(victim) => drop(self.order.remove(victim)),
                    // Streamed through the staging buffer, and not kept.
                    None => continue,
                }
            }
            self.order.push(key);
        }
    }
}

#[test]
fn hits_and_loads_of_one_user() {
    let p = Place::new();
    let model = Model::load("gpt-oss-20b").unwrap();
    let seed = 5;
    let spec = SynthSpec::for_model(&model, SEQUENCES, PROMPT_ROWS, DECODE_ROWS).unwrap();
    let trace = synthesize(&spec, seed).unwrap();
    let (width, k) = (trace.width(), trace.k());
    for (i, fraction) in [0.25, 0.5, 1.0, 0.01].into_iter().enumerate() {
        // Nine requests on six sequences: the last three are staggered. Prompts are cut into chunks of 32.
        let set = [
            &format!("seed={seed}"),
            "hardware=rtx4090-offload",
            "policy.execution=on-demand",
            &format!("policy.cache_fraction={fraction}"),
            "workload.arrivals={ kind = \"closed-loop\", concurrency = 1, requests = 9, prompt_tokens = { mean = 30, \
             spread = 0.3 }, output_tokens = { mean = 16, spread = 0.5 } }",
            &format!(
                "workload.routing={{ kind = \"synthetic\", sequences = {SEQUENCES}, prompt_rows = {PROMPT_ROWS}, \
                 decode_rows = {DECODE_ROWS} }}"
            ),
            "deployment.max_batched_tokens=32",
        ];
        let run = p.run("quickstart", &format!("run{i}"), &set);
        let requests = run.table("requests.csv");
        let column = |name: &str| requests.column::<usize>(name);
        let (prompts, outputs) = (column("prompt_tokens"), column("output_tokens"));
        let (sequences, offsets) = (column("sequence"), column("offset"));
        let iterations = run.table("iterations.csv");
        let (prefill, decode) =
            (iterations.column::<usize>("prefill_tokens"), iterations.column::<usize>("decode_tokens"));
        assert!(prompts.iter().any(|p| *p > 32) && offsets.iter().any(|o| *o > 0));
        let held = trace.layers() * trace.experts();
        let capacity = ((held as f64 * fraction) as usize).max(1);
        let mut lru = Lru { order: Vec::new(), capacity, hits: 0, loads: 0 };
        let mut iteration = 0;
        // One user: requests are done in the order of their numbers, one after the other.
        for r in 0..requests.rows.len() {
            let s = trace.sequence(trace_index(&trace, sequences[r]));
            let mut at = 0;
            while at < prompts[r] + outputs[r] - 1 {
                let count = prefill[iteration] + decode[iteration];
                assert_eq!(decode[iteration], usize::from(at >= prompts[r]));
                let rows: Vec<&[u16]> = (at..at + count)
                    .map(|position| match position.checked_sub(prompts[r]) {
                        None => &s.prefill[position * width..][..width],
                        Some(j) => &s.decode[(offsets[r] + j) % DECODE_ROWS as usize * width..][..width],
                    })
                    .collect();
                for layer in 0..trace.layers() {
                    let mut activated: Vec<u16> =
                        rows.iter().flat_map(|row| row[layer * k..(layer + 1) * k].iter().copied()).collect();
                    activated.sort_unstable();
                    activated.dedup();
                    lru.layer(layer, &activated);
                }
                at += count;
                iteration += 1;
            }
        }
        assert_eq!(iteration, iterations.rows.len());
        let s = run.summary();
        assert_eq!(
            (number(&s, "counters.on-demand.hits"), number(&s, "counters.on-demand.loads")),
            (lru.hits as f64, lru.loads as f64)
        );
        assert!(lru.loads > 0 && (lru.hits > 0 || fraction < 0.02), "{} {}", lru.hits, lru.loads);
        let expert = 3 * u64::from(model.hidden) * 2880;
        assert!(number(&s, "counters.on-demand.loaded_bytes") / lru.loads as f64 / expert as f64 > 0.5);
    }
}

/// `requests.csv` names a sequence by its own number.
fn trace_index(trace: &moesim_traces::Trace, id: usize) -> usize {
    (0..trace.sequences()).find(|i| trace.sequence(*i).id as usize == id).unwrap()
}
