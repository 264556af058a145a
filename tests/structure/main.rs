//! Do the modules of every crate need each other one way only?
//!
//! Read from the text: a module needs another of its crate if it names it as `crate::other`. Tests may need anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const CRATES: [&str; 6] = ["hwmodels/core", "hwmodels", "traces", "solver", "sim", "sim/plot"];

/// Names of modules by those that need them.
type Needs = BTreeMap<String, BTreeSet<String>>;

/// What the top-level modules in `src` need of each other.
fn needs(src: &Path) -> Needs {
    let mut found = Needs::new();
    for entry in std::fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        if !["lib", "main"].contains(&name.as_str()) {
            read(&path, found.entry(name).or_default());
        }
    }
    let modules: BTreeSet<String> = found.keys().cloned().collect();
    for (module, needed) in &mut found {
        needed.retain(|n| n != module && modules.contains(n));
    }
    found
}

/// Adds the names behind `crate::` in a file or folder.
fn read(path: &Path, needed: &mut BTreeSet<String>) {
    let name = path.file_name().unwrap().to_str().unwrap();
    if path.is_dir() && name != "tests" {
        std::fs::read_dir(path).unwrap().for_each(|e| read(&e.unwrap().path(), needed));
    }
    if name == "tests.rs" || path.extension().is_none_or(|e| e != "rs") {
        return;
    }
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    if text.contains("\n#[test]\n") {
        return;
    }
    let code = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    for behind in code.split("crate::").skip(1) {
        let list = behind.strip_prefix('{').map_or(behind, |l| l.split(';').next().unwrap());
        let several = list.len() < behind.len();
        // Of `{a::b, c}` the names at its outer level.
        let mut depth = 0;
        let outer: String = list
            .chars()
            .filter(|c| {
                depth += i32::from(*c == '{') - i32::from(*c == '}');
                depth == 0
            })
            .collect();
        let names = if several { outer.split(',').collect() } else { vec![list] };
        needed.extend(
            names
                .into_iter()
                .map(|n| n.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().into()),
        );
    }
}

/// A circle, as the modules that it goes through, if there is one.
fn circle(needs: &Needs) -> Option<Vec<String>> {
    fn walk(needs: &Needs, at: &str, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        if let Some(from) = way.iter().position(|m| m == at) {
            return Some(way[from..].to_vec());
        }
        if !done.insert(at.to_string()) {
            return None;
        }
        way.push(at.to_string());
        let found = needs[at].iter().find_map(|next| walk(needs, next, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    needs.keys().find_map(|start| walk(needs, start, &mut Vec::new(), &mut done))
}

#[test]
fn no_two_modules_need_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for name in CRATES {
        let needs = needs(&root.join(name).join("src"));
        assert!(needs.len() > 2, "{name}");
        assert_eq!(circle(&needs), None, "{name}: a circle of modules");
    }
    // The simulation needs nearly all; so the reading works.
    let needs = needs(&root.join("sim/src"));
    for below in ["engine", "experiment", "metrics", "policy", "registry", "serving"] {
        assert!(needs["simulation"].contains(below), "{:?}", needs["simulation"]);
    }
}

#[test]
fn a_circle_is_found() {
    let of = |list: &[(&str, &[&str])]| -> Needs {
        list.iter().map(|(m, n)| (m.to_string(), n.iter().map(|n| n.to_string()).collect())).collect()
    };
    let line = of(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]);
    assert_eq!(circle(&line), None);
    let round = of(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]);
    assert_eq!(circle(&round), Some(vec!["b".to_string(), "c".to_string()]));
}
