#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::tell(fuzz::payloads(data));
});
