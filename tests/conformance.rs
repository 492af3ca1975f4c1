//! docs/conformance.md: which test shows which requirement. Made from tests/requirements.txt, the `covers` lines of
//! the transcripts and the `// covers:` remarks above tests, and from the names of tests
//! that begin with an id (`b4_…`, `row_4_…`). This test fails when the committed page is not current.
//! `RESTANTE_BLESS=1 cargo test --test conformance` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A section of requirements: its title, and ids with their sentences.
type Section = (String, Vec<(String, String)>);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn requirements() -> Vec<Section> {
    let text = std::fs::read_to_string(root().join("tests/requirements.txt")).expect("readable");
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push((title.to_owned(), Vec::new()));
            continue;
        }
        let (id, sentence) = line.split_once("  ").expect("an id, two spaces, a sentence");
        let section = sections.last_mut().expect("a section first");
        section.1.push((id.to_owned(), sentence.trim().to_owned()));
    }
    sections
}

fn files(folder: &Path, end: &str, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, end, found);
        } else if path.extension().is_some_and(|found| found == end) {
            found.push(path);
        }
    }
}

/// Where a path is, from the top of the repository.
fn place(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned()
}

/// Ids, and where they are shown.
fn covered() -> BTreeMap<String, Vec<String>> {
    let mut covered: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut transcripts = Vec::new();
    files(&root().join("tests/transcripts"), "txt", &mut transcripts);
    for path in transcripts {
        let text = std::fs::read_to_string(&path).expect("readable");
        let lists = text.lines().filter_map(|line| line.strip_prefix("covers "));
        for id in lists.flat_map(str::split_whitespace) {
            covered.entry(id.to_owned()).or_default().push(place(&path));
        }
    }
    let mut sources = Vec::new();
    for folder in ["src", "tests"] {
        files(&root().join(folder), "rs", &mut sources);
    }
    for path in sources {
        let text = std::fs::read_to_string(&path).expect("readable");
        let mut ids: Vec<String> = Vec::new();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            is_test |= line == "#[test]";
            if let Some(list) = line.strip_prefix("// covers:") {
                ids.extend(list.split(',').map(|id| id.trim().to_owned()));
            } else if let Some(rest) = line.split("fn ").nth(1) {
                let name: String =
                    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if std::mem::take(&mut is_test) {
                    ids.extend(named(&name));
                }
                for id in ids.drain(..) {
                    covered.entry(id).or_default().push(format!("{}: {name}", place(&path)));
                }
            }
        }
    }
    covered
}

/// The ids that the name of a test begins with: `b4_…` for attacks, `row_4_…`, `rows_1_to_3_…` and
/// `row_13_and_14_…` for faults.
fn named(name: &str) -> Vec<String> {
    let words: Vec<&str> = name.split('_').collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok());
    if matches!(words[0], "row" | "rows") {
        return match (number(1), words.get(2), number(3)) {
            (Some(first), Some(&"to"), Some(last)) => {
                (first..=last).map(|row| row.to_string()).collect()
            }
            (Some(one), Some(&"and"), Some(other)) => vec![one.to_string(), other.to_string()],
            (Some(one), ..) => vec![one.to_string()],
            _ => Vec::new(),
        };
    }
    let (letter, digits) = words[0].split_at_checked(1).unwrap_or(("", ""));
    let is_id = matches!(letter, "a" | "b" | "c" | "d" | "e" | "f" | "g" | "h")
        && digits.parse::<u32>().is_ok();
    if is_id { vec![words[0].to_uppercase()] } else { Vec::new() }
}

#[test]
fn names_of_tests_are_read() {
    assert_eq!(named("b10_a_new_pair"), ["B10"]);
    assert_eq!(named("rows_1_to_3_a_cut"), ["1", "2", "3"]);
    assert_eq!(named("row_13_and_14_what"), ["13", "14"]);
    assert_eq!(named("row_4_no_reply"), ["4"]);
    assert!(named("a_message_in_one_write").is_empty() && named("rows_look_down").is_empty());
}

fn page(sections: &[Section], covered: &BTreeMap<String, Vec<String>>) -> String {
    let mut page = String::from(
        "# Conformance\n\nEach requirement and the tests that show it. Made by `RESTANTE_BLESS=1 cargo test --test \
         conformance` from\n`tests/requirements.txt` and the `covers` lines of transcripts and tests; do not edit. A \
         **gap** is a requirement\nthat no test names: not shown, which is not the same as not kept.\n\n",
    );
    page += "| section | requirements | shown | gaps |\n| --- | --- | --- | --- |\n";
    for (title, list) in sections {
        let shown = list.iter().filter(|(id, _)| covered.contains_key(id)).count();
        let _ = writeln!(page, "| {title} | {} | {shown} | {} |", list.len(), list.len() - shown);
    }
    for (title, list) in sections {
        let _ =
            write!(page, "\n## {title}\n\n| id | requirement | shown by |\n| --- | --- | --- |\n");
        for (id, sentence) in list {
            let shown = match covered.get(id) {
                Some(places) => {
                    let mut places = places.clone();
                    places.sort();
                    places.dedup();
                    let short =
                        |place: &String| format!("`{}`", place.trim_start_matches("tests/"));
                    places.iter().map(short).collect::<Vec<_>>().join("<br>")
                }
                None => "**gap**".to_owned(),
            };
            let _ = writeln!(page, "| {id} | {sentence} | {shown} |");
        }
    }
    page
}

#[test]
fn the_page_is_current() {
    let sections = requirements();
    let covered = covered();
    let known: Vec<&String> = sections.iter().flat_map(|s| s.1.iter().map(|r| &r.0)).collect();
    let mut unique = known.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), known.len(), "an id stands twice in tests/requirements.txt");
    for (id, places) in &covered {
        assert!(known.contains(&id), "{id} is no requirement; named in {places:?}");
    }
    let page = page(&sections, &covered);
    let path = root().join("docs/conformance.md");
    if std::env::var_os("RESTANTE_BLESS").is_some() {
        std::fs::create_dir_all(root().join("docs")).expect("a folder");
        std::fs::write(&path, &page).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/conformance.md is not current: RESTANTE_BLESS=1 cargo test --test conformance"
    );
}
