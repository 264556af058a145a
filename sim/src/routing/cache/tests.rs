use super::*;
use crate::experiment::{self, Resolved};
use std::cell::Cell;
use std::collections::BTreeSet;

const SMALL: [&str; 3] =
    ["workload.routing.sequences=3", "workload.routing.prompt_rows=2", "workload.routing.decode_rows=4"];

fn resolved(more: &[&str]) -> Resolved {
    let set: Vec<String> = SMALL.iter().chain(more).map(|s| (*s).to_string()).collect();
    experiment::load("quickstart", &set).unwrap()
}

fn drawing(more: &[&str]) -> Drawing {
    Drawing::of(resolved(more).routing()).unwrap().unwrap()
}

/// The trace, where it came from, and whether something was said.
fn open(cache: &Cache, r: &Resolved) -> (Arc<Trace>, Origin, bool) {
    let said = Cell::new(false);
    let opened = cache.open(r.routing(), &|text| {
        assert_eq!(text, "drawing routing for 24 x 32 experts");
        said.set(true);
    });
    let Opened { trace, from } = opened.unwrap();
    (trace, from, said.get())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_drawn_is_found_again() {
    let tmp = tempfile::tempdir().unwrap();
    let folder = tmp.path().join("a/b");
    let (cache, r) = (Cache::at(&folder, MOST), resolved(&[]));
    let (drawn, from, said) = open(&cache, &r);
    assert_eq!((from, said), (Origin::Drawn, true));
    let (kept, from, said) = open(&cache, &r);
    assert_eq!((from, said), (Origin::Cache, false));
    assert_eq!((kept.meta(), kept.hash(), kept.rows()), (drawn.meta(), drawn.hash(), drawn.rows()));
    let all = |t: &Trace| (0..t.sequences()).map(|i| t.sequence(i).to_owned()).collect::<Vec<_>>();
    assert_eq!(all(&kept), all(&drawn));
    assert_eq!(open(&Cache::none(), &r).1, Origin::Drawn);
    assert_eq!(names(&folder).len(), 1);
}

/// Everything that the bytes depend on is in the key; nothing else is, so that points of a sweep share.
#[test]
fn the_key_tells_what_is_drawn() {
    let fit = fitted(32).unwrap();
    let mut keys = BTreeSet::from([drawing(&[]).key(&fit)]);
    let uniform = "workload.routing={kind='uniform', sequences=3, prompt_rows=2, decode_rows=4}";
    let groups = "workload.routing={kind='uniform', sequences=3, prompt_rows=2, decode_rows=4, groups=4, top_groups=4}";
    let top = "workload.routing={kind='uniform', sequences=3, prompt_rows=2, decode_rows=4, groups=4, top_groups=2}";
    let changes: [&[&str]; 10] = [
        &["seed=2"],
        &["workload.routing.sequences=4"],
        &["workload.routing.prompt_rows=3"],
        &["workload.routing.decode_rows=5"],
        &["workload.routing.subjects=one"],
        &["model=olmoe-1b-7b"],
        &["model=gpt-oss-120b"],
        &[uniform],
        &[groups],
        &[top],
    ];
    for change in changes {
        let whole = change[0].starts_with("workload.routing=");
        let d = if whole {
            Drawing::of(experiment::load("quickstart", &[change[0].into()]).unwrap().routing()).unwrap().unwrap()
        } else {
            drawing(change)
        };
        assert!(keys.insert(d.key(&fit)), "{change:?}");
    }
    // What no experiment changes by itself: parts of a model, the generator, and what it was fitted to.
    let base = drawing(&[]);
    let change = |f: fn(&mut SynthSpec)| {
        let mut d = base.clone();
        f(&mut d.spec);
        d.key(&fit)
    };
    assert!(keys.insert(change(|s| s.model = "another".into())));
    assert!(keys.insert(change(|s| s.layer_numbers[3] += 100)));
    assert!(keys.insert(change(|s| s.experts += 1)));
    assert!(keys.insert(change(|s| s.k -= 1)));
    assert!(keys.insert(base.keyed(&fit, synth::VERSION + 1)));
    let mut other = fit.clone();
    other.layer[2].alpha *= 1.5;
    assert!(keys.insert(base.key(&other)));
    other.clone_from(&fit);
    other.hash.push('0');
    assert!(keys.insert(base.key(&other)));
    assert_eq!(drawing(&["deployment.max_sequences=7", "hardware=mi300x-8"]).key(&fit), base.key(&fit));
}

/// The bytes of this version of the generator. Where this fails, it draws other bytes: raise `synth::VERSION`, and remake what ships.
#[test]
fn the_generators_version_stands_for_its_bytes() {
    let uniform =
        "workload.routing={kind='uniform', sequences=3, prompt_rows=2, decode_rows=4, groups=4, top_groups=2}";
    let limited = experiment::load("quickstart", &[uniform.into()]).unwrap();
    let hash = |r: &Resolved| open(&Cache::none(), r).0.hash().to_string();
    let known = (synth::VERSION, hash(&resolved(&[])), hash(&limited));
    assert_eq!(known, (1, "cc22687dc2382a02".to_string(), "86a28d7da9d2f96a".to_string()));
}

#[test]
fn damaged_entries_are_drawn_anew() {
    let tmp = tempfile::tempdir().unwrap();
    let (cache, r) = (Cache::at(tmp.path(), MOST), resolved(&[]));
    let good = open(&cache, &r).0;
    let entry = tmp.path().join(&names(tmp.path())[0]);
    let bytes = fs::read(&entry).unwrap();
    let flipped = |at: usize| {
        let mut b = bytes.clone();
        b[at] ^= 1;
        b
    };
    // An id, and a letter of what the trace says of itself.
    let row: Vec<u8> = good.rows_of(2)[..8].iter().flat_map(|x| x.to_le_bytes()).collect();
    let id = bytes.windows(row.len()).position(|w| w == row);
    // The footer has it again, which is what is read.
    let letter = bytes.windows(9).rposition(|w| w == b"synthetic").unwrap();
    let spoiled =
        [flipped(id.unwrap()), flipped(letter), bytes[..bytes.len() / 2].to_vec(), Vec::new(), b"hello".to_vec()];
    for (i, spoilt) in spoiled.into_iter().enumerate() {
        fs::write(&entry, spoilt).unwrap();
        let (trace, from, _) = open(&cache, &r);
        assert_eq!((from, trace.hash(), trace.meta()), (Origin::Drawn, good.hash(), good.meta()), "{i}");
        assert!(fs::read(&entry).unwrap() == bytes, "{i}");
    }
    // Whole, but of something else.
    open(&cache, &resolved(&["seed=2"]));
    let other = names(tmp.path()).into_iter().map(|n| tmp.path().join(n)).find(|p| *p != entry).unwrap();
    fs::copy(other, &entry).unwrap();
    assert_eq!(open(&cache, &r).1, Origin::Drawn);
    assert_eq!(open(&cache, &r).1, Origin::Cache);
}

#[test]
fn what_was_used_longest_ago_leaves() {
    let tmp = tempfile::tempdir().unwrap();
    let seed = |n: u32| resolved(&[&format!("seed={n}")]);
    open(&Cache::at(tmp.path(), MOST), &seed(1));
    let size = fs::metadata(tmp.path().join(&names(tmp.path())[0])).unwrap().len();
    let cache = Cache::at(tmp.path(), 2 * size + size / 2);
    let age = |seconds: u64| {
        // Everything that is there is as old as that.
        for name in names(tmp.path()) {
            let file = File::options().write(true).open(tmp.path().join(name)).unwrap();
            let old = file.metadata().unwrap().modified().unwrap() - Duration::from_secs(seconds);
            file.set_modified(old).unwrap();
        }
    };
    age(100);
    open(&cache, &seed(2));
    age(100);
    fs::write(tmp.path().join("notes.md"), "the user's").unwrap();
    fs::write(tmp.path().join(".x-y.arrow.1.partial"), "half").unwrap();
    // The first is used again, so that the second leaves.
    assert_eq!(open(&cache, &seed(1)).1, Origin::Cache);
    open(&cache, &seed(3));
    assert_eq!(names(tmp.path()).len(), 4, "{:?}", names(tmp.path()));
    for (n, from) in [(1, Origin::Cache), (3, Origin::Cache), (2, Origin::Drawn)] {
        assert_eq!(open(&cache, &seed(n)).1, from, "{n}");
    }
    // What is half written for long is nobody's.
    age(24 * 3600 + 1);
    open(&cache, &seed(4));
    assert!(!names(tmp.path()).iter().any(|n| n.ends_with(".partial")) && tmp.path().join("notes.md").exists());
    // More than all that there may be is not kept.
    let small = tempfile::tempdir().unwrap();
    assert_eq!(open(&Cache::at(small.path(), 100), &seed(1)).1, Origin::Drawn);
    assert!(names(small.path()).is_empty());
}

#[test]
fn folders_that_cannot_be_written_do_not_matter() {
    let tmp = tempfile::tempdir().unwrap();
    fs::write(tmp.path().join("file"), "").unwrap();
    for folder in [tmp.path().join("file"), tmp.path().join("file/below"), PathBuf::from("/proc/none")] {
        for _ in 0..2 {
            assert_eq!(open(&Cache::at(&folder, MOST), &resolved(&[])).1, Origin::Drawn, "{folder:?}");
        }
    }
    assert_eq!(names(tmp.path()), ["file"]);
}

#[test]
fn several_at_once_find_one_entry() {
    let tmp = tempfile::tempdir().unwrap();
    let hashes: Vec<String> = std::thread::scope(|s| {
        let one = || open(&Cache::at(tmp.path(), MOST), &resolved(&[])).0.hash().to_string();
        let all: Vec<_> = (0..4).map(|_| s.spawn(one)).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(hashes.iter().all(|h| *h == hashes[0]), "{hashes:?}");
    assert_eq!(open(&Cache::at(tmp.path(), MOST), &resolved(&[])).1, Origin::Cache);
    assert_eq!(names(tmp.path()).len(), 1);
}
