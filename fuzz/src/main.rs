//! The fuzzing program: libFuzzer drives the target that `RESTANTE_FUZZ` names.
//!
//! Started by `fuzz/run`. Without a target it prints the names of all and ends, which is how `fuzz/run` learns them. It
//! checks nothing itself: each promise is in `targets`.
#![no_main]

use std::sync::OnceLock;

use targets::{ALL, Target};

static TARGET: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("RESTANTE_FUZZ").unwrap_or_default();
    match ALL.iter().find(|(known, _)| *known == name) {
        Some((_, target)) => *target,
        None => {
            ALL.iter().for_each(|(known, _)| println!("{known}"));
            std::process::exit(if name.is_empty() { 0 } else { 2 })
        }
    }
}

libfuzzer_sys::fuzz_target!(
    init: {
        TARGET.get_or_init(chosen);
    },
    |data: &[u8]| TARGET.get_or_init(chosen)(data)
);
