#![no_main]
use moesim_fuzz::{file, import};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The same rows in two layers.
    let path = file("actives/layer_02.parquet", bytes);
    file("actives/layer_03.parquet", bytes);
    import("parquet", &path.with_file_name(""), Some(8));
});
