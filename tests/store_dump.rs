//! A dump holds everything, loads into any engine, and is refused when it is not whole.

mod store_support;

use futures::executor::block_on;
use futures::io::Cursor;
use restante::mail::RecipientState;
use restante::store::dump::{DumpError, dump, load};
use restante::store::{
    Directory, Filter, Memory, Options, QueueAction, SledStore, Store, StoreError,
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
    let settled = vec![failed(1, 0), later(2, 0), delivered(3, 0), delivered(3, 2), failed(3, 1)];
    block_on(store.settle(&drain, settled)).expect("settled");
    block_on(store.release(drain)).expect("released");
    let some = Filter { ids: vec![id(4)], recipient: Some("b@".into()), ..Filter::default() };
    block_on(store.apply(some, QueueAction::Hold)).expect("held");
}

fn dumped(store: &dyn Engine) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let mut told = 0;
    let summary = block_on(dump(store, store, &mut out, &mut |_| told += 1)).expect("dumped");
    assert_eq!((summary.customers, summary.messages, told), (2, 300, 302));
    out.into_inner()
}

/// Address, state, held, attempts.
type Seen = (String, RecipientState, bool, u32);

fn listing(store: &dyn Engine) -> Vec<(String, Vec<Seen>, u64)> {
    let heads = block_on(store.query(Filter::default(), None, usize::MAX)).expect("listed");
    let heads = heads.into_iter().map(|h| {
        assert!(
            read_from(store, h.id, 0)
                .expect("read")
                .starts_with(&body(h.id.milliseconds() - 1_700_000_000_000, 1))
        );
        let all = h.recipients.into_iter();
        let all = all.map(|r| (r.recipient.forward_path.to_string(), r.state, r.held, r.attempts));
        (h.id.to_string(), all.collect(), h.arrived.0)
    });
    heads.collect()
}

#[test]
fn from_engine_to_engine_and_back() {
    let memory = Memory::new();
    filled(&memory);
    let first = dumped(&memory);
    let home = tempfile::tempdir().expect("a folder");
    let sled = SledStore::open(home.path(), Options::default()).expect("opened");
    let mut from = &first[..];
    let summary = block_on(load(Some((&sled, &sled)), &mut from, &mut |_| {})).expect("loaded");
    assert_eq!(summary.bytes, (1..=300).map(|n| 40 * n).sum::<u64>());
    assert_eq!(listing(&sled), listing(&memory));
    let one = block_on(sled.customer(&name("one"))).expect("asked").expect("there");
    assert_eq!(one, block_on(memory.customer(&name("one"))).expect("asked").expect("there"));
    let second = dumped(&sled);
    assert!(first == second, "a dump does not depend on the engine");
    let again = block_on(load(Some((&sled, &sled)), &mut &first[..], &mut |_| {}));
    assert!(matches!(again, Err(DumpError::NotEmpty)));
}

#[test]
fn what_is_not_whole_is_refused() {
    let memory = Memory::new();
    filled(&memory);
    let whole = dumped(&memory);
    let check = |octets: &[u8]| block_on(load(None, &mut &octets[..], &mut |_| {}));
    assert_eq!(check(&whole).expect("whole").messages, 300);
    let step = whole.len() / 80;
    for place in (0..whole.len()).step_by(step) {
        assert!(matches!(check(&whole[..place]), Err(DumpError::Damaged(_))), "cut at {place}");
        let mut changed = whole.clone();
        changed[place] ^= 4;
        assert!(check(&changed).is_err(), "changed at {place}");
    }
}

#[test]
fn a_store_that_is_closed_gives_no_dump() {
    let memory = Memory::new();
    block_on(memory.close()).expect("closed");
    let mut out = Cursor::new(Vec::new());
    let answer = block_on(dump(&memory, &memory, &mut out, &mut |_| {}));
    assert!(matches!(answer, Err(DumpError::Store(StoreError::Broken(_)))));
}
