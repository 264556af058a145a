use super::super::gaps::tests::{errors, sample};
use super::super::tests::{data, failure, requests};
use super::*;
use crate::ArrivalSpec;
use std::path::PathBuf;

fn spec(path: impl Into<PathBuf>) -> ArrivalSpec {
    ArrivalSpec::ServeGen { path: path.into(), rate_scale: 1.0, limit: None, from: Picos::ZERO, to: None }
}

const REAL: &str = "servegen_deepseek-r1.tar.gz";

#[test]
fn clients_have_the_rates_of_their_file() {
    let Some(base) = data("arrivals") else { return };
    let (clients, unfitted) = files::read(&base.join(REAL)).unwrap();
    assert_eq!((clients.len(), unfitted), (73, 0));
    assert_eq!(clients.iter().map(|c| c.windows.len()).sum::<usize>(), 3_111);
    let (mut all, mut expected_all, mut variance_all) = (0.0, 0.0, 0.0);
    for client in clients {
        let mut expected = 0.0;
        let mut variance = 0.0;
        for w in &client.windows {
            let n = w.rate * (w.end - w.start);
            expected += n;
            // Of a count: cv^2 n in long windows, n where hardly any request comes.
            variance += n * errors(w.gaps, 1.0).0.powi(2).max(1.0);
        }
        let mut client = client.within(3, 0.0, 1e9, 1.0).unwrap();
        let mut count = 0.0;
        while client.next_arrival().is_some() {
            let (prompt, output) = client.lengths();
            assert!(prompt > 0 && output > 0);
            count += 1.0;
        }
        let off: f64 = count - expected;
        assert!(off.abs() <= 5.0 * variance.sqrt(), "client {}: {count}, not {expected}", client.id);
        all += count;
        expected_all += expected;
        variance_all += variance;
    }
    println!("{all} requests of {expected_all} +- {}", variance_all.sqrt());
    assert!((expected_all - 1_383_669.0).abs() < 1.0);
    assert!((all - expected_all).abs() < 5.0 * variance_all.sqrt());
}

#[test]
fn gaps_and_lengths_are_as_fitted() {
    let Some(base) = data("arrivals") else { return };
    let (clients, _) = files::read(&base.join(REAL)).unwrap();
    let mut checked = 0;
    for client in clients {
        let Some(w) = client.windows.iter().copied().max_by(|a, b| a.rate.total_cmp(&b.rate)) else { continue };
        // So fast that a window holds many gaps, and its end cuts off none to speak of.
        let scale = 20_000.0 / (w.rate * (w.end - w.start));
        let lengths = client.lengths.iter().rfind(|l| l.start <= w.start).unwrap();
        let means = [&lengths.prompt, &lengths.output].map(|d| {
            let p = |i: usize| (d.sums[i] - if i == 0 { 0.0 } else { d.sums[i - 1] }) / d.sums[d.sums.len() - 1];
            let moment = |n| (0..d.tokens.len()).map(|i| f64::from(d.tokens[i]).powi(n) * p(i)).sum::<f64>();
            (moment(1), (moment(2) - moment(1).powi(2)).max(0.0).sqrt())
        });
        let mut client = client.within(3, w.start, w.end, scale).unwrap();
        let (mut times, mut sums) = (Vec::new(), [0.0; 2]);
        while let Some(t) = client.next_arrival() {
            times.push(t.seconds());
            let (prompt, output) = client.lengths();
            sums[0] += f64::from(prompt);
            sums[1] += f64::from(output);
        }
        let gaps: Vec<f64> = times.windows(2).map(|g| (g[1] - g[0]) * w.rate * scale).collect();
        let n = gaps.len() as f64;
        let (cv, mean_error, cv_error) = errors(w.gaps, n);
        let (mean, found) = sample(&gaps);
        assert!((mean - 1.0).abs() < 5.0 * mean_error, "client {}: mean gap {mean}", client.id);
        assert!((found - cv).abs() < 5.0 * cv_error, "client {}: cv {found}, not {cv} +- {cv_error}", client.id);
        for (sum, (mean, deviation)) in sums.into_iter().zip(means) {
            let off = sum / times.len() as f64 - mean;
            assert!(off.abs() <= 5.0 * deviation / n.sqrt() + 1e-9, "client {}: {off} of {mean}", client.id);
        }
        checked += 1;
    }
    assert!(checked > 60, "{checked}");
}

const TRACE: &str = "0,0.5,2,Weibull,0.55,1.1\n600,0,0,,0,0\n1200,0.25,0.5,Gamma,4,0.99\n";
const LENGTHS: &str = r#"{"0": {"input_tokens": "{10: 0.5, 20: 0.5}", "output_tokens": "{0: 0.25, 7: 0.75}", "reason_ratio": "{0.0: 1}"},
    "1200": {"input_tokens": "{}", "output_tokens": "{}"}}"#;

/// An archive of (name, text).
fn archive(members: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        // By hand, because the crate refuses names that lead out.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gz, bytes).unwrap();
    gz.finish().unwrap()
}

const CLIENTS: [(&str, &str); 5] = [
    ("d/README", "not read"),
    ("d/chunk-1-trace.csv", TRACE),
    ("d/chunk-1-dataset.json", LENGTHS),
    ("d/chunk-22-dataset.json", LENGTHS),
    ("d/chunk-22-trace.csv", TRACE),
];

#[test]
fn folders_and_archives_give_the_same_requests() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("d")).unwrap();
    CLIENTS.iter().for_each(|(name, text)| std::fs::write(at(name), text).unwrap());
    std::fs::write(at("c.tar"), archive(&CLIENTS)).unwrap();
    std::fs::write(at("c.tgz"), gzip(&archive(&CLIENTS))).unwrap();
    let all = requests(&spec("d"), dir.path()).unwrap();
    assert_eq!(all, requests(&spec("c.tar"), dir.path()).unwrap());
    assert_eq!(all, requests(&spec("c.tgz"), dir.path()).unwrap());
    assert_eq!(spec("d").files(dir.path()).unwrap().len(), 4);
    assert_eq!(spec("c.tar").files(dir.path()).unwrap(), [at("c.tar")]);
    assert!(all.windows(2).all(|w| w[0].arrival <= w[1].arrival && w[1].id == w[0].id + 1));
    assert!(all.iter().all(|r| matches!(r.prompt_tokens, 10 | 20) && matches!(r.output_tokens, 1 | 7)));
    // Nothing in the empty window, and the last is as long as the one before it.
    let windows: Vec<u64> = all.iter().map(|r| r.arrival.0 / 600_000_000_000_000).collect();
    assert!(windows.contains(&0) && windows.contains(&2) && windows.iter().all(|w| *w == 0 || *w == 2));

    // A window is the same whichever part of the day is asked for, and a client whoever else is there.
    let part = |path: &str, from: u64, to: u64| {
        let (from, to) = (Picos(from * 1_000_000_000_000), Some(Picos(to * 1_000_000_000_000)));
        requests(&ArrivalSpec::ServeGen { path: path.into(), rate_scale: 1.0, limit: None, from, to }, dir.path())
    };
    let last = part("d", 1200, 1800).unwrap();
    let whole: Vec<_> = all.iter().filter(|r| r.arrival.seconds() >= 1200.0).collect();
    assert_eq!(last.len(), whole.len());
    for (a, b) in last.iter().zip(whole) {
        assert!(a.arrival.0.abs_diff(b.arrival.0 - 1_200_000_000_000_000) < 1000, "{a:?} {b:?}");
        assert_eq!((a.prompt_tokens, a.output_tokens), (b.prompt_tokens, b.output_tokens));
    }
    std::fs::write(at("one.tar"), archive(&CLIENTS[..3])).unwrap();
    let one = requests(&spec("one.tar"), dir.path()).unwrap();
    assert!(!one.is_empty() && one.iter().all(|r| all.iter().any(|a| a.arrival == r.arrival)));
    assert!(failure(part("d", 600, 1200)).contains("none of its clients"));
    assert!(failure(part("d", 600, 600)).contains("to: "));
    let double =
        ArrivalSpec::ServeGen { path: "d".into(), rate_scale: 100.0, limit: Some(20_000), from: Picos::ZERO, to: None };
    assert_eq!(requests(&double, dir.path()).unwrap().len(), 20_000);
}

#[test]
fn hostile_clients() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.tar");
    let fails = |bytes: &[u8], words: &[&str]| {
        std::fs::write(&path, bytes).unwrap();
        let e = failure(requests(&spec("c.tar"), dir.path()));
        assert!(e.contains("c.tar: ") && words.iter().all(|w| e.contains(w)), "{e}");
    };
    let trace = |text: &str, words: &[&str]| {
        fails(&archive(&[("chunk-1-dataset.json", LENGTHS), ("chunk-1-trace.csv", text)]), words);
    };
    trace("0,NaN,1,Gamma,1,1\n", &["chunk-1-trace.csv, line 1", "rate \"NaN\""]);
    trace("0,-1,1,Gamma,1,1\n", &["line 1", "rate \"-1\""]);
    trace("0,1,nan,Gamma,1,1\n", &["line 1", "cv"]);
    trace("0,1,1,Gamma,0,1\n", &["line 1", "shape \"0\""]);
    trace("0,1,1,Gamma,inf,1\n", &["line 1", "shape \"inf\""]);
    trace("0,1,1,Weibull,1e-9,1\n", &["line 1", "shape"]);
    trace("0,1,1,Pareto,1,1\n", &["line 1", "\"Pareto\" is not Gamma or Weibull"]);
    trace("600,0,0,,0,0\n0,0,0,,0,0\n", &["line 2", "does not follow"]);
    trace("-600,0,0,,0,0\n", &["line 1", "start \"-600\""]);
    trace("0.5,0,0,,0,0\n", &["line 1", "not whole"]);
    trace("0,1,1,Gamma,1\n", &["line 1", "6 fields"]);
    trace("0,1,1,Gamma,1,1,1,1\n", &["line 1", "6 fields"]);
    trace("", &["chunk-1-trace.csv, line 1", "no windows"]);
    trace("0,0,0,,0,0\n", &["none of its clients"]);
    let dataset = |text: &str, words: &[&str]| {
        fails(&archive(&[("chunk-1-trace.csv", TRACE), ("chunk-1-dataset.json", text)]), words);
    };
    let input = |table: &str| LENGTHS.replace("{10: 0.5, 20: 0.5}", table);
    dataset(&input("{10: 0.5, 20: 0.4}"), &["chunk-1-dataset.json, 0.input_tokens", "sum to 0.9"]);
    dataset(&input("{10: NaN}"), &["0.input_tokens", "10: NaN"]);
    dataset(&input("{10: -1, 11: 2}"), &["0.input_tokens", "10: -1"]);
    dataset(&input("{99999999999: 1}"), &["0.input_tokens", "99999999999"]);
    dataset(&input("[1]"), &["0.input_tokens", "{length: probability}"]);
    dataset(&input("{}"), &["chunk-1-dataset.json", "no lengths for the window at 0 s"]);
    dataset(&LENGTHS.replace("\"0\"", "\"-7\""), &["\"-7\" is not a start"]);
    dataset(&LENGTHS.replace("output_tokens", "out"), &["missing field `output_tokens`"]);
    dataset(&format!("{{\"0\": {}", "[".repeat(100_000)), &["chunk-1-dataset.json, 1:"]);
    dataset(&format!("{{\"0\": {{\"x\": {}", "[".repeat(100_000)), &["chunk-1-dataset.json, 1:"]);

    fails(&archive(&[]), &["no chunk-N-trace.csv"]);
    fails(&archive(&CLIENTS[..2]), &["lacks chunk-1-dataset.json"]);
    fails(&archive(&[CLIENTS[2]]), &["lacks chunk-1-trace.csv"]);
    fails(&archive(&[CLIENTS[1], ("e/chunk-1-trace.csv", TRACE)]), &["there twice"]);
    fails(&archive(&[("../../chunk-1-trace.csv", TRACE)]), &["../../chunk-1-trace.csv: leads out"]);
    fails(&archive(&[("/chunk-1-trace.csv", TRACE)]), &["leads out"]);
    let good = archive(&CLIENTS);
    fails(&good[..1500], &["archive: is no whole tar archive"]);
    fails(&gzip(&good)[..200], &["is "]);
    fails(b"not a tar archive", &["tar archive"]);
    fails(&[7; 4096], &["archive"]);
    // A link, and a member that says it has 10 GB.
    for (kind, size, words) in [
        (tar::EntryType::Symlink, 0, "is a link"),
        (tar::EntryType::Link, 0, "is a link"),
        (tar::EntryType::Regular, 10 << 30, "larger than 64 MiB"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_path("chunk-1-trace.csv").unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        fails(header.as_bytes(), &["chunk-1-trace.csv", words]);
    }
    // Zeros without end behind a name that is not read.
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(1 << 40);
    header.set_cksum();
    let bomb = [header.as_bytes().as_slice(), &vec![0; 300 << 20]].concat();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &bomb).unwrap();
    fails(&gz.finish().unwrap(), &["more than 256 MiB"]);
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(failure(requests(&spec("empty"), dir.path())).contains("no chunk-N-trace.csv"));
    assert!(failure(requests(&spec("absent"), dir.path())).contains("no such file"));
    std::fs::write(&path, &good).unwrap();
    let fast =
        ArrivalSpec::ServeGen { path: "c.tar".into(), rate_scale: 1e6, limit: Some(1), from: Picos::ZERO, to: None };
    assert_eq!(requests(&fast, dir.path()).unwrap().len(), 1);
    std::fs::write(&path, archive(&[("chunk-1-trace.csv", "0,9,1,Gamma,1,1\n"), CLIENTS[2]])).unwrap();
    assert!(failure(requests(&fast, dir.path())).contains("1e6 requests a second"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "something was unpacked");
}
