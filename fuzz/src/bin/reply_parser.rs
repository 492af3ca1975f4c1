//! Fuzzes `targets::reply_parser`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::reply_parser(data));
