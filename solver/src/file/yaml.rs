//! The YAML of TensorRT-LLM's load balancer: a mapping with two numbers, and a mapping from layers to lists of numbers, as
//! PyYAML writes it: lists in brackets, perhaps over several lines, or an element a line with a dash; anchors and aliases
//! of lists; comments. Everything else is refused.
//!
//! Our own: the part that is ever written is a page, and memory is bounded while it is read, aliases included.

use super::placed::too_large;
use super::{CELLS, EXPERTS, LAYERS};
use moesim_core::{Diag, Result};
use std::iter::Peekable;

/// What the file says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Balancer {
    pub(super) num_slots: Option<u64>,
    pub(super) layer_updates_per_iter: Option<u64>,
    /// Layers and the experts of their slots, in the order of the file.
    pub(super) assignments: Vec<(u32, Vec<u16>)>,
}

/// A line with something on it: its number from 1, its indentation, its text without comment and spaces around.
#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

impl Line<'_> {
    fn wrong(&self, problem: impl Into<String>) -> Diag {
        let cure = "write it as TensorRT-LLM's generate_eplb_config.py does: `  3: [0, 1, ...]` below initial_global_assignments";
        Diag::input(problem).place(format!("line {}", self.number)).cure(cure)
    }
    fn number<T: std::str::FromStr>(&self, text: &str, what: &str) -> Result<T> {
        let text = text.trim();
        text.parse().map_err(|_| self.wrong(format!("\"{text:.40}\" is no {what}")))
    }
}

/// Reads a file.
pub(super) fn read(text: &[u8]) -> Result<Balancer> {
    let text = std::str::from_utf8(text)
        .map_err(|_| Diag::input("is not UTF-8 text").place("line 1").cure("give a YAML file of TensorRT-LLM"))?;
    let mut lines = text.lines().enumerate().filter_map(|(i, l)| line(i + 1, l)).peekable();
    let mut balancer = Balancer::default();
    let mut seen: Vec<&str> = Vec::new();
    lines.next_if(|l| l.text == "---");
    while let Some(line) = lines.next() {
        let (key, value) = key(&line)?;
        if line.indent > 0 || seen.contains(&key) {
            return Err(line.wrong(format!("\"{key:.40}\" is twice here, or not where a key of the file begins")));
        }
        match key {
            "num_slots" => balancer.num_slots = Some(line.number(value, "number of slots")?),
            "layer_updates_per_iter" => balancer.layer_updates_per_iter = Some(line.number(value, "number of layers")?),
            "initial_global_assignments" if matches!(value, "" | "{}" | "null" | "~") => {
                balancer.assignments = layers(&mut lines)?;
            }
            "initial_global_assignments" => return Err(line.wrong("has the layers on the line of their key")),
            _ => {
                let known = "num_slots, initial_global_assignments, layer_updates_per_iter";
                let cure = format!("give the file that load_balancer names; its keys are {known}");
                return Err(line.wrong(format!("TensorRT-LLM knows no key \"{key:.40}\" here")).cure(cure));
            }
        }
        seen.push(key);
    }
    Ok(balancer)
}

fn line(number: usize, text: &str) -> Option<Line<'_>> {
    let comment = |(i, _): &(usize, char)| *i == 0 || text[..*i].ends_with([' ', '\t']);
    let end = text.char_indices().filter(|c| c.1 == '#').find(comment).map_or(text.len(), |c| c.0);
    let text = &text[..end];
    let trimmed = text.trim();
    let indent = text.len() - text.trim_start().len();
    (!trimmed.is_empty()).then_some(Line { number, indent, text: trimmed })
}

/// A key, without quotes, and what follows it on its line.
fn key<'a>(line: &Line<'a>) -> Result<(&'a str, &'a str)> {
    let (key, value) = line.text.split_once(':').ok_or_else(|| line.wrong("has no key"))?;
    if !(value.is_empty() || value.starts_with([' ', '\t'])) {
        return Err(line.wrong("has no space behind a key"));
    }
    Ok((key.trim().trim_matches(['"', '\'']), value.trim()))
}

/// The layers below the key, as far as lines are indented.
fn layers<'a>(lines: &mut Peekable<impl Iterator<Item = Line<'a>>>) -> Result<Vec<(u32, Vec<u16>)>> {
    let mut found: Vec<(u32, Vec<u16>)> = Vec::new();
    // Names of anchors and where their lists are.
    let mut anchors: Vec<(&str, usize)> = Vec::new();
    let (mut cells, mut indent) = (0, None);
    while let Some(line) = lines.next_if(|l| l.indent > 0) {
        let (layer, mut value) = key(&line)?;
        if *indent.get_or_insert(line.indent) != line.indent {
            return Err(line.wrong("is indented unlike the layers before"));
        }
        let layer = line.number(layer, "number of a layer")?;
        let mut anchor = None;
        if let Some(rest) = value.strip_prefix('&') {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            (anchor, value) = (Some(name), rest.trim());
        }
        let list = match value.strip_prefix('*') {
            Some(name) => {
                let known = anchors.iter().rev().find(|a| a.0 == name).map(|a| a.1);
                let at = known.ok_or_else(|| line.wrong(format!("\"*{name:.40}\" names no list before")))?;
                // Counted before it is copied: a few bytes name a long list.
                within(&line, cells + found[at].1.len())?;
                found[at].1.clone()
            }
            None if value.is_empty() => dashes(&line, lines)?,
            None => brackets(&line, value, lines)?,
        };
        cells += list.len();
        within(&line, cells)?;
        if let Some(name) = anchor {
            anchors.push((name, found.len()));
        }
        found.push((layer, list));
        if found.len() > LAYERS {
            return Err(too_large(format!("has more than {LAYERS} layers")).place(format!("line {}", line.number)));
        }
    }
    Ok(found)
}

fn within(line: &Line, cells: usize) -> Result<()> {
    let problem = || too_large("has more than 2^24 slots".to_string()).place(format!("line {}", line.number));
    if cells > CELLS { Err(problem()) } else { Ok(()) }
}

fn expert(line: &Line, text: &str) -> Result<u16> {
    let id: u16 = line.number(text, "expert")?;
    if usize::from(id) < EXPERTS { Ok(id) } else { Err(line.wrong(format!("{id} is no expert"))) }
}

/// `[0, 1, ...]`, which may go on over lines; a comma may follow the last.
fn brackets<'a>(
    line: &Line<'a>,
    value: &'a str,
    lines: &mut Peekable<impl Iterator<Item = Line<'a>>>,
) -> Result<Vec<u16>> {
    let mut rest = value.strip_prefix('[').ok_or_else(|| line.wrong("has no list of experts"))?;
    // Whether an expert may follow.
    let (mut list, mut at, mut open) = (Vec::new(), *line, true);
    loop {
        rest = rest.trim_start();
        let end = rest.find([',', ']', ' ']).unwrap_or(rest.len()).max(usize::from(!rest.is_empty()));
        let token;
        (token, rest) = rest.split_at(end);
        match token {
            "" => {
                at = lines.next().ok_or_else(|| at.wrong("ends within a list"))?;
                rest = at.text;
            }
            "]" if rest.trim().is_empty() => return Ok(list),
            "]" => return Err(at.wrong("goes on behind the list")),
            "," if open => return Err(at.wrong("has a comma where an expert should be")),
            "," => open = true,
            _ if !open => return Err(at.wrong("has two experts without a comma")),
            id => {
                list.push(expert(&at, id)?);
                open = false;
            }
        }
    }
}

/// An expert a line, behind a dash, as far as there are dashes at least as far in as the layer.
fn dashes<'a>(line: &Line<'a>, lines: &mut Peekable<impl Iterator<Item = Line<'a>>>) -> Result<Vec<u16>> {
    let mut list = Vec::new();
    let of_list = |l: &Line| l.indent >= line.indent && (l.text == "-" || l.text.starts_with("- "));
    while let Some(l) = lines.next_if(of_list) {
        list.push(expert(&l, &l.text[1..])?);
    }
    Ok(list)
}
