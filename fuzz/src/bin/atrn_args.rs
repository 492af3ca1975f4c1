//! Fuzzes `targets::atrn_args`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::atrn_args(data));
