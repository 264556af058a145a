//! Responses of vLLM and SGLang with `--enable-return-routed-experts`: JSON objects, one after another (one a line, or one a
//! file), plain or gzip. vLLM's are those of `/v1/completions`, `/v1/chat/completions` and `/inference/v1/generate`, and its
//! `RequestOutput` written as JSON (`outputs` for `choices`, `prompt_token_ids` for the usage); a line may also have
//! `routed_experts` itself. SGLang's are those of `/generate` (`meta_info.routed_experts`) and of its OpenAI routes
//! (`sglext.routed_experts`).
//!
//! * `choices[].routed_experts` is [tokens, layers, k]: nested lists, or base64 of a numpy file. Where the response has
//!   `prompt_routed_experts` beside them (v0.21), they are the output's alone; else prompt and output follow each
//!   other, without the last token, and `usage.prompt_tokens` says where the output begins. Rows that the request asked
//!   to leave out at the start are known from `usage` too. Without `usage` the option says what the rows are.
//! * SGLang's are base64 of [tokens, layers, k] 32-bit integers without a shape (`docs/advanced_features/server_arguments.md` and
//!   `managers/tokenizer_manager.py` of sgl-project/sglang): k comes from the model or `--top-k`, and the layers, dense ones
//!   included, from the model or from the tokens that `meta_info` counts.
//! * Every choice with rows of its own or of the prompt becomes a sequence. -1 is missing (a cached prefix).
//! * Some versions count dense layers and fill them with 0: a layer whose ids are all 0 in the first response cannot be of
//!   experts if k is at least 2, and is left out. The others keep their numbers.
//!
//! Arrays that were saved with numpy are read by the importer `npz`. One response is held in memory, at most 256 MiB of text.

use super::id_lists::Rows;
use super::{Declared, Importer, Options, Phase, SEQUENCE, Sink};
use crate::npy::Header;
use crate::numbers::{Element, Kind};
use crate::text::{self, Text};
use crate::trace::{LAYERS, MISSING, Meta, OwnedSequence};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moesim_core::{Diag, Result};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use std::cell::Cell;
use std::io::{BufReader, Read};
use std::path::Path;
use std::rc::Rc;

const RESPONSE: u64 = 256 << 20;

/// See the module.
pub(super) struct Vllm;

#[derive(Deserialize)]
struct Response {
    prompt_routed_experts: Option<Routed>,
    usage: Option<Usage>,
    prompt_token_ids: Option<Vec<IgnoredAny>>,
    #[serde(default, alias = "outputs")]
    choices: Vec<Choice>,
    routed_experts: Option<Routed>,
    meta_info: Option<MetaInfo>,
    sglext: Option<Choice>,
}

/// What SGLang says of a request.
#[derive(Deserialize)]
struct MetaInfo {
    routed_experts: Option<Routed>,
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
}

impl Response {
    /// As if all servers wrote choices and their usage.
    fn alike(mut self) -> Self {
        let mut one = self.routed_experts.take();
        if let Some(info) = &mut self.meta_info {
            one = info.routed_experts.take().or(one);
            let known =
                info.prompt_tokens.map(|p| Usage { prompt_tokens: p, completion_tokens: info.completion_tokens });
            self.usage = self.usage.or(known);
        }
        if let Some(ext) = &mut self.sglext {
            one = ext.routed_experts.take().or(one);
        }
        if let (Some(ids), None) = (&self.prompt_token_ids, self.usage) {
            let outputs = self.choices.first().and_then(|c| c.token_ids.as_ref()).map(|t| t.len() as u32);
            self.usage = Some(Usage { prompt_tokens: ids.len() as u32, completion_tokens: outputs });
        }
        if let Some(routed) = one {
            self.choices = vec![Choice { routed_experts: Some(routed), token_ids: None }];
        }
        self
    }
}

#[derive(Clone, Copy, Deserialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct Choice {
    routed_experts: Option<Routed>,
    token_ids: Option<Vec<IgnoredAny>>,
}

/// Ids [tokens, layers, k].
#[derive(Default)]
struct Routed {
    ids: Vec<u16>,
    /// 0 where nothing says how the ids divide.
    layers: usize,
    k: usize,
}

impl Routed {
    fn has_no_shape(&self) -> bool {
        self.layers == 0 && !self.ids.is_empty()
    }
}

impl<'de> Deserialize<'de> for Routed {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Routed;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("lists [tokens][layers][k] of expert ids, or base64 of a numpy file")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, s: A) -> std::result::Result<Routed, A::Error> {
                let rows = Rows::deserialize(serde::de::value::SeqAccessDeserializer::new(s))?;
                let (width, layers) = match rows.shape {
                    None => (0, 0),
                    Some((width, Some(layers))) => (width, layers),
                    Some((_, None)) => return Err(A::Error::custom("tokens are lists of ids, not of layers")),
                };
                Ok(Routed { ids: rows.ids, layers, k: width.checked_div(layers).unwrap_or(0) })
            }
            fn visit_str<E: Error>(self, text: &str) -> std::result::Result<Routed, E> {
                decode(text).map_err(|d| E::custom(format_args!("numpy file: {}", d.problem)))
            }
        }
        d.deserialize_any(Form)
    }
}

/// A numpy file in base64.
fn decode(text: &str) -> Result<Routed> {
    let bytes = STANDARD.decode(text).map_err(|e| Diag::input(format!("is not base64: {e}")))?;
    if !bytes.starts_with(b"\x93NUMPY") && bytes.len().is_multiple_of(4) {
        let mut ids = Vec::new();
        let read = Element::new(Kind::Signed, 4).ids(&bytes, &mut ids);
        read.map_err(|(_, id)| Diag::input(format!("{id} is not an expert id")))?;
        return Ok(Routed { ids, layers: 0, k: 0 });
    }
    let mut rest = &bytes[..];
    let header = Header::read(&mut rest)?.integers()?;
    let &[_, layers, k] = &header.shape[..] else {
        return Err(Diag::input(format!("has the shape {:?}, not [tokens, layers, k]", header.shape)));
    };
    if header.body() != Some(rest.len() as u64) {
        return Err(Diag::input(format!("has {} bytes for the shape {:?}", rest.len(), header.shape)));
    }
    let mut ids = Vec::new();
    header.element.ids(rest, &mut ids).map_err(|(_, id)| Diag::input(format!("{id} is not an expert id")))?;
    // Both divide what is there, or there is nothing.
    Ok(if ids.is_empty() {
        Routed { ids, layers: 0, k: 0 }
    } else {
        Routed { ids, layers: layers as usize, k: k as usize }
    })
}

impl Importer for Vllm {
    fn name(&self) -> &'static str {
        "vllm"
    }
    fn description(&self) -> &'static str {
        "vLLM or SGLang responses with routed experts (JSON, one response after another)"
    }
    fn detect(&self, path: &Path) -> bool {
        let start = text::start(path, 64 << 10).unwrap_or_default();
        let has = |word: &[u8]| start.windows(word.len()).any(|w| w == word);
        let response =
            has(b"routed_experts\"") || (has(b"\"choices\"") && (has(b"\"object\"") || has(b"\"request_id\"")));
        start.trim_ascii_start().starts_with(b"{") && response
    }
    fn import(&self, path: &Path, options: &Options, sink: &mut dyn Sink) -> Result<()> {
        let left = Rc::new(Cell::new(RESPONSE));
        let reader = BufReader::with_capacity(1 << 20, Bounded { text: text::open(path)?, left: left.clone() });
        let mut responses = serde_json::Deserializer::from_reader(reader).into_iter::<Response>();
        let mut form: Option<Form> = None;
        let mut next = 0;
        for number in 0.. {
            left.set(RESPONSE);
            let at = |d: Diag| d.file(path).place(format!("response {number}"));
            let Some(response) = responses.next() else { return Ok(()) };
            let response = response.map_err(|e| {
                let words: String = e.to_string().chars().take(200).flat_map(char::escape_default).collect();
                at(Diag::input(format!("is no response of vLLM or SGLang: {words}"))
                    .cure("save responses to requests of a server with --enable-return-routed-experts"))
            })?;
            let response = response.alike();
            let none = Routed::default();
            let prompt = response.prompt_routed_experts.as_ref().filter(|p| !p.ids.is_empty());
            for (choice, routed) in response.choices.iter().enumerate() {
                let at = |d: Diag| {
                    let place = format!("response {number}, choice {choice}");
                    let place = d.place.as_ref().map_or_else(|| place.clone(), |p| format!("{place}, {p}"));
                    Diag { place: Some(place), ..d }.file(path)
                };
                // An answer of one token computes the prompt alone.
                let output = routed.routed_experts.as_ref().filter(|r| !r.ids.is_empty());
                let Some(rows) = output.or(prompt) else { continue };
                let routed = output.unwrap_or(&none);
                if form.is_none() {
                    let found = Form::of(path, rows, &response, options).map_err(at)?;
                    sink.begin(found.meta.clone())?;
                    form = Some(found);
                }
                let Some(form) = &form else { continue };
                let s = form.sequence(next, &response, routed, options.phase).map_err(at)?;
                next += 1;
                crate::trace::check_rows(&form.meta, &s.view()).map_err(at)?;
                sink.sequence(&s).map_err(|d| if d.exit_code() == 2 { at(d) } else { d })?;
            }
        }
        Ok(())
    }
}

/// What all responses have in common.
struct Form {
    meta: Meta,
    /// Layers of a response, and those of them that are of experts.
    layers: usize,
    kept: Vec<usize>,
}

impl Form {
    fn of(path: &Path, routed: &Routed, response: &Response, options: &Options) -> Result<Self> {
        let (layers, k) = match routed.has_no_shape() {
            true => shape(routed, response, options)?,
            false => (routed.layers, routed.k),
        };
        // A cached prefix is missing in all layers alike, and says nothing of them.
        let cached = |row: &&[u16]| row.iter().all(|id| *id == MISSING);
        let dense = |l: &usize| {
            let mut rows = routed.ids.chunks_exact(layers * k).filter(|row| !cached(row)).peekable();
            k > 1 && rows.peek().is_some() && rows.all(|row| row[l * k..(l + 1) * k].iter().all(|id| *id == 0))
        };
        let kept: Vec<usize> = (0..layers).filter(|l| !dense(l)).collect();
        // With dense layers among them, their numbers are known.
        let numbers = (kept.len() < layers).then(|| kept.iter().map(|l| *l as u32).collect());
        let declared = Declared { layer_numbers: numbers, ..Default::default() };
        let meta = options.describe(path, kept.len(), u32::try_from(k).unwrap_or(u32::MAX), declared)?;
        Ok(Self { meta, layers, kept })
    }
    fn rows(&self, routed: &Routed) -> Result<Vec<u16>> {
        let k = self.meta.k as usize;
        if routed.ids.is_empty() {
            return Ok(vec![]);
        }
        if routed.has_no_shape() && !routed.ids.len().is_multiple_of(self.layers * k) {
            let problem =
                format!("has {} ids, which are no rows of {} layers and k = {k}", routed.ids.len(), self.layers);
            return Err(Diag::input(problem).cure("give responses of one model, and its --model or --top-k"));
        }
        if !routed.has_no_shape() && (routed.layers, routed.k) != (self.layers, k) {
            let problem =
                format!("has {} layers and k = {}; the first has {} and {k}", routed.layers, routed.k, self.layers);
            return Err(Diag::input(problem).cure("give responses of one model"));
        }
        if routed.ids.len() as u64 > SEQUENCE {
            return Err(Diag::input("has more than 1 GiB of ids").cure("save shorter requests"));
        }
        let row = |row: &[u16]| self.kept.iter().flat_map(|l| row[l * k..(l + 1) * k].to_vec()).collect::<Vec<u16>>();
        Ok(routed.ids.chunks_exact(self.layers * k).flat_map(row).collect())
    }
    fn sequence(&self, id: u32, response: &Response, routed: &Routed, phase: Phase) -> Result<OwnedSequence> {
        let mut rows = self.rows(routed)?;
        let tokens = (rows.len() / self.meta.width()) as u64;
        let (mut first, mut prefill) = (0, Vec::new());
        if let Some(prompt) = &response.prompt_routed_experts {
            prefill = self.rows(prompt)?;
        } else if let Some(u) = response.usage {
            // The last token is never computed; what else lacks is the start that the request left out. Of several choices the
            // usage counts all outputs.
            let several = response.choices.len() > 1;
            let computed = (u64::from(u.prompt_tokens) + u64::from(u.completion_tokens.unwrap_or(0))).saturating_sub(1);
            let known = u.completion_tokens.is_some() && !several;
            if known && tokens > computed + 1 {
                let problem = format!("has {tokens} rows for a usage of {} tokens", computed + 1);
                return Err(Diag::input(problem).cure("give whole responses"));
            }
            first = if known { computed.saturating_sub(tokens) as u32 } else { 0 };
            let prompt = u64::from(u.prompt_tokens.saturating_sub(first)).min(tokens);
            let decode = rows.split_off(prompt as usize * self.meta.width());
            prefill = std::mem::replace(&mut rows, decode);
        } else if phase == Phase::Prefill {
            prefill = std::mem::take(&mut rows);
        }
        let behind = first.saturating_add((prefill.len() / self.meta.width()) as u32);
        Ok(OwnedSequence {
            id,
            first_position: first,
            prefill,
            decode: rows,
            decode_first_position: behind,
            weights: None,
        })
    }
}

/// (Layers, k) of rows that have no shape of their own.
fn shape(routed: &Routed, response: &Response, options: &Options) -> Result<(usize, usize)> {
    let lacks = |what: &str, cure: &str| Diag::input(format!("does not say {what}")).cure(cure);
    let model = options.load_model()?;
    let of_model = model.as_ref().and_then(|m| m.decoder.iter().find_map(|l| l.moe())).map(|m| m.top_k);
    let k = options.k.or(of_model).ok_or_else(|| lacks("how many experts a token has", "give --model or --top-k"))?;
    let (ids, k) = (routed.ids.len(), k.max(1) as usize);
    // All layers as SGLang records them, or those of experts alone.
    let of_model = model.map(|m| [m.decoder.len(), m.moe_layers().len()]);
    let mut known = of_model.into_iter().flatten();
    if let Some(layers) = known.find(|l| *l > 0 && ids.is_multiple_of(l * k)) {
        return Ok((layers, k));
    }
    let tokens = response
        .usage
        .map(|u| (u.prompt_tokens as usize + u.completion_tokens.unwrap_or(0) as usize).saturating_sub(1));
    let tokens = tokens.filter(|t| *t > 0 && ids.is_multiple_of(t * k));
    let layers = tokens.map(|t| ids / (t * k)).filter(|l| (1..=LAYERS).contains(l));
    layers.map(|l| (l, k)).ok_or_else(|| lacks("how its ids divide into layers", "give the --model that was served"))
}

/// A reader that ends a response which is too long.
struct Bounded {
    text: Text,
    left: Rc<Cell<u64>>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.text.read(buffer)?;
        match self.left.get().checked_sub(n as u64) {
            Some(left) => self.left.set(left),
            None => return Err(std::io::Error::other("a response is longer than 256 MiB")),
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::load;

    type Read = (u32, Vec<u16>, u32, Vec<u16>);

    fn read(text: &str, options: &Options) -> Result<(Vec<u32>, Vec<Read>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("responses.jsonl");
        std::fs::write(&path, text).unwrap();
        let t = load(&path, None, options)?;
        let one = |i: usize| {
            let s = t.sequence(i);
            (s.first_position, s.prefill.to_vec(), s.decode_first_position, s.decode.to_vec())
        };
        Ok((t.meta().layer_numbers.clone(), (0..t.sequences()).map(one).collect()))
    }

    fn options() -> Options {
        Options { experts: Some(8), ..Default::default() }
    }

    fn npy(descr: &str, shape: &str, body: &[u8]) -> String {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = (header.len() as u16).to_le_bytes();
        STANDARD.encode([b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), body].concat())
    }

    #[test]
    fn prompt_and_output_apart() {
        let text = r#"{"id": "cmpl-1", "object": "text_completion", "choices": [
            {"index": 0, "text": "{\"", "routed_experts": [[[0, 0], [5, 6]]]},
            {"index": 1, "routed_experts": [[[0, 0], [7, 6]], [[0, 0], [1, 2]]]},
            {"index": 2, "routed_experts": null}],
            "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
            "prompt_routed_experts": [[[-1, -1], [-1, -1]], [[0, 0], [3, 4]]]}
            {"choices": [{"routed_experts": [[[1, 0], [2, 3]]]}], "prompt_routed_experts": []}"#;
        let (layers, list) = read(text, &options()).unwrap();
        // Layer 0 is dense: all 0 where the first choice has rows.
        let m = MISSING;
        assert_eq!(layers, [1]);
        assert_eq!(list[0], (0, vec![m, m, 3, 4], 2, vec![5, 6]));
        assert_eq!(list[1], (0, vec![m, m, 3, 4], 2, vec![7, 6, 1, 2]));
        assert_eq!(list[2], (0, vec![m, m, 3, 4], 2, vec![]));
        assert_eq!(list[3], (0, vec![], 0, vec![2, 3]));
    }

    /// The last token is never computed, so an answer of one token has no rows of output.
    #[test]
    fn prompts_without_output_rows_stay() {
        let prompt = r#""prompt_routed_experts": [[[-1, -1], [-1, -1]], [[0, 0], [3, 4]]]"#;
        let m = MISSING;
        for output in ["null", "[]"] {
            let text = format!(
                r#"{{"choices": [{{"routed_experts": {output}}}], {prompt}}}
                {{"choices": [{{"routed_experts": [[[0, 0], [5, 6]]]}}], {prompt}}}"#
            );
            let (layers, list) = read(&text, &options()).unwrap();
            assert_eq!(layers, [1], "{output}");
            assert_eq!(list, [(0, vec![m, m, 3, 4], 2, vec![]), (0, vec![m, m, 3, 4], 2, vec![5, 6])], "{output}");
        }
    }

    #[test]
    fn prompt_and_output_in_one_array() {
        // Three tokens of prompt, two of output, the last of which is not computed.
        let ids = [1u8, 2, 3, 4, 5, 6, 7, 0];
        let array = npy("|u1", "(4, 1, 2)", &ids);
        let usage = r#""usage": {"prompt_tokens": 3, "completion_tokens": 2}"#;
        let text = format!(r#"{{"choices": [{{"routed_experts": "{array}"}}], {usage}}}"#);
        let all: Vec<u16> = ids.iter().map(|i| u16::from(*i)).collect();
        let (layers, list) = read(&text, &options()).unwrap();
        assert_eq!((layers, &list[..]), (vec![0], &[(0, all[..6].to_vec(), 3, all[6..].to_vec())][..]));
        // The request left its first two tokens out; another type.
        let wide: Vec<u8> = ids[4..].iter().flat_map(|i| u16::from(*i).to_le_bytes()).collect();
        let array = npy("<u2", "(2, 1, 2)", &wide);
        let text = format!(r#"{{"choices": [{{"routed_experts": "{array}"}}], {usage}}}"#);
        assert_eq!(read(&text, &options()).unwrap().1, [(2, all[4..6].to_vec(), 3, all[6..].to_vec())]);
        // Nobody says what is prompt.
        let text = format!(r#"{{"choices": [{{"routed_experts": "{array}"}}], "request_id": "1"}}"#);
        assert_eq!(read(&text, &options()).unwrap().1, [(0, vec![], 0, all[4..].to_vec())]);
        let prefill = Options { phase: Phase::Prefill, ..options() };
        assert_eq!(read(&text, &prefill).unwrap().1, [(0, all[4..].to_vec(), 2, vec![])]);
    }

    /// SGLang's ids: 32 bits each, no shape; the first layer is dense.
    #[test]
    fn responses_of_sglang() {
        let base64 = |ids: &[i32]| STANDARD.encode(ids.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>());
        let ids = base64(&[0, 0, 1, 2, 0, 0, 3, 4, 0, 0, 5, 6]);
        let text = format!(
            r#"{{"text": "x", "output_ids": [7, 8], "meta_info": {{"id": "a", "prompt_tokens": 2, "completion_tokens": 2, "routed_experts": "{ids}"}}}}"#
        );
        let two = Options { k: Some(2), ..options() };
        let found = (vec![1], vec![(0, vec![1, 2, 3, 4], 2, vec![5, 6])]);
        assert_eq!(read(&text, &two).unwrap(), found);
        // As its OpenAI routes have it, and packed.
        let usage = r#""usage": {"prompt_tokens": 2, "completion_tokens": 2}"#;
        let open = format!(
            r#"{{"object": "text_completion", "choices": [{{"text": "x"}}], {usage}, "sglext": {{"routed_experts": "{ids}"}}}}"#
        );
        assert_eq!(read(&open, &two).unwrap(), found);
        let dir = tempfile::tempdir().unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut gz, text.as_bytes()).unwrap();
        std::fs::write(dir.path().join("r.jsonl.gz"), gz.finish().unwrap()).unwrap();
        assert_eq!(load(&dir.path().join("r.jsonl.gz"), None, &two).unwrap().rows(), 3);
        for (text, options, words) in [
            (&text, options(), "does not say how many experts a token has"),
            (
                &text.replace("\"prompt_tokens\": 2, \"completion_tokens\": 2, ", ""),
                two.clone(),
                "how its ids divide into layers",
            ),
            (&text.replace(&ids, &base64(&[70_000, 1])), two.clone(), "70000 is not an expert id"),
        ] {
            let e = read(text, &options);
            let e = e.unwrap_err().to_string();
            assert!(e.contains(words), "{e}");
        }
    }

    /// vLLM's own objects as JSON, and lines with the rows alone.
    #[test]
    fn lines_of_vllm() {
        let text = r#"{"request_id": "0", "prompt_token_ids": [5, 6], "outputs": [{"index": 0, "token_ids": [7, 8], "routed_experts": [[[1, 2]], [[3, 4]], [[5, 6]]]}]}"#;
        assert_eq!(read(text, &options()).unwrap(), (vec![0], vec![(0, vec![1, 2, 3, 4], 2, vec![5, 6])]));
        let text = "{\"routed_experts\": [[[1, 2]], [[3, 4]]]}\n{\"routed_experts\": [[[5, 6]]]}\n";
        assert_eq!(read(text, &options()).unwrap().1, [(0, vec![], 0, vec![1, 2, 3, 4]), (0, vec![], 0, vec![5, 6])]);
    }

    #[test]
    fn bad_responses() {
        let good = r#"{"choices": [{"routed_experts": [[[1, 2]]]}]}"#;
        let choice = |text: &str| format!("{good}\n{{\"choices\": [{{\"routed_experts\": {text}}}]}}");
        for (text, word) in [
            (choice("[[[1, 8]]]"), "response 1, choice 0, sequence 1, position 0, layer 0: expert 8 of 8"),
            (choice("[[[1, 2], [3, 4]]]"), "response 1, choice 0: has 2 layers and k = 2; the first has 1 and 2"),
            (choice("[[1, 2]]"), "response 1: is no response of vLLM or SGLang: tokens are lists of ids"),
            (choice("[[[1, 2]], [[1]]]"), "response 1: is no response of vLLM or SGLang: token 1"),
            (choice("\"!\""), "response 1: is no response of vLLM or SGLang: numpy file: is not base64"),
            (choice("\"AAAA\""), "is not a numpy array"),
            (choice(&format!("\"{}\"", npy("<f4", "(1, 1, 1)", &[0; 4]))), "not integers"),
            (choice(&format!("\"{}\"", npy("|u1", "(9, 9, 9)", &[0; 4]))), "4 bytes for the shape [9, 9, 9]"),
            (choice(&format!("\"{}\"", npy("|u1", "(1, 1)", &[0]))), "not [tokens, layers, k]"),
            (choice("7"), "response 1: is no response of vLLM or SGLang: invalid type: integer"),
            (format!("{good}{{"), "response 1: is no response"),
            (format!("{good} x"), "response 1: is no response"),
            (r#"{"choices": [{"routed_experts": []}]}"#.into(), "no rows"),
            (r#"{"choices": [{"routed_experts": [[[0, 0]]]}]}"#.into(), "0 MoE layers"),
            (
                r#"{"choices": [{"routed_experts": [[[1]], [[1]], [[1]]]}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}"#.into(),
                "has 3 rows for a usage of 2 tokens",
            ),
        ] {
            let e = read(&text, &options()).unwrap_err();
            let said = e.to_string();
            assert!(said.contains(word) && e.exit_code() == 2 && !e.cure.is_empty() && said.len() < 500, "{word}: {said}");
        }
    }
}
