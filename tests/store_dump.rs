//! A dump holds everything as it stood at one moment, loads into any engine, and is refused when it is not whole.

mod store_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::executor::block_on;
use futures::io::Cursor;
use proptest::prelude::*;
use restante::mail::{QueueId, RecipientState};
use restante::store::dump::{DumpError, Summary, dump, load};
use restante::store::sled::Durability;
use restante::store::{
    Directory, Filter, Head, Memory, NewMessage, Options, QueueAction, Report, Settlement,
    SledStore, Store, StoreError, Verdict,
};
use store_support::*;

fn filled(store: &dyn Engine) {
    for n in ["one", "two"] {
        block_on(store.create(customer(n, &[&format!("{n}.example")]))).expect("created");
    }
    let to = [("a@x.example", "ax"), ("b@y.example", "by"), ("c@x.example", "ax")];
    for n in 1..=300 {
        put_body(store, message(n, &to), &body(n, 40 * n as usize)).expect("kept");
    }
    let drain = lease(store, "ax", &["x.example"]);
    let doubt = Settlement { id: id(5), index: 2, verdict: Verdict::InDoubt };
    let settled =
        vec![failed(1, 0), later(2, 0), delivered(3, 0), delivered(3, 2), failed(3, 1), doubt];
    block_on(store.settle(&drain, settled)).expect("settled");
    block_on(store.release(drain)).expect("released");
    let some = Filter { ids: vec![id(4)], recipient: Some("b@".into()), ..Filter::default() };
    block_on(store.apply(some, QueueAction::Hold)).expect("held");
    block_on(store.server_key()).expect("made");
}

fn dumped(store: &dyn Engine) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let mut told = 0;
    let mut snapshot = block_on(store.snapshot()).expect("taken");
    let messages = snapshot.messages();
    let summary = block_on(dump(&mut *snapshot, &mut out, &mut |_| told += 1)).expect("dumped");
    assert_eq!((summary.messages, told), (messages, messages));
    out.into_inner()
}

fn loaded(store: &dyn Engine, octets: &[u8]) -> Result<Summary, DumpError> {
    block_on(load(Some((store, store)), &mut &octets[..], &mut |_| {}))
}

/// The messages with their bodies, the customers, and the server's key.
type Seen = (Vec<(Head, Vec<u8>)>, Vec<String>, [u8; 32]);

/// Everything that can be seen of a store.
fn seen(store: &dyn Engine) -> Seen {
    let heads = block_on(store.query(Filter::default(), None, usize::MAX)).expect("listed");
    let with_body = |head: Head| {
        let body = read_from(store, head.id, 0).expect("read");
        (head, body)
    };
    let customers = block_on(store.customers(None, usize::MAX)).expect("listed");
    let customers = customers.iter().map(|c| format!("{c:?}")).collect();
    let key = block_on(store.server_key()).expect("there");
    (heads.into_iter().map(with_body).collect(), customers, key)
}

fn sled() -> (tempfile::TempDir, SledStore) {
    let home = tempfile::tempdir().expect("a folder");
    // Whether it survives a power cut is asked elsewhere.
    let options = Options { durability: Durability::Relaxed, ..Options::default() };
    let store = SledStore::open(home.path(), options).expect("opened");
    (home, store)
}

#[test]
fn from_engine_to_engine_and_back() {
    let memory = Memory::new();
    filled(&memory);
    let first = dumped(&memory);
    let (_home, sled) = sled();
    let summary = loaded(&sled, &first).expect("loaded");
    assert_eq!(summary.bytes, (1..=300).map(|n| 40 * n).sum::<u64>());
    assert_eq!((summary.customers, summary.messages), (2, 300));
    assert_eq!(seen(&sled), seen(&memory));
    let heads = block_on(sled.query(Filter::default(), None, 5)).expect("listed");
    assert!(matches!(heads[0].recipients[0].state, RecipientState::Failed(_)));
    assert_eq!((heads[1].recipients[0].attempts, heads[4].line_breaks), (1, 1));
    assert!(heads[3].recipients[1].held && heads[2].recipients[0].index == 1);
    assert!(first == dumped(&sled), "a dump does not depend on the engine");
    assert!(matches!(loaded(&sled, &first), Err(DumpError::NotEmpty)));
}

#[test]
fn what_was_loaded_survives_the_end_and_the_loss_of_the_index() {
    let memory = Memory::new();
    filled(&memory);
    let first = dumped(&memory);
    let (home, sled) = sled();
    loaded(&sled, &first).expect("loaded");
    block_on(sled.close()).expect("closed");
    drop(sled);
    let again = SledStore::open_with(home.path(), Options::default(), true, &mut |_| {});
    assert_eq!(seen(&again.expect("opened")), seen(&memory));
}

#[test]
fn what_is_not_whole_is_refused_with_its_place() {
    let memory = Memory::new();
    filled(&memory);
    let whole = dumped(&memory);
    let check = |octets: &[u8]| block_on(load(None, &mut &octets[..], &mut |_| {}));
    assert_eq!(check(&whole).expect("whole").messages, 300);
    let step = whole.len() / 80;
    for place in (0..whole.len()).step_by(step) {
        let Err(DumpError::Damaged { at, .. }) = check(&whole[..place]) else {
            panic!("cut at {place}")
        };
        assert!(at <= place as u64);
        let mut changed = whole.clone();
        changed[place] ^= 4;
        assert!(matches!(check(&changed), Err(DumpError::Damaged { .. })), "changed at {place}");
    }
    let more = [&whole[..], b"Z"].concat();
    let Err(DumpError::Damaged { what, at, .. }) = check(&more) else { panic!("taken") };
    assert_eq!((what.as_str(), at), ("something follows its end", whole.len() as u64));
}

/// Where the frames of a dump begin.
fn frames(dump: &[u8]) -> Vec<usize> {
    let mut places = vec![16];
    while let Some(&place) = places.last().filter(|place| **place < dump.len()) {
        let len = u32::from_be_bytes(dump[place + 1..place + 5].try_into().expect("four"));
        places.push(place + 9 + len as usize);
    }
    places
}

#[test]
fn frames_can_neither_be_left_out_nor_change_places() {
    let memory = Memory::new();
    put_body(&memory, message(1, &[("a@x.example", "ax")]), &body(1, 200_000)).expect("kept");
    put_body(&memory, message(2, &[("a@x.example", "ax")]), &body(2, 10)).expect("kept");
    let whole = dumped(&memory);
    let places = frames(&whole);
    let frame = |n: usize| &whole[places[n]..places[n + 1]];
    let count = places.len() - 1;
    assert!(count > 8);
    let check = |order: &[usize]| {
        let parts: Vec<&[u8]> = order.iter().map(|n| frame(*n)).collect();
        let octets = [&whole[..16], &parts.concat()].concat();
        block_on(load(None, &mut &octets[..], &mut |_| {}))
    };
    check(&(0..count).collect::<Vec<_>>()).expect("whole");
    for n in 0..count - 1 {
        let without: Vec<usize> = (0..count).filter(|m| *m != n).collect();
        assert!(check(&without).is_err(), "without frame {n}");
        let mut swapped: Vec<usize> = (0..count).collect();
        swapped.swap(n, n + 1);
        assert!(check(&swapped).is_err(), "frame {n} behind the next");
    }
}

#[test]
fn a_store_that_is_closed_gives_no_dump() {
    let memory = Memory::new();
    block_on(memory.close()).expect("closed");
    assert!(matches!(block_on(memory.snapshot()), Err(StoreError::Broken(_))));
    let (_home, sled) = sled();
    block_on(sled.close()).expect("closed");
    assert!(matches!(block_on(sled.snapshot()), Err(StoreError::Broken(_))));
}

fn frozen() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dump/first.dump")
}

/// What the frozen dump holds.
fn small() -> Memory {
    let memory = Memory::new();
    block_on(memory.create(customer("one", &["one.example"]))).expect("created");
    put_body(
        &memory,
        message(1, &[("a@x.example", "ax"), ("b@y.example", "by")]),
        b"Subject: 1\r\n\r\n",
    )
    .expect("kept");
    put_body(&memory, message(2, &[("a@x.example", "ax")]), b"").expect("kept");
    let drain = lease(&memory, "ax", &["x.example"]);
    let doubt = Settlement { id: id(2), index: 0, verdict: Verdict::InDoubt };
    block_on(memory.settle(&drain, vec![failed(1, 0), doubt])).expect("settled");
    block_on(memory.release(drain)).expect("released");
    let some = Filter { recipient: Some("b@".into()), ..Filter::default() };
    block_on(memory.apply(some, QueueAction::Hold)).expect("held");
    block_on(memory.take_server_key([9; 32])).expect("taken");
    memory
}

/// Dumps of released programs are kept for years.
#[test]
fn the_first_form_of_dumps_loads_for_ever() {
    let octets = std::fs::read(frozen()).expect("there");
    let memory = Memory::new();
    loaded(&memory, &octets).expect("loaded");
    assert_eq!(seen(&memory), seen(&small()));
}

#[test]
#[ignore = "writes the frozen dump, once"]
fn make_frozen_dump() {
    assert!(!frozen().exists(), "a frozen dump is never written again");
    std::fs::create_dir_all(frozen().parent().expect("a folder")).expect("made");
    std::fs::write(frozen(), dumped(&small())).expect("written");
}

fn later_emptied(store: &dyn Engine) {
    filled(store);
    let before = dumped(store);
    let mut snapshot = block_on(store.snapshot()).expect("taken");
    block_on(store.apply(Filter::default(), QueueAction::Remove)).expect("removed");
    put_body(store, message(500, &[("a@x.example", "ax")]), b"later").expect("kept");
    block_on(store.remove(&name("one"))).expect("removed");
    for _ in 0..3 {
        block_on(store.maintain()).expect("tidied");
    }
    let mut out = Cursor::new(Vec::new());
    block_on(dump(&mut *snapshot, &mut out, &mut |_| {})).expect("dumped");
    assert!(before == out.into_inner(), "what happened since does not show");
    assert_eq!(block_on(store.query(Filter::default(), None, 9)).expect("listed").len(), 1);
}

#[test]
fn a_snapshot_stands_still_in_memory() {
    later_emptied(&Memory::new());
}

#[test]
fn a_snapshot_stands_still_on_disk_and_gives_its_room_back() {
    let home = tempfile::tempdir().expect("a folder");
    let options = Options { segment_bytes: 64 * 1024, ..Options::default() };
    let store = SledStore::open(home.path(), options).expect("opened");
    later_emptied(&store);
    let full = block_on(store.health()).expect("asked").disk_bytes;
    block_on(store.maintain()).expect("tidied");
    let spool = std::fs::read_dir(home.path().join("spool")).expect("there");
    let left = spool
        .filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with("seg-")));
    assert!(
        left.count() <= 2,
        "emptied segments are removed once nobody copies them ({full} octets)"
    );
}

/// What is told of leaves as the report enters, and a dump holds the one or the other, whichever id is greater.
#[test]
fn what_moves_while_it_is_dumped_is_there_once() {
    const COUNT: u64 = 1600;
    let (_home, store) = sled();
    let store = Arc::new(store);
    let old = |n: u64| 10_000 + n;
    // Half of them move to the front, half to the end.
    let new = |n: u64| if n.is_multiple_of(2) { 1 + n } else { 50_000 + n };
    let to = [("a@x.example", "ax")];
    let fill = async {
        let all = (0..COUNT).map(|n| {
            let store = store.clone();
            async move {
                let message = message(old(n), &to);
                let mut writer = store.begin_body(message.id, 0).await.expect("begun");
                writer.write(b"x").await.expect("written");
                store.commit(message, writer).await.expect("kept");
            }
        });
        futures::future::join_all(all).await;
    };
    block_on(fill);
    let drain = lease(&*store, "ax", &["x.example"]);
    let settled = (0..COUNT).map(|n| failed(old(n), 0)).collect();
    block_on(store.settle(&drain, settled)).expect("settled");
    let done = Arc::new(AtomicBool::new(false));
    let mover = {
        let (store, done) = (store.clone(), done.clone());
        std::thread::spawn(move || {
            for n in 0..COUNT {
                let message: NewMessage = message(new(n), &to);
                let filter = Filter { ids: vec![id(old(n))], ..Filter::default() };
                let head = block_on(store.query(filter, None, 1)).expect("listed").remove(0);
                let states = vec![(0, head.recipients[0].state.clone())];
                let mut body = block_on(store.begin_body(message.id, 0)).expect("begun");
                block_on(body.write(b"r")).expect("written");
                let report = Report { message, body };
                assert!(block_on(store.conclude(id(old(n)), states, Some(report))).expect("told"));
            }
            done.store(true, Ordering::SeqCst);
        })
    };
    let (mut between, mut last) = (0, false);
    while !std::mem::replace(&mut last, done.load(Ordering::SeqCst)) {
        let mut snapshot = block_on(store.snapshot()).expect("taken");
        let mut ids: Vec<QueueId> = Vec::new();
        while let Some(message) = block_on(snapshot.next()).expect("read") {
            let mut reader = block_on(snapshot.open_body()).expect("its body is there");
            assert_eq!(block_on(reader.read()).expect("read").len(), 1);
            ids.push(message.id());
        }
        assert_eq!(snapshot.messages(), COUNT);
        assert!(ids.is_sorted());
        let moved = (0..COUNT).filter(|n| {
            let (here, there) =
                (ids.binary_search(&id(old(*n))).is_ok(), ids.binary_search(&id(new(*n))).is_ok());
            assert!(here != there, "message {n}: old {here}, new {there}");
            there
        });
        let moved = moved.collect::<Vec<_>>();
        // One after the other they moved, so what moved is a beginning of the row.
        assert!(moved.iter().copied().eq(0..moved.len() as u64), "not one moment");
        between += usize::from(!moved.is_empty() && moved.len() < COUNT as usize);
    }
    mover.join().expect("it moved all");
    assert!(between > 0, "no snapshot was taken in between");
}

/// One thing that happens to a store.
#[derive(Clone, Debug)]
enum Happening {
    Message { n: u64, to: Vec<usize>, length: usize },
    Settle { n: u64, index: u32, how: u8 },
    Hold { n: u64, release: bool },
    Remove { n: u64, to: usize },
    Customer { n: usize },
}

const PLACES: [(&str, &str); 4] = [
    ("a@x.example", "ax"),
    ("b@x.example", "ax"),
    ("\"o\\@d\"@y.example", "by"),
    ("ü@z.example", "relay"),
];

fn happening() -> impl Strategy<Value = Happening> {
    let n = 1u64..12;
    prop_oneof![
        4 => (n.clone(), proptest::collection::vec(0..PLACES.len(), 1..4), prop_oneof![0..200usize, 60_000..140_000usize])
            .prop_map(|(n, to, length)| Happening::Message { n, to, length }),
        4 => (n.clone(), 0..3u32, 0..5u8).prop_map(|(n, index, how)| Happening::Settle { n, index, how }),
        1 => (n.clone(), any::<bool>()).prop_map(|(n, release)| Happening::Hold { n, release }),
        1 => (n, 0..PLACES.len()).prop_map(|(n, to)| Happening::Remove { n, to }),
        1 => (0..3usize).prop_map(|n| Happening::Customer { n }),
    ]
}

fn happen(store: &dyn Engine, what: &Happening) {
    match what {
        Happening::Message { n, to, length } => {
            let to: Vec<(&str, &str)> = to.iter().map(|place| PLACES[*place]).collect();
            put_body(store, message(*n, &to), &body(*n, *length)).expect("kept");
        }
        Happening::Settle { n, index, how } => {
            for (owner, place) in [("ax", "x.example"), ("by", "y.example"), ("relay", "z.example")]
            {
                let drain = lease(store, owner, &[place]);
                let doubt = Settlement { id: id(*n), index: *index, verdict: Verdict::InDoubt };
                let told = match failed(*n, *index).verdict {
                    Verdict::Said(outcome) => Verdict::Relayed(outcome.reply().clone()),
                    other => other,
                };
                let told = Settlement { id: id(*n), index: *index, verdict: told };
                let one = match how {
                    0 => delivered(*n, *index),
                    1 => later(*n, *index),
                    2 => failed(*n, *index),
                    3 => told,
                    _ => doubt,
                };
                block_on(store.settle(&drain, vec![one])).expect("settled");
                block_on(store.release(drain)).expect("released");
            }
        }
        Happening::Hold { n, release } => {
            let filter = Filter { ids: vec![id(*n)], ..Filter::default() };
            let action = if *release { QueueAction::Release } else { QueueAction::Hold };
            block_on(store.apply(filter, action)).expect("done");
        }
        Happening::Remove { n, to } => {
            let recipient = Some(PLACES[*to].0.to_owned());
            let filter = Filter { ids: vec![id(*n)], recipient, ..Filter::default() };
            block_on(store.apply(filter, QueueAction::Remove)).expect("done");
        }
        Happening::Customer { n } => {
            let who = ["one", "two", "three"][*n];
            let found = block_on(store.customer(&name(who))).expect("asked");
            match found {
                None => {
                    block_on(store.create(customer(who, &[&format!("{who}.example")])))
                        .expect("made");
                }
                Some(known) => {
                    let mut changed = (*known).clone();
                    changed.suspended = !changed.suspended;
                    changed.settings.quota_messages = Some(changed.revision);
                    block_on(store.update(changed)).expect("changed");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn loading_a_dump_gives_the_same_store(happenings in proptest::collection::vec(happening(), 1..40)) {
        let memory = Memory::new();
        let (_one, on_disk) = sled();
        for store in [&memory as &dyn Engine, &on_disk] {
            happenings.iter().for_each(|what| happen(store, what));
        }
        let key = block_on(memory.server_key()).expect("made");
        block_on(on_disk.take_server_key(key)).expect("taken");
        let dump = dumped(&memory);
        prop_assert!(dump == dumped(&on_disk));
        let (_two, second) = sled();
        loaded(&second, &dump).expect("loaded");
        let third = Memory::new();
        loaded(&third, &dump).expect("loaded");
        prop_assert_eq!(seen(&second), seen(&memory));
        prop_assert_eq!(seen(&third), seen(&memory));
        prop_assert!(dump == dumped(&second) && dump == dumped(&third));
    }
}
