//! Flipped bits, zeroed pages, truncated and missing files, in every file of a store, sled's among them: it opens, says
//! what is damaged, serves the rest, and after an orderly end loses nothing in silence.
//!
//! 120 trials; `RESTANTE_LONG=1` makes it 1,200.

mod store_support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::executor::block_on;
use restante::store::{Directory, Filter, Options, SledStore, Store, StoreError};
use store_support::disk::Dice;
use store_support::work::*;
use store_support::*;

fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

fn options() -> Options {
    Options { segment_bytes: 200_000, cache_bytes: 4 << 20, ..Options::default() }
}

type Octets = BTreeMap<PathBuf, Vec<u8>>;

fn take(folder: &Path, found: &mut Octets) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            take(&path, found);
        } else {
            found.insert(path.clone(), std::fs::read(&path).expect("readable"));
        }
    }
}

fn clear(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { clear(&path) } else { std::fs::remove_file(&path).expect("removed") }
    }
}

/// Puts the files back, into the same folders: for the store it is the same run of the same machine.
fn restore(home: &Path, files: &Octets) {
    clear(home);
    for (path, octets) in files {
        std::fs::create_dir_all(path.parent().expect("below")).expect("a folder");
        std::fs::write(path, octets).expect("written");
    }
}

const CUSTOMERS: [&str; 3] = ["one", "two", "three"];

/// A store with a life behind it: its files while it ran, and after its orderly end.
fn lived(home: &Path) -> (Book, Octets, Octets) {
    let (book, mut running, mut ended) = (Book::default(), Octets::new(), Octets::new());
    let store = SledStore::open(home, options()).expect("a new store");
    work(&store, &book, &mut Dice(11), 14, 0);
    for n in CUSTOMERS {
        block_on(store.create(customer(n, &[&format!("{n}.example")]))).expect("created");
    }
    // What it holds at this moment is what a kill would leave.
    take(home, &mut running);
    block_on(store.close()).expect("closed");
    drop(store);
    take(home, &mut ended);
    (book, running, ended)
}

#[test]
fn damage_is_reported_and_the_rest_is_served() {
    let home = folder();
    let (book, running, ended) = lived(home.path());
    let book = book.page();
    let trials = if std::env::var_os("RESTANTE_LONG").is_some() { 1_200 } else { 120 };
    let mut dice = Dice(99);
    let mut spread: BTreeMap<String, u64> = BTreeMap::new();
    for trial in 0..trials {
        let clean = trial % 2 == 0;
        let mut files = if clean { ended.clone() } else { running.clone() };
        // Each file in turn, each in every way.
        let paths: Vec<PathBuf> = files.keys().cloned().collect();
        let path = &paths[(trial / 2) % paths.len()];
        let kind = dice.below(4);
        let how = ["a bit", "a page of zeros", "the end", "the whole"][kind as usize];
        let octets = files.get_mut(path).expect("there");
        let place = dice.below(octets.len() as u64) as usize;
        match kind {
            0 if !octets.is_empty() => octets[place] ^= 1 << dice.below(8),
            1 => octets.iter_mut().skip(place / 4096 * 4096).take(4096).for_each(|o| *o = 0),
            2 => octets.truncate(place),
            _ => drop(files.remove(path)),
        }
        let short = path.strip_prefix(home.path()).expect("below").display().to_string();
        let when = format!("trial {trial}: {how} of {short} from {place}, clean: {clean}");
        restore(home.path(), &files);
        *spread.entry(short.split(['-', '/']).next().unwrap_or_default().into()).or_default() += 1;
        match SledStore::open(home.path(), options()) {
            Ok(store) => serves_the_rest(&store, &book, &when, clean),
            // What does not say which layout it has, or names another, is not touched; a person can put it right.
            Err(StoreError::Broken(why)) if short == "LAYOUT" => {
                assert!(why.contains("layout") || why.contains("LAYOUT"), "{when}: {why}");
            }
            Err(error) => panic!("{when}: it does not open: {error}"),
        }
    }
    println!("{trials} trials: {spread:?}");
}

/// Every message that must be there is there and whole, or something was reported.
fn serves_the_rest(store: &SledStore, book: &Page, when: &str, clean: bool) {
    let heads = block_on(store.query(Filter::default(), None, usize::MAX)).expect("a listing");
    let (mut lost, mut due) = (Vec::new(), 0);
    for (n, told) in book.iter().filter(|(_, told)| told.kept && !told.ending) {
        due += 1;
        let there = heads.iter().any(|h| h.id == id(*n));
        match read_from(store, id(*n), 0) {
            Ok(octets) if there => assert!(octets == body(*n, told.size), "{when}: body of {n}"),
            Ok(_) => panic!("{when}: {n} is there and is not listed"),
            Err(_) => lost.push(*n),
        }
    }
    assert!(due > 10, "{when}");
    // A commit is answered after what was asked for before it: the setting aside of what could not be read.
    assert!(put_body(store, two(70_000), b"more").is_ok(), "{when}: it takes no mail");
    let damage = block_on(store.health()).expect("health").damage;
    // Nobody can tell a tail that was cut off from one that was never written, unless the end was orderly.
    assert!(lost.is_empty() || !damage.is_empty() || !clean, "{when}: {lost:?} lost in silence");
    assert!(lost.len() <= due / 2, "{when}: {} of {due} lost", lost.len());
    for n in CUSTOMERS {
        let found = block_on(store.customer(&name(n))).expect("asked").is_some();
        assert!(found || !damage.is_empty() || !clean, "{when}: customer {n} lost in silence");
    }
}
