#![no_main]

// The command line is not a library: its code to print and parse keys is included from its source.
#[path = "../../../kstone-cli/src/escape.rs"]
mod escape;

use escape::Escaped;
use kstone_core::escape::key as escape;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    kstone_core::fuzzing::key(bytes);
    assert_eq!(escape(bytes).parse(), Ok(Escaped(bytes.to_vec())));
    if let Ok(Escaped(key)) = String::from_utf8_lossy(bytes).parse::<Escaped>() {
        assert_eq!(escape(&key).parse(), Ok(Escaped(key)));
    }
});
