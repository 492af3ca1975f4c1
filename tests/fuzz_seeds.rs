//! The fuzzing targets, run with what is known: the transcripts, findings that were kept in `fuzz/found`, and some
//! random octets. The long runs are those of `fuzz/run`.

#[path = "../fuzz/src/targets.rs"]
#[allow(unreachable_pub, missing_docs, reason = "shared with the fuzzing programs")]
mod targets;

use std::path::{Path, PathBuf};

use proptest::prelude::*;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn in_tree(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found.sort();
    found
}

/// What peers say in the transcripts: each line, and whole files.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for file in in_tree("tests/transcripts") {
        let text = std::fs::read_to_string(&file).expect("text");
        let said = |line: &str| {
            let said = line.strip_prefix("C: ").or_else(|| line.strip_prefix("M: "))?;
            Some(said.as_bytes().to_vec())
        };
        let lines: Vec<Vec<u8>> = text.lines().filter_map(said).collect();
        let whole = lines.join(&b"\r\n"[..]);
        for flags in [4u8, 5, 6, 7, 0xfc] {
            seeds.push([&[flags][..], &whole, b"\r\n"].concat());
        }
        seeds.extend(lines);
    }
    assert!(seeds.len() > 500, "the transcripts are seeds");
    seeds.sort();
    seeds.dedup();
    seeds
}

#[test]
fn what_was_found_stays_mended() {
    for file in in_tree("fuzz/found") {
        let name = file.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        if let Some((_, target)) = targets::ALL.iter().find(|(known, _)| Some(*known) == name) {
            target(&std::fs::read(&file).expect("readable"));
        }
    }
}

#[test]
fn every_target_stands_the_transcripts() {
    let seeds = seeds();
    for (name, target) in targets::ALL {
        // Sessions are a thousand times slower than parsers.
        let step =
            if matches!(*name, "session" | "bdat_session" | "report_builder") { 9 } else { 1 };
        seeds.iter().step_by(step).for_each(|seed| target(seed));
    }
}

/// A whole dump with every third octet changed, and cut off in places: the fuzzer's first steps, taken in every run.
#[test]
fn the_dump_loader_stands_a_dump_that_was_tampered_with() {
    let files = in_tree("tests/dump");
    let whole = std::fs::read(files.first().expect("a frozen dump")).expect("readable");
    for place in (0..whole.len()).step_by(3) {
        let mut changed = whole.clone();
        changed[place] ^= 1 << (place % 8);
        targets::dump_loader(&changed);
        if place % 24 == 0 {
            targets::dump_loader(&whole[..place]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn every_target_stands_random_octets(
        data in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b' '), Just(b'<')],
            0..300,
        )
    ) {
        for (_, target) in targets::ALL {
            target(&data);
        }
    }
}
