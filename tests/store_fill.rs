//! A store that is being loaded is nobody's store before it is whole; and a store read without opening it.

mod store_support;

use std::path::Path;

use futures::executor::block_on;
use futures::io::Cursor;
use restante::store::dump::{PartFile, dump, load};
use restante::store::sled::offline::Offline;
use restante::store::{
    Directory, Filter, Memory, Options, QueueAction, SledStore, Snapshot, Store, StoreError,
};
use store_support::*;

fn a_dump() -> Vec<u8> {
    let memory = Memory::new();
    block_on(memory.create(customer("one", &["one.example"]))).expect("created");
    for n in 1..=20 {
        put(&memory, n, &[("a@one.example", "one")]);
    }
    dumped(&mut *block_on(memory.snapshot()).expect("taken"))
}

fn dumped(snapshot: &mut dyn Snapshot) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    block_on(dump(snapshot, &mut out, &mut |_| {})).expect("dumped");
    out.into_inner()
}

fn fill(folder: &Path, octets: &[u8]) -> bool {
    let store = SledStore::open_to_fill(folder, Options::default()).expect("opened");
    let store = store.expect("empty");
    if block_on(load(Some((&store, &store)), &mut &octets[..], &mut |_| {})).is_err() {
        return false;
    }
    store.filled().expect("whole");
    true
}

fn unready(folder: &Path) -> String {
    match SledStore::open(folder, Options::default()) {
        Err(StoreError::Unready(why)) => why,
        other => panic!("opened: {other:?}"),
    }
}

#[test]
fn half_loaded_is_not_a_store_and_can_be_loaded_again() {
    let octets = a_dump();
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("store");
    // A damaged dump, then one that ends in the middle, as an interruption would have it.
    let mut damaged = octets.clone();
    let place = octets.len() * 2 / 3;
    damaged[place] ^= 1;
    for bad in [&damaged[..], &octets[..octets.len() / 2]] {
        assert!(!fill(&folder, bad));
        let why = unready(&folder);
        assert!(why.contains("half loaded") && why.contains("restante load"), "{why}");
    }
    assert!(fill(&folder, &octets));
    let store = SledStore::open(&folder, Options::default()).expect("a store like any other");
    assert!(dumped(&mut *block_on(store.snapshot()).expect("taken")) == octets);
}

#[test]
fn a_store_with_anything_in_it_is_not_filled_and_not_touched() {
    let home = tempfile::tempdir().expect("a folder");
    for kind in ["mail", "customer"] {
        let folder = home.path().join(kind);
        let store = SledStore::open(&folder, Options::default()).expect("opened");
        match kind {
            "mail" => put(&store, 1, &[("a@x.example", "ax")]),
            _ => block_on(store.create(customer("one", &["one.example"]))).expect("created"),
        }
        block_on(store.close()).expect("closed");
        drop(store);
        let refused = SledStore::open_to_fill(&folder, Options::default()).expect("looked at");
        assert!(refused.is_none(), "{kind}");
        SledStore::open(&folder, Options::default()).expect("as before");
    }
    // One that was used and is empty now is as good as new.
    let folder = home.path().join("used");
    let store = SledStore::open(&folder, Options::default()).expect("opened");
    put(&store, 1, &[("a@x.example", "ax")]);
    block_on(store.apply(Filter::default(), QueueAction::Remove)).expect("removed");
    drop(store);
    assert!(fill(&folder, &a_dump()));
}

fn files(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let octets = std::fs::read(&path).expect("readable");
            found.push((path, octets));
        }
    }
    found.sort();
    found
}

#[test]
fn read_without_opening_it_is_the_same_store_and_nothing_changes() {
    let home = tempfile::tempdir().expect("a folder");
    let options = Options { segment_bytes: 16 * 1024, ..Options::default() };
    let store = SledStore::open(home.path(), options).expect("opened");
    block_on(store.create(customer("one", &["one.example"]))).expect("created");
    block_on(store.server_key()).expect("made");
    for n in 1..=60 {
        put_body(
            &store,
            message(n, &[("a@x.example", "ax"), ("b@y.example", "by")]),
            &body(n, 900),
        )
        .expect("kept");
    }
    let drain = lease(&store, "ax", &["x.example"]);
    let settled =
        (1..=60).map(|n| if n % 5 == 0 { later(n, 0) } else { delivered(n, 0) }).collect();
    block_on(store.settle(&drain, settled)).expect("settled");
    let mostly = Filter { ids: (1..=50).map(id).collect(), ..Filter::default() };
    block_on(
        store.apply(Filter { domain: Some(domain("y.example")), ..mostly }, QueueAction::Remove),
    )
    .expect("removed");
    // So that some records are copies.
    assert!(block_on(store.compact(&mut |_| {})).expect("compacted") > 0);
    let wanted = dumped(&mut *block_on(store.snapshot()).expect("taken"));
    block_on(store.close()).expect("closed");
    drop(store);
    let before = files(home.path());
    let mut offline = Offline::open(home.path(), true, &mut |_| {}).expect("read");
    assert_eq!((offline.damage(), offline.messages()), (&[][..], 20));
    assert!(dumped(&mut offline) == wanted);
    assert!(files(home.path()) == before);
}

#[test]
fn damage_is_found_without_opening_it() {
    let home = tempfile::tempdir().expect("a folder");
    let store = SledStore::open(home.path(), Options::default()).expect("opened");
    for n in 1..=10 {
        put(&store, n, &[("a@x.example", "ax")]);
    }
    drop(store);
    let segment = files(&home.path().join("spool"))
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "spool"));
    let (path, mut octets) = segment.expect("a segment");
    let place = octets.len() / 2;
    octets[place] ^= 0x10;
    std::fs::write(&path, octets).expect("written");
    let offline = Offline::open(home.path(), true, &mut |_| {}).expect("read");
    assert_eq!(offline.damage().len(), 1, "{:?}", offline.damage());
    std::fs::remove_file(&path).expect("removed");
    let offline = Offline::open(home.path(), true, &mut |_| {}).expect("read");
    assert!(offline.damage()[0].contains("is missing"), "{:?}", offline.damage());
}

#[test]
fn a_file_is_there_whole_or_not_at_all() {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("a.dump");
    let mut file = PartFile::create(&path).expect("begun");
    file.write_all(b"first").expect("written");
    assert!(PartFile::create(&path).is_err(), "two write one file");
    file.finish().expect("whole");
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    let mut file = PartFile::create(&path).expect("begun");
    file.write_all(b"second").expect("written");
    drop(file);
    assert_eq!(std::fs::read(&path).expect("there"), b"first");
    assert_eq!(
        std::fs::read_dir(home.path()).expect("a folder").count(),
        1,
        "nothing is left over"
    );
}
