//! Random sequences of all calls of the store against a simple model of what the traits promise, over both engines;
//! over the one on disk with power cuts in the middle of calls that forget what was never synced.
//!
//! The model knows nothing of the engines: it is written from the words of the traits. `RESTANTE_LONG=1` runs many
//! more sequences.

#[path = "store_model/model.rs"]
mod model;
mod store_support;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::executor::block_on;
use model::{Model, Seen, Wish, recipients};
use proptest::prelude::*;
use restante::mail::{Lease, QueueId, RecipientState, Timestamp};
use restante::store::{
    Filter, LeaseAnswer, LeaseRequest, Memory, Options, QueueAction, Report, SledStore, StoreError,
};
use store_support::disk::{Dice, Files, MemoryDisk};
use store_support::*;

/// Messages are numbered below this; reports above.
const NUMBERS: u64 = 9;
const SIZES: [usize; 5] = [0, 10, 3_000, 66_000, 290_000];

/// A step of a sequence. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Commit a message; an id may come again.
    Commit {
        n: u64,
        to: u8,
        size: usize,
    },
    /// Begin a body and drop it.
    Abort {
        n: u64,
        size: usize,
    },
    Lease {
        customer: usize,
        domains: u8,
    },
    Renew {
        lease: usize,
    },
    Release {
        lease: usize,
    },
    /// Time goes on for the leases.
    Wait {
        seconds: u64,
    },
    /// Page through a drain.
    Next {
        lease: usize,
        limit: usize,
    },
    Read {
        n: u64,
        offset: usize,
    },
    Settle {
        lease: usize,
        what: Vec<(u64, u32, Wish)>,
    },
    Conclude {
        n: u64,
        over: u8,
        report: Option<(u8, usize)>,
    },
    Apply {
        filter: usize,
        action: QueueAction,
    },
    Ask {
        filter: usize,
        limit: usize,
    },
    Overdue {
        hours: u64,
        limit: usize,
    },
    Maintain,
    /// End in order and open again.
    Reopen,
    /// The power goes at some call to the disk during the next step, or after it.
    Cut {
        after: u64,
        seed: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = || 0..NUMBERS;
    let verdict = prop_oneof![
        3 => Just(Wish::Delivered), 1 => Just(Wish::Later), 1 => Just(Wish::Failed), 1 => Just(Wish::Relayed),
        2 => Just(Wish::InDoubt),
    ];
    let action =
        prop_oneof![Just(QueueAction::Hold), Just(QueueAction::Release), Just(QueueAction::Remove)];
    let report = proptest::option::of((1u8..16, 0..SIZES.len()));
    let step = prop_oneof![
        6 => (n(), 1u8..64, 0..SIZES.len()).prop_map(|(n, to, size)| Step::Commit { n, to, size }),
        1 => (n(), 0..SIZES.len()).prop_map(|(n, size)| Step::Abort { n, size }),
        4 => (0..2usize, 1u8..8).prop_map(|(customer, domains)| Step::Lease { customer, domains }),
        1 => (0..4usize).prop_map(|lease| Step::Renew { lease }),
        1 => (0..4usize).prop_map(|lease| Step::Release { lease }),
        1 => (1..500u64).prop_map(|seconds| Step::Wait { seconds }),
        3 => (0..4usize, 1..4usize).prop_map(|(lease, limit)| Step::Next { lease, limit }),
        1 => (n(), 0..70_000usize).prop_map(|(n, offset)| Step::Read { n, offset }),
        5 => (0..4usize, proptest::collection::vec((n(), 0..6u32, verdict), 1..8))
            .prop_map(|(lease, what)| Step::Settle { lease, what }),
        3 => (n(), 1u8..64, report).prop_map(|(n, over, report)| Step::Conclude { n, over, report }),
        2 => (0..8usize, action).prop_map(|(filter, action)| Step::Apply { filter, action }),
        1 => (0..8usize, 1..5usize).prop_map(|(filter, limit)| Step::Ask { filter, limit }),
        1 => (0..8u64, 1..5usize).prop_map(|(hours, limit)| Step::Overdue { hours, limit }),
        1 => Just(Step::Maintain),
        1 => Just(Step::Reopen),
        2 => (0..14u64, any::<u64>()).prop_map(|(after, seed)| Step::Cut { after, seed }),
    ];
    proptest::collection::vec(step, 1..40)
}

const DOMAINS: [&str; 3] = ["x.example", "y.example", "z.example"];
const CUSTOMERS: [&str; 2] = ["ax", "by"];

/// The recipients that the bits name: each address in one of three domains, z.example shared by both customers.
fn addressees(bits: u8) -> Vec<(&'static str, &'static str)> {
    let all = [
        ("a@x.example", "ax"),
        ("b@y.example", "by"),
        ("c@x.example", "ax"),
        ("d@z.example", "ax"),
        ("e@z.example", "by"),
        ("f@y.example", "ax"),
    ];
    let chosen = all.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0);
    chosen.map(|(_, pair)| *pair).collect()
}

fn filter(which: usize) -> Filter {
    let all = Filter::default();
    match which {
        0 => all,
        1 => Filter { ids: vec![id(1), id(4), id(7)], ..all },
        2 => Filter { customer: Some(name("ax")), ..all },
        3 => Filter { domain: Some(domain("z.example")), ..all },
        4 => Filter { recipient: Some("B@".into()), ..all },
        5 => Filter { larger: Some(3_000), ..all },
        6 => Filter { customer: Some(name("by")), domain: Some(domain("y.example")), ..all },
        _ => Filter { before: Some(arrived(5)), since: Some(arrived(2)), ..all },
    }
}

/// A message whose recipients end at different hours.
fn sent(n: u64, to: u8) -> restante::store::NewMessage {
    let mut sent = message(n, &addressees(to));
    for (expires, hour) in sent.expires.iter_mut().zip(1..) {
        *expires = Timestamp(hour * 3_600_000);
    }
    sent
}

fn request_for(customer: usize, bits: u8) -> LeaseRequest {
    let domains = DOMAINS.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0);
    LeaseRequest {
        customer: name(CUSTOMERS[customer]),
        domains: domains.map(|(_, text)| domain(text)).collect(),
        owner: format!("session of {}", CUSTOMERS[customer]),
        lasts: Duration::from_secs(600),
        overthrow_after: Duration::from_secs(300),
    }
}

type World = Arc<Mutex<Option<Files>>>;

/// What an engine is asked, and how it is opened again.
struct Play {
    store: Box<dyn Engine>,
    /// The disk below, if it is one that can lose its power.
    disk: Option<(MemoryDisk, tempfile::TempDir)>,
    clock: Clock,
    model: Model,
    leases: Vec<Arc<Lease>>,
    reports: u64,
}

fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

fn on_disk(disk: &MemoryDisk, home: &Path, clock: &Clock) -> Box<dyn Engine> {
    let options = Options {
        disk: Arc::new(disk.clone()),
        segment_bytes: 200_000,
        cache_bytes: 2 << 20,
        clock: clock.reader(),
        ..Options::default()
    };
    Box::new(SledStore::open(home, options).unwrap_or_else(|e| panic!("it does not open: {e}")))
}

impl Play {
    fn in_memory() -> Self {
        let clock = Clock::default();
        let store: Box<dyn Engine> = Box::new(Memory::with_clock(clock.reader()));
        Self { store, disk: None, clock, model: Model::default(), leases: Vec::new(), reports: 0 }
    }

    fn on_disk() -> Self {
        let (disk, home, clock) = (MemoryDisk::default(), folder(), Clock::default());
        let store = on_disk(&disk, home.path(), &clock);
        let disk = Some((disk, home));
        Self { store, disk, clock, model: Model::default(), leases: Vec::new(), reports: 0 }
    }

    fn play(&mut self, steps: Vec<Step>) {
        let mut steps = steps.into_iter();
        while let Some(step) = steps.next() {
            match step {
                Step::Cut { after, seed } => {
                    let next = steps.next().filter(|next| !matches!(next, Step::Cut { .. }));
                    self.cut(next, after, seed);
                }
                step => self.step(&step),
            }
            self.compare();
        }
    }

    fn lease(&self, which: usize) -> Option<Arc<Lease>> {
        self.leases.len().checked_sub(1).map(|last| self.leases[which.min(last)].clone())
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Commit { n, to, size } => {
                put_body(&*self.store, sent(*n, *to), &body(*n, SIZES[*size])).expect("kept");
                self.model.commit(&sent(*n, *to), *n, SIZES[*size]);
            }
            Step::Abort { n, size } => {
                let mut writer = block_on(self.store.begin_body(id(*n), 0)).expect("a writer");
                block_on(writer.write(&body(*n, SIZES[*size]))).expect("taken");
            }
            Step::Lease { customer, domains } => {
                let request = request_for(*customer, *domains);
                let free = self.model.acquire(&request);
                match block_on(self.store.lease(request)).expect("answered") {
                    LeaseAnswer::Granted(lease) => {
                        assert!(free, "granted although it is held");
                        self.model.granted(&lease);
                        self.leases.insert(0, Arc::new(lease));
                        self.leases.truncate(4);
                    }
                    LeaseAnswer::Busy { .. } => assert!(!free, "busy although it is free"),
                }
            }
            Step::Renew { lease } => {
                let Some(lease) = self.lease(*lease) else { return };
                let renewed = block_on(self.store.renew(&lease));
                assert_eq!(renewed.is_ok(), self.model.renew(lease.token()));
            }
            Step::Release { lease } => {
                if *lease < self.leases.len() {
                    let lease = Arc::into_inner(self.leases.remove(*lease)).expect("only here");
                    self.model.release(lease.token());
                    block_on(self.store.release(lease)).expect("released");
                }
            }
            Step::Wait { seconds } => {
                self.clock.advance(Duration::from_secs(*seconds));
                self.model.now += Duration::from_secs(*seconds);
            }
            Step::Next { lease, limit } => self.next(*lease, *limit),
            Step::Read { n, offset } => self.read(id(*n), *n, *offset),
            Step::Settle { lease, what } => {
                let Some(lease) = self.lease(*lease) else { return };
                let settlements = what.iter().map(|(n, index, wish)| wish.about(*n, *index));
                let settled = block_on(self.store.settle(&lease, settlements.collect()));
                let held = self.model.progress(lease.token());
                match settled {
                    Ok(()) => assert!(held, "settled under a lost lease"),
                    Err(StoreError::LostLease) => assert!(!held, "the lease was not lost"),
                    Err(error) => panic!("{error}"),
                }
                for (n, index, wish) in what {
                    self.model.settle(&lease, held, id(*n), *index, *wish);
                }
            }
            Step::Conclude { n, over, report } => self.conclude(*n, *over, *report),
            Step::Apply { filter: which, action } => {
                let touched = block_on(self.store.apply(filter(*which), *action)).expect("done");
                assert_eq!(touched, self.model.apply(&filter(*which), *action));
            }
            Step::Ask { filter: which, limit } => {
                let filter = filter(*which);
                let (mut after, mut all) = (None, Vec::new());
                for _ in 0..40 {
                    let page = block_on(self.store.query(filter.clone(), after, *limit));
                    let page = page.expect("a page");
                    let Some(last) = page.last() else { break };
                    after = Some(last.id);
                    all.extend(page);
                }
                let seen: Vec<_> = all.iter().map(|h| (h.id, recipients(h))).collect();
                assert_eq!(seen, self.model.query(&filter));
            }
            Step::Overdue { hours, limit } => {
                let now = Timestamp(hours * 3_600_000);
                let due = block_on(self.store.overdue(now, *limit)).expect("a list");
                let seen: Vec<_> = due.iter().map(|h| (h.id, recipients(h))).collect();
                self.model.check_overdue(now, *limit, &seen);
            }
            Step::Maintain => block_on(self.store.maintain()).expect("a turn"),
            Step::Reopen => self.reopen(),
            Step::Cut { .. } => {}
        }
    }

    fn next(&self, lease: usize, limit: usize) {
        let Some(lease) = self.lease(lease) else { return };
        let (mut after, mut seen) = (None, Vec::new());
        for _ in 0..60 {
            match block_on(self.store.next(&lease, after, limit)) {
                Ok(heads) => {
                    assert!(self.model.is_held(lease.token()), "a page under a lost lease");
                    assert!(heads.len() <= limit);
                    let Some(last) = heads.last() else { break };
                    after = Some(last.position);
                    seen.extend(heads.iter().map(|h| (h.id, h.position.rank, recipients(h))));
                }
                Err(StoreError::LostLease) => {
                    assert!(!self.model.is_held(lease.token()), "the lease was not lost");
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(seen, self.model.offered(&lease));
    }

    fn read(&self, id: QueueId, seed: u64, offset: usize) {
        let read = read_from(&*self.store, id, offset as u64);
        match self.model.size(id) {
            Some(size) => {
                let whole = body(seed, size);
                assert!(read.expect("a body") == whole[offset.min(size)..], "body of {id}");
            }
            None => assert!(matches!(read, Err(StoreError::Missing)), "a body of nothing"),
        }
    }

    fn conclude(&mut self, n: u64, over: u8, report: Option<(u8, usize)>) {
        // As they stand, and some that never stood so.
        let states: Vec<(u32, RecipientState)> = (0..6u32)
            .filter(|index| over & (1 << index) != 0)
            .filter_map(|index| Some((index, self.model.state(id(n), index)?)))
            .filter(|(_, state)| state.is_over())
            .chain(over.is_multiple_of(7).then(|| (1, RecipientState::Failed(reply("550 other")))))
            .collect();
        let report = report.map(|(to, size)| {
            self.reports += 1;
            (NUMBERS + self.reports, to, SIZES[size])
        });
        let told = report.map(|(number, to, size)| {
            let mut writer = block_on(self.store.begin_body(id(number), 0)).expect("a writer");
            for chunk in body(number, size).chunks(50_000) {
                block_on(writer.write(chunk)).expect("taken");
            }
            Report { message: sent(number, to), body: writer }
        });
        let done = block_on(self.store.conclude(id(n), states.clone(), told)).expect("answered");
        assert_eq!(done, self.model.conclude(id(n), &states));
        if let (Some((number, to, size)), true) = (report, done) {
            self.model.commit(&sent(number, to), number, size);
        }
    }

    fn reopen(&mut self) {
        let Some((disk, home)) = &self.disk else { return };
        let damage =
            |store: &dyn restante::store::Store| block_on(store.health()).expect("health").damage;
        let before = damage(&*self.store);
        block_on(self.store.close()).expect("closed");
        // The old one goes before the new one comes: one process has it open.
        self.store = Box::new(Memory::new());
        self.store = on_disk(disk, home.path(), &self.clock);
        // The sums over the index are what was counted while it was changed; of earlier damage people are still told.
        assert_eq!(damage(&*self.store), before, "an orderly end");
        self.model.forget_leases();
    }

    /// The power goes in the middle of `step`, at its `after`-th call to the disk, or behind it if it makes fewer.
    fn cut(&mut self, step: Option<Step>, after: u64, seed: u64) {
        let Some((disk, _)) = self.disk.as_ref() else {
            step.iter().for_each(|step| self.step(step));
            return;
        };
        let disk = disk.clone();
        let shot: World = Arc::default();
        let (held, mut calls) = (shot.clone(), 0);
        disk.watch(move |files| {
            if calls == after {
                *held.lock().expect("no panic") = Some(files.clone());
            }
            calls += 1;
        });
        let before = self.model.clone();
        step.iter().for_each(|step| self.step(step));
        disk.unwatch();
        let in_the_middle = shot.lock().expect("no panic").take();
        let whole = in_the_middle.is_none();
        let files = in_the_middle.unwrap_or_else(|| disk.files());
        self.store = Box::new(Memory::new());
        let (disk, home) = (MemoryDisk::of(files.after_power_cut(&mut Dice(seed))), folder());
        self.store = on_disk(&disk, home.path(), &self.clock);
        self.disk = Some((disk, home));
        let mut damage = block_on(self.store.health()).expect("health").damage;
        // The index is not on the disk that lost its power: it is always gone here, even behind an orderly end.
        damage.retain(|line| line != "the index was damaged and was made again");
        assert_eq!(damage, Vec::<String>::new(), "a power cut is no damage");
        let seen = self.seen();
        if !whole {
            // Each message stands as before the step or as after it; what is done together is done together.
            self.model.between(&before, &seen);
        }
        self.model.forget_leases();
        self.leases.clear();
    }

    fn seen(&self) -> Seen {
        let heads = block_on(self.store.query(Filter::default(), None, usize::MAX));
        heads.expect("a listing").iter().map(|h| (h.id, recipients(h))).collect()
    }

    /// Everything that can be asked, against the model.
    fn compare(&self) {
        assert_eq!(self.seen(), self.model.seen());
        for text in DOMAINS {
            let count = block_on(self.store.count(&domain(text))).expect("counted");
            assert_eq!(count, self.model.count(|d, _| *d == domain(text)), "{text}");
        }
        for text in CUSTOMERS {
            let usage = block_on(self.store.usage(&name(text))).expect("counted");
            assert_eq!(usage, self.model.count(|_, owner| *owner == name(text)), "{text}");
        }
        let queues = block_on(self.store.queues(None, 100)).expect("a listing");
        assert_eq!(queues, self.model.queues());
        let health = block_on(self.store.health()).expect("health");
        assert_eq!((health.live_bytes, health.broken), (self.model.live_bytes(), None));
        for (id, seed) in self.model.bodies() {
            self.read(id, seed, 0);
        }
    }
}

fn cases(ordinary: u32, long: u32) -> ProptestConfig {
    let cases = if std::env::var_os("RESTANTE_LONG").is_some() { long } else { ordinary };
    ProptestConfig {
        cases,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(300, 5_000))]
    #[test]
    fn the_engine_in_memory_does_what_the_model_does(steps in steps()) {
        Play::in_memory().play(steps);
    }
}

proptest! {
    #![proptest_config(cases(60, 3_000))]
    #[test]
    fn the_engine_on_disk_does_what_the_model_does_through_power_cuts(steps in steps()) {
        Play::on_disk().play(steps);
    }
}
