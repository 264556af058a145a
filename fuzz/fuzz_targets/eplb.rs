#![no_main]
use moesim_fuzz::{count, file};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The first byte chooses the form.
    let Some((first, bytes)) = bytes.split_first() else { return };
    let name = ["a.npy", "a.npz", "a.json", "a.csv"][usize::from(*first) % 4];
    count("eplb", &file(name, bytes));
});
