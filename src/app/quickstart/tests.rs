//! What quickstart leaves behind, up to the point where it begins to listen.

use std::collections::BTreeSet;

use futures::executor::block_on;

use super::*;
use crate::app::backend::open_store;
use crate::app::output::Format;
use crate::mail::Secret;

fn filled() -> (tempfile::TempDir, PathBuf, Config) {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("new/restante-data");
    empty_folder(&dir).expect("made");
    let mut out = Out::new(Format::Text);
    let config = fill(&dir, &dir.join(CONFIG), &mut out).expect("filled");
    (folder, dir, config)
}

#[test]
fn the_configuration_it_writes_has_neither_fault_nor_warning() {
    let (_folder, dir, config) = filled();
    let loaded = config::load(&dir.join(CONFIG));
    assert_eq!(loaded.report.to_string(), "");
    let again = loaded.config.expect("sound");
    assert_eq!(again.show_json(), config.show_json());
    let ports = |list: &[std::net::SocketAddr]| {
        list.iter().map(|a| (a.ip().is_loopback(), a.port())).collect::<Vec<_>>()
    };
    assert_eq!(ports(&again.listen.mx), [(true, 2525)]);
    assert_eq!(ports(&again.listen.mxs), [(true, 4650)]);
    assert_eq!(ports(&again.listen.odmr), [(true, 3660)]);
    assert_eq!(ports(&again.listen.odmrs), [(true, 3661)]);
    assert_eq!(ports(&again.listen.http), [(true, 9366)]);
    assert!(again.tls.is_some() && !again.policy().auth_requires_tls);
}

#[test]
fn everything_is_its_owners_alone_and_the_password_stands_where_fetchmail_reads_it() {
    let (_folder, dir, config) = filled();
    let mut waiting = vec![dir.clone()];
    let mut seen = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        let facts = fs::metadata(&path).expect("there");
        assert_eq!(facts.permissions().mode() & 0o077, 0, "{}", path.display());
        if facts.is_dir() {
            waiting.extend(fs::read_dir(&path).expect("read").map(|e| e.expect("an entry").path()));
        } else if path.parent() == Some(&*dir) {
            seen.insert(path.file_name().expect("a name").to_string_lossy().into_owned());
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["fetchmailrc", CONFIG]);

    let text = fs::read_to_string(dir.join("fetchmailrc")).expect("there");
    let password = text.split("password \"").nth(1).and_then(|rest| rest.split('"').next());
    let password = password.expect("a password");
    let (store, directory) = open_store(&config).expect("opened");
    let name = CustomerName::parse(CUSTOMER).expect("a name");
    let customer = block_on(directory.customer(&name)).expect("works").expect("there");
    let scram = customer.credentials[0].scram.clone();
    let derived =
        crate::smtp::sasl::derive(&Secret::from(password), scram.salt.clone(), scram.iterations);
    assert_eq!(derived.expect("a password").0, scram);
    block_on(store.close()).expect("closed");
}

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
