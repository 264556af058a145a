//! Links that do not work, and the ways around them.

use super::graph::breadth_first;
use super::{Plan, Wiring};
use moesim_core::{Diag, Result, diag};

/// `plan` with a route that avoids the links of these names.
pub(super) fn around(mut plan: Plan, failed: &[String]) -> Result<Plan> {
    if failed.is_empty() {
        return Ok(plan);
    }
    let Wiring { graph, links } = &mut plan.wiring;
    let mut by_name: Vec<usize> = (0..links.len()).collect();
    by_name.sort_unstable_by(|&a, &b| links[a].name.cmp(&links[b].name));
    for (i, name) in failed.iter().enumerate() {
        let Ok(at) = by_name.binary_search_by(|&l| links[l].name.as_str().cmp(name)) else {
            let place = format!("failed_links.{i}");
            let problem = format!("there is no link \"{name}\"");
            // The nearest of the links with the same start, if it has any: all names would be too many to compare.
            let start = name.split('>').next().unwrap_or_default();
            let near = links.iter().filter(|l| l.name.split('>').next() == Some(start)).map(|l| l.name.as_str());
            let known = diag::nearest(name, near).or(links.first().map(|l| l.name.as_str()));
            return Err(Diag::input(problem).place(place).cure(match known {
                Some(known) => format!("write a link as `moesim show` names it, as in \"{known}\""),
                None => "leave it out: this topology has no links".into(),
            }));
        };
        links[by_name[at]].failed = true;
    }
    let works: Vec<bool> = links.iter().map(|l| !l.failed).collect();
    let (graph, devices, mut rule) = (graph.clone(), plan.devices, plan.route);
    let (mut reached, mut of) = (Vec::new(), usize::MAX);
    plan.route = Box::new(move |src, dst, path| {
        let start = path.len();
        rule(src, dst, path);
        if path[start..].iter().all(|&l| works[l as usize]) {
            return;
        }
        path.truncate(start);
        if of != src {
            (reached, of) = (breadth_first(&graph, devices, src, |l| works[l as usize]), src);
        }
        super::graph::walk_back(&graph, &reached, dst, path);
    });
    Ok(plan)
}
