//! Every transcript in tests/transcripts, each in three cuts: line by line, octet by octet, and in one write.

mod stage;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use stage::play::{Cut, play};
use stage::script;

fn texts(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            texts(&path, found);
        } else if path.extension().is_some_and(|end| end == "txt") {
            found.push(path);
        }
    }
}

/// Plays all transcripts below `folder`. `RESTANTE_TRANSCRIPT` names one (a part of its path) to play alone.
fn play_all(folder: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(folder);
    let mut found = Vec::new();
    texts(&root, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no transcripts in {folder}");
    if let Ok(only) = std::env::var("RESTANTE_TRANSCRIPT") {
        found.retain(|path| path.to_string_lossy().contains(&only));
    }
    let mut faults = Vec::new();
    for path in &found {
        let text = std::fs::read_to_string(path).expect("readable");
        let name = path.strip_prefix(&root).expect("below").display().to_string();
        let script = script::read(&text);
        for cut in [Cut::Lines, Cut::Octets, Cut::Whole] {
            if script.not_in.contains(&format!("{cut:?}").to_lowercase()) {
                continue;
            }
            let played = catch_unwind(AssertUnwindSafe(|| play(&script, cut)));
            if let Err(fault) = played {
                let why = fault.downcast_ref::<String>().cloned();
                let why = why.or_else(|| fault.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                faults.push(format!("{name}: {}", why.unwrap_or_default()));
                break;
            }
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), found.len(), faults.join("\n"));
}

#[test]
fn odmr() {
    play_all("odmr");
}

#[test]
fn login() {
    play_all("login");
}

#[test]
fn etrn() {
    play_all("etrn");
}

#[test]
fn intake() {
    play_all("intake");
}

#[test]
fn hostile() {
    play_all("hostile");
}

#[test]
fn reversed() {
    play_all("reversed");
}

#[test]
fn reports() {
    play_all("reports");
}
