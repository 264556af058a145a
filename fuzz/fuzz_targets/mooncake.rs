#![no_main]
use moesim_fuzz::{arrive, file};
use moesim_traces::ArrivalSpec;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = file("a.jsonl", bytes);
    for spread in [false, true] {
        let (path, rate_scale, limit, block_tokens) = (path.clone(), 0.3, None, 512);
        arrive(&ArrivalSpec::Mooncake { path: path.clone(), rate_scale, limit, spread, block_tokens }, &path);
        let chats = ArrivalSpec::Bailian { path: path.clone(), rate_scale, limit, spread, block_tokens: 16, of_type: None };
        arrive(&chats, &path);
    }
});
