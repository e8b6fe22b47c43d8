//! Greetings of Minecraft clients, and what follows them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parsers::minecraft(bytes));
