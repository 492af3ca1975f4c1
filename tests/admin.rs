//! The administration, asked directly on a store in memory.

mod app_support;

use app_support::*;
use futures::executor::block_on;
use restante::app::admin::{Done, Item, Message, Refused, Request, Select, State};
use restante::mail::*;
use restante::smtp::sasl;
use restante::store::QueueAction;

fn customer(office: &restante::provider::Office, who: &str) -> Customer {
    let found = block_on(office.directory.customer(&name(who))).expect("works");
    Customer::clone(&found.expect("there"))
}

fn refused(answer: Result<(Done, Vec<Item>), Refused>, part: &str) {
    let said = answer.expect_err("a refusal").to_string();
    assert!(said.contains(part), "{said}");
}

fn rows(office: &restante::provider::Office, filter: Select) -> Vec<Message> {
    let (_, items) = ask(office, Request::QueueList { filter }).expect("listed");
    let message = |item| match item {
        Item::Message(message) => message,
        other => panic!("not a message: {other:?}"),
    };
    items.into_iter().map(message).collect()
}

#[test]
fn a_generated_password_is_shown_once_and_never_stored() {
    let office = office();
    let domains = vec![domain("b.example"), domain("a.example"), domain("B.example")];
    let request = Request::CustomerAdd { name: name("acme"), domains, password: None };
    let (Done::Added(added), _) = ask(&office, request).expect("added") else { panic!("added") };
    assert_eq!(added.domains, [domain("a.example"), domain("b.example")]);
    let password = added.password.expect("generated");
    assert!(password.expose().len() >= 24);

    let stored = customer(&office, "acme");
    let record = serde_json::to_string(&stored).expect("JSON");
    assert!(!record.contains(password.expose()));
    let credential = &stored.credentials[0];
    assert!(credential.scram.salt.len() >= 16 && credential.scram.iterations >= 15_000);
    let secret = Secret::from(password.expose());
    let again = sasl::derive(&secret, credential.scram.salt.clone(), credential.scram.iterations);
    assert_eq!(again.expect("a password"), (credential.scram.clone(), credential.cram.clone()));

    let (done, _) = ask(&office, Request::CustomerShow { name: name("acme") }).expect("shown");
    assert!(!serde_json::to_string(&done).expect("JSON").contains(password.expose()));
}

#[test]
fn a_given_password_is_not_repeated() {
    let office = office();
    let password = Some(restante::app::admin::Password::new("given by hand".into()));
    let domains = vec![domain("a.example")];
    let request = Request::CustomerAdd { name: name("acme"), domains, password };
    let (Done::Added(added), _) = ask(&office, request).expect("added") else { panic!("added") };
    assert_eq!(added.password, None);
}

#[test]
fn names_and_domains_are_unique() {
    let office = office();
    add(&office, "acme", &["a.example"]);
    let domains = vec![domain("c.example")];
    let same = Request::CustomerAdd { name: name("acme"), domains, password: None };
    refused(ask(&office, same), "exists");
    let domains = vec![domain("a.example")];
    let taken = Request::CustomerAdd { name: name("other"), domains, password: None };
    refused(ask(&office, taken), "belongs to customer acme");
    add(&office, "other", &["b.example"]);
    let taken = Request::DomainAdd { customer: name("other"), domain: domain("a.example") };
    refused(ask(&office, taken), "belongs to customer acme");
    let domains = vec![domain("r.example")];
    let reserved = Request::CustomerAdd { name: CustomerName::relay(), domains, password: None };
    refused(ask(&office, reserved), "is taken");
    let short = Request::DomainAdd { customer: name("acme"), domain: domain("localhost") };
    refused(ask(&office, short), "one label");
}

#[test]
fn passwd_replaces_the_own_login_and_leaves_the_others() {
    let office = office();
    add(&office, "acme", &["a.example"]);
    let label = "office".to_owned();
    let more = Request::CredentialAdd { name: name("acme"), label: label.clone(), password: None };
    let (Done::NewLogin(login), _) = ask(&office, more.clone()).expect("made") else {
        panic!("login")
    };
    assert_eq!(login.login, "acme/office");
    refused(ask(&office, more), "exists");
    let before = customer(&office, "acme");
    ask(&office, Request::CustomerPasswd { name: name("acme"), password: None }).expect("done");
    let after = customer(&office, "acme");
    let of = |c: &Customer, label: &str| {
        c.credentials.iter().find(|x| &*x.label == label).expect("there").clone()
    };
    assert_ne!(of(&before, ""), of(&after, ""));
    assert_eq!(of(&before, "office"), of(&after, "office"));

    let revoke = Request::CredentialRevoke { name: name("acme"), label };
    ask(&office, revoke.clone()).expect("revoked");
    refused(ask(&office, revoke), "no login with label");
    let bad = Request::CredentialAdd { name: name("acme"), label: "a b".into(), password: None };
    refused(ask(&office, bad), "no label");
}

#[test]
fn remove_waits_for_the_mail_unless_told_otherwise() {
    let office = office();
    add(&office, "acme", &["a.example"]);
    put(&office, 1, 60, "t@foo.example", &["l@a.example"], b"Subject: x\r\n\r\nx\r\n");
    let remove = |discard_mail| Request::CustomerRemove { name: name("acme"), discard_mail };
    refused(ask(&office, remove(false)), "--discard-mail");
    assert!(!customer(&office, "acme").suspended);
    assert_eq!(rows(&office, Select::default()).len(), 1);
    let (done, _) = ask(&office, remove(true)).expect("removed");
    let Done::Changed { note, .. } = done else { panic!("changed") };
    assert_eq!(note.as_deref(), Some("1 message(s) discarded"));
    assert!(rows(&office, Select::default()).is_empty());
    refused(ask(&office, remove(false)), "no customer");
}

#[test]
fn failed_mail_keeps_a_customer_too() {
    let office = office();
    add(&office, "acme", &["a.example"]);
    let id = put(&office, 1, 60, "t@foo.example", &["l@a.example"], b"x");
    settle(&office, "acme", "a.example", id, Outcome::Failed(ReplyText::clean("550 5.1.1 no")));
    let remove = Request::CustomerRemove { name: name("acme"), discard_mail: false };
    refused(ask(&office, remove), "1 queued message");
}

#[test]
fn domains_come_and_go() {
    let office = office();
    add(&office, "acme", &["a.example"]);
    ask(&office, Request::DomainAdd { customer: name("acme"), domain: domain("b.example") })
        .expect("added");
    assert_eq!(customer(&office, "acme").domains, [domain("a.example"), domain("b.example")]);
    put(&office, 1, 60, "t@foo.example", &["l@b.example"], b"x");
    let remove = |owner: Option<&str>, place: &str, discard_mail| Request::DomainRemove {
        customer: owner.map(name),
        domain: domain(place),
        discard_mail,
    };
    refused(ask(&office, remove(None, "b.example", false)), "queued for b.example");
    refused(ask(&office, remove(Some("other"), "a.example", false)), "belongs to customer acme");
    refused(ask(&office, remove(None, "c.example", false)), "no customer's domain");
    ask(&office, remove(Some("acme"), "b.example", true)).expect("removed");
    assert_eq!(customer(&office, "acme").domains, [domain("a.example")]);
    assert!(rows(&office, Select::default()).is_empty());
}

#[test]
fn settings_are_kept_and_silent_ones_say_so() {
    let office = office();
    add(&office, "acme", &["a.example"]);
    let set = |key: &str, value: &str| Request::CustomerSet {
        name: name("acme"),
        key: key.into(),
        value: value.into(),
        lines: None,
    };
    let note = |request| match ask(&office, request).expect("set").0 {
        Done::Changed { note, .. } => note,
        other => panic!("not a change: {other:?}"),
    };
    assert_eq!(note(set("hold-open", "1h")), None);
    assert_eq!(customer(&office, "acme").settings.drain.hold_open, Some(Seconds(3600)));
    for (pending, ..) in restante::app::config::keys::PENDING {
        let value = match *pending {
            "etrn-host" => "mail.a.example:25",
            "etrn-from" => "192.0.2.0/24",
            "etrn-tls" => "required",
            _ => continue,
        };
        assert!(note(set(pending, value)).expect("a note").contains("no effect"), "{pending}");
    }
    refused(ask(&office, set("hold-opn", "1h")), "did you mean");
    let unset = Request::CustomerUnset { name: name("acme"), key: "hold-open".into() };
    ask(&office, unset).expect("unset");
    assert_eq!(customer(&office, "acme").settings.drain.hold_open, None);
}

#[test]
fn queue_rows_by_domain_and_state() {
    let office = office();
    add(&office, "acme", &["a.example", "b.example"]);
    add(&office, "other", &["c.example"]);
    let both = put(
        &office,
        1,
        7200,
        "t@foo.example",
        &["l@a.example", "m@b.example", "n@a.example"],
        b"12345",
    );
    let other = put(&office, 2, 60, "", &["o@c.example"], b"1234567890");
    let all = rows(&office, Select::default());
    let seen: Vec<(&str, usize)> =
        all.iter().map(|row| (row.domain.as_str(), row.forward_paths.len())).collect();
    assert_eq!(seen, [("a.example", 2), ("b.example", 1), ("c.example", 1)]);
    assert_eq!((all[0].id, all[0].size, all[0].age_seconds), (both, 5, 7200));
    assert_eq!(all[0].queued_at, "2026-11-22T01:19:00.000Z");
    assert_eq!(all[0].expires_at, "2026-12-22T01:19:00.000Z");
    assert_eq!(all[2].reverse_path, "");

    settle(
        &office,
        "other",
        "c.example",
        other,
        Outcome::Later(ReplyText::clean("451 4.3.0 later")),
    );
    let deferred = rows(&office, Select { state: Some(State::Deferred), ..Select::default() });
    assert_eq!(deferred.len(), 1);
    assert_eq!((deferred[0].state, deferred[0].attempts), (State::Deferred, 1));
    assert_eq!(deferred[0].forward_paths[0].reply.as_deref(), Some("451 4.3.0 later"));

    let count =
        |filter: Select| match ask(&office, Request::QueueCount { filter }).expect("counted").0 {
            Done::Count { messages } => messages,
            other => panic!("not a count: {other:?}"),
        };
    let select = Select::default;
    assert_eq!(count(Select { customer: Some(name("acme")), ..select() }), 1);
    assert_eq!(count(Select { older: Some(3600), ..select() }), 1);
    assert_eq!(count(Select { newer: Some(3600), ..select() }), 1);
    assert_eq!(count(Select { larger: Some(6), ..select() }), 1);
    assert_eq!(count(Select { sender: Some("<>".into()), ..select() }), 1);
    assert_eq!(count(Select { recipient: Some("M@B".into()), ..select() }), 1);
    assert_eq!(count(Select { older: Some(3600), larger: Some(6), ..select() }), 0);
    assert_eq!(count(Select { ids: vec![both], ..select() }), 1);
}

#[test]
fn held_released_removed() {
    let office = office();
    add(&office, "acme", &["a.example"]);
    let id = put(&office, 1, 60, "t@foo.example", &["l@a.example"], b"x");
    put(&office, 2, 60, "t@foo.example", &["m@a.example"], b"x");
    let only = Select { ids: vec![id], ..Select::default() };
    let act = |filter: &Select, action| {
        let request = Request::QueueApply { filter: filter.clone(), action };
        match ask(&office, request).expect("done").0 {
            Done::Count { messages } => messages,
            other => panic!("not a count: {other:?}"),
        }
    };
    assert_eq!(act(&only, QueueAction::Hold), 1);
    assert_eq!(rows(&office, only.clone())[0].state, State::Held);
    assert_eq!(act(&only, QueueAction::Release), 1);
    assert_eq!(rows(&office, only.clone())[0].state, State::Queued);
    let failed = Select { state: Some(State::Failed), ..Select::default() };
    settle(&office, "acme", "a.example", id, Outcome::Failed(ReplyText::clean("550 no")));
    assert_eq!(rows(&office, failed.clone())[0].id, id);
    assert_eq!(act(&failed, QueueAction::Release), 1);
    assert!(rows(&office, failed).is_empty());
    assert_eq!(act(&only, QueueAction::Remove), 1);
    assert_eq!(rows(&office, Select::default()).len(), 1);
}

#[test]
fn draining_is_what_the_board_says() {
    let office = office();
    add(&office, "acme", &["a.example"]);
    let id = put(&office, 1, 60, "t@foo.example", &["l@a.example"], b"x");
    put(&office, 2, 60, "t@foo.example", &["m@a.example"], b"x");
    let draining = Select { state: Some(State::Draining), ..Select::default() };
    assert!(rows(&office, draining.clone()).is_empty());
    office.board.offered(id);
    let seen = rows(&office, draining.clone());
    assert_eq!((seen.len(), seen[0].id, seen[0].state), (1, id, State::Draining));
    let hold = Request::QueueApply { filter: draining, action: QueueAction::Hold };
    assert_eq!(ask(&office, hold).expect("held").0, Done::Count { messages: 1 });
    office.board.settled(id);
    assert_eq!(rows(&office, Select { ids: vec![id], ..Select::default() })[0].state, State::Held);
}

#[test]
fn a_body_comes_back_octet_by_octet() {
    let office = office();
    add(&office, "acme", &["a.example"]);
    let body: Vec<u8> = (0..=255u8).cycle().take(200_000).collect();
    let id = put(&office, 1, 60, "t@foo.example", &["l@a.example"], &body);
    let (done, items) = ask(&office, Request::QueueShow { id, body: true }).expect("shown");
    let Done::Message(message) = done else { panic!("a message") };
    assert_eq!(message.size, 200_000);
    let mut seen = Vec::new();
    for item in items {
        let text = serde_json::to_string(&item).expect("JSON");
        let Item::Body(chunk) = serde_json::from_str(&text).expect("the same") else {
            panic!("a body")
        };
        seen.extend(chunk);
    }
    assert!(seen == body);
    let nobody = Request::QueueShow { id: QueueId::from_bits(1), body: false };
    refused(ask(&office, nobody), "no message");
}

#[test]
fn status_shows_every_queue_even_empty_ones() {
    let office = office();
    add(&office, "acme", &["a.example", "b.example"]);
    put(&office, 1, 90, "t@foo.example", &["l@a.example"], b"12345");
    let (Done::Status(status), _) = ask(&office, Request::Status).expect("told") else {
        panic!("a status")
    };
    assert!(!status.running);
    let seen: Vec<(&str, u64, u64, u64)> = status
        .queues
        .iter()
        .map(|q| (q.domain.as_str(), q.messages, q.bytes, q.oldest_seconds))
        .collect();
    assert_eq!(seen, [("a.example", 1, 5, 90), ("b.example", 0, 0, 0)]);
}

#[test]
fn what_is_logged_of_a_change_never_holds_a_password() {
    let password = restante::app::admin::Password::new("hunter2".into());
    let requests = [
        Request::CustomerAdd {
            name: name("acme"),
            domains: vec![],
            password: Some(password.clone()),
        },
        Request::CustomerPasswd { name: name("acme"), password: Some(password.clone()) },
        Request::CredentialAdd { name: name("acme"), label: "l".into(), password: Some(password) },
    ];
    for request in requests {
        let logged = request.change().expect("a change");
        assert!(!logged.contains("hunter2"), "{logged}");
        assert!(!format!("{request:?}").contains("hunter2"));
    }
    assert_eq!(Request::Status.change(), None);
    assert_eq!(Request::CustomerList.change(), None);
}
