//! Knocks and their keys.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parsers::knock(bytes));
