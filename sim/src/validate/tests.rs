use super::*;
use std::path::Path;

#[test]
fn every_experiment_can_be_read_and_every_number_is_there_once() {
    let mut ids = Vec::new();
    for (label, file) in files().unwrap() {
        for name in experiments(&file, &|_| true) {
            if kernel(&file, label, &name).unwrap().is_some() {
                continue;
            }
            let resolved = resolve(&file, label, &name).unwrap();
            assert_eq!(resolved.experiment.name, name);
        }
        ids.extend(file.case.iter().map(|c| c.id.clone()));
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert!(ids.len() == all && all > 80, "{all}");
}

/// No experiment names a published figure by its number. That a value was not copied without its number cannot be tested.
#[test]
fn no_figure_is_an_input() {
    let (mut ids, mut texts) = (Vec::new(), Vec::new());
    for (label, file) in files().unwrap() {
        ids.extend(file.case.iter().map(|c| c.id.clone()));
        texts.push((label, toml::to_string(&file.experiments).unwrap() + &toml::to_string(&file.kernels).unwrap()));
    }
    for (label, text) in texts {
        assert!(ids.iter().all(|id| !text.contains(id.as_str())), "{label}");
    }
}

/// The cases are the rows of the published table, where that is at hand.
#[test]
fn cases_are_the_published_rows() {
    let table = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/published.csv"));
    if !table.exists() {
        println!("skipped: {} is absent", table.display());
        return;
    }
    let cases: Vec<(String, Case)> = files()
        .unwrap()
        .into_iter()
        .flat_map(|(_, f)| f.case.into_iter().map(move |c| (f.system.clone(), c)))
        .collect();
    let mut seen = 0;
    for row in csv::Reader::from_path(table).unwrap().records() {
        let row = row.unwrap();
        let [id, system, quantity, value, unit, config, source, confidence, role] =
            [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|i| &row[i]);
        let case = cases.iter().find(|(_, c)| c.id == id);
        if role != "figure" {
            assert!(case.is_none(), "{id} is an input");
            continue;
        }
        let (name, c) = case.unwrap_or_else(|| panic!("{id} has no case"));
        let same = (name.as_str(), c.quantity.as_str(), c.unit.as_str(), c.config.as_str(), c.source.as_str());
        assert_eq!(same, (system, quantity, unit, config, source), "{id}");
        assert_eq!(c.published, value.parse::<f64>().unwrap(), "{id}");
        assert_eq!(serde_json::to_value(c.confidence).unwrap(), confidence, "{id}");
        seen += 1;
    }
    assert_eq!(seen, cases.len());
}

/// A figure that repeats another names one that is a case by itself, and both say the same value.
#[test]
fn reprints_repeat_a_figure() {
    let cases: Vec<Case> = files().unwrap().into_iter().flat_map(|(_, f)| f.case).collect();
    let reprints: Vec<&Case> = cases.iter().filter(|c| c.reprint.is_some()).collect();
    assert!(reprints.len() >= 2);
    for c in reprints {
        let first = cases.iter().find(|o| Some(&o.id) == c.reprint.as_ref()).unwrap();
        assert!(first.reprint.is_none() && (first.published, &first.unit) == (c.published, &c.unit), "{}", c.id);
    }
}

#[test]
fn takes_by_hand() {
    let summary = serde_json::json!({"a": {"b": 3.0, "c": 5.0}, "n": 4, "none": null});
    let take = |sum: &[&str], over: &[&str]| {
        let list = |l: &[&str]| l.iter().map(|s| s.to_string()).collect();
        Take { sum: list(sum), over: list(over), scale: 10.0, per: 2.0 }.value(&summary)
    };
    assert_eq!(take(&["a.b", "a.c"], &["n"]), Ok(10.0));
    assert!(take(&["a.d"], &[]).is_err() && take(&["none"], &[]).is_err());
}

/// Several experiments give the mean of their quotients; an agreement by chance is neither ok nor a miss, an error is a
/// miss.
#[test]
fn means_and_chance_by_hand() {
    let head = "system = 'S'\n[[case]]\nid = 'R'\nquantity = 'q'\npublished = 2.0\nunit = 'x'\nconfig = 'c'\nsource = 's'\nconfidence = 'seen'\n";
    let of = |rest: &str| {
        let file: CaseFile = config::from_toml(&(head.to_string() + rest), "case").unwrap();
        let summary = |name: &str| Some(serde_json::json!({"t": name.len()}));
        outcome(&file, "f", &file.case[0], &summary).unwrap()
    };
    let take = "take = { sum = ['t'] }\n";
    // The mean of 2 / 1 and 5 / 2; the quotient of the sums would be 7 / 3.
    let mean = of(&format!("experiment = ['ab', 'abcde']\nagainst = ['a', 'bb']\n{take}"));
    assert_eq!((mean.simulated, mean.status), (Some(2.25), Status::Miss));
    assert_eq!(mean.experiment.as_deref(), Some("f/ab, f/abcde"));
    let by_chance = |name: &str| of(&format!("experiment = '{name}'\n{take}chance = 'errors cancel'\nnote = 'n'\n"));
    let near = by_chance("ab");
    assert_eq!((near.status, near.note.as_deref()), (Status::Chance, Some("errors cancel")));
    assert_eq!(by_chance("abc").status, Status::Miss);
    assert_eq!(of(&format!("experiment = 'ab'\n{take}")).status, Status::Ok);
    // One over a figure.
    let rate = of("experiment = 'abcd'\ntake = { over = ['t'], scale = 8.0 }\n");
    assert_eq!((rate.simulated, rate.status), (Some(2.0), Status::Ok));
}
