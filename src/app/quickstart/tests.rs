//! The folder that quickstart fills, and what it prints. What it leaves behind is tested in `tests/quickstart.rs`.

use super::*;

#[test]
fn a_folder_that_it_did_not_make_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    empty_folder(folder.path()).expect("an empty one will do");
    fs::write(folder.path().join("thesis.txt"), "mine").expect("written");
    let said = empty_folder(folder.path()).expect_err("refused").to_string();
    assert!(said.contains("not empty"), "{said}");
    let file = folder.path().join("thesis.txt");
    assert!(empty_folder(&file).is_err());
}

#[test]
fn paths_are_printed_as_a_shell_takes_them() {
    let text = texts::first("restante", Path::new("/tmp/it's here"), CUSTOMER, DOMAIN, "secret");
    assert!(text.contains("-c '/tmp/it'\\''s here/restante.toml'"), "{text}");
    for step in 1..=5 {
        assert!(text.lines().any(|line| line.starts_with(&format!("{step}. "))), "{step}");
    }
}
