//! Fuzzes `targets::ehlo_reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::ehlo_reply(data));
