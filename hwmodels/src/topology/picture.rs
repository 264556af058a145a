//! A topology drawn as SVG: meshes and tori as grids, rings and full meshes as circles, switched fabrics in tiers. Of
//! what is large, the first node is drawn in detail and the others as boxes.

use super::facts::rate;
use super::{LinkKind, Topology, TopologySpec, Vertex};
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 40.0;
/// Devices up to which all are drawn in tiers, and on a circle.
const ALL: usize = 32;
/// Of a larger node.
const DETAIL: usize = 16;
/// Boxes of further nodes, and switches of a tier.
const BOXES: usize = 6;
const SWITCHES: usize = 24;
/// Okabe and Ito's colours; the one for failures is kept for them.
const COLORS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#806a00"];
const FAILED: &str = "#d55e00";

/// A rectangle with a label, by its centre.
struct Rectangle {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
    label: String,
    fill: &'static str,
}

/// Where things are.
#[derive(Default)]
struct Layout {
    shapes: Vec<Rectangle>,
    /// The shape of each vertex, if it is shown.
    of: Vec<Option<usize>>,
    height: f64,
    /// Links between shapes that are not neighbours are bent, so that they do not pass over what is between.
    pitch: Option<(f64, f64)>,
    notes: Vec<String>,
}

impl Topology {
    /// Draws the graph of `spec` that this was built from, with the title `name`, 900 CSS pixels wide.
    pub fn svg(&self, name: &str, spec: &TopologySpec) -> String {
        let mut layout = match spec {
            TopologySpec::Mesh2d { x, .. } => grid(self, *x as usize),
            TopologySpec::Torus { dims, .. } if dims.len() > 1 => grid(self, dims[0] as usize),
            TopologySpec::FullMeshNd { dims, .. } if dims.len() > 1 => grid(self, dims[0] as usize),
            TopologySpec::Ring { .. } | TopologySpec::Torus { .. } => circle(self, 128),
            TopologySpec::FullMesh { .. } | TopologySpec::FullMeshNd { .. } => circle(self, ALL),
            _ => tiers(self),
        };
        let facts = self.facts().to_string();
        layout.notes.extend(facts.lines().map(str::to_string));
        draw(self, name, &layout)
    }
}

/// Rows of `x` devices; of more than 1,024 devices the first rows.
fn grid(t: &Topology, x: usize) -> Layout {
    let (x, shown) = (x.max(1), t.devices().min(1024));
    let columns = x.min(64);
    let pitch = ((WIDTH - 2.0 * MARGIN) / columns as f64).min(110.0);
    let rows = shown.div_ceil(x);
    let left = (WIDTH - pitch * columns as f64) / 2.0;
    let mut l = Layout { of: vec![None; t.graph().node_count()], pitch: Some((pitch, pitch)), ..Layout::default() };
    for d in (0..shown).filter(|d| d % x < columns) {
        l.of[d] = Some(l.shapes.len());
        let (cx, cy) = (left + pitch * ((d % x) as f64 + 0.5), 60.0 + pitch * ((d / x) as f64 + 0.5));
        l.shapes.push(device(cx, cy, pitch * 0.5, d));
    }
    l.height = 60.0 + pitch * rows as f64;
    if l.shapes.len() < t.devices() {
        l.notes.push(format!("drawn: {} of {} devices", l.shapes.len(), t.devices()));
    }
    l
}

fn circle(t: &Topology, most: usize) -> Layout {
    let shown = t.devices().min(most);
    let mut l = Layout { of: vec![None; t.graph().node_count()], height: 620.0, ..Layout::default() };
    let size = (1600.0 / shown as f64).clamp(10.0, 40.0);
    // Points of a circle by turning a vector: sines differ between platforms.
    let (mut x, mut y) = (0.0, -1.0);
    let (cos, sin) = turn(shown);
    for d in 0..shown {
        l.of[d] = Some(d);
        l.shapes.push(device(WIDTH / 2.0 + 250.0 * x, 340.0 + 250.0 * y, size, d));
        (x, y) = (x * cos - y * sin, x * sin + y * cos);
    }
    if shown < t.devices() {
        l.notes.push(format!("drawn: {shown} of {} devices", t.devices()));
    }
    l
}

/// Cosine and sine of the n-th part of a circle, by their series: exact to the last digits drawn.
fn turn(n: usize) -> (f64, f64) {
    let a = std::f64::consts::TAU / n as f64;
    let (mut term, mut cos, mut sin) = (1.0, 0.0, 0.0);
    for k in 0..40 {
        match k % 4 {
            0 => cos += term,
            1 => sin += term,
            2 => cos -= term,
            _ => sin -= term,
        }
        term *= a / f64::from(k + 1);
    }
    (cos, sin)
}

/// Devices in a row; switches above by their distance from devices, those inside nodes below where there are others
/// too.
fn tiers(t: &Topology) -> Layout {
    let (n, vertices) = (t.devices(), t.graph().node_count());
    let per_node = n / t.nodes();
    let whole = n <= ALL;
    let detail = if whole { n } else { per_node.min(if t.nodes() == 1 { ALL } else { DETAIL }) };
    let boxes = if whole { 0 } else { (t.nodes() - 1).min(BOXES) };
    let rest = if whole { 0 } else { t.nodes() - 1 - boxes };
    let more = if whole { 0 } else { per_node - detail };
    let wide = boxes + usize::from(rest > 0) + usize::from(more > 0);
    // A box is as wide as two devices.
    let pitch = ((WIDTH - 2.0 * MARGIN) / (detail + 2 * wide) as f64).min(90.0);
    let (tier, below) = levels(t);
    let top = 1 + tier.iter().copied().max().unwrap_or(0);
    let row = |tier: usize| 90.0 + 150.0 * (top - 1 - tier) as f64;
    let mut l = Layout { of: vec![None; vertices], height: row(0) + 60.0, ..Layout::default() };
    let mut x = (WIDTH - pitch * (detail + 2 * wide) as f64) / 2.0;
    for d in 0..detail {
        l.of[d] = Some(l.shapes.len());
        l.shapes.push(device(x + pitch / 2.0, row(0), pitch * 0.7, d));
        x += pitch;
    }
    let mut boxed = |l: &mut Layout, label: String, devices: std::ops::Range<usize>| {
        devices.for_each(|d| l.of[d] = Some(l.shapes.len()));
        l.shapes.push(Rectangle { x: x + pitch, y: row(0), w: pitch * 1.8, h: 40.0, label, fill: "#eeeeee" });
        x += 2.0 * pitch;
    };
    if more > 0 {
        boxed(&mut l, format!("+{more} dev."), detail..per_node);
    }
    (1..=boxes).for_each(|b| boxed(&mut l, format!("node {b}"), b * per_node..(b + 1) * per_node));
    if rest > 0 {
        boxed(&mut l, format!("+{rest} nodes"), (boxes + 1) * per_node..n);
    }
    switches(t, &mut l, &tier, &below, whole, &row);
    if below.iter().any(|&b| b) {
        l.height += 110.0;
    }
    l
}

/// Distance of every vertex from the nearest device, and whether it is drawn below them.
fn levels(t: &Topology) -> (Vec<usize>, Vec<bool>) {
    let mut tier = vec![usize::MAX; t.graph().node_count()];
    let mut queue: std::collections::VecDeque<u32> = (0..t.devices() as u32).collect();
    tier[..t.devices()].fill(0);
    let mut neighbours = vec![Vec::new(); tier.len()];
    for l in t.links() {
        neighbours[l.from as usize].push(l.to);
    }
    while let Some(at) = queue.pop_front() {
        for &to in &neighbours[at as usize] {
            if tier[to as usize] == usize::MAX {
                tier[to as usize] = tier[at as usize] + 1;
                queue.push_back(to);
            }
        }
    }
    tier.iter_mut().filter(|t| **t == usize::MAX).for_each(|t| *t = 1);
    let mut below = vec![false; tier.len()];
    if t.links().iter().any(|l| l.kind == LinkKind::ScaleOut) {
        for l in t.links().iter().filter(|l| l.kind == LinkKind::ScaleUp && l.to as usize >= t.devices()) {
            below[l.to as usize] = true;
        }
    }
    (tier, below)
}

/// Puts the switches of each tier above the middle of what they join, or evenly where these overlap.
fn switches(t: &Topology, l: &mut Layout, tier: &[usize], below: &[bool], whole: bool, row: &dyn Fn(usize) -> f64) {
    let top = tier.iter().copied().max().unwrap_or(0);
    for (level, down) in (1..=top).map(|k| (k, false)).chain((1..=top).map(|k| (k, true))) {
        let mut shown: Vec<(usize, f64)> = Vec::new();
        let mut left_out = Vec::new();
        for v in (t.devices()..tier.len()).filter(|&v| tier[v] == level && below[v] == down) {
            let under = t.links().iter().filter(|k| k.from as usize == v && tier[k.to as usize] < level);
            let mut under: Vec<usize> = under.filter_map(|k| l.of[k.to as usize]).collect();
            // A box counts once, whatever is in it.
            under.sort_unstable();
            under.dedup();
            // What only a box is joined to is in the box.
            let only = under.first().filter(|&&s| !whole && l.shapes[s].label.contains("node"));
            if let Some(&only) = only.filter(|s| under.iter().all(|u| u == *s)) {
                l.of[v] = Some(only);
            } else if shown.len() < SWITCHES {
                let mean = under.iter().map(|&s| l.shapes[s].x).sum::<f64>() / under.len().max(1) as f64;
                shown.push((v, mean));
            } else {
                left_out.push(v);
            }
        }
        let slots = shown.len() + usize::from(!left_out.is_empty());
        let w = ((WIDTH - 2.0 * MARGIN) / slots.max(1) as f64 * 0.85).min(110.0);
        shown.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        let crowded = shown.windows(2).any(|p| p[1].1 - p[0].1 < w * 1.1) || !left_out.is_empty();
        let y = if down { row(0) + 110.0 } else { row(level) };
        if crowded {
            shown.sort_by_key(|s| s.0);
            let slot = (WIDTH - 2.0 * MARGIN) / slots as f64;
            shown.iter_mut().enumerate().for_each(|(i, s)| s.1 = MARGIN + slot * (i as f64 + 0.5));
            if !left_out.is_empty() {
                left_out.iter().for_each(|&v| l.of[v] = Some(l.shapes.len()));
                let (x, label) = (WIDTH - MARGIN - slot / 2.0, format!("+{}", left_out.len()));
                l.shapes.push(Rectangle { x, y, w, h: 30.0, label, fill: "#eeeeee" });
            }
        }
        for (v, x) in shown {
            l.of[v] = Some(l.shapes.len());
            let label = match &t.graph()[petgraph::graph::NodeIndex::new(v)] {
                Vertex::Switch(name) => name.clone(),
                Vertex::Device(d) => d.to_string(),
            };
            l.shapes.push(Rectangle { x, y, w, h: 30.0, label, fill: "#fff2cc" });
        }
    }
}

fn device(x: f64, y: f64, size: f64, number: usize) -> Rectangle {
    let size = size.clamp(3.0, 46.0);
    Rectangle { x, y, w: size, h: size, label: number.to_string(), fill: "#dae8fc" }
}

/// Links first, shapes over them, then the legend and the notes.
fn draw(t: &Topology, name: &str, l: &Layout) -> String {
    // Colours by what a link is; between two shapes the last of them counts, and a failed one most.
    let mut classes: Vec<(f64, f64, usize)> = Vec::new();
    let mut lines: BTreeMap<(usize, usize), (usize, bool)> = BTreeMap::new();
    for link in t.links() {
        let key = (link.raw_bandwidth_per_s, link.latency_s);
        let class = classes.iter().position(|c| (c.0, c.1) == key).unwrap_or_else(|| {
            // Beyond the colours, links are not told apart.
            if classes.len() < COLORS.len() {
                classes.push((key.0, key.1, 0));
            }
            classes.len() - 1
        });
        classes[class].2 += 1;
        if let (Some(a), Some(b)) = (l.of[link.from as usize], l.of[link.to as usize])
            && a != b
        {
            let line = lines.entry((a.min(b), a.max(b))).or_insert((class, false));
            line.1 |= link.failed;
        }
    }
    let any_failed = t.links().iter().any(|l| l.failed);
    let height = l.height + 30.0 + 20.0 * (classes.len() + l.notes.len() + usize::from(any_failed)) as f64;
    let mut s = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" viewBox=\"0 0 {WIDTH} \
         {height:.0}\" font-family=\"DejaVu Sans, sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text(&mut s, MARGIN, 30.0, 17.0, "start", name);
    let thin = if lines.len() > 400 { 0.5 } else { 1.5 };
    for (&(a, b), &(class, failed)) in &lines {
        let (a, b) = (&l.shapes[a], &l.shapes[b]);
        let (color, dash) = if failed { (FAILED, " stroke-dasharray=\"4 3\"") } else { (COLORS[class], "") };
        let (dx, dy) = (b.x - a.x, b.y - a.y);
        let far = l.pitch.is_some_and(|(px, py)| dx.abs() > 1.5 * px || dy.abs() > 1.5 * py);
        // Sideways by a fifth of the way, but not out of the picture.
        let bend = if far { 0.2f64.min(45.0 / (dx.abs() + dy.abs())) } else { 0.0 };
        let (cx, cy) = ((a.x + b.x) / 2.0 + dy * bend * 2.0, (a.y + b.y) / 2.0 - dx * bend * 2.0);
        let width = if failed { 2.5 } else { thin };
        // Writing to a string cannot fail, hence `.ok()` here and below.
        writeln!(
            s,
            "<path d=\"M{:.1} {:.1}Q{cx:.1} {cy:.1} {:.1} {:.1}\" fill=\"none\" stroke=\"{color}\" \
             stroke-width=\"{width}\"{dash}/>",
            a.x, a.y, b.x, b.y
        )
        .ok();
    }
    for b in &l.shapes {
        let (x, y) = (b.x - b.w / 2.0, b.y - b.h / 2.0);
        writeln!(
            s,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\" fill=\"{}\" stroke=\"#333333\"/>",
            b.w, b.h, b.fill
        )
        .ok();
        // As large as fits, and nothing where nothing can be read.
        let size = (b.w / (0.62 * b.label.chars().count().max(2) as f64)).min(13.0);
        if size >= 5.0 {
            text(&mut s, b.x, b.y + size * 0.36, size, "middle", &b.label);
        }
    }
    let mut y = l.height + 20.0;
    let mut key = |s: &mut String, color: &str, words: &str| {
        let (x0, x1, at) = (MARGIN, MARGIN + 30.0, y - 4.0);
        writeln!(s, "<path d=\"M{x0} {at}H{x1}\" stroke=\"{color}\" stroke-width=\"3\"/>").ok();
        text(s, MARGIN + 40.0, y, 12.0, "start", words);
        y += 20.0;
    };
    for (i, &(bandwidth, latency, count)) in classes.iter().enumerate() {
        let others = if i + 1 == COLORS.len() { ", and other links" } else { "" };
        let words = format!("{count} links of {} one way, {:.2} us{others}", rate(bandwidth), latency * 1e6);
        key(&mut s, COLORS[i], &words);
    }
    if any_failed {
        key(&mut s, FAILED, "failed, in one direction at least");
    }
    for note in &l.notes {
        text(&mut s, MARGIN, y, 12.0, "start", note);
        y += 20.0;
    }
    s + "</svg>\n"
}

/// Names come from files: what XML cannot hold is left out, and they are short.
fn text(s: &mut String, x: f64, y: f64, size: f64, anchor: &str, words: &str) {
    write!(s, "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size:.1}\" text-anchor=\"{anchor}\" fill=\"#222222\">")
        .ok();
    for c in words.chars().filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')).take(160) {
        match c {
            '<' => s.push_str("&lt;"),
            '>' => s.push_str("&gt;"),
            '&' => s.push_str("&amp;"),
            '"' => s.push_str("&quot;"),
            c => s.push(c),
        }
    }
    s.push_str("</text>\n");
}
