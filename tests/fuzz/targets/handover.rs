//! The frames in which one process hands over to another.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parsers::handover_frame(bytes));
