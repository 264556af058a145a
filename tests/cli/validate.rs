//! Does `validate` print what it should?

use super::common::*;

#[test]
fn the_tpot_bound_is_exact_to_its_printed_digits() {
    let out = moesim().args(["validate", "--quiet", "--id", "*tpot*", "--format", "json"]).assert().success();
    let rows: serde_json::Value = serde_json::from_slice(&out.get_output().stdout).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let (published, simulated) = (row["published"].as_f64().unwrap(), row["simulated"].as_f64().unwrap());
        // All four are printed with two digits behind the point.
        assert!((simulated - published).abs() <= 0.005 + 1e-12, "{row}");
        assert_eq!((&row["status"], &row["in_sample"]), (&"ok".into(), &false.into()));
        for key in ["id", "system", "quantity", "unit", "relative_error", "experiment"] {
            assert!(!row[key].is_null(), "{key}: {row}");
        }
    }
}

#[test]
fn an_unknown_figure_is_refused_and_run_directories_are_kept() {
    moesim().args(["validate", "--quiet", "--id", "R000"]).assert().code(2).stderr(predicates("no figure matches"));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("v");
    let args = ["validate", "--quiet", "--id", "R362", "--out", out.to_str().unwrap()];
    moesim().args(args).assert().success();
    assert!(out.join("deepseek-tpot-bound/comm-50/summary.json").is_file());
}
