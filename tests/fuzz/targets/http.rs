//! Heads of HTTP/1 requests, and first frames of HTTP/2.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parsers::http(bytes));
