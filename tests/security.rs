//! docs/security.md: every row is there once, and every test that it names exists.

use std::path::Path;

fn document() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    std::fs::read_to_string(file).expect("the document")
}

/// The first cells of the tables of section 9, and their last.
fn rows(text: &str) -> Vec<(String, String)> {
    let (_, tables) = text.split_once("## 9.").expect("section 9");
    tables
        .lines()
        .filter(|line| {
            line.starts_with("| ") && !line.starts_with("| row") && !line.starts_with("| ---")
        })
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            assert_eq!(cells.len(), 3, "{line}");
            (cells[0].to_owned(), cells[2].to_owned())
        })
        .collect()
}

#[test]
fn every_row_is_there_once() {
    let mut wanted = Vec::new();
    for (letter, count) in
        [('A', 16), ('B', 11), ('C', 13), ('D', 16), ('E', 12), ('F', 11), ('G', 7), ('H', 8)]
    {
        wanted.extend((1..=count).map(|number| format!("{letter}{number}")));
    }
    wanted.extend((1..=32).map(|number| number.to_string()));
    let found: Vec<String> = rows(&document()).into_iter().map(|(row, _)| row).collect();
    assert_eq!(found[..wanted.len()], wanted);
    // Behind them stand promises with names of their own, each once.
    let mut promises = found[wanted.len()..].to_vec();
    assert!(promises.len() > 15, "{promises:?}");
    promises.sort();
    promises.dedup();
    assert_eq!(promises.len(), found.len() - wanted.len());
}

/// A test that is called after a row stands in that row.
#[test]
fn every_test_of_a_row_is_named_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let rows = rows(&document());
    let mut count = 0;
    for entry in std::fs::read_dir(root).expect("tests") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        if !file.starts_with("hostile_") || !file.ends_with(".rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("text");
        for test in text.split("#[test]\nfn ").skip(1).filter_map(|part| part.split('(').next()) {
            let row = test.split('_').next().unwrap_or_default().to_uppercase();
            if let Some((_, shown)) = rows.iter().find(|(name, _)| *name == row) {
                assert!(shown.contains(&format!("tests/{file}: {test}")), "{row}: {file}: {test}");
                count += 1;
            }
        }
    }
    assert!(count > 80, "{count}");
}

#[test]
fn every_test_that_is_named_exists_or_the_gap_is_called_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (row, shown) in rows(&document()) {
        let named: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() || shown.contains("**gap**"), "{row}: neither test nor gap");
        for name in named {
            let Some((file, test)) = name.split_once(": ") else {
                let is_file = !name.contains('/') || root.join(name).exists();
                assert!(is_file, "{row}: {name} does not exist");
                continue;
            };
            let text = std::fs::read_to_string(root.join(file));
            let text = text.unwrap_or_else(|error| panic!("{row}: {file}: {error}"));
            assert!(text.contains(&format!("fn {test}(")), "{row}: no {test} in {file}");
        }
    }
}
