//! Quantisation: what a configuration says of it becomes bits per element of each class of weights.
//!
//! A method has a layout by default and rules for modules that differ. Precisions of a model file are of whole classes of
//! weights, so that a class of which only a part is quantised gets the mean over its weights, with a note.

mod compressed;
mod integer;
mod methods;
mod modules;
mod patterns;

use super::keys::Keys;
use super::python;
use crate::model::{Model, Precision};
use modules::{CLASSES, Class};
use moesim_core::{Diag, Result};
use patterns::Patterns;
use std::collections::BTreeMap;
use std::path::Path;

/// Bits of a quantised matrix: elements, and scales (zero points too) over so many of them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Layout {
    element: f64,
    scales: f64,
    over: Over,
}

/// What shares a scale.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Over {
    /// The whole matrix: no bits worth counting.
    Tensor,
    /// An output's weights.
    Row,
    /// So many weights.
    Elements(f64),
}

impl Layout {
    const fn new(element: f64, scales: f64, over: Over) -> Self {
        Self { element, scales, over }
    }
    /// Bits per weight of a matrix with rows of so many weights.
    fn bits(self, columns: f64) -> f64 {
        self.element
            + match self.over {
                Over::Tensor => 0.0,
                Over::Row => self.scales / columns.max(1.0),
                Over::Elements(n) => self.scales / n.max(1.0),
            }
    }
}

/// What a method says.
struct Scheme {
    /// Modules that differ, and what they have (`None`: they are not quantised); the first that matches counts.
    rules: Vec<(Patterns, Option<Layout>)>,
    /// All others of `classes`.
    default: Option<Layout>,
    classes: &'static [Class],
    /// Bits of the KV cache, if it is quantised.
    kv: Option<f64>,
    /// Bits that activations are rounded to before products, if they are.
    activations: Option<f64>,
    notes: Vec<String>,
}

/// Matrices of layers: what most methods quantise. Routers stay as they are in every method but MLX's, since loaders do
/// not take them for linear layers or exclude them.
const LINEAR: &[Class] = &[Class::Attention, Class::Experts, Class::Shared, Class::Dense];
const WITH_HEAD: &[Class] = &[Class::Attention, Class::Experts, Class::Shared, Class::Dense, Class::Head];

impl Scheme {
    fn new(default: Option<Layout>, classes: &'static [Class]) -> Self {
        Self { rules: Vec::new(), default, classes, kv: None, activations: None, notes: Vec::new() }
    }
    /// Leaves the modules of a list out.
    fn exclude(&mut self, k: &Keys, keys: &[&str]) -> Result<bool> {
        let mut given = false;
        for key in keys {
            if let Some(list) = k.texts(key)? {
                given |= !list.is_empty();
                self.rules.push((Patterns::new(&list).map_err(|d| d.place(k.name(key)))?, None));
            }
        }
        Ok(given)
    }
    fn layout(&self, class: Class, names: &[String]) -> Option<Layout> {
        let rule = self.rules.iter().find(|(patterns, _)| patterns.matches(names));
        match rule {
            Some((_, layout)) => *layout,
            None => self.default.filter(|_| self.classes.contains(&class)),
        }
    }
    /// Bits of every class, where `plain` has those of what is not quantised; and what to say of it.
    fn precision(&self, model: &Model, plain: &Precision) -> Result<(Precision, Vec<String>)> {
        let words: String = self.rules.iter().map(|r| r.0.words()).collect();
        let modules = modules::of(model, &words);
        let names: usize = modules.iter().map(|m| m.names.len()).sum();
        let checks = names * self.rules.iter().map(|r| 16 + r.0.costly()).sum::<usize>();
        if checks > 1 << 23 {
            return Err(Diag::input("the patterns of the quantisation are too many for the layers")
                .place("quantization_config")
                .cure("name whole parts of layers, as in \"*self_attn*\""));
        }
        let mut shares: BTreeMap<Class, Vec<(f64, f64)>> = BTreeMap::new();
        for m in &modules {
            let bits = self.layout(m.class, &m.names).map_or(modules::bits(plain, m.class), |l| l.bits(m.columns));
            let bits = (bits * 1e9).round() / 1e9;
            let of = shares.entry(m.class).or_default();
            match of.iter_mut().find(|s| s.0 == bits) {
                Some(s) => s.1 += m.parameters,
                None => of.push((bits, m.parameters)),
            }
        }
        let (mut precision, mut notes) = (plain.clone(), self.notes.clone());
        for class in CLASSES {
            let Some(of) = shares.get(&class) else { continue };
            let all: f64 = of.iter().map(|s| s.1).sum();
            let mean = match of.as_slice() {
                [one] => one.0,
                _ => (of.iter().map(|s| s.0 * s.1).sum::<f64>() / all * 1e6).round() / 1e6,
            };
            *modules::bits_mut(&mut precision, class) = mean;
            let differ = of.iter().any(|s| (s.0 - of[0].0).abs() > 0.05);
            if differ {
                let part = |s: &(f64, f64)| format!("{:.1} % has {} bits", 100.0 * s.1 / all, s.0);
                let parts: Vec<String> = of.iter().map(part).collect();
                notes.push(format!(
                    "{} weights: {}; their mean, {mean:.3}, stands for all",
                    class.name(),
                    parts.join(", ")
                ));
            }
        }
        if model.tied_embedding {
            precision.head = precision.embedding;
        }
        precision.kv = self.kv.unwrap_or(plain.kv);
        if let Some(bits) = self.activations.filter(|b| *b < plain.activation) {
            precision.gemm_input = Some(bits);
            notes.push(format!(
                "activations are rounded to {bits} bits before products (`precision.gemm_input`); `precision.activation` stays that \
                 of what is kept and sent between operations"
            ));
        }
        let unused: Vec<&str> =
            self.rules.iter().flat_map(|r| r.0.unused()).filter(|p| !patterns::is_elsewhere(p)).collect();
        if !unused.is_empty() {
            let more = if unused.len() > 4 { format!(" and {} more", unused.len() - 4) } else { String::new() };
            notes.push(format!(
                "the quantisation names modules that this model file does not have: {}{more}",
                unused.iter().take(4).map(|p| p.chars().take(60).collect::<String>()).collect::<Vec<_>>().join(", ")
            ));
        }
        if let Some(pattern) = self.rules.iter().find_map(|r| r.0.part_of_experts(model)) {
            notes.push(format!("\"{pattern}\" names some experts of a layer: all are taken alike"));
        }
        Ok((precision, notes))
    }
}

/// Where a quantisation may stand: in the outermost configuration, in one inside it, or in a file beside it. The first that
/// says anything counts, as serving engines have it.
pub(super) fn read(parts: &[&Keys], path: &Path, model: &Model, plain: &Precision) -> Result<(Precision, Vec<String>)> {
    let mut found: Vec<(String, Precision, Vec<String>)> = Vec::new();
    for key in ["quantization", "quantization_config", "compression_config"] {
        for k in parts {
            let Some(inner) = k.inner(key)? else { continue };
            if inner.names().next().is_none() {
                continue;
            }
            let scheme = methods::read(&inner, key == "quantization")?;
            let (precision, notes) = scheme.precision(model, plain)?;
            found.push((k.name(key), precision, notes));
        }
    }
    for (name, method) in BESIDE {
        let file = path.with_file_name(name);
        if !file.is_file() {
            continue;
        }
        let within = || -> Result<(Precision, Vec<String>)> {
            let value = python::read(&file, name)?;
            let map = value.as_object().cloned().unwrap_or_default();
            let k = Keys::new(&map, "", format!("quantisation of {method}"));
            methods::beside(&k, method)?.precision(model, plain)
        };
        let (precision, notes) = within().map_err(|d| d.file(&file))?;
        found.push((name.to_string(), precision, notes));
    }
    let mut found = found.into_iter();
    let Some((from, precision, mut notes)) = found.next() else { return Ok((plain.clone(), Vec::new())) };
    for (other, differs, _) in found {
        let parts = differences(&precision, &differs);
        if !parts.is_empty() {
            notes.push(format!("{other} says otherwise than {from}, which counts: {}", parts.join(", ")));
        }
    }
    Ok((precision, notes))
}

/// Files that lie beside a configuration and say how its weights are quantised.
const BESIDE: [(&str, &str); 4] = [
    ("hf_quant_config.json", "modelopt"),
    ("quantize_config.json", "gptq"),
    ("quant_config.json", "awq"),
    ("quant_model_description.json", "msmodelslim"),
];

fn differences(a: &Precision, b: &Precision) -> Vec<String> {
    let class = |c: Class| (c.name(), modules::bits(a, c), modules::bits(b, c));
    let all = CLASSES.into_iter().map(class).chain([("KV cache", a.kv, b.kv)]);
    all.filter(|(_, a, b)| (a - b).abs() > 0.01).map(|(name, a, b)| format!("{name} {b} bits, not {a}")).collect()
}

#[cfg(test)]
mod tests;
