use super::express::{Expressed, PointRouting, express};
use super::*;
use crate::experiment::Profiles;

/// A point of our own: gpt-oss-120b on two H100, few clients, short requests.
pub(super) fn point() -> Point {
    parse(table(ROW).as_bytes()).unwrap().remove(0)
}

/// Its experiment, with uniform routing.
pub(super) fn uniform(point: &Point) -> Expressed {
    express(point, PointRouting::Uniform, &Profiles::default()).unwrap()
}

const ROW: &str = "gpt-oss-120b,h100_sxm,vllm,0.18.0,fp4,2,2,1,2,1,8192,64,32,4,2026-03-01,30.5,4.5,figure\n";

fn table(rows: &str) -> String {
    format!("{}\n{rows}", COLUMNS.join(","))
}

#[test]
fn a_table_is_read_in_any_order_of_columns() {
    let p = point();
    assert_eq!((p.model.as_str(), p.gpus, p.conc, p.mean_tpot_ms), ("gpt-oss-120b", 2, 4, 4.5));
    let turned = |line: &str| line.trim_end().rsplit(',').collect::<Vec<_>>().join(",");
    let text = format!("{}\n{}\n", turned(&COLUMNS.join(",")), turned(ROW));
    assert_eq!(parse(text.as_bytes()).unwrap(), [p]);
}

#[test]
fn wrong_tables_are_refused_in_one_line() {
    let good = table(ROW);
    for (text, words) in [
        (
            good.replace("mean_tpot_ms", "mean_tpot"),
            "line 1: \"mean_tpot\" is not a column of served points; did you mean \"mean_tpot_ms\"?",
        ),
        (good.replace(",role", "").replace(",figure", ""), "line 1: has no column role"),
        (good.replace("dp,", "tp,"), "line 1: has tp twice"),
        (good.replace(",2,2,1,", ",2,0,1,"), "line 2, column tp: \"0\" is no count"),
        (good.replace(",2,2,1,", ",2,two,1,"), "line 2, column tp: \"two\" is no count"),
        (good.replace("30.5", "-1"), "line 2, column mean_ttft_ms: \"-1\" is no time"),
        (good.replace("30.5", "inf"), "column mean_ttft_ms: \"inf\" is no time"),
        (
            good.replace(",figure", ",figures"),
            "line 2, column role: \"figures\" is not a role; did you mean \"figure\"?",
        ),
        (good.replace("gpt-oss-120b", ""), "line 2, column model: is empty"),
        (table(""), "has no points"),
        (String::new(), "has no column model"),
        (good.replace(",figure", ""), "is not a table"),
    ] {
        let e = parse(text.as_bytes()).unwrap_err();
        assert!(e.to_string().contains(words) && e.exit_code() == 2 && !e.cure.is_empty(), "{words}: {e}");
    }
    let e = parse(b"model\xff\n").unwrap_err();
    assert_eq!(e.exit_code(), 2, "{e}");
}

#[test]
fn files_are_read_plain_packed_and_with_a_mark() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("points.csv");
    let text = table(ROW);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gz, text.as_bytes()).unwrap();
    for bytes in [text.clone().into_bytes(), format!("\u{feff}{text}").into_bytes(), gz.finish().unwrap()] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap(), [point()]);
    }
    let e = read(&dir.path().join("absent.csv")).unwrap_err();
    assert_eq!(e.exit_code(), 2, "{e}");
}

/// Points of the role `figure` are for judging alone, so no constant that ships may come from such a file; those of the role
/// `calibration` may, and say so.
#[test]
fn no_constant_comes_from_served_figures() {
    let profiles = moesim_hwmodels::calibrate::profile::presets();
    let profiles = profiles.iter().map(|(name, text)| (*name, *text));
    let hardware = moesim_hwmodels::hardware::presets().iter().map(|p| (p.name, p.text));
    let mut read = 0;
    for (name, text) in profiles.chain(hardware) {
        for line in text.lines() {
            assert!(!from_served_figures(line), "{name}: {line}");
        }
        read += 1;
    }
    assert!(read > 15, "{read}");
    assert!(from_served_figures(r#"host = { value = "1 us", origin = "fitted to inferencex_points.csv" }"#));
    assert!(from_served_figures(r#"name = "e2e/points.csv""#));
    assert!(from_served_figures("origin = \"InferenceX, rows of role figure\""));
    assert!(!from_served_figures("origin = \"inferencex_points.csv, rows of role calibration: vLLM on H100\""));
    assert!(!from_served_figures("origin = \"NVIDIA H100 data sheet\""));
}

/// Whether a line of a preset names a file of served points without the role of rows that may be fitted to.
fn from_served_figures(line: &str) -> bool {
    let line = line.to_lowercase();
    let served = ["inferencex", "inferencemax", "e2e/", "e2e_", "served point"].iter().any(|w| line.contains(w));
    served && (!line.contains("calibration") || line.contains("figure"))
}
