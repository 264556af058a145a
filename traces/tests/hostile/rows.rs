//! JSON lines and CSV.

use super::{Bad, import, with};
use moesim_traces::import::{Options, load};
use std::fs;
use std::io::Write;
use std::path::Path;

#[test]
fn json_line_files() {
    let mut bad = Bad::new();
    let read = import("json-lines");
    bad.common(".jsonl", read);
    let good = r#"{"experts": [[1, 2], [3, -1]], "n_layers": 2, "top_k": 1, "n_experts": 4}"#;
    fs::write(bad.path("good.jsonl"), good).unwrap();
    read(&bad.path("good.jsonl")).unwrap();
    bad.case("deep.jsonl", format!("{{\"experts\": {}", "[".repeat(100_000)), "line 1, column", read);
    bad.case("nested.jsonl", format!("{{\"other\": {}", "{\"a\":".repeat(100_000)), "line 1, column", read);
    bad.case("truncated.jsonl", format!("{good}\n{}", &good[..good.len() - 9]), "line 2, column", read);
    let noise: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    bad.case("noise.jsonl", &noise, "line 1: is not a JSON object", read);
    bad.case("noise2.jsonl", [b"{\"experts\": [[", &noise[..]].concat(), "line 1, column", read);
    // A line without end: sparse, so that it costs nothing here.
    let endless = fs::File::create(bad.path("endless.jsonl")).unwrap();
    (&endless).write_all(b"{").unwrap();
    endless.set_len(300 << 20).unwrap();
    bad.refused("endless.jsonl", "line 1: is longer than 256 MiB", read);
    fs::File::create(bad.path("zeros.jsonl")).unwrap().set_len(1 << 40).unwrap();
    bad.refused("zeros.jsonl", "line 1: is not a JSON object", read);
    for (name, line, word) in [
        ("list.jsonl", "[[1, 2]]", "line 2: is not a JSON object"),
        ("none.jsonl", r#"{"seq": 3}"#, "no `experts`"),
        ("both.jsonl", r#"{"experts": [[1, 2]], "decode": [[1, 2]]}"#, "beside"),
        ("twice.jsonl", r#"{"experts": [[1, 2]], "experts": [[1, 2]]}"#, "duplicate field"),
        ("nan.jsonl", r#"{"experts": [[1, 2], [1, NaN]]}"#, "token 1"),
        ("float.jsonl", r#"{"experts": [[1, 2], [1, 2.5]]}"#, "token 1"),
        ("text.jsonl", r#"{"experts": [["1", 2]]}"#, "token 0"),
        ("negative.jsonl", r#"{"experts": [[1, -2]]}"#, "token 0: -2 is not an expert id"),
        ("marker.jsonl", r#"{"experts": [[1, 65535]]}"#, "token 0: 65535 is not an expert id"),
        ("huge.jsonl", r#"{"experts": [[1, 99999999999999999999]]}"#, "token 0"),
        ("range.jsonl", r#"{"experts": [[1, 2], [1, 4]]}"#, "line 2, sequence 1, position 1, layer 1: expert 4 of 4"),
        ("width.jsonl", r#"{"experts": [[1, 2], [1]]}"#, "token 1: has 1 experts, token 0 has 2"),
        ("k.jsonl", r#"{"experts": [[[1], [2]], [[1, 2], [3]]]}"#, "token 1: list 1 has 1 experts, the first has 2"),
        ("mixed.jsonl", r#"{"experts": [[1, [2]]]}"#, "token 0: has experts beside lists"),
        ("lists.jsonl", r#"{"experts": [[[[1]], [2]]]}"#, "token 0: has lists in a list"),
        ("other.jsonl", r#"{"experts": [[1, 2, 3]]}"#, "has experts a token = 3; the trace has 2"),
        ("layers.jsonl", r#"{"experts": [[1, 2]], "n_layers": 1}"#, "has n_layers = 1; the trace has 2"),
        ("n_experts.jsonl", r#"{"experts": [[1, 2]], "n_experts": 8}"#, "has n_experts = 8; the trace has 4"),
        ("tokens.jsonl", r#"{"experts": [[1, 2]], "n_tokens": 2}"#, "says n_tokens = 2 and has 1"),
        ("phase.jsonl", r#"{"experts": [[1, 2]], "phase": "train"}"#, "unknown variant `train`"),
        ("control.jsonl", "{\"experts\": [[1, 2]], \"phase\": \"\u{7f}\"}", "unknown variant `\\u{7f}`"),
        ("order.jsonl", r#"{"seq": 0, "experts": [[1, 2]]}"#, "sequence 0 follows sequence 0"),
        ("seq.jsonl", r#"{"seq": 4294967296, "experts": [[1, 2]]}"#, "line 2, column"),
        ("first.jsonl", r#"{"first_pos": 4294967295, "experts": [[1, 2]]}"#, "positions exceed"),
        ("inside.jsonl", r#"{"prefill": [[1, 2]], "decode_first_pos": 0, "decode": [[1, 2]]}"#, "inside the prompt"),
    ] {
        bad.case(name, format!("{good}\n{line}"), word, |p| {
            let out = p.with_extension("arrow");
            let e = moesim_traces::import::import(p, Some("json-lines"), &with(4), &out).map(|_| ());
            assert!(!out.exists(), "no partial output");
            e
        });
    }
    let alone = |text: &str| text.to_string();
    bad.case("shape.jsonl", alone(r#"{"experts": [[1, 2, 3]], "n_layers": 2}"#), "whole rows of 2 layers", read);
    bad.case("zero.jsonl", alone(r#"{"experts": [[1, 2, 3]], "n_layers": 0}"#), "whole rows of 0 layers", read);
    bad.case("top_k.jsonl", alone(r#"{"experts": [[1, 2, 3]], "top_k": 0}"#), "does not say how", read);
    bad.case("silent.jsonl", alone(r#"{"experts": [[1, 2, 3]]}"#), "does not say how", read);
    bad.case("void.jsonl", alone(r#"{"experts": [[], []], "n_layers": 2}"#), "k = 0", read);
    bad.case("says.jsonl", alone(r#"{"experts": [[1]], "top_k": 1, "n_experts": 8}"#), "has 8 experts", read);
    let twice = r#"{"experts": [[1, 2, 3, 3]], "n_layers": 2}"#;
    bad.case("same.jsonl", twice, "line 1, sequence 0, position 0, layer 1: expert 3 is selected twice", read);
    bad.case("empty2.jsonl", alone("{\"experts\": []}\n"), "no rows", read);
    assert!(bad.cases >= 40, "{}", bad.cases);
}

#[test]
fn csv_row_files() {
    let mut bad = Bad::new();
    let read = import("csv");
    bad.common(".csv", read);
    const HEADER: &str = "sequence,phase,position,layer,expert0,expert1\n";
    let good = "0,decode,5,1,0,1\n0,decode,5,2,3,-1\n";
    for (name, rows, word) in [
        ("id.csv", "0,decode,6,1,0,4\n0,decode,6,2,0,1\n", "sequence 0, position 6, layer 1: expert 4 of 4"),
        ("negative.csv", "0,decode,6,1,0,-2", "line 4, expert1: \"-2\" is not an expert id"),
        ("nan.csv", "0,decode,6,1,NaN,1", "line 4, expert0: \"NaN\""),
        ("float.csv", "0,decode,6,1,1.0,1", "line 4, expert0: \"1.0\""),
        ("marker.csv", "0,decode,6,1,65535,1", "line 4, expert0: \"65535\""),
        ("huge.csv", "0,decode,6,1,99999999999999999999,1", "line 4, expert0"),
        ("same.csv", "0,decode,6,1,2,2\n0,decode,6,2,0,1\n", "position 6, layer 1: expert 2 is selected twice"),
        ("position.csv", "0,decode,-6,1,0,1", "line 4, position: \"-6\""),
        ("sequence.csv", "4294967296,decode,6,1,0,1", "line 4, sequence: \"4294967296\""),
        ("layer.csv", "0,decode,6,,0,1", "line 4, layer: \"\""),
        ("phase.csv", "0,train,6,1,0,1", "line 4, phase: \"train\""),
        ("fields.csv", "0,decode,6,1,0", "line 4: has 5 fields, not 6"),
        ("missing.csv", "0,decode,6,1,0,1\n0,decode,7,1,0,1\n", "line 5: position 6 of sequence 0 lacks layer 2"),
        ("skipped.csv", "0,decode,6,2,0,1", "line 4: position 6 of sequence 0 lacks layer 1"),
        ("end.csv", "0,decode,6,1,0,1\n", "end: position 6 of sequence 0 lacks layer 2"),
        ("unknown.csv", "0,decode,6,1,0,1\n0,decode,6,3,0,1\n", "line 5: layer 3 is not one of the first token's"),
        ("twice.csv", "0,decode,6,1,0,1\n0,decode,6,1,0,1\n", "line 5: layer 1 follows layer 1"),
        ("more.csv", "0,decode,5,2,0,1\n", "line 4: layer 2 follows layer 2"),
        ("back.csv", "0,decode,4,1,0,1", "line 4: position 4 follows position 5"),
        ("gap.csv", "0,decode,7,1,0,1", "line 4: position 7 follows position 5"),
        ("prompt.csv", "0,prefill,6,1,0,1", "line 4: position 6 follows position 5"),
        ("order.csv", "1,decode,0,1,0,1\n1,decode,0,2,0,1\n0,decode,6,1,0,1", "line 6: sequence 0 follows sequence 1"),
        ("last.csv", "1,decode,4294967295,1,0,1\n1,decode,4294967295,2,0,1\n", "positions exceed"),
    ] {
        bad.case(name, format!("{HEADER}{good}{rows}"), word, |p| {
            let out = p.with_extension("arrow");
            let e = moesim_traces::import::import(p, Some("csv"), &with(4), &out).map(|_| ());
            assert!(!out.exists(), "no partial output");
            e
        });
    }
    for (name, header, word) in [
        ("column.csv", "sequence,position,layer", "line 1: lacks the column `expert0`"),
        ("columns.csv", "sequence,layer,expert0", "line 1: lacks the column `position`"),
        ("control.csv", "sequence,\u{1b}[2J,\u{1b}[2J,expert0", "has the column `\\u{1b}[2J` twice"),
        ("hole.csv", "sequence,position,layer,expert0,expert2", "line 1: has more columns of experts"),
        ("same.csv", "sequence,position,layer,expert0,expert0", "line 1: has the column `expert0` twice"),
        ("forms.csv", "sequence,position,layer,expert0,expert_0", "line 1: has more columns of experts"),
        ("only.csv", HEADER, "no rows"),
    ] {
        bad.case(name, header, word, read);
    }
    const WEIGHTS: &str = "sequence,position,layer,expert0,expert1,weight0,weight1\n";
    bad.case(
        "weight.csv",
        format!("{WEIGHTS}0,0,1,0,1,0.5,inf\n"),
        "line 2, weight1: \"inf\" is not a gate weight",
        read,
    );
    bad.case(
        "weights.csv",
        WEIGHTS.replace(",weight1", ""),
        "line 1: has 1 columns of gate weights for 2 experts",
        read,
    );
    bad.case("line.csv", [HEADER.as_bytes(), &vec![b'1'; 10 << 20]].concat(), "longer than 64 KiB", read);
    bad.case("noise.csv", [HEADER.as_bytes(), b"\xff\xfe,\x00,\x01,,,\n"].concat(), "line 2", read);
    bad.case("binary.csv", [0x80u8; 300], "UTF-8", read);
    let layers: String = (0..4200).map(|l| format!("0,decode,0,{l},0,1\n")).collect();
    bad.case("layers.csv", format!("{HEADER}{layers}"), "line 4098: the first token has more than 4096", read);
    let k = |p: &Path| load(p, Some("csv"), &Options { k: Some(3), ..with(4) }).map(|_| ());
    bad.case("k.csv", format!("{HEADER}{good}"), "has 2 experts a token; the option has 3", k);
    let silent = |p: &Path| load(p, Some("csv"), &Options::default()).map(|_| ());
    bad.case("silent.csv", format!("{HEADER}{good}"), "--experts", silent);
    assert!(bad.cases >= 35, "{}", bad.cases);
}
