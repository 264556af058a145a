//! Round trips, and what is counted.

mod engines;
mod hostile;
mod real;

use super::*;
use proptest::prelude::*;

/// A placement file of so many layers, devices and experts, with replicas, unequal slots, and names.
fn any_file(repeats: bool) -> impl Strategy<Value = PlacementFile> {
    let shape = (1usize..5, 1usize..7, 1usize..40);
    let filled = move |(layers, devices, experts): (usize, usize, usize)| {
        let slot = proptest::collection::vec(0..experts as u16, 0..6);
        let extra = proptest::collection::vec(proptest::collection::vec(slot, devices), layers);
        let order = proptest::collection::vec(any::<u32>(), experts * layers);
        (Just((layers, devices, experts)), extra, order, 0u32..50, any::<bool>())
    };
    type Drawn = ((usize, usize, usize), Vec<Vec<Vec<u16>>>, Vec<u32>, u32, bool);
    let build = move |((layers, devices, experts), mut extra, order, first, named): Drawn| {
        for l in 0..layers {
            for e in 0..experts {
                // Each expert somewhere, before or behind what is there.
                let at = order[l * experts + e] as usize;
                let slots = &mut extra[l][at % devices];
                let i = at / devices % (slots.len() + 1);
                slots.insert(i, e as u16);
            }
            if !repeats {
                for slots in &mut extra[l] {
                    let mut seen = std::collections::BTreeSet::new();
                    slots.retain(|e| seen.insert(*e));
                }
            }
        }
        PlacementFile {
            format: "moesim",
            model: named.then(|| "a \"model\"\n".to_string()),
            layer_numbers: (0..layers as u32).map(|l| first + 2 * l).collect(),
            placed: Placed { experts, devices: extra },
            result: named.then(|| serde_json::json!({"gap": 0.5, "method": "x", "[": [1, null, {}]})),
            notes: Vec::new(),
        }
    };
    shape.prop_flat_map(filled).prop_map(build)
}

/// What comes back of a file that is written.
fn back(file: &PlacementFile, format: &str, name: &str, options: &ReadOptions) -> Result<PlacementFile> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    write(file, format, &path)?;
    let detected = formats().iter().find(|f| f.detect(&path)).map(|f| f.name());
    assert_eq!(detected, Some(format), "{name} is taken for {detected:?}");
    read(&path, options)
}

fn refused(name: &str, bytes: &[u8], options: &ReadOptions, word: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let e = read(&path, options).unwrap_err();
    let text = e.to_string();
    assert!(text.contains(word), "{text} lacks {word}");
    assert!(e.exit_code() == 2 && e.file.is_some() && !e.cure.is_empty(), "{text}");
    assert!(!text.chars().any(char::is_control) && text.len() < 1200, "{text}");
}

proptest! {
    #[test]
    fn our_own_format_keeps_everything(file in any_file(true)) {
        let got = back(&file, "moesim", "p.json", &ReadOptions::default()).unwrap();
        prop_assert_eq!(&got.placed, &file.placed);
        prop_assert_eq!((&got.model, &got.layer_numbers, &got.result), (&file.model, &file.layer_numbers, &file.result));
        let repeated = file.check().unwrap().repeated;
        prop_assert_eq!(got.notes.len(), usize::from(repeated > 0));
    }

    #[test]
    fn omnis_pattern_keeps_the_homes(file in any_file(false)) {
        let numbers = file.layer_numbers.clone();
        let options = ReadOptions { layer_numbers: Some(&numbers), ..Default::default() };
        let got = back(&file, "omni", "p.npy", &options).unwrap();
        prop_assert_eq!(got.placed.homes(), file.placed.homes());
        prop_assert_eq!((got.layer_numbers, got.notes), (numbers, vec![]));
        // Slots come back in ascending order.
        prop_assert!(got.placed.devices.iter().flatten().all(|d| d.is_sorted()));
        let homes = file.placed.homes();
        let counts = || homes.iter().flatten().map(Vec::len);
        let r = file.placed.replicas();
        prop_assert_eq!(r.most, counts().max().unwrap());
        prop_assert_eq!((r.slots, r.replicated), (counts().sum::<usize>() as u64, counts().filter(|n| *n > 1).count() as u64));
        prop_assert_eq!(Placed::from_homes(&file.placed.homes(), file.placed.devices()).unwrap(), got.placed);
    }
}

/// Three experts on two devices, the first twice.
fn small() -> PlacementFile {
    let placed = Placed { experts: 3, devices: vec![vec![vec![2, 0], vec![0, 1]]] };
    PlacementFile { format: "moesim", model: None, layer_numbers: vec![7], placed, result: None, notes: vec![] }
}

#[test]
fn replicas_and_moves_are_counted() {
    let a = small().placed;
    assert_eq!(a.check().unwrap(), Checked { slots: Some(2), repeated: 0 });
    let expected = Replicas { slots: 4, redundant: 1, replicated: 1, most: 2, per_device: (2, 2) };
    assert_eq!(a.replicas(), expected);
    assert_eq!((a.layers(), a.devices(), a.slots(0)), (1, 2, 4));
    assert_eq!(a.homes(), vec![vec![vec![0, 1], vec![1], vec![0]]]);
    // Other slots of the same device are no moves; a repeated expert is loaded once.
    let b = Placed { experts: 3, devices: vec![vec![vec![0, 2, 1, 1], vec![0]]] };
    assert_eq!((a.moves(&a), a.moves(&b), b.moves(&a)), (0, 1, 1));
    assert_eq!(b.check().unwrap(), Checked { slots: None, repeated: 1 });
    // From nothing, everything is loaded.
    assert_eq!(Placed::default().moves(&b), 4);
    for (homes, devices, word) in [
        (vec![vec![vec![0], vec![2]]], 2, "expert 1 is on device 2 of 2"),
        (vec![vec![vec![0], vec![]]], 2, "expert 1 of 2 is on no device"),
        (vec![vec![vec![0]], vec![]], 1, "layer 1: has 0 experts, not 1"),
        (vec![], 1, "has 0 layers"),
        (vec![vec![vec![0]]], 0, "0 devices"),
    ] {
        let e = Placed::from_homes(&homes, devices).unwrap_err().to_string();
        assert!(e.contains(word), "{e}");
    }
}
