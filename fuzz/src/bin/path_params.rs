//! Fuzzes `targets::path_params`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::path_params(data));
