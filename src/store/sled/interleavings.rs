//! The committer, the leases and those who ask them, with a scheduler that chooses at every lock, message and call to
//! the disk who goes on: what no run on real threads comes upon in years.
//!
//! Each run is a store on a disk in memory. Random and priority-changing schedules; a failing one is printed and can
//! be played again. `RESTANTE_LONG=1` tries many more.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread::{spawn, yield_now};

use crate::store::{
    Head, LeaseAnswer, LeaseRequest, Opened, Options, SledStore, Store, StoreError,
};

use super::check::survey;
use super::disk::{Disk, DiskFile};
use super::shared::locked;
use super::support::disk::{Dice, Fault, Files, MemoryDisk};
use super::support::work::*;
use super::support::{Clock, delivered, domain, id, later, name, request};
use super::sync::block_on;

/// A disk before each of whose calls somebody else may go on.
#[derive(Debug)]
struct Interrupted<T>(T);

impl Disk for Interrupted<MemoryDisk> {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.0.make_folder(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        yield_now();
        Ok(Arc::new(Interrupted(self.0.create(path)?)))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        yield_now();
        Ok(Arc::new(Interrupted(self.0.open(path)?)))
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.0.list(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        yield_now();
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        yield_now();
        self.0.remove(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        yield_now();
        self.0.sync_folder(folder)
    }
    fn space(&self, folder: &Path) -> io::Result<(u64, u64)> {
        self.0.space(folder)
    }
}

impl DiskFile for Interrupted<Arc<dyn DiskFile>> {
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
        yield_now();
        self.0.write_at(octets, offset)
    }
    fn read_at(&self, octets: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(octets, offset)
    }
    fn read_at_once(&self, octets: &mut [u8], offset: u64) -> Option<usize> {
        let is_in_memory = thread_rng().gen_range(0..3) > 0;
        is_in_memory.then(|| self.0.read_at(octets, offset).ok()).flatten()
    }
    fn sync(&self) -> io::Result<()> {
        yield_now();
        self.0.sync()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        yield_now();
        self.0.truncate(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

fn explore(runs: usize, test: fn()) {
    let runs = if std::env::var_os("RESTANTE_LONG").is_some() { runs * 40 } else { runs };
    let schedulers: [Box<dyn Scheduler + Send>; 2] = [
        Box::new(RandomScheduler::new_from_seed(1, runs)),
        Box::new(PctScheduler::new_from_seed(2, 4, runs)),
    ];
    for scheduler in schedulers {
        let mut config = shuttle::Config::new();
        config.stack_size = 4 << 20;
        shuttle::Runner::new(scheduler, config).run(test);
    }
}

fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

fn open(home: &Path, disk: &MemoryDisk, clock: &Clock) -> SledStore {
    let options = Options {
        disk: Arc::new(Interrupted(disk.clone())),
        segment_bytes: 200_000,
        cache_bytes: 1 << 20,
        clock: clock.reader(),
        ..Options::default()
    };
    SledStore::open(home, options).unwrap_or_else(|e| panic!("it does not open: {e}"))
}

/// Two senders, a drain, a report, housekeeping; answers what a power cut at some moment leaves, and what had been
/// acknowledged then.
fn live(store: SledStore, disk: &MemoryDisk, book: &Book) -> (Files, Page) {
    let store = Arc::new(store);
    let both = || (store.clone(), book.clone());
    let mut threads = Vec::new();
    let (s, b) = both();
    threads.push(spawn(move || {
        block_on(async {
            keep(&s, &b, 1, 100).await;
            keep(&s, &b, 2, 70_000).await;
            deliver(&s, &b, &[1]).await;
        });
    }));
    let (s, b) = both();
    threads.push(spawn(move || {
        block_on(async {
            keep(&s, &b, 11, 300_000).await;
            keep(&s, &b, 12, 10).await;
            report(&s, &b, 12, 13).await;
            deliver(&s, &b, &[11]).await;
        });
    }));
    let (s, _) = both();
    threads.push(spawn(move || {
        for _ in 0..2 {
            // A broken store says so, and the senders are told.
            let _ = block_on(s.maintain());
        }
    }));
    for _ in 0..thread_rng().gen_range(0..120) {
        yield_now();
    }
    // Nobody goes on between these two.
    let shot = (disk.files(), book.page());
    for thread in threads {
        thread.join().expect("no panic");
    }
    let _ = block_on(store.close());
    shot
}

fn look(files: &Files, page: &Page, when: &str) {
    let (home, disk) = (folder(), MemoryDisk::of(files.clone()));
    let store = open(home.path(), &disk, &Clock::default());
    compare(&store, page, when);
}

/// Messages delivered in all runs.
static ENDED: AtomicUsize = AtomicUsize::new(0);

#[test]
fn whatever_comes_first_nothing_acknowledged_is_lost() {
    explore(25, || {
        let (home, disk, book) = (folder(), MemoryDisk::default(), Book::default());
        let (files, page) = live(open(home.path(), &disk, &Clock::default()), &disk, &book);
        let mut dice = Dice(thread_rng().r#gen());
        look(&files.after_power_cut(&mut dice), &page, "in the middle");
        look(&disk.files().after_power_cut(&mut dice), &book.page(), "in the end");
        assert!(book.page().values().filter(|told| told.kept).count() >= 4, "all were kept");
        let ended = book.page().values().filter(|told| told.ended).count();
        ENDED.fetch_add(ended, Ordering::Relaxed);
    });
    assert!(ENDED.load(Ordering::Relaxed) > 0, "nothing was ever delivered");
}

#[test]
fn whatever_fails_nothing_is_acknowledged_that_is_not_kept() {
    explore(20, || {
        let (home, disk, book) = (folder(), MemoryDisk::default(), Book::default());
        let store = open(home.path(), &disk, &Clock::default());
        let fault = [Fault::Error, Fault::Short, Fault::Full][thread_rng().gen_range(0..3)];
        disk.fail_at(thread_rng().gen_range(1..40), fault);
        let (files, page) = live(store, &disk, &book);
        disk.mend();
        let mut dice = Dice(thread_rng().r#gen());
        look(&files.after_power_cut(&mut dice), &page, "in the middle");
        look(&disk.files().after_power_cut(&mut dice), &book.page(), "in the end");
    });
}

/// Drains the queue as the holder of a lease: marks the message if it is offered. Answers the token, and what was
/// said about the mark.
async fn mark(store: &SledStore, request: LeaseRequest) -> Option<(u64, bool)> {
    let LeaseAnswer::Granted(lease) = store.lease(request).await.expect("answered") else {
        return None;
    };
    match store.next(&lease, None, 10).await {
        Ok(heads) => {
            // Whoever may look must see all that those before him were told is done.
            let attempts: Vec<u32> = heads.iter().map(|head| head.recipients[0].attempts).collect();
            match store.settle(&lease, vec![later(1, 0)]).await {
                Ok(()) => {
                    let again = store.next(&lease, None, 10).await;
                    if let Ok(again) = again {
                        assert_eq!(
                            again[0].recipients[0].attempts,
                            attempts[0] + 1,
                            "somebody else marked it under a lease that was lost"
                        );
                    }
                    Some((lease.token(), true))
                }
                Err(StoreError::LostLease) => Some((lease.token(), false)),
                Err(error) => panic!("{error}"),
            }
        }
        Err(StoreError::LostLease) => Some((lease.token(), false)),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_overthrown_holder_changes_nothing_any_more() {
    explore(600, || {
        let (home, disk, clock) = (folder(), MemoryDisk::default(), Clock::default());
        let store = Arc::new(open(home.path(), &disk, &clock));
        let book = Book::default();
        block_on(keep(&store, &book, 1, 50));
        let wish = || LeaseRequest {
            lasts: Duration::from_secs(600),
            overthrow_after: Duration::from_secs(60),
            ..request("ax", &["x.example"])
        };
        let holders: Vec<_> = (0..3)
            .map(|_| {
                let (store, clock) = (store.clone(), clock.clone());
                spawn(move || {
                    for _ in 0..thread_rng().gen_range(0..60) {
                        yield_now();
                    }
                    // Whoever comes later finds the others without progress.
                    clock.advance(Duration::from_secs(61));
                    block_on(mark(&store, wish()))
                })
            })
            .collect();
        let holders = holders.into_iter().map(|thread| thread.join().expect("no panic"));
        let said: Vec<(u64, bool)> = holders.flatten().collect();
        let marked = said.iter().filter(|(_, done)| *done).count();
        let heads = block_on(store.query(crate::store::Filter::default(), None, 10));
        let heads = heads.expect("a listing");
        assert_eq!(heads[0].id, id(1));
        let first = heads[0].recipients.iter().find(|r| r.owner == name("ax")).expect("it waits");
        assert_eq!(*first.recipient.forward_path.domain(), domain("x.example"));
        assert_eq!(first.attempts as usize, marked, "as many marks as were acknowledged");
        block_on(store.close()).expect("closed");
    });
}

#[test]
fn a_message_that_only_changes_keeps_its_segment() {
    explore(40, || {
        let (home, disk, clock) = (folder(), MemoryDisk::default(), Clock::default());
        let store = Arc::new(open(home.path(), &disk, &clock));
        let book = Book::default();
        // Larger than a segment, so it has one to itself.
        block_on(keep(&store, &book, 1, 300_000));
        let changing = store.clone();
        let drain = spawn(move || {
            block_on(async {
                for _ in 0..3 {
                    let granted = changing.lease(request("ax", &["x.example"])).await;
                    let Ok(LeaseAnswer::Granted(lease)) = granted else { panic!("busy") };
                    changing.settle(&lease, vec![later(1, 0)]).await.expect("settled");
                    changing.release(lease).await.expect("released");
                }
            });
        });
        let kept = store.clone();
        let keeper = spawn(move || (0..6).for_each(|_| block_on(kept.maintain()).expect("a turn")));
        drain.join().expect("no panic");
        keeper.join().expect("no panic");
        let mut reader = block_on(store.open_body(id(1), 0)).expect("its body is there");
        assert!(!block_on(reader.read()).expect("readable").is_empty());
        drop(reader);
        block_on(store.close()).expect("closed");
    });
}

/// Reads pages and bodies of a queue again and again; answers the last page.
async fn leaf_through(store: &SledStore, lease: &crate::mail::Lease, pages: usize) -> Vec<Head> {
    let mut heads = Vec::new();
    for _ in 0..pages {
        heads = store.next(lease, None, 20).await.expect("a page");
        let opened = store.open_bodies(heads.iter().map(|head| head.id).collect()).await;
        // What another drain ends meanwhile is missing, and nothing is worse than that.
        let sound = |one: &Opened| matches!(one, Ok(_) | Err(StoreError::Missing));
        assert!(opened.iter().all(sound), "a body is damaged");
    }
    heads
}

#[test]
fn the_sums_are_those_of_the_index_whoever_reads_meanwhile() {
    explore(60, || {
        let (home, disk, clock) = (folder(), MemoryDisk::default(), Clock::default());
        let store = Arc::new(open(home.path(), &disk, &clock));
        let book = Book::default();
        let come = |first: u64| {
            let (store, book) = (store.clone(), book.clone());
            // So many at once that the index changes beside the sync.
            async move { join_all((first..first + 5).map(|n| keep(&store, &book, n, 10))).await }
        };
        block_on(come(1));
        let more = come(11);
        let sender = spawn(move || drop(block_on(more)));
        let lease = |owner: &str, at: &str| match block_on(store.lease(request(owner, &[at]))) {
            Ok(LeaseAnswer::Granted(lease)) => lease,
            _ => panic!("busy"),
        };
        let (one, other) = (lease("ax", "x.example"), lease("by", "y.example"));
        let (settling, reading) = (store.clone(), store.clone());
        let drain = spawn(move || {
            block_on(async {
                for round in 0..3 {
                    let heads = leaf_through(&settling, &one, 1).await;
                    let number =
                        |head: &Head| (1..20).find(|n| id(*n) == head.id).expect("one of ours");
                    let told = heads.iter().map(number).map(|n| match (n + round) % 3 {
                        0 => delivered(n, 0),
                        _ => later(n, 0),
                    });
                    settling.settle(&one, told.collect()).await.expect("settled");
                }
            });
            one
        });
        let reader = spawn(move || {
            block_on(leaf_through(&reading, &other, 4));
            other
        });
        sender.join().expect("no panic");
        let leases = [drain, reader].map(|thread| thread.join().expect("no panic"));
        let shared = &store.shared;
        let survey = shared.ask(|index| survey(index, &mut |_| {})).expect("read");
        let applied = locked(&shared.applied).clone();
        assert_eq!(
            (survey.entries, survey.digest, Some(survey.ids)),
            (applied.entries, applied.digest, applied.ids)
        );
        for lease in leases {
            // What is at hand is what the index has.
            for head in block_on(leaf_through(&store, &lease, 1)) {
                let entry = shared.ask(|index| index.entry(head.id)).expect("read");
                let (entry, _) = entry.expect("it waits");
                assert_eq!(entry.kept.offer(lease.customer(), lease.domains()), Some(head));
            }
            block_on(store.release(lease)).expect("released");
        }
        block_on(store.close()).expect("closed");
    });
}
