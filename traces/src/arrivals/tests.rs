use super::*;

pub(super) fn requests(spec: &ArrivalSpec, base: &Path) -> Result<Vec<Request>> {
    match spec.open(7, base)? {
        Arrivals::Open(r) | Arrivals::Closed { requests: r, .. } => r.collect(),
        Arrivals::Sessions(s) => s.map(|first| Ok(first?.1)).collect(),
    }
}

/// The message of what must be wrong input.
pub(super) fn failure<T>(result: Result<T>) -> String {
    let Err(e) = result else { panic!("accepted") };
    assert_eq!(e.exit_code(), 2);
    assert!(!e.cure.is_empty(), "{e}");
    e.to_string()
}

/// Real data, which is not part of the repository; prints that the caller is skipped where it is absent.
pub(super) fn data(name: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")).join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is absent", path.display());
    None
}

fn csv(text: &str, rate_scale: f64, limit: Option<u64>) -> Result<Vec<Request>> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("r.csv"), text).unwrap();
    requests(&ArrivalSpec::Csv { path: "r.csv".into(), rate_scale, limit }, dir.path())
}

fn length() -> Length {
    Length::uniform(100, 0.5)
}

#[test]
fn recorded_traces_are_whole() {
    let Some(base) = &data("arrivals") else { return };
    let azure = |file: &str, rate_scale| ArrivalSpec::Azure { path: file.into(), rate_scale, limit: None };
    for (file, count, span) in
        [("AzureLLMInferenceTrace_code.csv", 8_819, 3_436.0), ("AzureLLMInferenceTrace_conv.csv", 19_366, 3_502.0)]
    {
        let all = requests(&azure(file, 1.0), base).unwrap();
        assert_eq!((all.len(), all[0].arrival), (count, Picos::ZERO));
        let last = all[count - 1].arrival;
        assert!((last.seconds() - span).abs() < 1.0, "{file}: {last}");
        let double = requests(&azure(file, 2.0), base).unwrap();
        assert_eq!(double[count - 1].arrival.0, last.0.div_ceil(2));
    }
    let code = requests(&azure("AzureLLMInferenceTrace_code.csv", 1.0), base).unwrap();
    assert_eq!(code[1], Request::new(1, Picos(52_000_000_000), 3180, 8));
    let path = "sharegpt_qwen3-30b-a3b_300.csv".into();
    assert_eq!(requests(&ArrivalSpec::Csv { path, rate_scale: 1.0, limit: None }, base).unwrap().len(), 300);
}

#[test]
fn columns_may_stand_anywhere() {
    let text = "output_tokens, x, arrived_at_s, prompt_tokens\n3,a,0.5,2\r\n4,b,1.5,5\n9,c,2,9\n";
    let quoted = text.replace("output_tokens", "\"output_tokens\"").replace("3,a", "\"3\",\"a,\"\"b\"\"\"");
    assert_eq!(csv(&quoted, 2.0, Some(2)).unwrap(), csv(text, 2.0, Some(2)).unwrap());
    assert_eq!(csv(&format!("\u{feff}{text}"), 2.0, Some(2)).unwrap(), csv(text, 2.0, Some(2)).unwrap());
    let all = csv(text, 2.0, Some(2)).unwrap();
    let expected = [Request::new(0, Picos(250_000_000_000), 2, 3), Request::new(1, Picos(750_000_000_000), 5, 4)];
    assert_eq!(all, expected);
}

#[test]
fn tables_of_other_tools_are_read() {
    let head = "arrived_at_s,prompt_tokens,output_tokens\n";
    let times =
        |rows: &str| csv(&format!("{head}{rows}"), 1.0, None).unwrap().iter().map(|r| r.arrival.0).collect::<Vec<_>>();
    // Tokens as pandas writes them; times exact to the picosecond.
    assert_eq!(
        times("0.1,10.0,5.0\n0.123456789012,1,1\n1e1,1.,1\n"),
        [100_000_000_000, 123_456_789_012, 10_000_000_000_000]
    );
    // Since 1970, which a note says.
    assert_eq!(times("1700000000.1,1,1\n1700000000.1000001,1,1\n"), [0, 100_000]);
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{head}1700000000.25,1,1\n");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gz, text.as_bytes()).unwrap();
    std::fs::write(dir.path().join("r.csv.gz"), gz.finish().unwrap()).unwrap();
    let spec = ArrivalSpec::Csv { path: "r.csv.gz".into(), rate_scale: 1.0, limit: None };
    let Arrivals::Open(mut log) = spec.open(1, dir.path()).unwrap() else { panic!("open") };
    assert_eq!(log.by_ref().count(), 1);
    assert_eq!(log.notes(), ["times of the requests count from the first one, which is 1700000000.25 s in the file"]);
    for (row, words) in [
        ("1,10.5,1", "\"10.5\" is not a number of tokens"),
        ("1,-1,1", "\"-1\" is not a number of tokens"),
        ("1,\"9,1", "a quote is not closed"),
        ("-1,1,1", "is not a time"),
        ("1e300,1,1", "is not a time"),
    ] {
        let long = "1,1,1\n".repeat(20_000);
        let e = failure(csv(&format!("{head}{row}\n{long}"), 1.0, None));
        assert!(e.contains(words), "{e}");
    }
    std::fs::write(dir.path().join("r.csv.gz"), "PAR1").unwrap();
    let e = failure(spec.open(1, dir.path()));
    assert!(e.contains("is a Parquet file") && e.contains("save it as CSV"), "{e}");
    // Azure's times in seconds since 1970.
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n1700158623.97996,4808,10\n1700158624.03196,3180,8\n";
    std::fs::write(dir.path().join("a.csv"), text).unwrap();
    let azure =
        requests(&ArrivalSpec::Azure { path: "a.csv".into(), rate_scale: 1.0, limit: None }, dir.path()).unwrap();
    assert_eq!(azure[1], Request::new(1, Picos(52_000_000_000), 3180, 8));
}

#[test]
fn poisson_has_its_rate_and_its_seed() {
    let n = 20_000;
    let spec = ArrivalSpec::Poisson { rate_per_s: 50.0, requests: n, prompt_tokens: length(), output_tokens: length() };
    let all = requests(&spec, Path::new("")).unwrap();
    let mean_gap = all[n as usize - 1].arrival.seconds() / n as f64;
    // The standard error of the mean gap is 0.7 %; five of them.
    assert!((mean_gap * 50.0 - 1.0).abs() < 0.036, "{mean_gap}");
    assert!(all.windows(2).all(|w| w[0].arrival <= w[1].arrival && w[1].id == w[0].id + 1));
    // Exponential gaps: 36.8 % are longer than the mean.
    let long = all.windows(2).filter(|w| w[1].arrival.since(w[0].arrival).seconds() > 0.02).count();
    assert!((long as f64 / n as f64 - 0.3679).abs() < 0.018, "{long}");
    assert!(all.iter().all(|r| (50..=150).contains(&r.prompt_tokens)));
    let mean = all.iter().map(|r| f64::from(r.output_tokens)).sum::<f64>() / n as f64;
    assert!((mean - 100.0).abs() < 1.1, "{mean}");
    assert_eq!(requests(&spec, Path::new("")).unwrap(), all);
    let Arrivals::Open(other) = spec.open(8, Path::new("")).unwrap() else { panic!("open") };
    assert_ne!(other.map(Result::unwrap).next().as_ref(), Some(&all[0]));
}

#[test]
fn files_name_the_kind() {
    let text = "kind = \"closed-loop\"\nconcurrency = 4\nrequests = 9\nthink_time = \"2 s\"\n\
                prompt_tokens = { mean = 5 }\noutput_tokens = { mean = 6 }";
    let spec: ArrivalSpec = moesim_core::config::from_toml(text, "e.toml").unwrap();
    let Arrivals::Closed { concurrency, think, requests } = spec.open(1, Path::new("")).unwrap() else {
        panic!("closed")
    };
    assert_eq!((concurrency, think), (4, Picos(2_000_000_000_000)));
    let all: Vec<_> = requests.map(Result::unwrap).collect();
    assert_eq!(all.len(), 9);
    assert!(all.iter().all(|r| (r.prompt_tokens, r.output_tokens) == (5, 6)));
    let e = moesim_core::config::from_toml::<ArrivalSpec>(&text.replace("think_time", "think"), "e.toml").unwrap_err();
    assert!(e.to_string().contains("did you mean `think_time`?"), "{e}");
    let azure: ArrivalSpec = moesim_core::config::from_toml("kind = \"azure\"\npath = \"a.csv\"", "e.toml").unwrap();
    assert_eq!(azure, ArrivalSpec::Azure { path: "a.csv".into(), rate_scale: 1.0, limit: None });
}

#[test]
fn ranges_are_checked() {
    let poisson = |rate_per_s, requests, prompt_tokens| {
        let spec = ArrivalSpec::Poisson { rate_per_s, requests, prompt_tokens, output_tokens: length() };
        super::tests::requests(&spec, Path::new("")).unwrap_err().to_string()
    };
    assert!(poisson(f64::NAN, 1, length()).contains("rate_per_s"));
    let gamma = |cv| {
        let (prompt_tokens, output_tokens) = (length(), length());
        let spec = ArrivalSpec::Gamma { rate_per_s: 1.0, cv, requests: 1, prompt_tokens, output_tokens };
        failure(super::tests::requests(&spec, Path::new("")))
    };
    assert!(gamma(f64::NAN).contains("cv: ") && gamma(0.0).contains("from 0.01"));
    assert!(poisson(1.0, 0, length()).contains("requests"));
    assert!(poisson(1.0, 1, Length::constant(0)).contains("prompt_tokens.mean"));
    assert!(poisson(1.0, 1, Length::uniform(1, -1.0)).contains("prompt_tokens.spread"));
    assert!(poisson(1e-9, 9, length()).contains("end of the clock"));
    assert!(csv("arrived_at_s,prompt_tokens,output_tokens\n1,2,3\n", f64::INFINITY, None).is_err());
}

#[test]
fn bursts_have_their_rate_and_cv() {
    let n = 20_000u64;
    for cv in [0.4, 2.0] {
        let (rate_per_s, prompt_tokens, output_tokens) = (50.0, length(), length());
        let gamma = ArrivalSpec::Gamma {
            rate_per_s,
            cv,
            requests: n,
            prompt_tokens: prompt_tokens.clone(),
            output_tokens: output_tokens.clone(),
        };
        let weibull = ArrivalSpec::Weibull { rate_per_s, cv, requests: n, prompt_tokens, output_tokens };
        for (spec, gaps) in [(gamma, Gaps::gamma_of(cv)), (weibull, Gaps::weibull_of(cv))] {
            let times: Vec<f64> = requests(&spec, Path::new("")).unwrap().iter().map(|r| r.arrival.seconds()).collect();
            let between: Vec<f64> = times.windows(2).map(|w| (w[1] - w[0]) * rate_per_s).collect();
            let (mean, found) = gaps::tests::sample(&between);
            let (_, mean_error, cv_error) = gaps::tests::errors(gaps.unwrap(), n as f64);
            assert!((mean - 1.0).abs() < 5.0 * mean_error, "{spec:?}: {mean}");
            assert!((found - cv).abs() < 5.0 * cv_error, "{spec:?}: {found}");
        }
    }
}
