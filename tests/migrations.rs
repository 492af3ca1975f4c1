//! Stores that earlier programs wrote, opened by the program of today (migrations/README.md).
//!
//! `RESTANTE_MAKE_FIXTURE=FOLDER cargo test --test migrations -- --ignored` writes such a store anew into a new folder; the
//! frozen ones are never written again.

use std::path::{Path, PathBuf};

use futures::executor::block_on;
use restante::mail::*;
use restante::smtp::sasl;
use restante::store::sled::disk::RealDisk;
use restante::store::sled::migrate::{Step, walk};
use restante::store::sled::offline::Offline;
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

fn check(store: &(impl Store + Directory)) {
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
        Err(StoreError::Unready(why)) => {
            assert!(why.contains("layout 2") && why.contains("use a newer program"), "{why}")
        }
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!((list(&place), list(&place.join("spool"))), before);
}

/// Where a step of the tests goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Nowhere,
    /// It answers with an error, having written half.
    FailsIn(u32),
    /// The process ends there, having written half.
    DiesInMake(u32),
    /// The process ends there, having removed half.
    DiesInTidy(u32),
}

/// A step between layouts that exist in this test only: layout N has a file `N.new` with N lines beside all else.
struct Invented {
    from: u32,
    trouble: std::sync::Mutex<Trouble>,
}

impl Invented {
    fn goes(&self, wrong: Trouble) -> bool {
        *self.trouble.lock().expect("whole") == wrong
    }
}

impl Step for Invented {
    fn from(&self) -> u32 {
        self.from
    }
    fn name(&self) -> &str {
        "a step of the tests"
    }
    fn read(&self, folder: &Path) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(Offline::open(folder, false, &mut |_| {})?))
    }
    fn make(&self, folder: &Path) -> std::io::Result<()> {
        assert!(!dumps(folder).is_empty(), "dumped before the first step");
        let to = self.from + 1;
        let file = folder.join(format!("{to}.new"));
        std::fs::write(&file, "half of it")?;
        if self.goes(Trouble::FailsIn(self.from)) {
            return Err(std::io::Error::other("it cannot be done"));
        }
        assert!(!self.goes(Trouble::DiesInMake(self.from)), "the process ends");
        std::fs::write(&file, "line\n".repeat(to as usize))
    }
    fn tidy(&self, folder: &Path) -> std::io::Result<()> {
        for name in [format!("{}.new", self.from), format!("{}.more", self.from)] {
            match std::fs::remove_file(folder.join(name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            assert!(!self.goes(Trouble::DiesInTidy(self.from)), "the process ends");
        }
        Ok(())
    }
}

fn dumps(store: &Path) -> Vec<PathBuf> {
    let beside = std::fs::read_dir(store.parent().expect("a folder")).expect("a folder");
    let paths = beside.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "dump")).collect()
}

/// Layout 1 with what the invented layouts remove, walked to layout 3; answers what `walk` did.
fn walked(place: &Path, trouble: Trouble) -> std::thread::Result<Result<(), StoreError>> {
    let trouble = |from| Invented { from, trouble: std::sync::Mutex::new(trouble) };
    let (first, second) = (trouble(1), trouble(2));
    let steps: [&dyn Step; 2] = [&second, &first];
    let walk = || walk(&RealDisk, place, &steps, 3, &mut |_| {});
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(walk))
}

fn layout_1() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("store");
    copy(&steps().join("0001-first/store"), &place);
    std::fs::write(place.join("1.more"), "old").expect("written");
    (folder, place)
}

fn is_walked(place: &Path, trouble: Trouble) {
    assert_eq!(
        std::fs::read_to_string(place.join("LAYOUT")).expect("there"),
        "restante store layout 3\n",
        "{trouble:?}"
    );
    let there = |name: &str| place.join(name).exists();
    assert!(there("3.new") && !there("2.new") && !there("1.more"), "{trouble:?}");
    assert_eq!(std::fs::read_to_string(place.join("3.new")).expect("there"), "line\n".repeat(3));
    let dumps = dumps(place);
    assert_eq!(dumps.len(), 1, "{trouble:?}: one dump, kept: {dumps:?}");
    let name = dumps[0].file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with("before-layout-3-from-1-start-"), "{name}");
    let (memory, file) = (Memory::new(), std::fs::read(&dumps[0]).expect("readable"));
    let summary = block_on(dump::load(Some((&memory, &memory)), &mut &file[..], &mut |_| {}));
    let summary = summary.expect("a whole dump");
    assert_eq!((summary.customers, summary.messages), (2, 4));
    check(&memory);
}

#[test]
fn an_older_store_is_dumped_and_walked_step_by_step() {
    let (_folder, place) = layout_1();
    walked(&place, Trouble::Nowhere).expect("no panic").expect("walked");
    is_walked(&place, Trouble::Nowhere);
    // It is a store of layout 3 now: nothing more to do, and nothing for the program of today.
    walked(&place, Trouble::FailsIn(1)).expect("no panic").expect("nothing to do");
    assert!(matches!(SledStore::open(&place, Options::default()), Err(StoreError::Unready(_))));
}

#[test]
fn an_interrupted_walk_goes_on_where_it_was() {
    for trouble in [
        Trouble::DiesInMake(1),
        Trouble::DiesInTidy(1),
        Trouble::DiesInMake(2),
        Trouble::DiesInTidy(2),
    ] {
        let (_folder, place) = layout_1();
        assert!(walked(&place, trouble).is_err(), "{trouble:?} was meant to happen");
        walked(&place, Trouble::Nowhere).expect("no panic").expect("walked");
        is_walked(&place, trouble);
    }
}

#[test]
fn a_step_that_fails_leaves_the_older_store_as_it_was() {
    let (_folder, place) = layout_1();
    let Err(StoreError::Unready(why)) = walked(&place, Trouble::FailsIn(1)).expect("no panic")
    else {
        panic!("it failed")
    };
    assert!(why.contains("it cannot be done") && why.contains("nothing is lost"), "{why}");
    let store = SledStore::open(&place, Options::default()).expect("layout 1 still opens");
    check(&store);
    block_on(store.close()).expect("closed");
    drop(store);
    // The older program may have taken mail since: a new dump is made.
    walked(&place, Trouble::Nowhere).expect("no panic").expect("walked");
    assert_eq!(dumps(&place).len(), 2);
}

#[test]
fn a_layout_without_a_way_is_refused() {
    let (_folder, place) = layout_1();
    let none = walk(&RealDisk, &place, &[], 2, &mut |_| {});
    assert!(matches!(none, Err(StoreError::Unready(why)) if why.contains("no way")));
    assert!(dumps(&place).is_empty());
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
