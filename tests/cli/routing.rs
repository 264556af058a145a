//! `moesim trace stats` and `moesim trace synth`.

use crate::common::{Place, SMALL, files, number};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_drawn_trace_is_described_and_imitated() {
    let p = Place::new();
    let draw = ["--sequences", "30", "--prompt-rows", "20", "--decode-rows", "40"];
    let synth = |out: &str, more: &[&str]| {
        let mut args = vec!["trace", "synth", "--model", "olmoe-1b-7b", "--out", out];
        args.extend(draw.iter().chain(more));
        p.ok(&args)
    };
    assert!(synth("a.arrow", &[]).starts_with("a.arrow: 30 sequences, 1800 rows"));
    // The same bytes on one thread, others for another seed.
    synth("b.arrow", &["--threads", "1"]);
    synth("c.arrow", &["--seed", "2"]);
    let bytes = |name: &str| std::fs::read(p.path(name)).unwrap();
    assert!(bytes("a.arrow") == bytes("b.arrow") && bytes("a.arrow") != bytes("c.arrow"));

    let stats = json(&p.ok(&["trace", "stats", "a.arrow", "--format", "json", "--out", "s", "--threads", "1"]));
    assert_eq!(stats["trace"]["rows"], 1800);
    assert_eq!(stats["trace"]["layers"].as_array().unwrap().len(), 16);
    let overlap = |who: &str| stats[who]["layers"][8]["next_token_overlap"].as_f64().unwrap();
    assert!(overlap("trace") > 1.5 * overlap("independent"), "{} {}", overlap("trace"), overlap("independent"));
    assert!(stats["trace"]["phases"]["rank_correlation"][0].as_f64().unwrap() > 0.5);
    assert_eq!(json(&std::fs::read_to_string(p.path("s/stats.json")).unwrap()), stats);
    assert!(p.path("s/routing.svg").exists() && p.path("s/routing.png").exists());
    assert!(p.ok(&["trace", "stats", "a.arrow"]).contains("M selections/s"));

    // Topics of the user's own.
    let csv: String = (0..30).map(|i| format!("{i},{}\n", if i < 12 { "law" } else { "code" })).collect();
    p.write("topics.csv", format!("sequence,topic\n{csv}"));
    let stats = json(&p.ok(&["trace", "stats", "a.arrow", "--topics", "topics.csv", "--format", "json"]));
    assert_eq!(stats["trace"]["topics"]["topics"], json(r#"[["code", 18], ["law", 12]]"#));

    let c = json(&p.ok(&["trace", "synth", "--like", "a.arrow", "--format", "json", "--out", "d.arrow"]));
    assert_eq!(c["sequences"], json("[21, 9]"));
    assert!(c["phases"].is_array() && c["rows"].as_array().unwrap().len() > 40);
    let info = json(&p.ok(&["trace", "info", "d.arrow", "--format", "json"]));
    assert_eq!((&info["sequences"], &info["rows"], &info["prefill_rows"]), (&30.into(), &1800.into(), &600.into()));
    assert!(p.ok(&["trace", "synth", "--like", "a.arrow"]).contains("figures within 5 %"));
}

#[test]
fn counts_become_a_trace() {
    let p = Place::new();
    let heat = |skew: u32| (0..16).map(|e| (400 + e * skew * 10).to_string()).collect::<Vec<_>>().join(",");
    let layer = |l: u32, skew: u32| {
        format!(r#"{{"layer": {l}, "heat": [{}], "pairs": [[0, 15, 120, 2.0], [1, 14, 100, 2.0]]}}"#, heat(skew))
    };
    let text =
        format!(r#"{{"model": "m", "n_expert_per_layer": 16, "k": 2, "layers": [{}, {}]}}"#, layer(0, 10), layer(1, 3));
    p.write("counts.json", text);
    let fit = json(&p.ok(&["trace", "synth", "--counts", "counts.json", "--format", "json", "--out", "t.arrow"]));
    let of = |fit: &serde_json::Value, phase: usize| fit["phases"][phase]["popularity_distance"].as_f64().unwrap();
    assert!(of(&fit, 1) < 0.1 && fit["counted"] == "decode", "{fit}");
    let [counted, synthetic, independent] = [0, 1, 2].map(|i| fit["pair_share"][i].as_f64().unwrap());
    assert!((synthetic - counted).abs() < 0.5 * (independent - counted).abs(), "{fit}");
    assert!(p.ok(&["trace", "info", "t.arrow"]).contains("with the counts of counts.json as those of output"));
}

/// Counts are those of the tokens that the user says they are, and the table judges the rows that are written.
#[test]
fn counts_of_prompts_are_prompts() {
    let p = Place::new();
    let layer = |skew: u32| (0..64).map(|e| (200 + e * e % 61 * skew).to_string()).collect::<Vec<_>>().join(",");
    p.write("c.csv", format!("{}\n{}\n", layer(40), layer(15)));
    let synth = |args: &[&str], out: &str| {
        let all =
            [&["trace", "synth", "--counts", "c.csv", "--top-k", "4", "--format", "json", "--out", out][..], args]
                .concat();
        json(&p.ok(&all))
    };
    let counted = |path: &str, layer: usize| {
        let c = json(&p.ok(&["trace", "counts", path, "--format", "json"]));
        let counts: Vec<f64> =
            c["layers"][layer]["counts"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
        let sum: f64 = counts.iter().sum();
        counts.into_iter().map(|n| n / sum).collect::<Vec<f64>>()
    };
    let off = |path: &str| {
        let of = |l: usize| -> f64 {
            counted("c.csv", l).iter().zip(counted(path, l)).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
        };
        (of(0) + of(1)) / 2.0
    };
    let prompts = ["--prompt-rows", "128", "--decode-rows", "0"];
    for (of, near) in [("prompt", true), ("output", false)] {
        let fit = synth(&[&prompts[..], &["--counts-of", of]].concat(), &format!("{of}.arrow"));
        let said = fit["popularity_distance"][0].as_f64().unwrap();
        let found = off(&format!("{of}.arrow"));
        assert_eq!(found < 0.05, near, "{of}: {found}");
        // What is said of the rows is true of them, but for chance.
        assert!((found - said).abs() < 0.02, "{of}: {found}, said {said}");
    }
    let out = p
        .command(&["trace", "synth", "--counts", "c.csv", "--top-k", "4", "--decode-rows", "0", "--out", "x"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(2) && said.contains("give --counts-of prompt, or output"), "{said}");
    // Both phases are in the table.
    let said = p.ok(&["trace", "synth", "--counts", "c.csv", "--top-k", "4", "--counts-of", "prompt"]);
    assert!(
        said.contains("are taken for those of prompt tokens (--counts-of)")
            && said.contains("the same of output tokens"),
        "{said}"
    );
}

#[test]
fn nonsense_is_refused_with_a_cure() {
    let p = Place::new();
    p.ok(&["trace", "synth", "--model", "olmoe-1b-7b", "--sequences", "1", "--decode-rows", "9", "--out", "one.arrow"]);
    p.write("few.csv", "sequence,topic\n7,law\n");
    p.write("bad.csv", "sequence,topic\nx,law\n");
    p.write("empty.csv", "");
    let before = p.names();
    for (args, says) in [
        (&["synth", "--like", "one.arrow"][..], "at least two"),
        (&["synth", "--model", "olmoe-1b-7b"], "--out"),
        (&["synth", "--out", "x.arrow"], "--like"),
        (&["synth", "--model", "nonsense", "--out", "x.arrow"], "nonsense"),
        (
            &["synth", "--model", "olmoe-1b-7b", "--prompt-rows", "0", "--decode-rows", "0", "--out", "x.arrow"],
            "at least one row",
        ),
        (&["synth", "--model", "olmoe-1b-7b", "--decode-rows", "4294967295", "--out", "x.arrow"], "at most"),
        (&["synth", "--counts", "few.csv", "--out", "x.arrow"], "few.csv"),
        (&["stats", "few.csv"], "few.csv"),
        (&["stats", "one.arrow", "--topics", "few.csv"], "no topic for sequence 0"),
        (&["stats", "one.arrow", "--topics", "bad.csv"], "line 2"),
        (&["stats", "one.arrow", "--topics", "empty.csv"], "`sequence`"),
    ] {
        let mut all = vec!["trace"];
        all.extend(args);
        let out = p.command(&all).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(2) && text.contains(says) && text.lines().count() == 1, "{args:?}: {text}");
        assert_eq!(p.names(), before, "{args:?}");
    }
}

/// Drawn routing is kept for the next command, whichever it is, and no result tells.
#[test]
fn drawn_routing_is_kept_and_no_result_tells() {
    let p = Place::new();
    let small = ["workload.routing.sequences=5", "workload.routing.prompt_rows=20", "workload.routing.decode_rows=20"];
    let set: Vec<&str> = SMALL.iter().chain(&small).flat_map(|s| ["--set", *s]).collect();
    let command = |args: &[&str], cache: &str| {
        let mut c = p.command(&[args, &set].concat());
        c.env("MOESIM_CACHE", cache);
        c
    };
    let ok = |mut c: assert_cmd::Command| {
        let out = c.output().unwrap();
        let err = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.success() && err.is_empty(), "{err}");
        String::from_utf8(out.stdout).unwrap()
    };
    let run = |out: &str, cache: &str, more: &[&str]| {
        ok(command(&[&["run", "quickstart", "--set=output.plots=false", "--out", out], more].concat(), cache));
        let timing = json(&p.text(&format!("{out}/timing.json")));
        assert!(number(&timing, "routing_s") > 0.0 && number(&timing, "wall_s") > 0.0);
        (files(&p.path(out)), timing["routing_from"].as_str().unwrap().to_string())
    };
    let kept = || std::fs::read_dir(p.path("cache")).unwrap().count();
    let (files, from) = run("none", "", &[]);
    assert_eq!(from, "drawn");
    for (out, cache, more, expected) in [
        ("first", "cache", &[][..], "drawn"),
        ("second", "cache", &["--threads", "1"], "cache"),
        ("without", "cache", &["--no-cache"], "drawn"),
        ("unwritable", "/proc/none", &[], "drawn"),
    ] {
        let (own, from) = run(out, cache, more);
        assert!(from == expected && own == files, "{out}: {from}");
    }
    assert_eq!(kept(), 1);
    // A damaged entry is drawn anew.
    let entry = std::fs::read_dir(p.path("cache")).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&entry).unwrap();
    std::fs::write(&entry, &bytes[..bytes.len() - 100]).unwrap();
    let (own, from) = run("damaged", "cache", &[]);
    assert!(from == "drawn" && own == files && std::fs::read(&entry).unwrap() == bytes, "{from}");
    // Other commands find it too.
    let explained = ok(command(&["explain", "quickstart"], ""));
    assert_eq!(ok(command(&["explain", "quickstart"], "cache")), explained);
    let set = |s: &str| format!("\"{}\" = {}\n", s.split_once('=').unwrap().0, s.split_once('=').unwrap().1);
    let all: String = SMALL.iter().chain(&small).map(|s| set(s)).collect();
    p.write("s.toml", format!("name = \"s\"\nbase = \"quickstart\"\n[set]\n{all}[[axis]]\nkey = \"deployment.max_sequences\"\nvalues = [4, 8]\n"));
    let sweep = |cache: &str, out: &str| {
        ok({
            let mut c = p.command(&["sweep", "s.toml", "--out", out, "--jobs", "1"]);
            c.env("MOESIM_CACHE", cache);
            c
        })
    };
    assert_eq!(sweep("cache", "s1").replace("s1", "s"), sweep("", "s2").replace("s2", "s"));
    let from = |point: &str| json(&p.text(&format!("{point}/timing.json")))["routing_from"].clone();
    assert_eq!([from("s1/points/0000"), from("s1/points/0001"), from("s2/points/0000")], ["cache", "shared", "drawn"]);
    assert!(crate::common::files(&p.path("s1/points")) == crate::common::files(&p.path("s2/points")));
    assert_eq!(kept(), 1);
    // The folder of the system, limits, and what is no limit.
    let args = ["run", "quickstart", "--quiet"];
    let mut user = command(&args, "");
    ok({
        user.env_remove("MOESIM_CACHE").env("XDG_CACHE_HOME", p.path("xdg"));
        user
    });
    assert_eq!(std::fs::read_dir(p.path("xdg/moesim/routing")).unwrap().count(), 1);
    let sized = |size: &str| {
        let mut c = command(&args, "small");
        c.env("MOESIM_CACHE_SIZE", size);
        c
    };
    ok(sized("1 KiB"));
    assert!(!p.path("small").exists());
    let out = sized("much").output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(out.stderr).unwrap(),
        "error: MOESIM_CACHE_SIZE: \"much\" is no size; write it as \"2 GiB\", or unset it\n"
    );
}

/// The quickstart's routing ships: the first run need not draw it, nor does one without a folder to keep it.
#[test]
fn the_quickstarts_routing_ships() {
    let p = Place::new();
    let run = |out: &str, more: &[&str]| {
        p.ok(&[&["run", "quickstart", "--quiet", "--set=output.plots=false", "--out", out], more].concat());
        json(&p.text(&format!("{out}/timing.json")))["routing_from"].clone()
    };
    assert_eq!(
        [run("shipped", &[]), run("drawn", &["--no-cache"]), run("other", &["--seed", "2"])],
        ["shipped", "drawn", "drawn"]
    );
    assert!(files(&p.path("shipped")) == files(&p.path("drawn")));
}
