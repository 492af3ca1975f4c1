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
use restante::store::sled::disk::Disk;
use restante::store::{Filter, Options, QueueAction, SledStore, Store, StoreError};
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

// covers: 27
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
    let (mut places, mut struck) = (0, 0);
    for (start, fault) in [Fault::Error, Fault::Short, Fault::Full, Fault::Delay].iter().enumerate()
    {
        // Errors at every call always, the others at every third unless there is time.
        let step = if long() || *fault == Fault::Error { 1 } else { 3 };
        for n in (1 + start as u64 % step..=calls).step_by(step as usize) {
            let when = format!("{fault:?} at call {n} of {calls}");
            let home = folder();
            let disk = MemoryDisk::default();
            let book = Book::default();
            disk.fail_at(n, *fault);
            if let Ok(store) = SledStore::open(home.path(), options(&disk)) {
                work(&store, &book, &mut Dice(7), 4, 0);
                drop(store);
            }
            places += 1;
            // A run in which the keeper is quicker may make a few calls less.
            struck += u64::from(disk.mend());
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
    println!("{places} places in a run of {calls} calls, {struck} faults struck");
    assert!(struck * 10 >= places * 9, "{struck} of {places}");
}

#[test]
fn a_sync_that_fails_is_final() {
    let calls = first_calls();
    let step = if long() { 1 } else { 1 + calls as usize / 20 };
    let mut final_ones = 0;
    for n in (1..=calls).step_by(step) {
        let home = folder();
        let disk = MemoryDisk::default();
        let book = Book::default();
        disk.fail_at(n, Fault::Sync);
        let Ok(store) = SledStore::open(home.path(), options(&disk)) else { continue };
        work(&store, &book, &mut Dice(7), 4, 0);
        let broken = block_on(store.health()).expect("health").broken;
        if disk.mend() && broken.is_some() {
            final_ones += 1;
            // The disk is well again, and is not believed all the same.
            let refused = put_body(&store, two(80_000), b"more");
            assert!(matches!(refused, Err(StoreError::Broken(_))), "call {n}: {refused:?}");
            let drain = block_on(store.lease(request("ax", &["x.example"])));
            assert!(matches!(drain, Err(StoreError::Broken(_))), "call {n}: it still drains");
        }
        drop(store);
        let cut = disk.files().after_power_cut(&mut Dice(n));
        let (home, when) = (folder(), format!("the sync after call {n} of {calls} failed"));
        let store = SledStore::open(home.path(), options(&MemoryDisk::of(cut)));
        let store = store.unwrap_or_else(|e| panic!("{when}: it does not open: {e}"));
        compare(&store, &book.page(), &when);
        assert!(
            put_body(&store, two(80_000), b"more").is_ok(),
            "{when}: opened anew it takes mail"
        );
    }
    assert!(final_ones > 5, "{final_ones} failed syncs broke the store");
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
fn a_rebuild_that_was_cut_off_is_begun_again() {
    let home = folder();
    let disk = MemoryDisk::default();
    let store = SledStore::open(home.path(), options(&disk)).expect("a new store");
    for n in 1..=20 {
        put_body(&store, two(n), &body(n, 20_000)).expect("kept");
    }
    block_on(store.close()).expect("an orderly end");
    drop(store);
    let state = |disk: &MemoryDisk| {
        let octets = Disk::open(disk, &home.path().join("STATE")).expect("there");
        let mut text = vec![0; usize::try_from(octets.len().expect("known")).expect("small")];
        octets.read_at(&mut text, 0).expect("read");
        String::from_utf8_lossy(&text).into_owned()
    };
    let orderly = state(&disk);
    let cut = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        SledStore::open_with(home.path(), options(&disk), true, &mut |_| panic!("cut off"))
            .map(|_| ())
    }));
    assert!(cut.is_err(), "the rebuild told of a step");
    // What the index holds now is a part, and must not pass for what an orderly end left.
    assert_ne!(state(&disk), orderly);
    let store = SledStore::open(home.path(), options(&disk)).expect("opened");
    assert_eq!(block_on(store.query(Filter::default(), None, 100)).expect("listed").len(), 20);
}

/// Reads every message to its end, as `store verify` does beside a provider: how many there were, and the damage
/// that is known then.
fn verify(store: &SledStore) -> (usize, Vec<String>) {
    let heads = block_on(store.query(Filter::default(), None, usize::MAX)).expect("listed");
    for head in &heads {
        let read = read_from(store, head.id, 0);
        assert!(matches!(read, Ok(_) | Err(StoreError::Corrupt(_))), "{read:?}");
    }
    (heads.len(), block_on(store.health()).expect("known").damage)
}

#[test]
fn verify_reads_everything_and_says_what_it_cannot() {
    let home = folder();
    let disk = MemoryDisk::default();
    let store = SledStore::open(home.path(), options(&disk)).expect("a new store");
    for n in 1..=40 {
        put_body(&store, two(n), &body(n, 20_000)).expect("kept");
    }
    assert_eq!(verify(&store), (40, Vec::new()));
    drop(store);
    let mut files = disk.files();
    let path = files.paths().into_iter().find(|p| p.to_string_lossy().contains("seg-"));
    files.damage(&path.expect("a segment"), |octets| octets[100_000] ^= 1);
    let store = SledStore::open(home.path(), options(&MemoryDisk::of(files))).expect("opened");
    let (_, damage) = verify(&store);
    assert!(!damage.is_empty());
    let drain = lease(&store, "ax", &["x.example"]);
    // A commit is answered after what was asked for before it: the setting aside.
    put(&store, 41, &[("a@x.example", "ax")]);
    assert_eq!(page(&store, &drain).len(), 40, "the one that is damaged is not offered");
    let counted = block_on(store.count(&domain("x.example"))).expect("counted");
    assert_eq!((counted.messages, counted.ready), (41, 40), "but it is still counted");
}
