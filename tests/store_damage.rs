//! Flipped bits, zeroed pages, truncated and missing files, in every file of a store, sled's among them: it opens, says
//! what is damaged, serves the rest, and after an orderly end loses nothing in silence.
//!
//! 120 trials; `RESTANTE_LONG=1` makes it 1,200.

mod store_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use futures::executor::block_on;
use restante::store::{Directory, Filter, Options, QueueAction, SledStore, Store, StoreError};
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

/// All files as they are now.
fn taken(home: &Path) -> Octets {
    let mut files = Octets::new();
    take(home, &mut files);
    files
}

/// Leaves what a kill would leave, and answers what that is.
fn kill(store: SledStore, home: &Path) -> Octets {
    let files = taken(home);
    drop(store);
    restore(home, &files);
    files
}

/// A message that is there before the first checkpoint and after the last one.
const ALWAYS_THERE: u64 = 1;

/// A store with a life behind it, after which its process was killed; and what the world was told.
fn killed(home: &Path, seed: u64) -> Page {
    let book = Book::default();
    let store = SledStore::open(home, options()).expect("a new store");
    let mut dice = Dice(seed);
    block_on(keep(&store, &book, ALWAYS_THERE, 100));
    let mut last = 10_000;
    for _ in 0..2 + dice.below(4) {
        let rounds = 1 + dice.below(9);
        work(&store, &book, &mut dice, rounds, last);
        last += 10_000;
        // A checkpoint among other things.
        block_on(store.maintain()).expect("a turn");
    }
    let rounds = dice.below(6);
    work(&store, &book, &mut dice, rounds, last);
    kill(store, home);
    mark(home);
    book.page()
}

/// Whoever makes the index again removes this first.
fn mark(home: &Path) {
    index(home).insert(b"~", b"believed").expect("put in");
}

fn is_believed(home: &Path) -> bool {
    index(home).contains_key(b"~").expect("looked up")
}

#[test]
fn after_a_kill_the_index_is_believed_and_holds_what_it_should() {
    let lives = if std::env::var_os("RESTANTE_LONG").is_some() { 600 } else { 40 };
    let mut believed = 0;
    for seed in 1..=lives {
        let home = folder();
        let book = killed(home.path(), seed);
        let store = SledStore::open(home.path(), options()).expect("opened");
        serves_the_rest(&store, &book, &format!("life {seed}"), true);
        let damage = block_on(store.health()).expect("health").damage;
        assert_eq!(damage, Vec::<String>::new(), "life {seed}");
        drop(store);
        believed += u64::from(is_believed(home.path()));
    }
    // sled may write while its files are copied.
    assert!(believed * 10 >= lives * 8, "{believed} of {lives}");
}

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Makes the index hold these messages and customers and nothing else of them.
fn put_in(home: &Path, pairs: &Pairs) {
    let sled = index(home);
    for key in sled.iter().keys().map(|key| key.expect("read")) {
        if matches!(key[0], b'M' | b'U') && !pairs.contains_key(&*key) {
            sled.remove(key).expect("taken out");
        }
    }
    for (key, value) in pairs {
        sled.insert(key, value.as_slice()).expect("put in");
    }
}

/// Does something with a copy of the files, in a folder of its own.
fn restore_elsewhere<T>(files: &Octets, home: &Path, work: impl FnOnce(&Path) -> T) -> T {
    let elsewhere = folder();
    let there = |path: &Path| elsewhere.path().join(path.strip_prefix(home).expect("below"));
    restore(elsewhere.path(), &files.iter().map(|(p, o)| (there(p), o.clone())).collect());
    work(elsewhere.path())
}

/// What the index holds of messages and customers, by its keys.
fn held(home: &Path) -> Pairs {
    let pairs = index(home).iter().map(|pair| pair.expect("read"));
    let pairs = pairs.map(|(key, value)| (key.to_vec(), value.to_vec()));
    pairs.filter(|(key, _)| matches!(key[0], b'M' | b'U')).collect()
}

/// One of a message's two recipients is delivered: a group of its own.
fn half(store: &SledStore, book: &Book, who: (&str, &str, u32), numbers: &[u64]) {
    numbers.iter().for_each(|n| book.note(*n, |told| told.ending = true));
    let drain = lease(store, who.0, &[who.1]);
    let said = numbers.iter().map(|n| delivered(*n, who.2)).collect();
    block_on(store.settle(&drain, said)).expect("settled");
    block_on(store.release(drain)).expect("released");
}

#[test]
fn a_group_of_changes_of_which_the_index_has_a_part_is_mended_after_a_kill() {
    const AX: (&str, &str, u32) = ("ax", "x.example", 0);
    const BY: (&str, &str, u32) = ("by", "y.example", 1);
    let (home, book) = (folder(), Book::default());
    let store = SledStore::open(home.path(), options()).expect("a new store");
    for n in 1..=6 {
        block_on(keep(&store, &book, n, 3000));
    }
    block_on(store.create(customer("gone", &["gone.example"]))).expect("created");
    block_on(store.maintain()).expect("a checkpoint");
    let checkpoint = taken(home.path());
    restore_elsewhere(&checkpoint, home.path(), |elsewhere| {
        assert_eq!(held(elsewhere).len(), 7, "the checkpoint has all that was before it");
    });

    let hold = |action| {
        let some = Filter { recipient: Some("b@".into()), ..Filter::default() };
        block_on(store.apply(some, action)).expect("applied");
    };
    let steps: [&dyn Fn(); 13] = [
        &|| half(&store, &book, AX, &[1, 2]),
        &|| half(&store, &book, BY, &[1, 2]),
        &|| block_on(report(&store, &book, 3, 20)),
        &|| block_on(keep(&store, &book, 7, 3000)),
        &|| block_on(keep(&store, &book, 8, 3000)),
        &|| hold(QueueAction::Hold),
        &|| block_on(report(&store, &book, 4, 21)),
        &|| hold(QueueAction::Release),
        &|| half(&store, &book, AX, &[8]),
        &|| half(&store, &book, BY, &[8]),
        &|| block_on(store.create(customer("come", &["come.example"]))).expect("created"),
        &|| block_on(store.remove(&name("gone"))).expect("removed"),
        &|| block_on(keep(&store, &book, 9, 3000)),
    ];
    // How the index stood behind each step: elsewhere it is made again from spool, journal and log.
    let stood: Vec<Pairs> = steps
        .iter()
        .map(|step| {
            step();
            restore_elsewhere(&taken(home.path()), home.path(), |elsewhere| {
                let store = SledStore::open(elsewhere, options()).expect("opened");
                let damage = block_on(store.health()).expect("health").damage;
                assert_eq!(damage, Vec::<String>::new());
                drop(store);
                held(elsewhere)
            })
        })
        .collect();
    [1, 2, 8].iter().for_each(|n| book.note(*n, |told| told.ended = true));
    let (mut killed, book) = (kill(store, home.path()), book.page());
    // The spool and the journal of the end, with the index of the checkpoint.
    let of_index = |path: &PathBuf| path.starts_with(home.path().join("index"));
    killed.retain(|path, _| !of_index(path));
    killed.extend(checkpoint.into_iter().filter(|(path, _)| of_index(path)));

    restore(home.path(), &killed);
    let (mut at, now, mut parts) = (held(home.path()), &stood[stood.len() - 1], 0);
    for next in &stood {
        let keys: BTreeSet<Vec<u8>> = at.keys().chain(next.keys()).cloned().collect();
        let changed: Vec<_> = keys.iter().filter(|key| at.get(*key) != next.get(*key)).collect();
        // Any part of it, and all of it.
        for part in 1..1 << changed.len() {
            let mut there = at.clone();
            for (_, key) in changed.iter().enumerate().filter(|(n, _)| part >> n & 1 == 1) {
                match next.get(*key) {
                    Some(value) => drop(there.insert((*key).clone(), value.clone())),
                    None => drop(there.remove(*key)),
                }
            }
            parts += 1;
            restore(home.path(), &killed);
            put_in(home.path(), &there);
            mark(home.path());
            let when = format!("part {parts}");
            let store = SledStore::open(home.path(), options()).expect("opened");
            compare(&store, &book, &when);
            let damage = block_on(store.health()).expect("health").damage;
            assert_eq!(damage, Vec::<String>::new(), "{when}");
            drop(store);
            assert!(is_believed(home.path()), "{when}: what is in it was enough");
            assert!(held(home.path()) == *now, "{when}: what it holds now");
        }
        at.clone_from(next);
    }
    assert!(parts > 25, "{parts}");
}

#[test]
fn customers_that_the_log_lost_are_found_in_the_index_and_stay() {
    for (how, clean) in [("empty", true), ("cut", true), ("cut", false), ("torn", false)] {
        let home = folder();
        let store = SledStore::open(home.path(), options()).expect("a new store");
        let log = home.path().join("directory.log");
        block_on(store.create(customer("one", &["one.example"]))).expect("created");
        let before = std::fs::metadata(&log).expect("there").len();
        block_on(store.create(customer("two", &["two.example"]))).expect("created");
        block_on(store.maintain()).expect("a checkpoint");
        if clean {
            block_on(store.close()).expect("closed");
            drop(store);
        } else {
            kill(store, home.path());
        }
        let octets = std::fs::read(&log).expect("read");
        let end = match how {
            "empty" => 0,
            "cut" => before as usize,
            _ => octets.len() - 3,
        };
        if !clean {
            mark(home.path());
        }
        std::fs::write(&log, &octets[..end]).expect("written");
        for life in 0..3 {
            let store = SledStore::open(home.path(), options()).expect("opened");
            for there in ["one", "two"] {
                let found = block_on(store.customer(&name(there))).expect("asked");
                assert!(found.is_some(), "{how}, clean: {clean}, life {life}: {there}");
            }
            let damage = block_on(store.health()).expect("health").damage;
            assert_eq!(damage.len(), 1, "{how}, clean: {clean}, life {life}: {damage:?}");
            assert!(damage[0].contains("found in the index"), "{damage:?}");
            let aside = std::fs::read(home.path().join("directory.log.damaged")).expect("kept");
            assert!(aside == octets[..end], "{how}: what was found is kept aside");
            block_on(store.close()).expect("closed");
            drop(store);
            assert!(clean || is_believed(home.path()), "{how}: the index was not made again");
        }
    }
}

#[test]
fn a_domain_has_one_owner_whatever_log_is_put_back() {
    let home = folder();
    let store = SledStore::open(home.path(), options()).expect("a new store");
    let log = home.path().join("directory.log");
    block_on(store.create(customer("first", &["moves.example"]))).expect("created");
    let older = std::fs::read(&log).expect("read");
    block_on(store.remove(&name("first"))).expect("removed");
    block_on(store.create(customer("second", &["moves.example"]))).expect("created");
    block_on(store.close()).expect("closed");
    drop(store);
    std::fs::write(&log, &older).expect("put back");
    for life in 0..2 {
        let store = SledStore::open(home.path(), options()).expect("opened");
        let there = |at| block_on(store.customer(&name(at))).expect("asked").is_some();
        assert_eq!((there("first"), there("second")), (true, false), "life {life}");
        let damage = block_on(store.health()).expect("health").damage;
        let told = damage.iter().filter(|line| line.contains("customer second")).count();
        assert_eq!(told, 1, "life {life}: {damage:?}");
        block_on(store.close()).expect("closed");
    }
}

#[test]
fn a_lesson_outlives_a_kill_though_no_mail_moved_since() {
    let home = folder();
    let store = SledStore::open(home.path(), options()).expect("a new store");
    put(&store, 1, &[("a@x.example", "ax")]);
    block_on(store.maintain()).expect("a checkpoint");
    let [slow, pressing] = ["slow", "pressing"].map(|at| (name(at), "a lesson".to_owned()));
    block_on(store.learn(&slow.0, Some(slow.1.clone()), false)).expect("learnt");
    block_on(store.maintain()).expect("a turn");
    block_on(store.learn(&pressing.0, Some(pressing.1.clone()), true)).expect("learnt");
    kill(store, home.path());
    let store = SledStore::open(home.path(), options()).expect("opened");
    assert_eq!(block_on(store.learnt()).expect("lessons"), [pressing, slow]);
}

#[test]
fn a_damaged_body_among_several_is_set_aside_alone() {
    // Not in memory: of files there the system does not say what is at hand.
    let home = tempfile::tempdir().expect("a folder");
    let store = SledStore::open(home.path(), options()).expect("a new store");
    for n in 1..=4 {
        put_body(&store, message(n, &[("a@x.example", "ax")]), &body(n, 3000)).expect("kept");
    }
    let spool = home.path().join("spool");
    let mut segments = std::fs::read_dir(&spool).expect("a folder").map(|e| e.expect("one").path());
    let (path, octets) = segments
        .find_map(|path| {
            let octets = std::fs::read(&path).expect("read");
            Some((path, memchr::memmem::find(&octets, &body(3, 3000))?))
        })
        .expect("it is somewhere");
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("opened");
    std::os::unix::fs::FileExt::write_all_at(&file, b"!", octets as u64 + 1500).expect("damaged");
    // Its segment is open now, and what is in memory is not waited for.
    read_from(&store, id(1), 0).expect("read");
    for turn in 0..2 {
        let opened = block_on(store.open_bodies([1, 2, 3, 4].map(id).to_vec()));
        let is_sound: Vec<bool> = opened.iter().map(Result::is_ok).collect();
        assert_eq!(is_sound, [true, true, false, true], "turn {turn}");
        assert!(matches!(opened[2], Err(StoreError::Corrupt(of)) if of == id(3)));
    }
    // Whatever was asked for before is done when this is.
    put(&store, 5, &[("a@x.example", "ax")]);
    let drain = lease(&store, "ax", &["x.example"]);
    let page = block_on(store.next(&drain, None, 10)).expect("a page");
    assert_eq!(page.iter().map(|head| head.id).collect::<Vec<_>>(), [1, 2, 4, 5].map(id));
    let damage = block_on(store.health()).expect("health").damage;
    assert_eq!(damage.len(), 1, "{damage:?}");
}

/// Opens it; everything must be as the book says. Answers whether the index was made again for that.
fn is_made_again(home: &Path, book: &Page, when: &str) -> bool {
    let store = SledStore::open(home, options()).expect("opened");
    let damage = block_on(store.health()).expect("health").damage;
    let gone: Vec<&u64> = book.iter().filter(|(_, told)| told.ended).map(|(n, _)| n).collect();
    for head in block_on(store.query(Filter::default(), None, usize::MAX)).expect("a listing") {
        assert!(!gone.iter().any(|n| id(**n) == head.id), "{when}: {} is back", head.id);
    }
    for (n, told) in book.iter().filter(|(_, told)| told.kept && !told.ending) {
        let octets = read_from(&store, id(*n), 0).unwrap_or_else(|e| panic!("{when}: {n}: {e}"));
        assert!(octets == body(*n, told.size), "{when}: body of {n}");
    }
    damage.iter().any(|line| line.contains("made again"))
}

#[test]
fn a_message_that_the_index_forgot_is_noticed_after_a_kill() {
    let mut noticed = 0;
    for seed in 100..112 {
        let home = folder();
        let book = killed(home.path(), seed);
        let gone = index(home.path()).remove(key(ALWAYS_THERE)).expect("removed");
        if gone.is_none() {
            // sled wrote while its files were copied.
            continue;
        }
        noticed += u64::from(is_made_again(home.path(), &book, &format!("life {seed}")));
    }
    // What was copied elsewhere since the checkpoint is read from the spool in any case.
    assert!(noticed >= 8, "{noticed}");
}

#[test]
fn a_message_that_the_index_would_not_let_go_is_noticed_after_a_kill() {
    let mut noticed = 0;
    for seed in 200..212 {
        let home = folder();
        killed(home.path(), seed);
        let Some(value) = index(home.path()).get(key(ALWAYS_THERE)).expect("read") else {
            continue;
        };
        let store = SledStore::open(home.path(), options()).expect("opened");
        let book = Book::default();
        book.note(ALWAYS_THERE, |told| told.kept = true);
        block_on(deliver(&store, &book, &[ALWAYS_THERE]));
        for n in 90_000..90_003 {
            block_on(store.maintain()).expect("a turn");
            block_on(keep(&store, &book, n, 10));
        }
        kill(store, home.path());
        let before = index(home.path()).insert(key(ALWAYS_THERE), value).expect("put back");
        let is_noticed = is_made_again(home.path(), &book.page(), &format!("life {seed}"));
        noticed += u64::from(before.is_none() && is_noticed);
    }
    assert!(noticed >= 8, "{noticed}");
}

/// The key of message `n` in the index.
fn key(n: u64) -> Vec<u8> {
    [&b"M"[..], &id(n).to_bits().to_be_bytes()].concat()
}

const CUSTOMERS: [&str; 3] = ["one", "two", "three"];

/// A store with a life behind it: its files while it ran, and after its orderly end.
fn lived(home: &Path) -> (Book, Octets, Octets) {
    let book = Book::default();
    let store = SledStore::open(home, options()).expect("a new store");
    work(&store, &book, &mut Dice(11), 14, 0);
    for n in CUSTOMERS {
        block_on(store.create(customer(n, &[&format!("{n}.example")]))).expect("created");
    }
    // What it holds at this moment is what a kill would leave.
    let running = taken(home);
    block_on(store.close()).expect("closed");
    drop(store);
    (book, running, taken(home))
}

// covers: 28
#[test]
fn damage_is_reported_and_the_rest_is_served() {
    let home = folder();
    let (book, running, ended) = lived(home.path());
    let book = book.page();
    assert!(book.values().filter(|told| told.kept && !told.ending).count() > 10);
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
            Ok(store) => {
                serves_the_rest(&store, &book, &when, clean);
                knows_its_customers(&store, &when, clean);
            }
            // What does not say which layout it has, or names another, is not touched; a person can put it right.
            Err(StoreError::Broken(why) | StoreError::Unready(why)) if short == "LAYOUT" => {
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
    // A commit is answered after what was asked for before it: the setting aside of what could not be read.
    assert!(put_body(store, two(70_000), b"more").is_ok(), "{when}: it takes no mail");
    let damage = block_on(store.health()).expect("health").damage;
    // Nobody can tell a tail that was cut off from one that was never written, unless the end was orderly.
    assert!(lost.is_empty() || !damage.is_empty() || !clean, "{when}: {lost:?} lost in silence");
    assert!(lost.len() <= due / 2, "{when}: {} of {due} lost", lost.len());
}

/// Every customer is there, or something was reported.
fn knows_its_customers(store: &SledStore, when: &str, clean: bool) {
    let damage = block_on(store.health()).expect("health").damage;
    for n in CUSTOMERS {
        let found = block_on(store.customer(&name(n))).expect("asked").is_some();
        assert!(found || !damage.is_empty() || !clean, "{when}: customer {n} lost in silence");
    }
}

#[test]
fn the_number_of_a_segment_is_given_once() {
    let home = folder();
    let store = SledStore::open(home.path(), options()).expect("a new store");
    put(&store, 1, &[("a@x.example", "ax")]);
    // A body that goes to the spool as it comes, and never ends.
    let mut writer = block_on(store.begin_body(id(2), 0)).expect("begun");
    block_on(writer.write(&body(2, 400_000))).expect("taken");
    block_on(writer.write(&body(2, 400_000))).expect("taken");
    block_on(store.close()).expect("closed");
    drop((writer, store));
    let store = SledStore::open(home.path(), options()).expect("opened");
    put_body(&store, message(3, &[("a@x.example", "ax")]), &body(3, 400_000)).expect("kept");
    put_body(&store, message(4, &[("a@x.example", "ax")]), &body(4, 400_000)).expect("kept");
    drop(store);
    let names = std::fs::read_dir(home.path().join("spool")).expect("a folder");
    let names =
        names.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    let mut numbers: Vec<String> = names
        .filter(|name| name.starts_with("seg-"))
        .map(|name| name.split('-').nth(1).expect("a number").to_owned())
        .collect();
    numbers.sort();
    let all = numbers.clone();
    numbers.dedup();
    assert_eq!(numbers, all);
}

#[test]
fn an_index_that_is_let_go_late_is_no_damage() {
    let home = folder();
    let (store, book) = (SledStore::open(home.path(), options()).expect("opens"), Book::default());
    block_on(keep(&store, &book, 1, 100));
    block_on(store.close()).expect("closed");
    drop(store);
    // As if threads of the index that was closed were still at work.
    let held = index(home.path());
    let folder = home.path().to_owned();
    let opening = std::thread::spawn(move || SledStore::open(&folder, options()));
    std::thread::sleep(std::time::Duration::from_millis(200));
    drop(held);
    let store = opening.join().expect("no panic").expect("opens");
    assert_eq!(block_on(store.health()).expect("health").damage, Vec::<String>::new());
    compare(&store, &book.page(), "after a wait");
}
