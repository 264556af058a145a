#![no_main]
use moesim_fuzz::{count, file, import, torch};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The input is the pickle alone: an archive with storages is put around it.
    let path = file("a.pt", &torch(bytes));
    import("sglang", &path, None);
    count("sglang", &path);
    count("eplb", &path);
});
