//! Fuzzes `targets::report_builder`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::report_builder(data));
