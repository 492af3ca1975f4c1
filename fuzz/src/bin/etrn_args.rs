//! Fuzzes `targets::etrn_args`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::etrn_args(data));
