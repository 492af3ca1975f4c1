//! Power cuts, failing disks and damage: what was acknowledged is there, and nothing is lost in silence.
//!
//! The disk below spool and journal is in memory and forgets what was never synced. The index is sled's own, on
//! the real file system; after a power cut the store believes nothing of it, so what sled would have left is of
//! no importance. `RESTANTE_LONG=1` runs many more states.

mod store_support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use futures::executor::block_on;
use restante::store::{Directory, Filter, Options, QueueAction, SledStore, Store, StoreError};
use store_support::disk::{Dice, Fault, Files, MemoryDisk};
use store_support::work::*;
use store_support::*;

fn long() -> bool {
    std::env::var_os("RESTANTE_LONG").is_some()
}

fn options(disk: &MemoryDisk) -> Options {
    Options {
        disk: Arc::new(disk.clone()),
        segment_bytes: 300_000,
        cache_bytes: 4 << 20,
        ..Options::default()
    }
}

fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

/// Files and book at the same moment.
type Shot = (Files, BTreeMap<u64, Told>, u64);

fn judge(shots: &Receiver<Shot>, seed: u64) -> u64 {
    let mut states = 0;
    for (files, book, call) in shots {
        let mut dice = Dice(seed ^ (call << 20));
        let when = format!("seed {seed}, after call {call}");
        let home = folder();
        let disk = MemoryDisk::of(files.after_power_cut(&mut dice));
        let store = SledStore::open(home.path(), options(&disk));
        let store = store.unwrap_or_else(|e| panic!("{when}: it does not open: {e}"));
        compare(&store, &book, &when);
        states += 1;
        if dice.one_in(3) {
            // What was recovered is as good as any other store: it takes mail and survives the next cut.
            let more = Book::default();
            block_on(keep(&store, &more, 90_000, 5_000));
            let cut = disk.files().after_power_cut(&mut dice);
            drop(store);
            let mut book = book;
            book.extend(more.page());
            assert!(book[&90_000].kept, "{when}: it takes no mail");
            let home = folder();
            let store = SledStore::open(home.path(), options(&MemoryDisk::of(cut)));
            let store = store.unwrap_or_else(|e| panic!("{when}, again: it does not open: {e}"));
            compare(&store, &book, &format!("{when}, again"));
            states += 1;
        }
    }
    states
}

/// Plays a run, cuts the power at about `wanted` places in it, and looks.
fn power_cuts(folder_of: &MemoryDisk, seed: u64, wanted: u64) -> u64 {
    let home = folder();
    let disk = folder_of.clone();
    let book = Book::default();
    let (shots, taken): (SyncSender<Shot>, _) = sync_channel(4);
    let judge = std::thread::spawn(move || judge(&taken, seed));
    let store = SledStore::open(home.path(), options(&disk)).expect("a new store");
    let mut dice = Dice(seed);
    let mut choice = Dice(!seed);
    let seen = book.clone();
    let mut calls = 0;
    disk.watch(move |files| {
        calls += 1;
        if choice.one_in(6) {
            let book = seen.page();
            match shots.try_send((files.clone(), book, calls)) {
                Ok(()) | Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => panic!("a state was not right"),
            }
        }
    });
    work(&store, &book, &mut dice, 8 + wanted / 4, 0);
    disk.unwatch();
    let states = judge.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    drop(store);
    states
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    let wanted = if long() { 1_200 } else { 60 };
    let mut states = 0;
    for seed in 1..200 {
        if states >= wanted {
            break;
        }
        states += power_cuts(&MemoryDisk::default(), seed, 60);
    }
    println!("{states} states after a power cut");
    assert!(states >= wanted, "{states}");
}

fn first_calls() -> u64 {
    let home = folder();
    let disk = MemoryDisk::default();
    let store = SledStore::open(home.path(), options(&disk)).expect("a new store");
    work(&store, &Book::default(), &mut Dice(7), 4, 0);
    drop(store);
    disk.calls()
}

#[test]
fn no_failing_call_makes_a_false_promise() {
    let calls = first_calls();
    let step = if long() { 1 } else { 1 + calls as usize / 40 };
    for fault in [Fault::Error, Fault::Short, Fault::Full] {
        for n in (1..=calls).step_by(step) {
            let when = format!("{fault:?} at call {n} of {calls}");
            let home = folder();
            let disk = MemoryDisk::default();
            let book = Book::default();
            disk.fail_at(n, fault);
            if let Ok(store) = SledStore::open(home.path(), options(&disk)) {
                work(&store, &book, &mut Dice(7), 4, 0);
                drop(store);
            }
            disk.mend();
            let cut = disk.files().after_power_cut(&mut Dice(n));
            for (how, home, disk) in [
                ("the process ended", home, disk),
                ("the power was cut", folder(), MemoryDisk::of(cut)),
            ] {
                let when = format!("{when}, then {how}");
                let store = SledStore::open(home.path(), options(&disk));
                let store = store.unwrap_or_else(|e| panic!("{when}: it does not open: {e}"));
                compare(&store, &book.page(), &when);
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_mail_and_goes_on_draining() {
    let home = folder();
    let disk = MemoryDisk::default();
    disk.set_room(4 << 20);
    let store = SledStore::open(home.path(), options(&disk)).expect("a new store");
    let book = Book::default();
    for round in 0..3 {
        let mut refused = false;
        for n in 1..=2_000 {
            let n = round * 10_000 + n;
            let sent = put_body(&store, two(n), &body(n, 30_000));
            match sent {
                Ok(()) => book.note(n, |told| (told.kept, told.size) = (true, 30_000)),
                Err(StoreError::Full(_)) => {
                    refused = true;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(refused, "it was never full");
        compare(&store, &book.page(), "full");
        let all: Vec<u64> = book.page().keys().copied().collect();
        block_on(deliver(&store, &book, &all));
        assert!(book.page().values().all(|told| told.ended), "draining stopped");
        compare(&store, &book.page(), "drained");
        // Empty segments go in the background or with the next turn.
        block_on(store.maintain()).expect("a turn");
        put_body(&store, two(90_000 + round), &body(1, 3_000)).expect("room again");
        let one = Filter { ids: vec![id(90_000 + round)], ..Filter::default() };
        block_on(store.apply(one, QueueAction::Remove)).expect("removed");
    }
}

#[test]
fn damage_is_reported_and_the_rest_is_served() {
    let home = folder();
    let disk = MemoryDisk::default();
    let book = Book::default();
    let store = SledStore::open(home.path(), options(&disk)).expect("a new store");
    work(&store, &book, &mut Dice(11), 14, 0);
    for n in ["one", "two", "three"] {
        block_on(store.create(customer(n, &[&format!("{n}.example")]))).expect("created");
    }
    let clean_is_better = disk.files();
    block_on(store.close()).expect("closed");
    let ended = disk.files();
    drop(store);
    let trials = if long() { 600 } else { 40 };
    let mut dice = Dice(99);
    for trial in 0..trials {
        let mut files = if trial % 2 == 0 { ended.clone() } else { clean_is_better.clone() };
        let paths: Vec<_> = files.paths().into_iter().filter(|p| !p.ends_with("LAYOUT")).collect();
        let path = paths[dice.below(paths.len() as u64) as usize].clone();
        let kind = dice.below(4);
        let how = ["a bit", "a page of zeros", "the end", "the file"][kind as usize];
        if kind == 3 {
            files.lose(&path);
        } else {
            files.damage(&path, |octets| {
                let place = dice.below(octets.len() as u64) as usize;
                match kind {
                    0 if !octets.is_empty() => octets[place] ^= 1 << dice.below(8),
                    1 => {
                        octets.iter_mut().skip(place / 4096 * 4096).take(4096).for_each(|o| *o = 0)
                    }
                    _ => octets.truncate(place),
                }
            });
        }
        let when = format!("trial {trial}: {how} of {}", path.display());
        let home = folder();
        let store = SledStore::open(home.path(), options(&MemoryDisk::of(files)));
        let store = store.unwrap_or_else(|e| panic!("{when}: it does not open: {e}"));
        let damage = block_on(store.health()).expect("health").damage;
        serves_the_rest(&store, &book.page(), &damage, &when, trial % 2 == 0);
    }
}

/// Every message that must be there is there and whole, or something was reported.
fn serves_the_rest(store: &SledStore, book: &Page, damage: &[String], when: &str, clean: bool) {
    let heads = block_on(store.query(Filter::default(), None, usize::MAX)).expect("a listing");
    let (mut lost, mut due) = (0, 0);
    for (n, told) in book.iter().filter(|(_, told)| told.kept && !told.ending) {
        due += 1;
        let there = heads.iter().any(|h| h.id == id(*n));
        match read_from(store, id(*n), 0) {
            Ok(octets) if there => assert!(octets == body(*n, told.size), "{when}: body of {n}"),
            Ok(_) => panic!("{when}: {n} is there and is not listed"),
            Err(_) => lost += 1,
        }
    }
    assert!(due > 10, "{when}");
    // Nobody can tell a tail that was cut off from one that was never written, unless the end was orderly.
    assert!(lost == 0 || !damage.is_empty() || !clean, "{when}: {lost} lost in silence");
    for n in ["one", "two", "three"] {
        let found = block_on(store.customer(&name(n))).expect("asked").is_some();
        assert!(found || !damage.is_empty() || !clean, "{when}: customer {n} lost in silence");
    }
    assert!(put_body(store, two(70_000), b"more").is_ok(), "{when}: it takes no mail");
}

/// What the process does that is killed: it takes and delivers mail and says so, line by line.
#[test]
fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os("RESTANTE_KILLED_IN") else { return };
    let first: u64 = std::env::var("RESTANTE_KILLED_FROM").expect("set").parse().expect("a number");
    let options = Options { segment_bytes: 2 << 20, cache_bytes: 8 << 20, ..Options::default() };
    let store = SledStore::open(Path::new(&folder), options).expect("opened");
    println!();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for turn in 0..100_000 {
                    let n = first + turn * 4 + worker;
                    let size = if n.is_multiple_of(50) { 300_000 } else { 2_000 };
                    put_body(store, two(n), &body(n, size)).expect("kept");
                    println!("kept {n} {size}");
                    if n % 8 < 4 && turn > 3 {
                        let old = n - 12;
                        let Ok(restante::store::LeaseAnswer::Granted(drain)) =
                            block_on(store.lease(request("ax", &["x.example"])))
                        else {
                            continue;
                        };
                        println!("ending {old}");
                        let gone = vec![delivered(old, 0)];
                        block_on(store.settle(&drain, gone)).expect("settled");
                        println!("ended {old}");
                        block_on(store.release(drain)).expect("released");
                    }
                    if turn.is_multiple_of(40) {
                        block_on(store.maintain()).expect("a turn");
                    }
                }
            });
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    use std::io::BufRead;
    let rounds = if long() { 100 } else { 8 };
    let home = tempfile::tempdir().expect("a folder");
    let mut dice = Dice(5);
    let mut kept: BTreeMap<u64, usize> = BTreeMap::new();
    let (mut ending, mut ended) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut child = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "the_process_that_is_killed", "--nocapture"])
            .env("RESTANTE_KILLED_IN", home.path())
            .env("RESTANTE_KILLED_FROM", (round * 1_000_000).to_string())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a child");
        let mut lines = std::io::BufReader::new(child.stdout.take().expect("piped")).lines();
        let many = 1 + dice.below(600);
        let mut said = 0;
        while let Some(Ok(line)) = lines.next() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["kept", n, size] => {
                    kept.insert(n.parse().expect("n"), size.parse().expect("a size"));
                }
                ["ending", n] => ending.push(n.parse::<u64>().expect("n")),
                ["ended", n] => ended.push(n.parse::<u64>().expect("n")),
                _ => continue,
            }
            said += 1;
            if said == many {
                // Lines that are on their way are read to the end: they were said before the kill.
                child.kill().expect("killed");
            }
        }
        child.wait().expect("ended");
        assert!(said >= many, "round {round}: the child ended by itself");
        let store = SledStore::open(home.path(), Options::default());
        let store = store.unwrap_or_else(|e| panic!("round {round}: it does not open: {e}"));
        let damage = block_on(store.health()).expect("health").damage;
        assert_eq!(damage, Vec::<String>::new(), "round {round}");
        let heads = block_on(store.query(Filter::default(), None, usize::MAX)).expect("a listing");
        let there: BTreeMap<_, _> = heads.iter().map(|h| (h.id, h.recipients.len())).collect();
        for (n, size) in &kept {
            let left = there.get(&id(*n)).copied();
            let at_least = if ending.contains(n) { 1 } else { 2 };
            let at_most = if ended.contains(n) { 1 } else { 2 };
            let left = left.unwrap_or_else(|| panic!("round {round}: message {n} was lost"));
            assert!((at_least..=at_most).contains(&left), "round {round}: {n} has {left}");
            assert!(
                *n < round * 1_000_000
                    || read_from(&store, id(*n), 0).is_ok_and(|o| o == body(*n, *size))
            );
        }
    }
    assert!(kept.len() > 20 && !ended.is_empty());
}

#[test]
fn verify_reads_everything_and_says_what_it_cannot() {
    let home = folder();
    let disk = MemoryDisk::default();
    let store = SledStore::open(home.path(), options(&disk)).expect("a new store");
    for n in 1..=40 {
        put_body(&store, two(n), &body(n, 20_000)).expect("kept");
    }
    let mut steps = 0;
    assert_eq!(store.verify(&mut |_| steps += 1).expect("verified"), Vec::<String>::new());
    assert_eq!(steps, 40);
    drop(store);
    let mut files = disk.files();
    let path = files.paths().into_iter().find(|p| p.to_string_lossy().contains("seg-"));
    files.damage(&path.expect("a segment"), |octets| octets[100_000] ^= 1);
    let store = SledStore::open(home.path(), options(&MemoryDisk::of(files))).expect("opened");
    let damage = store.verify(&mut |_| {}).expect("verified");
    assert!(!damage.is_empty());
    let drain = lease(&store, "ax", &["x.example"]);
    // A commit is answered after what was asked for before it: the setting aside.
    put(&store, 41, &[("a@x.example", "ax")]);
    assert_eq!(page(&store, &drain).len(), 40, "the one that is damaged is not offered");
    let counted = block_on(store.count(&domain("x.example"))).expect("counted");
    assert_eq!((counted.messages, counted.ready), (41, 40), "but it is still counted");
}
