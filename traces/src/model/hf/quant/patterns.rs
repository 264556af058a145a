//! Lists of modules in quantisation configurations: names, parts of names, shell patterns and regular expressions.

use crate::model::Model;
use moesim_core::{Diag, Result};
use regex_lite::{Regex, RegexBuilder};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Which modules a list names.
pub(super) struct Patterns {
    /// Names and parts of names, whole between dots; single experts of a layer as its first. And how they were written.
    plain: BTreeMap<String, String>,
    expressions: Vec<(Regex, String)>,
    /// Experts of a layer that one name stands for.
    experts: BTreeMap<String, BTreeSet<u32>>,
    used: RefCell<BTreeSet<String>>,
}

/// Wrappers of the language model in multimodal checkpoints, with the dots of regular expressions or without.
const WRAPPERS: [(&str, &str); 9] = [
    ("model.language_model.model.", "model."),
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("thinker.model.", "model."),
    ("language_model.", ""),
    (r"model\.language_model\.", r"model\."),
    (r"language_model\.model\.", r"model\."),
    (r"language_model\.", ""),
    ("backbone.layers.", "model.layers."),
];

/// Longest pattern, and most expressions of one list.
const LENGTH: usize = 1000;
const EXPRESSIONS: usize = 4096;

impl Patterns {
    /// Reads a list. `re:` starts a regular expression that matches from the start on, as in compressed-tensors; `*` and
    /// `?` make a shell pattern; all else is a name, or a part of names. What matches the name of a part of the model
    /// matches what is in it.
    ///
    /// # Errors
    /// Expressions that cannot be read, or too many of them.
    pub(super) fn new(list: &[&str]) -> Result<Self> {
        let mut all = Self {
            plain: BTreeMap::new(),
            expressions: Vec::new(),
            experts: BTreeMap::new(),
            used: RefCell::default(),
        };
        for given in list {
            let mut text = given.to_string();
            for (wrapper, inside) in WRAPPERS {
                text = text.replacen(wrapper, inside, 1);
            }
            let expression =
                text.strip_prefix("re:").or_else(|| text.contains(['\\', '^', '$', '(', '[', '|']).then_some(&text));
            let shell = text.contains(['*', '?']);
            let expression = match expression {
                Some(e) => Some(format!("^(?:{e})")),
                None if shell && text.starts_with(".*") => Some(format!("^(?:{text})")),
                None if shell => {
                    let escaped = regex_lite::escape(&text).replace(r"\*", ".*").replace(r"\?", ".");
                    Some(format!(r"^(?:.*\.)?(?:{escaped})(?:\..*)?$"))
                }
                None => None,
            };
            match expression {
                Some(e) => {
                    let regex = RegexBuilder::new(&e).size_limit(1 << 16).build().ok().filter(|_| e.len() <= LENGTH);
                    let short: String = given.chars().take(60).collect();
                    let regex = regex.ok_or_else(|| {
                        Diag::input(format!("the pattern \"{short}\" cannot be read")).cure(
                            "write it without look-around and back references, or set the bits in [precision] by hand",
                        )
                    })?;
                    all.expressions.push((regex, given.to_string()));
                }
                None => all.name(&text, given),
            }
        }
        if all.expressions.len() > EXPRESSIONS {
            return Err(Diag::input(format!("{} patterns are more than {EXPRESSIONS}", all.expressions.len()))
                .cure("name whole parts of layers, as in \"*self_attn*\""));
        }
        Ok(all)
    }
    /// A plain name; experts of a layer are all named as the first.
    fn name(&mut self, text: &str, given: &str) {
        let parts: Vec<&str> = text.trim_matches('.').split('.').collect();
        let single = parts.windows(2).position(|w| w[0] == "experts" && w[1].parse::<u32>().is_ok());
        let name = match single {
            Some(at) => {
                let first = [&parts[..=at], &["0"], &parts[at + 2..]].concat().join(".");
                self.experts.entry(first.clone()).or_default().insert(parts[at + 1].parse().unwrap_or(0));
                first
            }
            None => parts.join("."),
        };
        self.plain.entry(name).or_insert_with(|| given.to_string());
    }
    /// Whether one of a module's names, or a part of the model that it is in, is named.
    pub(super) fn matches(&self, names: &[String]) -> bool {
        // No short cut: every pattern that names something here is used.
        let mut any = false;
        for name in names {
            let ends: Vec<usize> = name.match_indices('.').map(|d| d.0).chain([name.len()]).collect();
            let starts = || [0].into_iter().chain(name.match_indices('.').map(|d| d.0 + 1));
            for start in starts() {
                for end in ends.iter().filter(|e| **e > start) {
                    if let Some(given) = self.plain.get(&name[start..*end]) {
                        any = true;
                        self.used.borrow_mut().insert(given.clone());
                    }
                }
            }
            for (regex, given) in &self.expressions {
                if regex.is_match(name) {
                    any = true;
                    self.used.borrow_mut().insert(given.clone());
                }
            }
        }
        any
    }
    /// All text, to see which spellings occur.
    pub(super) fn words(&self) -> String {
        let all = self.plain.keys().chain(self.expressions.iter().map(|e| &e.1));
        all.map(|p| format!("{p}\n")).collect()
    }
    /// Patterns that are tried on every name.
    pub(super) fn costly(&self) -> usize {
        self.expressions.len()
    }
    /// Patterns that matched nothing.
    pub(super) fn unused(&self) -> Vec<&str> {
        let used = self.used.borrow();
        let all = self.plain.values().chain(self.expressions.iter().map(|e| &e.1));
        all.filter(|p| !used.contains(*p)).map(String::as_str).collect()
    }
    /// A name of single experts of a layer that are not all of its experts.
    pub(super) fn part_of_experts(&self, model: &Model) -> Option<&str> {
        let experts = model.decoder.iter().filter_map(|l| l.moe()).map(|m| m.experts as usize).max()?;
        let part = self.experts.iter().find(|(_, named)| named.len() < experts)?;
        self.plain.get(part.0).map(String::as_str)
    }
}

/// What is named of parts that model files do not have, and what is never quantised: norms, towers for pictures and
/// sound, rotary tables.
pub(super) fn is_elsewhere(pattern: &str) -> bool {
    let parts = [
        "norm",
        "vision",
        "visual",
        "audio",
        "projector",
        "patch_embed",
        "embed_vision",
        "rotary",
        "mtp",
        "eh_proj",
        "shared_head",
        "correction_bias",
        "pos_emb",
        "merger",
        "connector",
        "vit",
        "image",
        "shared_expert_gate",
        "talker",
        "code2wav",
    ];
    parts.iter().any(|p| pattern.contains(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_patterns_and_expressions_match_what_they_name() {
        let matches = |pattern: &str, name: &str| Patterns::new(&[pattern]).unwrap().matches(&[name.to_string()]);
        let attention = "model.layers.10.self_attn.q_proj";
        for (pattern, hit) in [
            ("self_attn", true),
            ("model.layers.10", true),
            ("model.layers.1", false),
            ("layers.10.self_attn.q_proj", true),
            ("q", false),
            ("model.layers.1*", true),
            ("model.layers.0*", false),
            ("*self_attn*", true),
            ("*.q_proj", true),
            ("model.layers.*.self_attn", true),
            ("language_model.model.layers.10.self_attn*", true),
            ("re:.*self_attn.*", true),
            (r"re:model\.language_model\.layers\.10\..*", true),
            ("re:self_attn", false),
            (r".*\.(q|k)_proj", true),
            ("lm_head", false),
        ] {
            assert_eq!(matches(pattern, attention), hit, "{pattern}");
        }
        assert!(!matches("gate", "model.layers.0.mlp.gate_proj") && matches("gate", "model.layers.0.mlp.gate"));
        assert!(matches("layers.0.mlp.experts.7.w1", "model.layers.0.mlp.experts.0.w1"));
        assert!(!matches(r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "model.layers.3.mlp.experts.0.gate_proj"));
        for bad in ["re:(", "re:(?=x)", &format!("re:{}", "(a{99}){99}".repeat(9)), &"*".repeat(2000)] {
            assert!(Patterns::new(&[bad]).is_err(), "{bad}");
        }
    }
}
