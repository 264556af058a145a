#![no_main]
use moesim_fuzz::{file, placement};

const FORMS: [(&str, &str); 12] = [
    ("moesim", "json"),
    ("vllm-ascend", "json"),
    ("sglang", "json"),
    ("sglang", "pt"),
    ("tensorrt-llm", "yaml"),
    ("omni", "npy"),
    ("omni", "npz"),
    ("eplb", "npy"),
    ("eplb", "npz"),
    ("eplb", "json"),
    ("eplb", "csv"),
    ("vllm", "json"),
];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The first byte chooses the form, and how many devices the caller knows of.
    let Some((first, bytes)) = bytes.split_first() else { return };
    let (format, extension) = FORMS[usize::from(*first) % FORMS.len()];
    placement(format, 1 + usize::from(*first) / FORMS.len(), &file(&format!("p.{extension}"), bytes));
});
