#![no_main]
use moesim_fuzz::{file, import};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| import("parquet", &file("a.parquet", bytes), Some(8)));
