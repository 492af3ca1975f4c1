//! Fuzzes `targets::auth_exchange`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::auth_exchange(data));
