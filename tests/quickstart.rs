//! What quickstart leaves behind, up to the point where it begins to listen.

mod app_support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use app_support::program;
use futures::executor::block_on;
use restante::app::config;
use restante::mail::{CustomerName, Secret};
use restante::smtp::sasl;
use restante::store::{Directory, Options, SledStore, Store};

/// The folder that it made, and what it printed with `--json`.
fn filled() -> (tempfile::TempDir, PathBuf, serde_json::Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("new/restante-data");
    let output = program().args(["quickstart", "--no-serve", "--json"]).arg(&dir).output();
    let output = output.expect("started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = serde_json::from_slice(&output.stdout).expect("one document");
    (folder, dir, said)
}

#[test]
fn the_configuration_it_writes_has_neither_fault_nor_warning() {
    let (_folder, dir, said) = filled();
    assert_eq!(said["config"].as_str(), dir.join("restante.toml").to_str());
    let loaded = config::load(&dir.join("restante.toml"));
    assert_eq!(loaded.report.to_string(), "");
    let config = loaded.config.expect("sound");
    let ports = |list: &[std::net::SocketAddr]| {
        list.iter().map(|a| (a.ip().is_loopback(), a.port())).collect::<Vec<_>>()
    };
    assert_eq!(ports(&config.listen.mx), [(true, 2525)]);
    assert_eq!(ports(&config.listen.mxs), [(true, 4650)]);
    assert_eq!(ports(&config.listen.odmr), [(true, 3660)]);
    assert_eq!(ports(&config.listen.odmrs), [(true, 3661)]);
    assert_eq!(ports(&config.listen.http), [(true, 9366)]);
    assert!(config.tls.is_some() && !config.policy().auth_requires_tls);
}

#[test]
fn everything_is_its_owners_alone_and_the_password_stands_where_fetchmail_reads_it() {
    let (_folder, dir, said) = filled();
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
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["fetchmailrc", "restante.toml"]);

    let text = fs::read_to_string(dir.join("fetchmailrc")).expect("there");
    let password = text.split("password \"").nth(1).and_then(|rest| rest.split('"').next());
    let password = password.expect("a password");
    assert_eq!(said["password"].as_str(), Some(password));
    let store = SledStore::open(&dir.join("data/store"), Options::default()).expect("opened");
    let name = CustomerName::parse("demo").expect("a name");
    let customer = block_on(store.customer(&name)).expect("works").expect("there");
    let scram = customer.credentials[0].scram.clone();
    let derived = sasl::derive(&Secret::from(password), scram.salt.clone(), scram.iterations);
    assert_eq!(derived.expect("a password").0, scram);
    block_on(store.close()).expect("closed");
}

#[test]
fn run_again_it_changes_nothing() {
    let (_folder, dir, _) = filled();
    let before = fs::read(dir.join("fetchmailrc")).expect("there");
    let output = program().args(["quickstart", "--no-serve"]).arg(&dir).output().expect("started");
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.contains("demo"), "{said}");
    assert_eq!(fs::read(dir.join("fetchmailrc")).expect("there"), before);
}
