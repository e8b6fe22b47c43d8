//! The configurations of other tools.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parsers::import(bytes));
