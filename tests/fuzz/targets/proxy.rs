//! PROXY headers of both versions.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parsers::proxy(bytes));
