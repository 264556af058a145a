#![no_main]
use moesim_fuzz::{file, import};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // An array of 12 tokens beside the index.
    let mut array = b"\x93NUMPY\x01\x00\x46\x00".to_vec();
    array.extend(format!("{:<69}\n", "{'descr': '|u1', 'fortran_order': False, 'shape': (12, 2, 2), }").bytes());
    array.extend((0..48).map(|i| (i % 5) as u8));
    file("index.json", bytes);
    import("npz", &file("a.npy", &array), Some(8));
});
