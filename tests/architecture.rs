//! The borders of the house: imports go down only, and rooms on one floor do not know each other.

use std::path::{Path, PathBuf};

/// Room, and the rooms it may name.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("mail", &[]),
    ("smtp", &["mail"]),
    ("store", &["mail"]),
    ("provider", &["mail", "smtp", "store"]),
    ("net", &["mail", "smtp", "store", "provider"]),
    ("fetch", &["mail", "smtp", "net"]),
    ("app", &["mail", "smtp", "store", "provider", "net", "fetch"]),
];

/// Files outside `net/` that may name the async runtime.
const RUNTIME: &[&str] = &["app/run.rs", "main.rs"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn rooms_look_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut crossings = Vec::new();
    for file in &files {
        let place = file.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
        let room = place.split('/').next().unwrap_or_default();
        let text = std::fs::read_to_string(file).expect("readable");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some((_, allowed)) = MAY_KNOW.iter().find(|(name, _)| *name == room) {
                for named in code.split("crate::").skip(1) {
                    let other: String =
                        named.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    let known = MAY_KNOW.iter().any(|(name, _)| *name == other);
                    if known && other != room && !allowed.contains(&other.as_str()) {
                        crossings.push(format!("src/{place}:{}: {room} names {other}", number + 1));
                    }
                }
                if code.contains("super::super::super") {
                    crossings.push(format!("src/{place}:{}: name the room instead", number + 1));
                }
            }
            if code.contains("async_std") && room != "net" && !RUNTIME.contains(&place.as_str()) {
                crossings.push(format!("src/{place}:{}: names the runtime", number + 1));
            }
        }
    }
    assert!(crossings.is_empty(), "borders crossed:\n{}", crossings.join("\n"));
}

#[test]
fn files_fit_one_sitting() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let long: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let lines = std::fs::read_to_string(file).expect("readable").lines().count();
            let place = file.strip_prefix(&root).expect("below src").display();
            (lines > 450).then(|| format!("src/{place}: {lines} lines"))
        })
        .collect();
    assert!(long.is_empty(), "too long for one sitting:\n{}", long.join("\n"));
}

/// The program starts no other: whatever a peer says, there is nothing that could be made to run it.
#[test]
fn no_program_is_started() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 100, "the sources were found");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        for word in ["process::Command", "CommandExt", "posix_spawn", "execv", "Command::new("] {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
    }
}
