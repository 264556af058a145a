//! Attention over cached keys and values: decode, prefill, a chunk behind a cached prefix, and mixes of them;
//! multi-head, grouped-query, latent (MLA), sparse.
//!
//! `t = t0 + t_seq sequences + copy + t_i + norm(q, [(waves - 1) t_i + U t_key, memory]) (+ t_split) (+ t_window)`.
//!
//! A work item is a tile of at most `tile` query rows of one head (or of all query heads of a KV head, where the kernel
//! packs them) that walks its keys and values in whole blocks of 64. Items are dealt to the processors in waves; the
//! first item of a processor is in nothing's shadow. `t_i` is what an item takes beside its keys: a part of its own,
//! one in proportion to the width of a head, and one for every query row. A key takes `norm(4, [FLOP / (e_c share of
//! the peak), bytes / (r_sm share of the bandwidth)])`, tiles padded to 16 rows; the softmax counts like further
//! elements of width, because its exponentials do not grow with the width. `U` is the longest walk of a processor, by
//! bounds of list scheduling. A kernel that splits the KV gives an item to several processors and combines their
//! results; of the ways to split, the one that takes least counts.
//!
//! Memory is keys and values once, queries and outputs; where query heads of a group do not share a tile, keys and
//! values are read again as far as they left the L2 between two waves (`phi`). Calls that were timed again and again on
//! the same data find what the L2 holds (`psi`); a server's do not. New keys and values may be copied or converted
//! first, which nothing overlaps.
//!
//! The structure is that of the public kernels: FlashAttention 2 and 3, FlashDecoding (splits), FlashMLA. Whole waves
//! are plain in measured chunks: 128, 256, 512, 1 024 items on 188 processors cost 1, 2, 3, 6 of them; so are blocks: 2
//! to 64 keys cost alike.
//!
//! Under a window, or in chunks, a tile walks the window and its own rows; how wide that is follows from the (query,
//! key) pairs.
//!
//! Left out: the kernels' own rules for the number of splits, paging, decode of very uneven lengths beyond the bounds.

use super::{Constant, Form, Peaks, constant_within as constant, four_starts, largest, norm, norm4};

/// Ways to split keys and values.
const SPLITS: [u64; 14] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128];
/// Keys that every walk is a multiple of.
const BLOCK: u64 = 64;
/// Query rows that tiles are padded to, as tensor cores take them.
const ROWS: u64 = 16;
/// Elements of a head's key and value together for which `t_width` and `t_row` are given: a unit, 128 of each as in
/// most models.
const WIDTH: f64 = 256.0;
/// Tiles of a class that are told apart; beyond, neighbours count as the longest among them.
const MOST_TILES: u64 = 1 << 12;

/// Sequences that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionClass {
    /// How many.
    pub sequences: u64,
    /// New tokens of each.
    pub tokens: u64,
    /// Keys of each, those of the new tokens included: what is read.
    pub keys: u64,
    /// (Query, key) pairs of each that a causal kernel computes: fewer than all under a window or in chunks.
    pub pairs: u64,
    /// Whether a window or chunk hides earlier keys, which are not among `keys`.
    pub cut: bool,
}

impl AttentionClass {
    /// Sequences whose new tokens see all keys up to their own.
    pub fn full(sequences: u64, tokens: u64, keys: u64) -> Self {
        let own = u128::from(tokens) * (u128::from(tokens) + 1) / 2;
        let pairs = u128::from(tokens) * u128::from(keys.saturating_sub(tokens)) + own;
        Self { sequences, tokens, keys, pairs: u64::try_from(pairs).unwrap_or(u64::MAX), cut: false }
    }

    /// Sequences whose new tokens see the last `window` keys up to their own; all without one.
    pub fn windowed(sequences: u64, tokens: u64, keys: u64, window: Option<u64>) -> Self {
        let Some(window) = window else { return Self::full(sequences, tokens, keys) };
        // The first new token sees at most a window of earlier ones, itself included.
        let read = keys.min(window.saturating_add(tokens).saturating_sub(1));
        let all = Self { cut: read < keys, ..Self::full(sequences, tokens, read) };
        // Of the last queries each sees one key more than a window, two, and so on.
        let over = u128::from(read.saturating_sub(window).min(tokens));
        let hidden = u64::try_from(over * (over + 1) / 2).unwrap_or(u64::MAX);
        Self { pairs: all.pairs.saturating_sub(hidden), ..all }
    }

    /// The most keys that a query sees, as far as the pairs say: that of a window under which there are as many.
    fn reach(&self) -> f64 {
        let full = Self::full(self.sequences, self.tokens, self.keys).pairs;
        if self.pairs >= full {
            return f64::INFINITY;
        }
        let hidden = (full - self.pairs) as f64;
        let over = ((8.0 * hidden + 1.0).sqrt() - 1.0) / 2.0;
        let reach = self.keys as f64 - over;
        reach.max(self.pairs as f64 / self.tokens.max(1) as f64).max(1.0)
    }
}

/// Heads of a layer on a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionHeads {
    /// Query heads.
    pub query: u64,
    /// KV heads: a divisor of the query heads; 1 for MLA with absorbed projections.
    pub kv: u64,
    /// Width of keys, and of values.
    pub width: [f64; 2],
    /// Bytes of a token's key and value in one KV head; once what serves as both (MLA: 576 elements).
    pub kv_bytes: f64,
    /// Bytes of an element of queries and outputs.
    pub query_bytes: f64,
}

/// What a kernel family does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionKernel {
    /// Query rows of a tile: 128 in FlashAttention 3, 64 in FlashMLA and FlashAttention 2.
    pub tile: u64,
    /// Whether the query heads of a KV head share a tile.
    pub pack: bool,
    /// Whether it may split keys and values.
    pub split: bool,
    /// Whether new tokens see only those before them.
    pub causal: bool,
    /// Whether all keys and values are converted first, not the new tokens' alone.
    pub converts: bool,
}

/// What a call comes to under a kernel on a number of processors: all that its time needs.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionAmounts {
    /// Waves, and the longest walk of a processor in keys, by way to split; the first does not. None without work.
    ways: Vec<[f64; 2]>,
    /// Query rows of a tile.
    rows: f64,
    /// Width of a key and a value.
    width: f64,
    /// Bytes of a key and value.
    key_bytes: f64,
    /// Bytes of keys and values, each once.
    kv_bytes: f64,
    /// Bytes of keys and values that are copied or converted first.
    copied_bytes: f64,
    /// Bytes of queries and outputs.
    query_bytes: f64,
    /// How often keys and values are read if the L2 holds none of them.
    passes: f64,
    /// Bytes of one KV head's keys and values.
    resident_bytes: f64,
    /// Sequences of the batch with at least one new token.
    sequences: f64,
    /// Whether any sequence has keys that none of its queries sees, behind a window or chunk.
    cut: bool,
    /// Operations that the result needs.
    flop: f64,
}

/// One measurement, or one call.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionRow {
    /// The sequences.
    pub classes: Vec<AttentionClass>,
    /// The heads.
    pub heads: AttentionHeads,
    /// The kernel.
    pub kernel: AttentionKernel,
    /// On which device.
    pub peaks: Peaks,
    /// Whether the call before was on the same data.
    repeated: bool,
    unique_keys: Option<f64>,
    work: AttentionAmounts,
}

impl AttentionRow {
    /// A call. `unique_keys` are those read from memory, where queries share some of what they see (sparse attention);
    /// all keys of all sequences unless told.
    pub fn new(
        classes: Vec<AttentionClass>,
        heads: AttentionHeads,
        kernel: AttentionKernel,
        unique_keys: Option<f64>,
        peaks: Peaks,
    ) -> Self {
        let work = AttentionAmounts::of(&classes, &heads, kernel, unique_keys, peaks.units);
        Self { classes, heads, kernel, peaks, repeated: false, unique_keys, work }
    }

    /// The same call of another kernel, of heads as this one takes them.
    #[must_use]
    pub fn under(self, kernel: AttentionKernel) -> Self {
        if kernel == self.kernel {
            return self;
        }
        let other = Self::new(self.classes, self.heads, kernel, self.unique_keys, self.peaks);
        Self { repeated: self.repeated, ..other }
    }

    /// The call as benchmarks time it, again and again on the same data.
    #[must_use]
    pub fn repeated(self) -> Self {
        Self { repeated: true, ..self }
    }
}

/// A tile's walks: (items, keys of each), and what else the classes sum to.
#[derive(Default)]
struct Sums {
    items: Vec<[f64; 2]>,
    tail: f64,
    rows: u64,
    tiles: f64,
    keys: f64,
    tokens: f64,
    sequences: f64,
    pairs: f64,
    cut: bool,
}

impl Sums {
    /// Adds a class whose tiles have rows of `packed` heads, of `walks` on a token; `units` are processors.
    fn add(&mut self, class: &AttentionClass, kernel: AttentionKernel, walks: u64, packed: u64, units: f64) {
        let (n, q, keys, tile) = (class.sequences as f64, class.tokens as f64, class.keys as f64, kernel.tile.max(1));
        let rows = class.tokens.saturating_mul(packed);
        let tiles = rows.div_ceil(tile);
        self.rows = self.rows.max(rows.min(tile));
        let each = n * walks as f64;
        if kernel.causal && tiles > 1 {
            let cached = class.keys.saturating_sub(class.tokens);
            // The queries of a tile see as many keys more than a window as they are.
            let most = class.reach() + (tile.div_ceil(packed).min(class.tokens)) as f64;
            let seen = |at: u64| {
                let last = at.saturating_add(1).saturating_mul(tile).div_ceil(packed);
                whole((cached + class.tokens.min(last)) as f64).min(whole(most))
            };
            let run = tiles.div_ceil(MOST_TILES);
            let runs = (0..tiles).step_by(run as usize);
            self.items.extend(runs.map(|first| {
                let past = first.saturating_add(run).min(tiles);
                [each * (past - first) as f64, seen(past - 1)]
            }));
            if each * tiles as f64 > units {
                self.tail = self.tail.max(0.5 * (seen(tiles - 1) - seen(0)));
            }
        } else {
            // A window begins anywhere in a block.
            let begun = if class.cut { BLOCK - 1 } else { 0 };
            self.items.push([each * tiles as f64, keys + begun as f64]);
        }
        self.tiles += n * tiles as f64;
        self.keys += n * keys;
        self.tokens += n * q;
        self.sequences += n;
        self.pairs += n * if kernel.causal { class.pairs as f64 } else { q * (keys - q).max(0.0) + q * q };
        self.cut |= class.cut;
    }
}

impl AttentionAmounts {
    fn of(
        classes: &[AttentionClass],
        heads: &AttentionHeads,
        kernel: AttentionKernel,
        unique_keys: Option<f64>,
        units: f64,
    ) -> Self {
        let group = (heads.query / heads.kv.max(1)).max(1);
        let (walks, packed) = if kernel.pack { (heads.kv, group) } else { (heads.query, 1) };
        let (query, kv, width) = (heads.query as f64, heads.kv as f64, heads.width[0] + heads.width[1]);
        let mut sums = Sums::default();
        for class in classes.iter().filter(|c| c.sequences > 0 && c.tokens > 0) {
            sums.add(class, kernel, walks, packed, units);
        }
        sums.items.sort_by(|a, b| b[1].total_cmp(&a[1]));
        let blocks = sums.items.first().map_or(0.0, |longest| longest[1] / BLOCK as f64);
        // Walks are of whole blocks: parts of half a block or less serve nothing.
        let sensible = |s: &&u64| blocks > 0.0 && (**s == 1 || kernel.split && (**s as f64) < 2.0 * blocks);
        let shared = if kernel.pack { 1.0 } else { group as f64 };
        Self {
            ways: SPLITS.iter().filter(sensible).map(|s| schedule(&sums.items, *s, sums.tail, units)).collect(),
            rows: sums.rows as f64,
            width,
            key_bytes: heads.kv_bytes,
            kv_bytes: unique_keys.unwrap_or(sums.keys) * kv * heads.kv_bytes,
            copied_bytes: if kernel.converts { sums.keys } else { sums.tokens } * kv * heads.kv_bytes,
            query_bytes: sums.tokens * query * width * heads.query_bytes,
            passes: (shared * sums.tiles / units).max(1.0).min(shared),
            resident_bytes: sums.keys * heads.kv_bytes,
            sequences: sums.sequences,
            cut: sums.cut,
            flop: 2.0 * query * width * sums.pairs,
        }
    }
}

/// Keys in whole blocks, at least one.
fn whole(keys: f64) -> f64 {
    let block = BLOCK as f64;
    (keys / block).ceil().max(1.0) * block
}

/// Waves of items, and the keys that the busiest processor walks at least: an even share of all (with half of what the
/// lengths of causal tiles differ by, where they take turns and nothing evens them out), and for every length as many
/// items in turn as are that long. `items` are (number, keys), longest first.
fn schedule(items: &[[f64; 2]], split: u64, tail: f64, units: f64) -> [f64; 2] {
    let split = split as f64;
    let (mut number, mut work, mut longest) = (0.0f64, 0.0, 0.0f64);
    for [n, keys] in items {
        let keys = whole(keys / split);
        number += n * split;
        work += n * split * keys;
        longest = longest.max((number / units).ceil() * keys);
    }
    let share = work / units + if split > 1.0 { 0.0 } else { tail };
    [(number / units).ceil(), longest.max(share)]
}

/// The form of an attention kernel: seconds a call, by the formula of this module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttentionForm;

/// The time of a call, in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AttentionTime {
    /// Launch, and what every sequence and a window add to it.
    pub fixed_s: f64,
    /// What the tiles alone would take.
    pub tiles_s: f64,
    /// What memory alone would take.
    pub memory_s: f64,
    /// Seconds in all.
    pub seconds: f64,
}

const CONSTANTS: [Constant; 15] = [
    constant("t0", "launch", "s", [1e-5, 5e-7, 6e-5, 2.0]),
    constant("t_item", "of a work item, whatever it is", "s", [1e-6, 5e-8, 2e-5, 2.0]),
    constant("e_c", "fraction of the peak rate of a padded tile", "", [0.6, 0.1, 1.0, 2.0]),
    constant(
        "r_sm",
        "rate of keys and values into a processor over its share of the bandwidth",
        "",
        [2.5, 0.05, 20.0, 2.0],
    ),
    constant("e_m", "fraction of the memory bandwidth", "", [0.88, 0.05, 1.0, 1.0 / 3.0]),
    constant("q", "overlap of tiles and memory: 1 none, large full", "", [2.5, 1.0, 12.0, 2.0]),
    constant("t_split", "combination of splits", "s", [3e-6, 5e-8, 3e-5, 2.0]),
    constant("phi", "share of the L2 that keeps keys and values between query heads", "", [1.0, 0.05, 4.0, 2.0]),
    constant("t_width", "of a work item, for a key and a value of 128 elements each", "s", [3e-7, 1e-9, 1e-5, 2.0]),
    constant("t_row", "of a query row of a work item, for a key and a value of 128", "s", [1e-8, 1e-10, 1e-6, 2.0]),
    constant("t_seq", "of a sequence", "s", [5e-9, 1e-10, 1e-7, 2.0]),
    constant(
        "t_window",
        "of a call with keys that no query sees, behind a window or chunk",
        "s",
        [1e-6, 1e-8, 2e-5, 2.0],
    ),
    constant("w_exp", "elements of width that take as long as the softmax of a key", "", [64.0, 1.0, 1024.0, 1.0]),
    constant("m_copy", "bytes moved for a byte of keys and values that is copied first", "", [1.0, 0.01, 40.0, 1.0]),
    constant("psi", "share of the L2 that keeps keys and values between repeated calls", "", [0.8, 0.2, 2.0, 0.5]),
];

impl AttentionForm {
    /// The time of a call, in parts.
    pub fn time(self, constants: &[f64], row: &AttentionRow) -> AttentionTime {
        let [t0, t_item, e_c, r_sm, e_m, q, t_split, phi] = [0, 1, 2, 3, 4, 5, 6, 7].map(|i| constants[i]);
        let [t_width, t_row, t_seq, t_window, w_exp, m_copy, psi] = [8, 9, 10, 11, 12, 13, 14].map(|i| constants[i]);
        let (work, peaks) = (&row.work, &row.peaks);
        let padded = (work.rows / ROWS as f64).ceil() * ROWS as f64;
        let key = norm4(
            2.0 * padded * (work.width + w_exp) / (e_c * peaks.flop_per_s / peaks.units),
            work.key_bytes / (r_sm * peaks.bytes_per_s / peaks.units),
        );
        let item = t_item + (t_width + t_row * work.rows) * work.width / WIDTH;
        let again = (work.passes - 1.0) * gone(work.resident_bytes / (phi * peaks.l2_bytes));
        let cold = if row.repeated { gone(work.kv_bytes / (psi * peaks.l2_bytes)) } else { 1.0 };
        let bytes = work.kv_bytes * cold * (1.0 + again) + work.query_bytes;
        let memory = bytes / (peaks.bytes_per_s * e_m);
        let copy = m_copy * work.copied_bytes / peaks.bytes_per_s;
        let walk = |[waves, keys]: &[f64; 2]| (waves - 1.0) * item + keys * key;
        // The first item's own time is hidden behind nothing.
        let body = |tiles: f64| item + norm(q, [tiles, memory, 0.0]);
        let (mut tiles, mut after) = (0.0, memory);
        if let [whole, split @ ..] = &work.ways[..] {
            tiles = walk(whole);
            after = body(tiles);
            let split = split.iter().map(walk).reduce(f64::min);
            if let Some((other, seconds)) = split.map(|t| (t, body(t) + t_split)).filter(|s| s.1 < after) {
                (tiles, after) = (other, seconds);
            }
            tiles += item;
        }
        let fixed_s = t0 + t_seq * work.sequences + if work.cut { t_window } else { 0.0 };
        AttentionTime { fixed_s, tiles_s: tiles, memory_s: memory + copy, seconds: fixed_s + copy + after }
    }
}

/// The part that has left a cache before it is wanted again, of data that fill it this often: none far below one fill,
/// all far above.
fn gone(fill: f64) -> f64 {
    let second = fill * fill;
    let fourth = second * second;
    let eighth = fourth * fourth;
    if eighth.is_finite() { eighth / (1.0 + eighth) } else { 1.0 }
}

impl Form for AttentionForm {
    type Row = AttentionRow;
    const ROBUST: f64 = 0.10;

    fn constants(&self) -> Vec<Constant> {
        CONSTANTS.to_vec()
    }

    fn starts(&self) -> Vec<Vec<f64>> {
        four_starts(CONSTANTS.len())
    }

    fn seconds(&self, constants: &[f64], row: &AttentionRow) -> f64 {
        self.time(constants, row).seconds
    }

    fn roofline(&self, row: &AttentionRow) -> f64 {
        let bytes = row.work.kv_bytes + row.work.query_bytes;
        (row.work.flop / row.peaks.flop_per_s).max(bytes / row.peaks.bytes_per_s)
    }

    fn bound(&self, constants: &[f64], row: &AttentionRow) -> &'static str {
        let t = self.time(constants, row);
        largest([(t.memory_s, "memory"), (t.tiles_s, "compute"), (t.fixed_s, "launch")])
    }

    fn amounts(&self, row: &AttentionRow) -> [f64; 2] {
        [row.work.flop, row.work.kv_bytes + row.work.query_bytes]
    }

    fn features(&self, row: &AttentionRow) -> [f64; 5] {
        let sequences: u64 = row.classes.iter().map(|c| c.sequences).sum();
        let heads = [row.heads.query, row.heads.kv, sequences].map(|h| (h + 1) as f64);
        let [a, b, c] = heads;
        [a, b, c, row.work.kv_bytes + 1.0, row.work.query_bytes + 1.0].map(libm::log)
    }
}

#[cfg(test)]
mod tests;
