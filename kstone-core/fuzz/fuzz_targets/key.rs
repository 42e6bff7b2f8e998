#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    kstone_core::fuzzing::key(bytes);
    kstone_core::fuzzing::key_text(bytes);
});
