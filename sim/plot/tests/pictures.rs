//! Pictures are well-formed, readable and the same on every run; bad files are refused by file and row.

mod synthetic;

use moesim_plot::{Format, RunData, SweepTable, builtin, png, sweep_plot, write};
use resvg::{tiny_skia, usvg};
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use synthetic::{HUGE, LARGE, ONE, Random, SMALL, Size, run};

/// Reads the SVG with the font that the crate embeds.
fn parse(svg: &str) -> usvg::Tree {
    static FONTS: OnceLock<Arc<usvg::fontdb::Database>> = OnceLock::new();
    let fonts = FONTS.get_or_init(|| {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(include_bytes!("../assets/DejaVuSans.ttf").to_vec());
        Arc::new(fonts)
    });
    let options = usvg::Options { fontdb: fonts.clone(), ..usvg::Options::default() };
    usvg::Tree::from_str(svg, &options).unwrap()
}

/// No text leaves the picture or touches another.
fn assert_readable(svg: &str, what: &str) {
    let tree = parse(svg);
    let mut texts = Vec::new();
    collect(tree.root(), &mut texts);
    assert!(texts.len() > 3, "{what}: {} texts", texts.len());
    let page = (tree.size().width(), tree.size().height());
    for (i, (text, a)) in texts.iter().enumerate() {
        let inside = a.left() >= 0.0 && a.top() >= 0.0 && a.right() <= page.0 && a.bottom() <= page.1;
        assert!(inside, "{what}: {text:?} leaves the picture");
        for (other, b) in &texts[..i] {
            let apart = a.right() < b.left() || b.right() < a.left() || a.bottom() < b.top() || b.bottom() < a.top();
            assert!(apart, "{what}: {text:?} touches {other:?}");
        }
    }
}

fn collect(group: &usvg::Group, texts: &mut Vec<(String, usvg::Rect)>) {
    for node in group.children() {
        match node {
            usvg::Node::Group(g) => collect(g, texts),
            usvg::Node::Text(t) => {
                let text: String = t.chunks().iter().map(|c| c.text()).collect();
                // The ink of glyphs, which is what collides, not the font's line height.
                texts.push((text, t.flattened().abs_bounding_box()));
            }
            _ => {}
        }
    }
}

fn made(size: Size) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), size);
    dir
}

fn draw(dir: &Path, name: &str) -> moesim_core::Result<Option<String>> {
    let plot = builtin().iter().find(|p| p.name() == name).unwrap();
    plot.draw(&RunData::open(dir)?)
}

const ODD: Size = Size { requests: 2, devices: 5, layers: 2, experts: 3 };

#[test]
fn every_plot_of_any_size_is_readable_and_repeats() {
    for (i, size) in [ONE, ODD, SMALL, LARGE, HUGE].into_iter().enumerate() {
        let (dir, again) = (made(size), made(size));
        for plot in builtin() {
            let svg = draw(dir.path(), plot.name()).unwrap().unwrap();
            assert_readable(&svg, &format!("{} {i}", plot.name()));
            assert_eq!(svg, draw(again.path(), plot.name()).unwrap().unwrap());
            assert!(svg.matches("font-family").count() == svg.matches("\"DejaVu Sans, sans-serif\"").count());
        }
    }
}

#[test]
fn files_are_written_whole_and_the_same_twice() {
    let dir = made(SMALL);
    let formats = [Format::Svg, Format::Png];
    let files = write(dir.path(), &[], &formats).unwrap();
    assert_eq!(files.len(), 2 * builtin().len());
    let first: Vec<Vec<u8>> = files.iter().map(|f| fs::read(f).unwrap()).collect();
    assert_eq!(write(dir.path(), &[], &formats).unwrap(), files);
    for (file, bytes) in files.iter().zip(&first) {
        assert_eq!(&fs::read(file).unwrap(), bytes, "{}", file.display());
    }
    for pair in first.chunks(2) {
        let pixels = tiny_skia::Pixmap::decode_png(&pair[1]).unwrap();
        let size = parse(std::str::from_utf8(&pair[0]).unwrap()).size();
        assert_eq!((pixels.width(), pixels.height()), (1800, 2 * size.height() as u32));
        assert!(pixels.pixels().iter().any(|p| p.red() < 60), "something is drawn");
    }
    let one = write(dir.path(), &["latency".into()], &[Format::Svg]).unwrap();
    assert_eq!(one, [dir.path().join("plots/latency.svg")]);
    let partial = fs::read_dir(dir.path().join("plots")).unwrap().count();
    assert_eq!(partial, files.len());
}

#[test]
fn pictures_show_the_numbers() {
    let dir = made(SMALL);
    let rows: String = (1..=100).rev().map(|v| format!("{v},,{}\n", v * 10)).collect();
    fs::write(dir.path().join("requests.csv"), format!("ttft_ms,tpot_ms,e2e_ms\n{rows}")).unwrap();
    let svg = draw(dir.path(), "latency").unwrap().unwrap();
    for text in ["p50 50.0", "p90 90.0", "p99 99.0", "p50 500", "requests: 100", "no request has a value", "log scale"]
    {
        assert!(svg.contains(text), "{text}");
    }
    let svg = draw(dir.path(), "breakdown").unwrap().unwrap();
    assert!(svg.contains("4.05 s (32.4 %)") && svg.contains("bars sum to 12.5 s") && !svg.contains("load"));
    fs::write(
        dir.path().join("experts.csv"),
        "layer,expert,assignments,devices\n3,0,30,1\n3,1,10,1\n5,0,7,1\n5,1,7,1\n",
    )
    .unwrap();
    let svg = draw(dir.path(), "experts").unwrap().unwrap();
    assert!(svg.contains("1.25 averaged over layers, 1.50 at most (layer 3)"), "{svg}");
    let many = made(HUGE);
    let svg = draw(many.path(), "timeline").unwrap().unwrap();
    assert!(svg.contains("32 of 100 devices") && svg.contains("the first two MoE layers: 1 and 2"));
    assert!(draw(many.path(), "utilisation").unwrap().unwrap().contains("the 32 busiest of 200"));
}

#[test]
fn many_rows_make_a_small_picture() {
    let dir = made(SMALL);
    let mut r = Random::new(9);
    let rows: String = (0..60_000).map(|_| format!("{},1,1\n", 1.0 + 1e3 * r.next())).collect();
    fs::write(dir.path().join("requests.csv"), format!("ttft_ms,tpot_ms,e2e_ms\n{rows}")).unwrap();
    assert!(draw(dir.path(), "latency").unwrap().unwrap().len() < 200_000);
    let rows: String = (0..20_000).map(|i| format!("{i},1,{}\n", if i < 10_000 { 0.25 } else { 0.75 })).collect();
    fs::write(dir.path().join("series.csv"), format!("start_s,width_s,gpu0 busy\n{rows}")).unwrap();
    let svg = draw(dir.path(), "utilisation").unwrap().unwrap();
    assert!(svg.len() < 100_000);
    assert_readable(&svg, "utilisation");
}

#[test]
fn a_run_without_the_data_has_no_picture() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("summary.json"), "{}").unwrap();
    assert_eq!(write(dir.path(), &[], &[Format::Svg]).unwrap(), Vec::<std::path::PathBuf>::new());
    run(dir.path(), Size { requests: 0, devices: 1, layers: 0, experts: 0 });
    for (name, some) in [("latency", false), ("experts", false), ("timeline", true), ("breakdown", true)] {
        assert_eq!(draw(dir.path(), name).unwrap().is_some(), some, "{name}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = RunData::open(dir.path()).unwrap_err();
    assert!(error.cure.contains("moesim run") && error.exit_code() == 2, "{error}");
    let cases = [
        ("latency", "requests.csv", "ttft_ms,tpot_ms,e2e_ms\n1,1,1\n1,x,1\n", "row 2, column \"tpot_ms\""),
        ("latency", "requests.csv", "ttft_ms,tpot_ms,e2e_ms\n1,1,1\n1,1\n", "row 2"),
        ("latency", "requests.csv", "ttft_ms,tpot_ms,e2e_ms\n-1,1,1\n", "row 1, column \"ttft_ms\""),
        ("latency", "requests.csv", "ttft_ms,e2e_ms\n1,1\n", "header"),
        ("latency", "requests.csv", "ttft_ms,tpot_ms,e2e_ms\ninf,1,1\n", "row 1, column \"ttft_ms\""),
        ("experts", "experts.csv", "layer,expert,assignments\n1,70000,1\n", "row 1, column \"expert\""),
        ("experts", "experts.csv", "layer,expert,assignments\n1,1,\n", "row 1, column \"assignments\""),
        ("utilisation", "series.csv", "start_s,width_s,a\n0,1,0.5\n1,1,NaN\n", "row 2, column \"a\""),
        (
            "timeline",
            "operations.csv",
            "iteration,operation,kind,layer,device,start_s,end_s,bound,critical\n1,1,gate,0,g,0,,m,1\n",
            "row 1, column \"end_s\"",
        ),
        ("breakdown", "summary.json", r#"{"breakdown": {"gate": "long"}}"#, "breakdown.gate"),
        ("breakdown", "summary.json", "{\"breakdown\": \n[", "2:1"),
    ];
    for (plot, file, text, place) in cases {
        run(dir.path(), SMALL);
        fs::write(dir.path().join(file), text).unwrap();
        let error = draw(dir.path(), plot).unwrap_err();
        assert!(error.file.as_deref().is_some_and(|f| f.ends_with(file)), "{error}");
        assert_eq!((error.place.as_deref(), error.exit_code()), (Some(place), 2), "{error}");
        assert!(!error.cure.is_empty());
    }
    let error = write(dir.path(), &["latncy".into()], &[]).unwrap_err();
    assert!(error.cure.contains("latency"), "{error}");
    assert!(png("<svg").is_err());
}

/// Any bytes give a picture that parses or an error, never a panic.
#[test]
fn changed_files_never_panic() {
    let small = Size { requests: 6, devices: 2, layers: 3, experts: 4 };
    let original = made(small);
    let dir = made(small);
    let mut r = Random::new(5);
    let pieces = ["1e308", "-0", "5e-324", "\u{1}<&\"", ",", "\n", "\"", "", "99999999999", "\u{fffe}é", "0"];
    for (plot, file) in [
        ("latency", "requests.csv"),
        ("experts", "experts.csv"),
        ("utilisation", "series.csv"),
        ("timeline", "operations.csv"),
        ("breakdown", "summary.json"),
    ] {
        let text = fs::read_to_string(original.path().join(file)).unwrap();
        let mut drawn = 0;
        for _ in 0..150 {
            // A random cell, or in every fourth case any stretch, becomes something else.
            let mut cells: Vec<&str> = text.split_inclusive([',', '\n']).collect();
            let i = (r.next() * cells.len() as f64) as usize;
            let piece = pieces[(r.next() * pieces.len() as f64) as usize];
            let end = if r.next() < 0.75 { &cells[i][cells[i].len() - 1..] } else { "" };
            let cell = format!("{piece}{end}");
            cells[i] = &cell;
            fs::write(dir.path().join(file), cells.concat()).unwrap();
            if let Ok(Some(svg)) = draw(dir.path(), plot) {
                parse(&svg);
                drawn += 1;
            }
        }
        assert!(drawn > 2, "{plot}: {drawn} of 150 drawn");
        fs::write(dir.path().join(file), text).unwrap();
    }
}

fn sweep(keys: &[&str], keep: impl Fn(&[String]) -> bool) -> SweepTable {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sweep.csv");
    fs::write(&path, synthetic::sweep()).unwrap();
    // All keys, so that a point can be chosen; then those asked for.
    let all = ["batch", "placement", "fabric"].map(String::from);
    let mut table = SweepTable::from_csv(&path, &all).unwrap();
    table.points.retain(|p| keep(&p.values));
    let places: Vec<usize> = keys.iter().map(|k| all.iter().position(|a| a == k).unwrap()).collect();
    for p in &mut table.points {
        p.values = places.iter().map(|&i| p.values[i].clone()).collect();
    }
    table.keys = keys.iter().map(|k| k.to_string()).collect();
    table
}

#[test]
fn sweeps_become_lines_bars_or_heat_maps() {
    let one_fabric = |v: &[String]| v[2] == "900 GB/s";
    let cases = [
        (sweep(&["placement", "batch"], one_fabric), vec!["batch, log scale", "replicated", "link gpu0&gt;switch"]),
        (sweep(&["placement", "fabric"], |v| v[0] == "64"), vec!["fabric (GB/s)", "1800", "round-robin"]),
        (sweep(&["batch", "placement"], one_fabric), vec!["by batch and placement", "greedy", "–"]),
        (sweep(&["placement"], |v| one_fabric(v) && v[0] == "512"), vec!["no value", "(link gpu0&gt;switch)"]),
        (sweep(&["batch"], |v| one_fabric(v) && v[1] == "ilp"), vec!["batch, log scale", "gpu memory"]),
        (sweep(&["batch"], |v| one_fabric(v) && v[1] == "ilp" && v[0] == "1"), vec!["batch"]),
        (sweep(&["batch"], |v| one_fabric(v) && v[1] == "round-robin" && v[0] == "512"), vec!["1 without value"]),
    ];
    for (i, (table, texts)) in cases.iter().enumerate() {
        for metric in ["tpot_ms", "tokens_per_s"] {
            let svg = sweep_plot(table, metric).unwrap();
            assert_readable(&svg, &format!("sweep {i} {metric}"));
            for text in texts {
                assert!(svg.contains(text), "sweep {i}: {text}");
            }
            assert_eq!(svg, sweep_plot(table, metric).unwrap());
        }
    }
}

/// Of three keys one or two can be chosen: the others join the first, so that no point is lost.
#[test]
fn chosen_keys_keep_every_point() {
    let all = sweep(&["batch", "placement", "fabric"], |v| v[0] == "1" || v[0] == "64");
    for (keys, names) in [
        (&[0, 2][..], ["batch, placement", "fabric"]),
        (&[1], ["batch, fabric", "placement"]),
        (&[2, 1], ["fabric, batch", "placement"]),
    ] {
        let table = all.over(keys);
        assert_eq!((table.keys.as_slice(), table.points.len()), (&names.map(String::from)[..], all.points.len()));
        sweep_plot(&table, "tpot_ms").unwrap();
    }
    let one = sweep(&["batch"], |v| v[1] == "ilp" && v[2] == "900 GB/s");
    assert_eq!(one.over(&[0]), one);
}

#[test]
fn wrong_sweeps_are_refused() {
    let table = sweep(&["batch"], |v| v[1] == "ilp" && v[2] == "900 GB/s");
    assert_eq!(table.metrics(), ["tokens_per_s", "tpot_ms"]);
    assert!(sweep_plot(&table, "tpot").unwrap_err().cure.contains("tpot_ms"));
    let error = sweep_plot(&sweep(&["batch"], |_| true), "tpot_ms").unwrap_err();
    assert!(error.problem.contains("several points have batch = 1"), "{error}");
    assert!(sweep_plot(&sweep(&["batch", "placement", "fabric"], |_| true), "tpot_ms").is_err());
    assert!(sweep_plot(&sweep(&[], |_| true), "tpot_ms").is_err());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sweep.csv");
    for (text, place) in [
        ("a,status,m\n1,ok,2\n2,ok,x\n", Some("row 2, column \"m\"")),
        ("b,status,m\n1,ok,2\n", Some("header")),
        ("a,status,m\n", None),
    ] {
        fs::write(&path, text).unwrap();
        assert_eq!(SweepTable::from_csv(&path, &["a".into()]).unwrap_err().place.as_deref(), place);
    }
    fs::write(&path, "a,status,why,m\n1,failed,x,\n2,ok,fine,3\n").unwrap();
    let table = SweepTable::from_csv(&path, &["a".into()]).unwrap();
    assert_eq!(table.metrics(), ["m"]);
    assert_eq!((table.points[0].metrics["m"], table.points[1].metrics["m"]), (None, Some(3.0)));
}
