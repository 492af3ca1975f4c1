//! Fuzzes `targets::domain`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::domain(data));
