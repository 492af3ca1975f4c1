//! Fuzzes `targets::bdat_session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::bdat_session(data));
