//! Search from a given placement, with a limit on how many replicas may move.

use super::{Layer, Step};
use crate::{Homes, Problem};

/// Takes the step with the most load saved for each replica that moves, over all layers, while moves are left.
pub(crate) fn improve(p: &Problem, from: &Homes, moves: u64) -> Homes {
    let mut layers: Vec<Layer> = (0..p.layers).map(|l| Layer::of(p, l, &from[l])).collect();
    let mut offers: Vec<Option<(Step, f64)>> = layers.iter().map(offer).collect();
    let mut left = moves;
    for _ in 0..p.effort.steps.saturating_mul(p.layers as u64) {
        let fits = |l: &usize| offers[*l].is_some_and(|(step, _)| costs(step) <= left);
        let worth = |l: usize| offers[l].map_or(0.0, |o| o.1);
        let Some(l) = (0..p.layers).filter(fits).reduce(|a, b| if worth(b) > worth(a) { b } else { a }) else { break };
        let Some((step, _)) = offers[l] else { break };
        layers[l].apply(step);
        offers[l] = offer(&layers[l]);
        left -= costs(step);
        if p.over() {
            break;
        }
    }
    layers.into_iter().map(|l| l.homes).collect()
}

/// Replicas that a step moves.
fn costs(step: Step) -> u64 {
    if matches!(step, Step::Swap { .. }) { 2 } else { 1 }
}

/// The best step of a layer, and what it saves for each replica that it moves.
fn offer(layer: &Layer) -> Option<(Step, f64)> {
    let (step, _) = layer.best()?;
    let mut after = layer.clone();
    after.apply(step);
    let saved = layer.time(layer.busiest()) - after.time(after.busiest());
    Some((step, saved / costs(step) as f64))
}
