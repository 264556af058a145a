//! Traces of BurstGPT (HPMLL/BurstGPT; Wang et al., KDD 2025): CSV with Timestamp (seconds since midnight of the first
//! day, whole ones), Model, Request tokens, Response tokens, Total tokens and Log Type. Later files put Session ID and
//! Elapsed time between; the columns may stand anywhere.
//!
//! Their README names a response of 0 tokens a failure. Such rows (7 % of a file), and any without request tokens, are
//! left out and counted: a failure has no length to be replayed. The files `without_fails` have none.
//!
//! Stamps are whole seconds: see [`super::stamps`] for what shares one. Rows that are left out count among the stamps.

use super::Requests;
use super::request_table::{Layout, RequestTable, seconds};
use super::stamps::{Clock, requests};
use moesim_core::Result;
use std::path::Path;

/// Which rows.
pub(super) struct Only<'a> {
    pub(super) model: Option<&'a str>,
    pub(super) log_type: Option<&'a str>,
}

pub(super) fn open(path: &Path, rate_scale: f64, spread: bool, only: &Only) -> Result<Requests> {
    let Only { model, log_type } = *only;
    let columns = [("Model", model), ("Log Type", log_type)];
    let only = columns.into_iter().filter_map(|(column, wanted)| Some((column, wanted?.to_string()))).collect();
    let layout = Layout {
        names: ["Timestamp", "Request tokens", "Response tokens"],
        clock: |text| seconds(text).ok_or("give seconds since the first midnight, as in 5270414.0"),
        only,
        failures: true,
    };
    let table = RequestTable::open(path, layout)?;
    let failed = table.failed();
    let log = requests(path, table, Clock { from_first: true, spread, rate_scale })?;
    Ok(log.noting(move || match failed.load(std::sync::atomic::Ordering::Relaxed) {
        0 => Vec::new(),
        n => vec![format!("{n} failed requests of the log (0 tokens) were left out")],
    }))
}

#[cfg(test)]
mod tests {
    use super::super::Request;
    use super::super::tests::failure;
    use super::*;
    use moesim_core::Picos;

    const OLD: &str = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n";
    const NEW: &str = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n";
    const ROWS: &str = "5,ChatGPT,472,0,472,Conversation log\n45,ChatGPT,1087,230,1317,Conversation log\n\
                        118,GPT-4,417,276,693,API log\n118,ChatGPT,9,8,17,API log\n200.5,GPT-4,1,0,1,API log\n";

    fn read(text: &str, model: Option<&str>, log_type: Option<&str>) -> Result<(Vec<Request>, Vec<String>)> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.csv"), text).unwrap();
        let mut requests = open(&dir.path().join("b.csv"), 1.0, true, &Only { model, log_type })?;
        let all = requests.by_ref().collect::<Result<Vec<_>>>()?;
        Ok((all, requests.notes()))
    }
    fn request(id: u64, seconds: u64, prompt: u32, output: u32) -> Request {
        Request::new(id, Picos(seconds * 1_000_000_000_000), prompt, output)
    }

    #[test]
    fn failures_are_left_out_and_counted() {
        let (all, notes) = read(&format!("{OLD}{ROWS}"), None, None).unwrap();
        // Two share second 118, and the log goes on at 200.5.
        let between = Picos(73_000_000_000_000 + 82_500_000_000_000 / 2);
        assert_eq!(
            all,
            [request(0, 0, 1087, 230), request(1, 73, 417, 276), Request { arrival: between, ..request(2, 73, 9, 8) }]
        );
        assert!(notes[0].contains("1 requests share") && notes[0].contains("by 41.25 s at most"), "{notes:?}");
        assert_eq!(notes[1], "2 failed requests of the log (0 tokens) were left out");
        let (all, notes) = read(&format!("{OLD}{ROWS}"), Some("GPT-4"), None).unwrap();
        assert_eq!((all, notes[0].starts_with("1 failed")), (vec![request(0, 0, 417, 276)], true));
        let (all, notes) = read(&format!("{OLD}{ROWS}"), Some("ChatGPT"), Some("API log")).unwrap();
        assert_eq!((all, notes.len()), (vec![request(0, 0, 9, 8)], 0));
        let new =
            "19440110.0,1722ac82,43,GPT-4,906,446,1352,Conversation log\n28943983.0,,2,ChatGPT,36,29,65,API log\n";
        let (all, _) = read(&format!("{NEW}{new}"), None, None).unwrap();
        assert_eq!(all, [request(0, 0, 906, 446), request(1, 9_503_873, 36, 29)]);
    }

    #[test]
    fn hostile_rows() {
        let wrong = |text: &str, words: &[&str]| {
            let e = failure(read(&format!("{OLD}{text}"), None, None));
            assert!(e.contains("b.csv: ") && words.iter().all(|w| e.contains(w)), "{e}");
        };
        let chat = |time: &str, a: &str, b: &str| format!("{time},ChatGPT,{a},{b},9,API log\n");
        wrong(&(chat("5", "1", "1") + &chat("4", "1", "1")), &["line 3, Timestamp", "sort the rows"]);
        // Rows that are left out are in order too.
        wrong(&(chat("5", "1", "0") + &chat("4", "1", "1")), &["line 3, Timestamp", "sort the rows"]);
        wrong(&chat("-1", "1", "1"), &["line 2, Timestamp", "\"-1\""]);
        wrong(&chat("NaN", "1", "1"), &["line 2, Timestamp", "\"NaN\""]);
        wrong(&chat("1", "99999999999", "1"), &["line 2, Request tokens"]);
        wrong(&chat("1", "1", "-1"), &["line 2, Response tokens"]);
        wrong(&(chat("0", "1", "1") + &chat("9e9", "1", "1")), &["line 3, time", "213 days"]);
        wrong(&chat("1", "1", "0"), &["has no requests"]);
        let e = failure(read(&format!("{OLD}{ROWS}"), Some("GPT-5"), None));
        assert!(e.contains("no requests") && e.contains("Model \"GPT-5\""), "{e}");
        let e = failure(read("Timestamp,Model,Request tokens,Log Type\n", None, None));
        assert!(e.contains("line 1: lacks the column `Response tokens`"), "{e}");
        let e = failure(read("Timestamp,Request tokens,Response tokens\n", Some("GPT-4"), None));
        assert!(e.contains("line 1: lacks the column `Model`"), "{e}");
    }
}
