//! Dump, load, export, import, bounce and the commands about the store, on the command line: beside a provider that
//! runs (in memory, behind a real control socket) and on a store of their own.

mod app_support;

use std::path::{Path, PathBuf};

use app_support::*;
use futures::executor::block_on;
use restante::mail::*;
use restante::store::{Filter, Options, QueueAction, SledStore};

/// A configuration whose provider does not run.
struct Stopped {
    folder: tempfile::TempDir,
}

impl Stopped {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "hostname = \"mx.provider.example\"\ndata_dir = \"data\"\n";
        std::fs::write(folder.path().join("r.toml"), text).expect("written");
        Self { folder }
    }

    fn command(&self, arguments: &[&str]) -> assert_cmd::Command {
        let mut command = program();
        command.arg("-c").arg(self.folder.path().join("r.toml")).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.run(&arguments)).expect("one JSON document")
    }

    fn fails(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("started");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        said
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.file("data/store")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Two customers, and messages in every state.
fn furnished() -> Running {
    let running = Running::new();
    let office = &running.office;
    add(office, "acme", &["a.example", "b.example"]);
    add(office, "other", &["o.example"]);
    let body = b"Subject: hi\r\nMessage-ID: <1@foo>\r\n\r\nFrom me\r\n>From him\r\n\r\nend";
    put(office, 1, 900, "t@foo.example", &["l@a.example", "x@o.example"], body);
    let later = put(
        office,
        2,
        800,
        "t@foo.example",
        &["l@a.example"],
        &b"0123456789abcde\r\n".repeat(6000),
    );
    let failed = put(office, 3, 700, "", &["l@b.example"], b"");
    put(office, 4, 600, "t@foo.example", &["h@b.example"], "Grüße\r\n".as_bytes());
    settle(office, "acme", "a.example", later, Outcome::Later(ReplyText::clean("450 4.2.0 full")));
    settle(office, "acme", "b.example", failed, Outcome::Failed(ReplyText::clean("550 5.1.1 no")));
    let held = Filter { recipient: Some("h@".into()), ..Filter::default() };
    block_on(office.store.apply(held, QueueAction::Hold)).expect("held");
    running
}

fn without_age(mut list: serde_json::Value) -> serde_json::Value {
    for message in list["messages"].as_array_mut().expect("a list") {
        let message = message.as_object_mut().expect("an object");
        message.remove("age_seconds");
        // The messages of these tests were put in without one; whoever reads the content finds it.
        message.remove("message_id");
    }
    list
}

#[test]
fn a_dump_of_a_running_provider_is_its_store_on_another_machine() {
    let running = furnished();
    running.run(&["customer", "suspend", "other"]);
    running.run(&["customer", "set", "acme", "hold-open", "1h"]);
    let other = Stopped::new();
    let file = other.file("a.dump");
    let said = running.run(&["dump", text(&file)]);
    assert!(said.contains("2 customer(s), 4 message(s)"), "{said}");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let output = other.command(&["load", text(&file)]).output().expect("started");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let len = std::fs::metadata(&file).expect("there").len();
    assert!(
        told.contains(&format!("octets checked: {len} of {len}"))
            || told.contains("octets checked:"),
        "{told}"
    );
    let list = |value: serde_json::Value| without_age(value);
    assert_eq!(list(other.json(&["queue", "list"])), list(running.json(&["queue", "list"])));
    assert_eq!(other.json(&["customer", "list"]), running.json(&["customer", "list"]));
    let id =
        running.json(&["queue", "list"])["messages"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        other.run(&["queue", "show", &id, "--body"]),
        running.run(&["queue", "show", &id, "--body"])
    );

    // And from there the same octets again, by a pipe too.
    let again = other.file("b.dump");
    assert_eq!(other.json(&["dump", text(&again), "--quiet"])["messages"], 4);
    assert!(std::fs::read(&again).expect("there") == std::fs::read(&file).expect("there"));
    let piped = other.command(&["dump", "-", "--quiet"]).output().expect("started");
    assert!(piped.stdout == std::fs::read(&file).expect("there") && piped.stderr.is_empty());
    let third = Stopped::new();
    let loaded = third.command(&["load", "-", "-q"]).write_stdin(piped.stdout).output();
    let loaded = loaded.expect("started");
    assert!(loaded.status.success() && loaded.stderr.is_empty());
    assert_eq!(third.json(&["customer", "list"]), running.json(&["customer", "list"]));
}

#[test]
fn a_load_that_cannot_be_done_says_why_and_leaves_no_half() {
    let running = furnished();
    let place = Stopped::new();
    let file = place.file("a.dump");
    running.run(&["dump", text(&file)]);
    let whole = std::fs::read(&file).expect("there");

    // A provider runs there.
    let said = running.fails(1, &["load", text(&file)]);
    assert!(said.contains("a provider runs on") && said.contains("stop it"), "{said}");

    // Damaged: seen before anything is touched.
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 8;
    let bad = place.file("bad.dump");
    for octets in [&damaged[..], &whole[..whole.len() / 2], b"From: me\n", b""] {
        std::fs::write(&bad, octets).expect("written");
        let said = place.fails(1, &["load", text(&bad)]);
        assert!(
            said.contains("bad.dump: the dump cannot be used") && said.contains("octet"),
            "{said}"
        );
    }
    assert!(place.json(&["queue", "list"])["messages"].as_array().is_some_and(Vec::is_empty));

    // Cut off under way: half loaded, said so by everybody, loaded again.
    let cut = whole[..whole.len() - 10].to_vec();
    let output = place.command(&["load", "-"]).write_stdin(cut).output().expect("started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("half loaded"), "{said}");
    for arguments in [&["serve"][..], &["queue", "list"], &["store", "verify"], &["dump", "x"]] {
        let said = place.fails(1, arguments);
        assert!(said.contains("half loaded"), "{arguments:?}: {said}");
    }
    place.run(&["load", text(&file)]);
    assert_eq!(place.json(&["queue", "list"])["messages"].as_array().map(Vec::len), Some(5));

    // Something is in it.
    let said = place.fails(1, &["load", text(&file)]);
    assert!(said.contains("not empty") && said.contains("data_dir"), "{said}");
    assert_eq!(place.json(&["queue", "list"])["messages"].as_array().map(Vec::len), Some(5));
}

#[test]
fn a_dump_that_cannot_be_written_leaves_the_old_one() {
    let running = furnished();
    let folder = tempfile::tempdir().expect("a folder");
    let said = running.fails(1, &["dump", text(&folder.path().join("none/a.dump"))]);
    assert!(said.contains("cannot be written"), "{said}");
    let file = folder.path().join("a.dump");
    std::fs::write(&file, "the old one").expect("written");
    let said =
        program().args(["-c", "/nowhere.toml", "dump", text(&file)]).output().expect("started");
    assert_eq!(said.status.code(), Some(2));
    assert_eq!(std::fs::read(&file).expect("there"), b"the old one");
    running.run(&["dump", text(&file)]);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing beside it");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn bodies(show: impl Fn(&[&str]) -> String, list: &serde_json::Value) -> Vec<String> {
    let messages = list["messages"].as_array().expect("a list").iter();
    messages.map(|m| show(&["queue", "show", m["id"].as_str().expect("an id"), "--body"])).collect()
}

#[test]
fn what_is_exported_can_be_imported_elsewhere_in_both_forms() {
    let running = furnished();
    for mbox in [false, true] {
        let place = Stopped::new();
        let dir = place.file("out");
        let mut arguments = vec!["queue", "export", "--all", "--to", text(&dir)];
        arguments.extend(mbox.then_some("--mbox"));
        assert_eq!(running.json(&arguments)["messages"], 4);
        let files: Vec<String> = match mbox {
            true => vec![text(&dir.join("all.mbox")).to_owned()],
            false => names(&dir).iter().map(|name| text(&dir.join(name)).to_owned()).collect(),
        };
        assert_eq!(files.len(), if mbox { 1 } else { 8 });
        for (customer, domains) in
            [("acme", &["a.example", "b.example"][..]), ("other", &["o.example"])]
        {
            let mut arguments = vec!["customer", "add", customer];
            domains.iter().for_each(|domain| arguments.extend(["--domain", domain]));
            place.run(&arguments);
        }
        let mut arguments = vec!["queue", "import"];
        arguments.extend(files.iter().map(String::as_str));
        let said = place.json(&arguments);
        assert_eq!(said, serde_json::json!({"imported": 4, "known": 0, "refused": 0}), "{mbox}");
        let (there, here) = (place.json(&["queue", "list"]), running.json(&["queue", "list"]));
        assert_eq!(bodies(|a| place.run(a), &there), bodies(|a| running.run(a), &here));
        assert_eq!(without_age(there), without_age(here));
        // Once is enough.
        let said = place.json(&arguments);
        assert_eq!(said, serde_json::json!({"imported": 0, "known": 4, "refused": 0}));
    }
}

#[test]
fn one_domain_is_exported_with_its_recipients_only() {
    let running = furnished();
    let folder = tempfile::tempdir().expect("a folder");
    running.run(&["queue", "export", "--domain", "o.example", "--to", text(folder.path())]);
    let names = names(folder.path());
    assert_eq!(names.len(), 2);
    let envelope = std::fs::read(folder.path().join(&names[1])).expect("there");
    let envelope: serde_json::Value = serde_json::from_slice(&envelope).expect("JSON");
    assert_eq!(envelope["forward_paths"].as_array().map(Vec::len), Some(1));
    assert_eq!(envelope["forward_paths"][0]["address"], "x@o.example");
    assert_eq!(
        envelope.as_object().expect("an object").keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "body",
            "envid",
            "forward_paths",
            "id",
            "queued_at",
            "ret",
            "reverse_path",
            "size",
            "smtputf8"
        ]
    );
    for arguments in [&["queue", "export", "--to", "x"][..], &["queue", "export", "--all"]] {
        running.fails(2, arguments);
    }
}

#[test]
fn exports_of_two_domains_lose_no_recipient_of_a_message_for_both() {
    let running = furnished();
    let place = Stopped::new();
    let (one, two) = (place.file("one"), place.file("two"));
    running.run(&["queue", "export", "--domain", "a.example", "--to", text(&one)]);
    running.run(&["queue", "export", "--domain", "o.example", "--to", text(&two)]);
    let said = running.fails(1, &["queue", "export", "--domain", "o.example", "--to", text(&one)]);
    assert!(said.contains("other recipients of the same message"), "{said}");
    place.run(&["customer", "add", "acme", "--domain", "a.example"]);
    place.run(&["customer", "add", "other", "--domain", "o.example"]);
    let files = |dir: &Path| -> Vec<String> {
        names(dir).iter().map(|name| text(&dir.join(name)).to_owned()).collect()
    };
    let (one, two) = (files(&one), files(&two));
    let import = |files: &[String]| -> Vec<String> {
        ["queue", "import"].into_iter().map(str::to_owned).chain(files.iter().cloned()).collect()
    };
    let (one, two) = (import(&one), import(&two));
    place.run(&one.iter().map(String::as_str).collect::<Vec<_>>());
    // The id is there already, and its recipient is not: said aloud, not counted as known.
    let said = place.fails(1, &two.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.contains("x@o.example is not"), "{said}");
}

#[test]
fn a_message_that_was_cut_off_is_not_imported() {
    let running = furnished();
    let place = Stopped::new();
    let dir = place.file("out");
    running.run(&["queue", "export", "--domain", "o.example", "--to", text(&dir)]);
    place.run(&["customer", "add", "other", "--domain", "o.example"]);
    let file = dir.join(names(&dir).into_iter().find(|name| name.ends_with(".eml")).expect("one"));
    let whole = std::fs::read(&file).expect("there");
    std::fs::write(&file, &whole[..whole.len() - 5]).expect("written");
    let said = place.fails(1, &["queue", "import", text(&file)]);
    assert!(said.contains("it was cut off"), "{said}");
    assert_eq!(place.json(&["queue", "list"])["messages"].as_array().map(Vec::len), Some(0));
}

#[test]
fn an_import_takes_what_it_can_and_names_the_rest() {
    let running = furnished();
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).expect("written");
    };
    write("good.eml", "Subject: by hand\n\nlines in LF\n");
    write(
        "good.json",
        r#"{"reverse_path":"s@foo.example","forward_paths":[{"address":"n@a.example"}]}"#,
    );
    write("foreign.eml", "Subject: x\r\n\r\n");
    write(
        "foreign.json",
        r#"{"reverse_path":"","forward_paths":[{"address":"n@nobody.example"}]}"#,
    );
    write("alone.eml", "Subject: x\r\n\r\n");
    write("odd.eml", "Subject: x\r\n\r\n");
    write(
        "odd.json",
        r#"{"reverse_path":"s@foo.example","forward_paths":[{"address":"n@a.example","orcpt":"rfc822;a b\r\nRSET"}]}"#,
    );
    write("nul.eml", "Subject: \0\r\n");
    write("nul.json", r#"{"reverse_path":"","forward_paths":[{"address":"n@a.example"}]}"#);
    write("no.mbox", "Subject: x\n");
    let files: Vec<PathBuf> = [
        "alone.eml",
        "foreign.eml",
        "foreign.json",
        "nul.eml",
        "odd.eml",
        "no.mbox",
        "good.eml",
        "none.eml",
    ]
    .iter()
    .map(|name| folder.path().join(name))
    .collect();
    let mut arguments = vec!["queue", "import", "--quiet", "--json"];
    arguments.extend(files.iter().map(|file| text(file)));
    let output = running.command(&arguments).output().expect("started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document, serde_json::json!({"imported": 1, "known": 0, "refused": 6}));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 6, "{said}");
    for (line, (name, why)) in lines.iter().zip([
        ("alone.eml", "alone.json"),
        ("foreign.eml", "nobody.example is no customer's"),
        ("nul.eml", "NUL"),
        ("odd.eml", "DSN parameter"),
        ("no.mbox", "no mbox"),
        ("none.eml", "none.json"),
    ]) {
        assert!(line.contains(name) && line.contains(why), "{line}");
    }
    let list = running.json(&["queue", "list", "--recipient", "n@"]);
    let id = list["messages"][0]["id"].as_str().expect("an id");
    assert_eq!(
        running.run(&["queue", "show", id, "--body"]),
        "Subject: by hand\r\n\r\nlines in LF\r\n"
    );
    // The connection is still good for the next question.
    assert_eq!(list["messages"].as_array().map(Vec::len), Some(1));
}

#[test]
fn bounced_mail_leaves_a_report_and_nothing_else() {
    let place = Stopped::new();
    let running = furnished();
    let file = place.file("a.dump");
    running.run(&["dump", text(&file)]);
    place.run(&["load", text(&file)]);
    let said = place.fails(2, &["queue", "bounce"]);
    assert!(said.contains("which messages"), "{said}");
    let dry = place.run(&["queue", "bounce", "--domain", "a.example", "--dry-run"]);
    assert!(dry.contains("2 messages") && dry.contains("would bounce"), "{dry}");
    let said = place.fails(1, &["queue", "bounce", "--domain", "a.example"]);
    assert!(said.contains("2 messages are meant; nothing was done"), "{said}");
    let done = place.json(&["queue", "bounce", "--domain", "a.example", "--yes"]);
    assert_eq!((&done["messages"], &done["action"]), (&2.into(), &"bounce".into()));
    // The senders are elsewhere: their reports wait for the way out; the other recipient is as it was.
    let left = place.json(&["queue", "list"]);
    let left = left["messages"].as_array().expect("a list");
    let of = |domain: &str| left.iter().filter(|m| m["domain"] == domain).collect::<Vec<_>>();
    assert!(of("a.example").is_empty());
    assert_eq!((of("o.example").len(), of("b.example").len(), of("foo.example").len()), (1, 2, 2));
    let report = of("foo.example")[1];
    assert_eq!((&report["customer"], &report["reverse_path"]), (&"relay".into(), &"".into()));
    let report = place.run(&["queue", "show", report["id"].as_str().expect("an id"), "--body"]);
    for part in ["Action: failed", "Status: 5.7.1", "Returned by the operator", "450 4.2.0 full"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    // Nobody to tell.
    let id =
        left.iter().find(|m| m["state"] == "failed").expect("there")["id"].as_str().expect("an id");
    let said = place.fails(1, &["queue", "bounce", id]);
    assert!(said.contains("null reverse-path") && said.contains("queue remove"), "{said}");
    let said = place.fails(1, &["queue", "bounce", "00000000000000000000000001"]);
    assert!(said.contains("no such message"), "{said}");
}

#[test]
fn what_is_on_its_way_is_not_bounced() {
    let running = furnished();
    let request = restante::store::LeaseRequest {
        customer: name("acme"),
        domains: vec![domain("a.example")],
        owner: "a drain".into(),
        lasts: std::time::Duration::from_secs(60),
        overthrow_after: std::time::Duration::from_secs(60),
    };
    let _lease = block_on(running.office.store.lease(request)).expect("granted");
    let said = running.fails(1, &["queue", "bounce", "--domain", "a.example", "--yes"]);
    assert!(said.contains("2 message(s) are on their way"), "{said}");
    assert_eq!(
        running.json(&["queue", "list", "--domain", "a.example"])["messages"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}

#[test]
fn the_store_is_looked_through_compacted_and_rebuilt() {
    let running = furnished();
    let place = Stopped::new();
    let file = place.file("a.dump");
    running.run(&["dump", text(&file)]);
    place.run(&["load", text(&file)]);

    let before = place.json(&["queue", "list"]);
    let sound = place.json(&["store", "verify"]);
    assert_eq!((&sound["messages"], &sound["damage"]), (&4.into(), &serde_json::json!([])));
    assert_eq!(running.json(&["store", "verify"])["messages"], 4);
    assert_eq!(running.json(&["store", "verify"])["bytes"], sound["bytes"]);
    assert!(place.run(&["store", "verify"]).contains("4 message(s)"));
    assert!(place.json(&["store", "compact"])["after"].as_u64().is_some());
    assert!(running.run(&["store", "compact", "--quiet"]).contains("compacted"));
    let said = running.fails(1, &["store", "rebuild"]);
    assert!(said.contains("a provider runs") && said.contains("stop it"), "{said}");
    std::fs::remove_dir_all(place.store().join("index")).expect("removed");
    assert_eq!(place.json(&["store", "rebuild"])["messages"], 4);
    assert_eq!(without_age(place.json(&["queue", "list"])), without_age(before));

    // Somebody else has it open, and no provider answers.
    let store = SledStore::open(&place.store(), Options::default()).expect("opened");
    let said = place.fails(1, &["store", "verify"]);
    assert!(said.contains("open in another process"), "{said}");
    drop(store);

    let segment = names(&place.store().join("spool")).into_iter().find(|n| n.ends_with(".spool"));
    let segment = place.store().join("spool").join(segment.expect("a segment"));
    let mut octets = std::fs::read(&segment).expect("there");
    let middle = octets.len() / 2;
    octets[middle] ^= 0x20;
    std::fs::write(&segment, octets).expect("written");
    let output = place.command(&["store", "verify", "--json"]).output().expect("started");
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["damage"].as_array().map(Vec::len), Some(1), "{found}");
    let said = place.fails(1, &["store", "rebuild"]);
    assert!(said.contains("damaged"), "{said}");
    // A dump says what it lacks, and holds the rest.
    let partial = place.file("partial.dump");
    let said = place.fails(1, &["dump", text(&partial), "--quiet"]);
    assert!(said.contains("not in the dump"), "{said}");
    let third = Stopped::new();
    assert_eq!(third.json(&["load", text(&partial)])["messages"], 3);
}
