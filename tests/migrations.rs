//! Stores that earlier programs wrote, opened by the program of today (migrations/README.md).
//!
//! `RESTANTE_MAKE_FIXTURE=FOLDER cargo test --test migrations -- --ignored` writes such a store anew into a new folder; the
//! frozen ones are never written again.

use std::path::{Path, PathBuf};

use futures::executor::block_on;
use restante::mail::*;
use restante::smtp::sasl;
use restante::store::*;

fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("valid")
}

fn name(text: &str) -> CustomerName {
    CustomerName::parse(text).expect("valid")
}

fn customer(who: &str, domains: &[&str]) -> Customer {
    let (scram, cram) = sasl::derive(&Secret::from("fixture"), vec![7; 16], 4096).expect("derived");
    Customer {
        name: name(who),
        domains: domains.iter().map(|text| domain(text)).collect(),
        suspended: false,
        credentials: vec![Credential { label: "".into(), scram, cram, created: Timestamp(1) }],
        settings: Settings { quota_messages: Some(1000), ..Settings::default() },
        created: Timestamp(1),
        revision: 0,
    }
}

fn content(number: u128) -> Vec<u8> {
    format!("Subject: {number}\r\n\r\nGrüße\r\n.\r\n").repeat(number as usize * 100).into_bytes()
}

fn put(store: &dyn Store, number: u128, to: &[(&str, &str)]) {
    let id = QueueId::at(1_700_000_000_000 + number as u64, number);
    let content = content(number);
    let recipients = to
        .iter()
        .map(|(path, _)| Recipient {
            forward_path: ForwardPath::parse(path).expect("valid"),
            notify: Some(Notify { success: true, failure: true, delay: false }),
            orcpt: Some("rfc822;other+2B@example.com".into()),
        })
        .collect();
    let message = NewMessage {
        id,
        envelope: Envelope {
            reverse_path: ReversePath::parse("t@foo.example").expect("valid"),
            recipients,
            body: BodyKind::EightBitMime,
            smtputf8: false,
            dsn: DsnRequest { envid: Some("QQ314159".into()), ret: Some(Ret::Headers) },
        },
        owners: to.iter().map(|(_, owner)| name(owner)).collect(),
        facts: ContentFacts {
            size: content.len() as u64,
            has_8bit_body: true,
            ..Default::default()
        },
        arrived: Timestamp(1_700_000_000_000 + number as u64),
        expires: to.iter().map(|_| Timestamp(4_000_000_000_000)).collect(),
    };
    block_on(async {
        let mut body = store.begin_body(id, 0).await.expect("a body");
        body.write(&content).await.expect("written");
        store.commit(message, body).await.expect("durable");
    });
}

/// What every frozen store holds.
fn fill(store: &SledStore) {
    block_on(store.create(customer("acme", &["acme.example", "acme.org"]))).expect("created");
    block_on(store.create(customer("other", &["other.example"]))).expect("created");
    put(
        store,
        1,
        &[("a@acme.example", "acme"), ("b@acme.org", "acme"), ("c@other.example", "other")],
    );
    put(store, 2, &[("later@acme.example", "acme")]);
    put(store, 3, &[("never@acme.example", "acme")]);
    put(store, 4, &[("gone@acme.example", "acme")]);
    put(store, 5, &[("held@other.example", "other")]);
    let request = LeaseRequest {
        customer: name("acme"),
        domains: vec![domain("acme.example")],
        owner: "the fixture".into(),
        lasts: std::time::Duration::from_secs(60),
        overthrow_after: std::time::Duration::from_secs(60),
    };
    let LeaseAnswer::Granted(lease) = block_on(store.lease(request)).expect("asked") else {
        panic!("nobody else drains")
    };
    let verdict = |number: u128, outcome: Outcome| Settlement {
        id: QueueId::at(1_700_000_000_000 + number as u64, number),
        index: 0,
        verdict: Verdict::Said(outcome),
    };
    let settlements = vec![
        verdict(2, Outcome::Later(ReplyText::clean("450 4.2.0 later"))),
        verdict(3, Outcome::Failed(ReplyText::clean("550 5.1.1 never"))),
        verdict(4, Outcome::Delivered(ReplyText::clean("250 2.0.0 taken"))),
    ];
    block_on(store.settle(&lease, settlements)).expect("settled");
    block_on(store.release(lease)).expect("released");
    let held = Filter { recipient: Some("held@".into()), ..Filter::default() };
    assert_eq!(block_on(store.apply(held, QueueAction::Hold)).expect("held"), 1);
}

fn check(store: &SledStore) {
    let health = block_on(store.health()).expect("an answer");
    assert_eq!((health.broken, health.damage), (None, vec![]));
    let heads = block_on(store.query(Filter::default(), None, 100)).expect("a listing");
    let numbers: Vec<u128> = heads.iter().map(|head| head.id.to_bits() & 0xffff).collect();
    assert_eq!(numbers, [1, 2, 3, 5]);
    for head in &heads {
        let mut reader = block_on(store.open_body(head.id, 0)).expect("a body");
        let mut whole = Vec::new();
        loop {
            let part = block_on(reader.read()).expect("sound");
            if part.is_empty() {
                break;
            }
            whole.extend(part);
        }
        assert_eq!(whole, content(head.id.to_bits() & 0xffff), "{}", head.id);
        assert_eq!(head.envelope.dsn.envid.as_deref(), Some("QQ314159"));
        assert_eq!(head.envelope.body, BodyKind::EightBitMime);
        assert!(head.recipients.iter().all(|one| one.recipient.notify.is_some_and(|n| n.success)));
    }
    assert_eq!(heads[0].recipients.len(), 3);
    assert!(
        matches!(&heads[1].recipients[0].state, RecipientState::Deferred(reply) if reply.as_str() == "450 4.2.0 later")
    );
    assert!(
        matches!(&heads[2].recipients[0].state, RecipientState::Failed(reply) if reply.as_str() == "550 5.1.1 never")
    );
    assert!(heads[3].recipients[0].held);
    let acme = block_on(store.customer(&name("acme"))).expect("asked").expect("there");
    let wanted = customer("acme", &["acme.example", "acme.org"]);
    assert_eq!(
        (&acme.domains, &acme.credentials, &acme.settings),
        (&wanted.domains, &wanted.credentials, &wanted.settings)
    );
    let count = block_on(store.count(&domain("acme.example"))).expect("counted");
    assert_eq!((count.messages, count.failed), (2, 1));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let place = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), place).expect("copied");
        }
    }
}

fn steps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")
}

#[test]
fn every_frozen_store_opens_and_holds_what_it_held() {
    let mut seen = 0;
    for entry in std::fs::read_dir(steps()).expect("the steps") {
        let frozen = entry.expect("an entry").path().join("store");
        if !frozen.is_dir() {
            continue;
        }
        seen += 1;
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("store");
        copy(&frozen, &place);
        for _ in 0..2 {
            let store = SledStore::open(&place, Options::default()).expect("opened");
            check(&store);
            block_on(store.close()).expect("closed");
        }
    }
    assert!(seen >= 1, "no frozen store was found");
}

#[test]
fn a_newer_store_is_refused_and_not_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("store");
    copy(&steps().join("0001-first/store"), &place);
    std::fs::write(place.join("LAYOUT"), "restante store layout 2\n").expect("written");
    let list = |folder: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .filter(|name| name != "LOCK")
            .collect();
        names.sort();
        names
    };
    let before = (list(&place), list(&place.join("spool")));
    match SledStore::open(&place, Options::default()) {
        Err(StoreError::Broken(why)) => {
            assert!(why.contains("newer") || why.contains("layout 2"), "{why}")
        }
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!((list(&place), list(&place.join("spool"))), before);
}

#[test]
#[ignore = "writes a new frozen store"]
fn make_fixture() {
    let Some(folder) = std::env::var_os("RESTANTE_MAKE_FIXTURE").map(PathBuf::from) else {
        panic!("RESTANTE_MAKE_FIXTURE names the new folder")
    };
    assert!(!folder.exists(), "a frozen store is never written again");
    let work = tempfile::tempdir().expect("a folder");
    let store = SledStore::open(work.path(), Options::default()).expect("opened");
    fill(&store);
    check(&store);
    block_on(store.close()).expect("closed");
    std::fs::create_dir_all(&folder).expect("a folder");
    for part in ["LAYOUT", "EPOCH", "directory.log"] {
        std::fs::copy(work.path().join(part), folder.join(part)).expect("copied");
    }
    copy(&work.path().join("spool"), &folder.join("spool"));
}
