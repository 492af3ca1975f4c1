//! The program on the command line, beside a provider that runs (in memory, behind a real control socket).

mod app_support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use app_support::*;
use restante::mail::*;

#[test]
fn usage_errors_are_two_and_help_teaches() {
    for arguments in [
        &["frobnicate"][..],
        &["customer", "add", "acme"],
        &["customer", "add", "Not A Name", "--domain", "a.example"],
        &["queue", "list", "--older", "5"],
        &["queue", "show", "nonsense"],
        &["--json", "--json-lines", "status"],
    ] {
        let output = program().args(arguments).output().expect("started");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
    let output = program().arg("--help").output().expect("started");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success() && help.contains("quickstart") && help.contains("Exit status"));
    let output = program().args(["customer", "set", "--help"]).output().expect("started");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    for (key, _) in restante::app::admin::settings::KEYS {
        assert!(help.contains(key), "{key}");
    }
}

#[test]
fn a_broken_configuration_is_two_with_file_line_and_column() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("r.toml");
    std::fs::write(&file, "hostname = \"mx.example.org\"\ndata_dir = \"data\"\ncolor = 1\n")
        .expect("written");
    for arguments in [&["check"][..], &["customer", "list"], &["status"], &["serve"]] {
        let output = program().arg("-c").arg(&file).args(arguments).output().expect("started");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(
            said.starts_with(&format!("{}:3:1: unknown key `color`", file.display())),
            "{said}"
        );
    }
    let output = program().env("RESTANTE_CONFIG", &file).arg("check").output().expect("started");
    assert_eq!(output.status.code(), Some(2));
    let output =
        program().arg("-c").arg(&file).args(["check", "--json"]).output().expect("started");
    assert_eq!(output.status.code(), Some(2));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["ok"], false);
    assert_eq!(
        (&document["findings"][0]["line"], &document["findings"][0]["column"]),
        (&3.into(), &1.into())
    );
}

#[test]
fn check_says_ok_and_shows_the_effective_settings() {
    let running = Running::new();
    assert!(running.run(&["check"]).contains("no faults"));
    let shown = running.run(&["check", "--show"]);
    assert!(shown.contains("message_bytes_max = \"50 MiB\"  # default"), "{shown}");
    assert!(shown.contains("hostname = \"mx.provider.example\"  # line 1"), "{shown}");
    let document = running.json(&["check", "--show"]);
    assert_eq!(document["settings"]["limits"]["recipients_max"], 1000);
    assert_eq!(document["settings"]["queue"]["expire_after"], "30d");
}

#[test]
fn customers_from_birth_to_death() {
    let running = Running::new();
    let added = running.json(&[
        "customer",
        "add",
        "acme",
        "--domain",
        "a.example",
        "--domain",
        "B.example",
    ]);
    assert_eq!(added["name"], "acme");
    assert_eq!(added["domains"], serde_json::json!(["a.example", "b.example"]));
    let password = added["password"].as_str().expect("generated").to_owned();
    assert!(password.len() >= 24);
    let said = running.fails(1, &["customer", "add", "acme", "--domain", "c.example"]);
    assert!(said.starts_with("restante: ") && said.lines().count() == 1, "{said}");

    let listed = running.run(&["customer", "list"]);
    assert!(listed.contains("acme") && listed.contains("a.example, b.example"), "{listed}");
    let shown = running.json(&["customer", "show", "acme"]);
    assert_eq!(shown["suspended"], false);
    assert!(!shown.to_string().contains(&password));

    running.run(&["customer", "suspend", "acme"]);
    assert_eq!(running.json(&["customer", "show", "acme"])["suspended"], true);
    running.run(&["customer", "resume", "acme"]);
    let renewed = running.json(&["customer", "passwd", "acme"]);
    assert_ne!(renewed["password"].as_str(), Some(password.as_str()));

    let made = running.json(&["customer", "credential", "add", "acme", "--label", "office"]);
    assert_eq!(made["login"], "acme/office");
    let logins = running.json(&["customer", "credential", "list", "acme"]);
    assert_eq!(logins["credentials"][1]["login"], "acme/office");
    running.run(&["customer", "credential", "revoke", "acme", "office"]);

    running.run(&["customer", "set", "acme", "hold-open", "1h"]);
    assert_eq!(running.json(&["customer", "show", "acme"])["settings"]["hold-open"], "1h");
    running.run(&["customer", "unset", "acme", "hold-open"]);
    let list = running.folder.path().join("list");
    std::fs::write(&list, "ann@a.example\n@b.example\n").expect("written");
    running.run(&["customer", "set", "acme", "recipients", &format!("@{}", list.display())]);
    assert_eq!(running.json(&["customer", "show", "acme"])["settings"]["recipients"], "2 listed");

    running.run(&["domain", "add", "acme", "c.example"]);
    running.run(&["domain", "remove", "c.example"]);
    running.run(&["domain", "remove", "acme", "b.example"]);
    let domains = running.json(&["domain", "list"]);
    assert_eq!(domains["domains"].as_array().map(Vec::len), Some(1));
    assert_eq!(domains["domains"][0]["customer"], "acme");

    running.run(&["customer", "remove", "acme"]);
    assert_eq!(running.json(&["customer", "list"])["customers"], serde_json::json!([]));
    running.fails(1, &["customer", "show", "acme"]);
}

#[test]
fn a_password_from_standard_input_logs_in() {
    let running = Running::new();
    let arguments =
        ["customer", "add", "acme", "--domain", "a.example", "--password-stdin", "--json"];
    let output =
        running.command(&arguments).write_stdin("s3cret words\nmore\n").output().expect("started");
    let added: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(added["password"], serde_json::Value::Null);
    let found = futures::executor::block_on(running.office.directory.customer(&name("acme")));
    let scram = found.expect("works").expect("there").credentials[0].scram.clone();
    let (again, _) = restante::smtp::sasl::derive(
        &Secret::from("s3cret words"),
        scram.salt.clone(),
        scram.iterations,
    )
    .expect("a password");
    assert_eq!(again, scram);
    let output = running.command(&arguments).write_stdin("\n").output().expect("started");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn queue_list_in_all_shapes() {
    let running = Running::new();
    assert_eq!(running.run(&["queue", "list"]), "no messages\n");
    assert_eq!(running.json(&["queue", "list"]), serde_json::json!({"messages": []}));
    add(&running.office, "acme", &["a.example", "b.example"]);
    let id =
        put(&running.office, 1, 7200, "t@foo.example", &["l@a.example", "m@b.example"], b"12345");
    put(&running.office, 2, 60, "", &["n@a.example"], b"1234567890");
    let document = running.json(&["queue", "list"]);
    let first = &document["messages"][0];
    for field in [
        "id",
        "customer",
        "domain",
        "size",
        "queued_at",
        "expires_at",
        "attempts",
        "state",
        "reverse_path",
        "forward_paths",
    ] {
        assert!(first.get(field).is_some(), "{field}");
    }
    assert_eq!(first["id"], id.to_string());
    assert_eq!(first["state"], "queued");
    let path = serde_json::json!({"address": "l@a.example", "state": "queued", "reply": null, "customer": "acme"});
    assert_eq!(first["forward_paths"][0], path);
    let lines = running.run(&["queue", "list", "--json-lines"]);
    assert_eq!(lines.lines().count(), 3);
    for line in lines.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(object["id"].is_string());
    }
    let text = running.run(&["queue", "list"]);
    assert!(text.ends_with("-- 2 messages, 15 B\n"), "{text}");
    assert!(text.contains("<t@foo.example>") && text.contains("2h"), "{text}");
    assert_eq!(running.run(&["queue", "list", "--domain", "b.example"]).lines().count(), 3);
    assert_eq!(running.json(&["queue", "list", "--failed"]), serde_json::json!({"messages": []}));
}

#[test]
fn queue_actions_ask_before_they_do_much() {
    let running = Running::new();
    add(&running.office, "acme", &["a.example"]);
    let one =
        put(&running.office, 1, 60, "t@foo.example", &["l@a.example"], b"body one").to_string();
    put(&running.office, 2, 60, "t@foo.example", &["m@a.example"], b"body two");
    assert!(running.fails(2, &["queue", "remove"]).contains("which messages"));
    let said = running.fails(1, &["queue", "remove", "--customer", "acme"]);
    assert!(said.contains("2 messages") && said.contains("--yes"), "{said}");
    let dry = running.json(&["queue", "hold", "--customer", "acme", "--dry-run"]);
    assert_eq!(dry, serde_json::json!({"action": "hold", "messages": 2, "dry_run": true}));
    assert_eq!(
        running.json(&["queue", "list", "--state", "held"])["messages"],
        serde_json::json!([])
    );

    let held = running.json(&["queue", "hold", "--customer", "acme", "--yes"]);
    assert_eq!(held, serde_json::json!({"action": "hold", "messages": 2, "dry_run": false}));
    assert_eq!(running.json(&["queue", "release", &one])["messages"], 1);
    assert_eq!(running.run(&["queue", "release", &one]), "released: 0 message(s)\n");
    assert_eq!(running.run(&["queue", "show", &one, "--body"]), "body one");
    let shown = running.json(&["queue", "show", &one, "--body"]);
    assert_eq!((&shown["body"], &shown["state"]), (&"body one".into(), &"queued".into()));
    assert!(running.run(&["queue", "show", &one]).contains("<t@foo.example>"));
    running.run(&["queue", "remove", &one]);
    assert!(running.fails(1, &["queue", "remove", &one]).contains("no such message"));
    assert_eq!(running.json(&["queue", "list"])["messages"].as_array().map(Vec::len), Some(1));
}

#[test]
fn status_has_the_promised_fields() {
    let running = Running::new();
    add(&running.office, "acme", &["a.example"]);
    let status = running.json(&["status"]);
    for field in ["listeners", "sessions", "queues", "last_drains"] {
        assert!(status.get(field).is_some(), "{field}");
    }
    for field in ["customer", "domain", "messages", "bytes", "oldest_seconds"] {
        assert!(status["queues"][0].get(field).is_some(), "{field}");
    }
    assert!(running.run(&["status"]).contains("a.example"));
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    let running = Running::new();
    add(&running.office, "acme", &["a.example"]);
    for serial in 0..2000 {
        put(&running.office, serial, 60, "t@foo.example", &["l@a.example"], b"x");
    }
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_restante"))
        .arg("-c")
        .arg(&running.config)
        .args(["queue", "list"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    let mut first = String::new();
    let mut reader = BufReader::with_capacity(64, child.stdout.take().expect("piped"));
    reader.read_line(&mut first).expect("a line");
    assert!(first.starts_with("ID"));
    drop(reader);
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_control_socket_is_for_its_owner_and_speaks_json_lines() {
    let running = Running::new();
    let facts = std::fs::metadata(running.socket()).expect("there");
    assert!(facts.file_type().is_socket());
    assert_eq!(facts.permissions().mode() & 0o777, 0o600);
    let stream = UnixStream::connect(running.socket()).expect("connected");
    let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
    let mut read = || {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        serde_json::from_str::<serde_json::Value>(&line).expect("JSON")
    };
    assert_eq!(read()["hello"]["version"], 1);
    let say = |text: &str| (&stream).write_all(text.as_bytes()).expect("said");
    say("{\"version\":1,\"request\":\"customer-list\"}\n");
    assert_eq!(read()["done"], "listed");
    say("{\"version\":99,\"request\":\"customer-list\"}\n");
    let refused = read();
    assert!(refused["refused"]["what"].as_str().expect("said").contains("version"), "{refused}");
}

#[test]
fn nonsense_on_the_control_socket_is_refused_and_the_next_one_served() {
    let running = Running::new();
    for nonsense in
        ["\n", "{}\n", "GET / HTTP/1.0\r\n\r\n", "{\"version\":1,\"request\":{\"x\":1}}\n"]
    {
        let stream = UnixStream::connect(running.socket()).expect("connected");
        let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
        lines.next().expect("hello").expect("read");
        (&stream).write_all(nonsense.as_bytes()).expect("said");
        let answer = lines.next().expect("an answer").expect("read");
        assert!(answer.starts_with("{\"refused\""), "{nonsense:?}: {answer}");
        assert!(lines.next().is_none());
    }
    assert_eq!(running.run(&["queue", "list"]), "no messages\n");
}

#[test]
fn completions_and_man_pages() {
    for shell in ["bash", "zsh", "fish"] {
        let output = program().args(["completions", shell]).output().expect("started");
        assert!(output.status.success() && output.stdout.len() > 1000, "{shell}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = program().arg("man").arg(folder.path()).output().expect("started");
    assert!(output.status.success());
    for page in ["restante.1", "restante-queue-list.1", "restante-customer-credential-add.1"] {
        assert!(folder.path().join(page).exists(), "{page}");
    }
    let pages = std::fs::read_dir(folder.path()).expect("readable").count();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(&format!("{pages} man pages")));
    let output = program().args(["man", "/nonexistent"]).output().expect("started");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn quickstart_leaves_a_foreign_folder_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("thesis.txt"), "mine").expect("written");
    let output = program().arg("quickstart").arg(folder.path()).output().expect("started");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not empty") && said.contains("nothing was touched"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
}

/// The program on a store of its own, without a running provider.
struct Alone {
    folder: tempfile::TempDir,
}

impl Alone {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "hostname = \"mx.provider.example\"\ndata_dir = \"data\"\n";
        std::fs::write(folder.path().join("restante.toml"), text).expect("written");
        Self { folder }
    }

    fn output(&self, arguments: &[&str]) -> std::process::Output {
        let config = self.folder.path().join("restante.toml");
        program().env("RESTANTE_CONFIG", config).args(arguments).output().expect("started")
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

#[test]
fn without_a_provider_the_commands_work_on_the_store_itself() {
    let alone = Alone::new();
    alone.run(&["customer", "add", "acme", "--domain", "a.example"]);
    alone.run(&["customer", "set", "acme", "hold-open", "1h"]);
    alone.run(&["domain", "add", "acme", "b.example"]);
    let shown: serde_json::Value =
        serde_json::from_str(&alone.run(&["customer", "show", "acme", "--json"])).expect("JSON");
    assert_eq!(shown["domains"], serde_json::json!(["a.example", "b.example"]));
    assert_eq!(shown["settings"]["hold-open"], "1h");
    assert_eq!(alone.run(&["queue", "list"]), "no messages\n");
    let status: serde_json::Value =
        serde_json::from_str(&alone.run(&["status", "--json"])).expect("JSON");
    assert_eq!(status["running"], false);
    alone.run(&["customer", "remove", "acme"]);
    assert_eq!(alone.output(&["customer", "show", "acme"]).status.code(), Some(1));
}

#[test]
fn everything_in_the_data_folder_is_its_owners_alone() {
    let alone = Alone::new();
    alone.run(&["customer", "add", "acme", "--domain", "a.example"]);
    let mut waiting = vec![alone.folder.path().join("data")];
    let mut seen = 0;
    while let Some(path) = waiting.pop() {
        let facts = std::fs::metadata(&path).expect("there");
        assert_eq!(facts.permissions().mode() & 0o077, 0, "{}", path.display());
        seen += 1;
        if facts.is_dir() {
            waiting.extend(
                std::fs::read_dir(&path).expect("readable").map(|e| e.expect("an entry").path()),
            );
        }
    }
    assert!(seen > 3, "{seen} files");
}

#[test]
fn a_store_that_another_process_has_open_is_waited_for() {
    let alone = Alone::new();
    alone.run(&["customer", "add", "acme", "--domain", "a.example"]);
    let data = alone.folder.path().join("data/store");
    let store = restante::store::SledStore::open(&data, restante::store::Options::default());
    let store = store.expect("opened");
    let config = alone.folder.path().join("restante.toml");
    let mut waiting = std::process::Command::new(env!("CARGO_BIN_EXE_restante"))
        .arg("-c")
        .arg(config)
        .args(["customer", "list"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    let mut said = String::new();
    let mut errors = BufReader::new(waiting.stderr.take().expect("piped"));
    errors.read_line(&mut said).expect("a line");
    assert!(said.contains("waiting for it"), "{said}");
    futures::executor::block_on(restante::store::Store::close(&store)).expect("closed");
    drop(store);
    let output = waiting.wait_with_output().expect("ended");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("acme"));
}
