//! Deaths around a drain: the line reset behind a reply, the process killed at any point, a store that fails, clocks
//! that jump. Rows 6, 19, 20 and 23 to 31 of the reliability table (section 3), as the drain meets them.

mod drain_support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drain_support::flaky::{Dice, Flaky};
use drain_support::pipe::{Traits, pair};
use drain_support::server::{Reply, Server, Sink};
use drain_support::{Place, at_once, customer_name, domain};
use restante::mail::*;
use restante::provider::report::Reporter;
use restante::provider::{Office, Policy, Window, World};
use restante::store::*;

fn chunking() -> Server {
    Server::offering(&["PIPELINING", "CHUNKING", "8BITMIME"])
}

fn lease_of(place: &Place, domains: &[&str]) -> LeaseAnswer {
    let request = LeaseRequest {
        customer: customer_name(),
        domains: domains.iter().map(|text| domain(text)).collect(),
        owner: "test".into(),
        lasts: Duration::from_secs(900),
        overthrow_after: Duration::from_secs(60),
    };
    at_once(place.memory.lease(request)).expect("answered")
}

fn granted(answer: LeaseAnswer) -> Lease {
    match answer {
        LeaseAnswer::Granted(lease) => lease,
        LeaseAnswer::Busy { by, .. } => panic!("busy by {by}"),
    }
}

/// How often each content was taken.
fn times(sink: &Sink) -> Vec<usize> {
    let mut times: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for (_, message) in sink.lock().expect("whole").iter() {
        *times.entry(message.content.clone()).or_default() += 1;
    }
    times.into_values().collect()
}

#[test]
fn row_6_a_reset_behind_any_octet_of_any_reply_doubles_the_window_at_most() {
    for window in [1, 3] {
        let mut doubled = 0;
        for cut in 1..400 {
            let mut place =
                Place::with(Settings::default(), Window { messages: window, bytes: 1 << 20 });
            place.put_many(4);
            let sink = Sink::default();
            let server = || Server { sink: sink.clone(), ..Server::default() };
            let back = Traits { cut_after: Some(cut), cut_loses: true, ..Traits::default() };
            let (last, _) = place.drain_over(server(), Traits::default(), back);
            let (again, _) = place.drain_to(server());
            assert_eq!(again.ended, "quit");
            let times = times(&sink);
            assert_eq!(times.len(), 4, "cut at {cut}: all came");
            assert!(times.iter().all(|times| *times <= 2), "cut at {cut}: {times:?}");
            let twice = times.iter().filter(|times| **times == 2).count() as u64;
            assert!(twice <= window, "cut at {cut}: {twice} of a window of {window} came twice");
            doubled += twice;
            if last.ended == "quit" {
                break;
            }
        }
        assert!(doubled > 0, "no cut was behind the end of data: this test shows nothing");
    }
}

#[test]
fn row_19_who_takes_over_has_the_greater_token_and_the_old_one_can_only_fail() {
    let mut place = Place::default();
    place.put_many(2);
    let id = place.queued()[0].id;
    let (first, second) = (["example.com"], ["example.com", "example.org"]);
    let old = granted(lease_of(&place, &first));
    let pass = |place: &mut Place, seconds| {
        let wake = World::wait(&place.clock, Duration::from_secs(seconds));
        place.run(wake);
    };
    pass(&mut place, 59);
    assert!(matches!(lease_of(&place, &second), LeaseAnswer::Busy { .. }), "59 s are not enough");
    // Progress starts the clock anew.
    at_once(place.memory.renew(&old)).expect("renewed");
    pass(&mut place, 59);
    assert!(matches!(lease_of(&place, &second), LeaseAnswer::Busy { .. }), "it made progress");
    pass(&mut place, 1);
    let new = granted(lease_of(&place, &second));
    assert!(new.token() > old.token());
    let is_lost = |error: StoreError| matches!(error, StoreError::LostLease);
    assert!(at_once(place.memory.renew(&old)).is_err_and(is_lost));
    assert!(at_once(place.memory.next(&old, None, 10)).is_err_and(is_lost));
    let later = Verdict::Said(Outcome::Later(ReplyText::clean("450 late")));
    let settled = vec![Settlement { id, index: 0, verdict: later }];
    assert!(at_once(place.memory.settle(&old, settled)).is_err_and(is_lost));
    assert!(place.states().iter().all(|(_, state)| *state == RecipientState::Queued));
    // Handing back what it no longer has does not take it from the new one.
    at_once(place.memory.release(old)).expect("ignored");
    assert!(matches!(lease_of(&place, &first), LeaseAnswer::Busy { .. }));
    assert_eq!(at_once(place.memory.next(&new, None, 10)).expect("served").len(), 2);
}

#[test]
fn row_20_two_sites_drain_side_by_side_and_one_that_dies_does_not_touch_the_other() {
    let mut place = Place::default();
    for _ in 0..10 {
        place.put("t@foo.example", &["n@example.com", "s@example.org"], b"both\r\n");
    }
    let (ours, theirs) = pair(Traits::default(), Traits::default());
    let north = Server::default().moody(|said, transaction, _| {
        (said == "." && transaction == 5).then_some(Reply::After(30))
    });
    let clock = place.clock.clone();
    let at_north = place.drain_domains(ours, &["example.com"]);
    let serving_north = place.spawn(north.serve(theirs, clock.clone()));
    let (ours, theirs) = pair(Traits::default(), Traits::default());
    let south = Server::default()
        .moody(|said, transaction, _| (said == "." && transaction == 3).then_some(Reply::Hang));
    let at_south = place.drain_domains(ours, &["example.org"]);
    let serving_south = place.spawn(south.serve(theirs, clock));
    let south = place.run(at_south);
    assert_eq!((south.ended.as_str(), south.delivered), ("lost", 2));
    assert!(place.clock.now() < Duration::from_secs(30), "north is in the middle of its drain");
    let north = place.run(at_north);
    assert_eq!((north.ended.as_str(), north.delivered), ("quit", 10));
    let (north, south) = (place.run(serving_north), place.run(serving_south));
    assert!(north.messages.iter().all(|message| message.to == ["n@example.com"]));
    assert!(south.messages.iter().all(|message| message.to == ["s@example.org"]));
    assert_eq!(place.queued().len(), 8);
    assert!(place.is_released());
}

/// Drains until `point` says so, then kills the process: nothing of it runs any more. Gives what was taken.
fn killed_when(
    place: &mut Place,
    server: Server,
    point: impl Fn(&str, usize) -> bool + Send + Sync + 'static,
) {
    let is_there = Arc::new(AtomicBool::new(false));
    let seen = is_there.clone();
    let server = server.moody(move |said, transaction, _| {
        if point(said, transaction) {
            seen.store(true, Ordering::Relaxed);
            return Some(Reply::Stall);
        }
        None
    });
    let (ours, theirs) = pair(Traits::default(), Traits::default());
    let clock = place.clock.clone();
    let drain = place.drain(ours, false);
    let serving = place.spawn(server.serve(theirs, clock));
    for _ in 0..1000 {
        place.pool.run_until_stalled();
        if is_there.load(Ordering::Relaxed) {
            break;
        }
        assert!(place.clock.jump(), "the point was never reached");
    }
    // Dropped in the middle, it can neither record nor release anything.
    drop((drain, serving));
    place.pool.run_until_stalled();
    assert!(!place.is_released(), "the dead do not hand anything back");
    place.office = place.restarted();
    // In this engine leases outlive the process; an engine on disk begins with a new epoch and none of them.
    let wake = World::wait(&place.clock, Duration::from_secs(61));
    place.run(wake);
}

#[test]
fn row_23_killed_before_the_end_of_data_nobody_is_marked() {
    for verb in ["(greeting)", "EHLO", "MAIL", "RCPT", "DATA"] {
        let mut place = Place::default();
        place.put_many(3);
        killed_when(&mut place, Server::offering(&[]), move |said, _| said.starts_with(verb));
        let heads = place.queued();
        assert_eq!(heads.len(), 3, "{verb}");
        assert!(heads.iter().all(|head| head.line_breaks == 0), "{verb}");
        assert!(place.states().iter().all(|(_, state)| *state == RecipientState::Queued), "{verb}");
        let (last, taken) = place.drain_to(Server::default());
        assert_eq!((last.ended.as_str(), taken.messages.len()), ("quit", 3), "{verb}");
    }
}

#[test]
fn row_24_killed_at_the_end_of_data_it_comes_again_and_nothing_else_does() {
    for (server, window) in [(Server::default(), 1), (chunking(), 1), (chunking(), 3)] {
        let mut place =
            Place::with(Settings::default(), Window { messages: window, bytes: 1 << 20 });
        place.put_many(6);
        let sink = Sink::default();
        let server = Server { sink: sink.clone(), ..server };
        let at_end = |said: &str| said == "." || said.ends_with("LAST");
        killed_when(&mut place, server, move |said, transaction| at_end(said) && transaction == 3);
        let (last, _) = place.drain_to(Server { sink: sink.clone(), ..Server::default() });
        assert_eq!(last.ended, "quit");
        let times = times(&sink);
        let twice = times.iter().filter(|times| **times == 2).count() as u64;
        assert_eq!((times.len(), times.iter().max()), (6, Some(&2)), "{times:?}");
        assert!((1..=window).contains(&twice), "{twice} of a window of {window} came twice");
    }
}

/// A drain over a store that dies in its n-th call, before or after doing it.
fn dies_in_call(place: &mut Place, calls: u64, window: u64, server: Server) -> bool {
    let is_dead = Arc::new(AtomicBool::new(false));
    let store = Arc::new(Flaky {
        inner: place.memory.clone(),
        dice: Dice::new(calls),
        clock: place.clock.clone(),
        trouble: AtomicU64::new(0),
        dies_in: AtomicU64::new(calls),
        is_dead: is_dead.clone(),
        counts: AtomicU64::new(0),
        looks: AtomicU64::new(0),
        newest: Mutex::default(),
    });
    let mut policy = Policy::new(domain("mx.provider.example"));
    policy.window = Window { messages: window, bytes: 1 << 20 };
    let world = Arc::new(place.clock.clone());
    place.office = Arc::new(Office::new(store, place.memory.clone(), world, policy));
    let (ours, theirs) = pair(Traits::default(), Traits::default());
    let clock = place.clock.clone();
    let mut drain = Box::pin(place.drain(ours, false));
    let serving = place.spawn(server.serve(theirs, clock));
    for _ in 0..1000 {
        place.pool.run_until_stalled();
        if is_dead.load(Ordering::Relaxed) {
            break;
        }
        if futures::FutureExt::now_or_never(&mut drain).is_some() {
            return false;
        }
        place.clock.jump();
    }
    drop((drain, serving));
    place.pool.run_until_stalled();
    place.office = place.restarted();
    let wake = World::wait(&place.clock, Duration::from_secs(61));
    place.run(wake);
    true
}

#[test]
fn row_25_killed_between_a_250_and_its_record_the_window_comes_again_at_most() {
    for window in [1, 2, 100] {
        let (mut deaths, mut doubled) = (0, 0);
        for calls in 1..200 {
            let mut place = Place::default();
            place.put_many(5);
            let sink = Sink::default();
            let server = || Server { sink: sink.clone(), ..Server::default() };
            if !dies_in_call(&mut place, calls, window, server()) {
                break;
            }
            deaths += 1;
            let before = sink.lock().expect("whole").len() as u64;
            let recorded = 5 - place.queued().len() as u64;
            assert!(before - recorded <= window, "{before} taken, {recorded} recorded");
            let (last, _) = place.drain_to(server());
            assert_eq!(last.ended, "quit");
            let times = times(&sink);
            assert_eq!(times.len(), 5, "died in call {calls}");
            let twice = times.iter().filter(|times| **times > 1).count() as u64;
            assert_eq!(twice, before - recorded, "died in call {calls}");
            doubled += twice;
        }
        assert!(deaths > 10 && doubled > 0, "{deaths} deaths, {doubled} doubled: shows nothing");
    }
}

#[test]
fn row_26_killed_anywhere_a_failure_and_its_report_are_one() {
    let mut deaths = 0;
    for calls in 1..200 {
        let mut place = Place::default();
        place.put("t@foo.example", &["a@example.com", "b@example.com"], b"x\r\n");
        let refusing = Server::default()
            .moody(|said, _, _| (said == ".").then(|| Reply::Say("550 no\r\n".into())));
        let (last, _) = place.drain_to(refusing);
        assert_eq!(last.failed, 2);
        let is_dead = Arc::new(AtomicBool::new(false));
        let store = Arc::new(Flaky {
            inner: place.memory.clone(),
            dice: Dice::new(calls),
            clock: place.clock.clone(),
            trouble: AtomicU64::new(0),
            dies_in: AtomicU64::new(calls),
            is_dead: is_dead.clone(),
            counts: AtomicU64::new(0),
            looks: AtomicU64::new(0),
            newest: Mutex::default(),
        });
        let policy = Policy::clone(&place.office.policy());
        let world = Arc::new(place.clock.clone());
        let office = Arc::new(Office::new(store, place.memory.clone(), world, policy));
        let reporter = Reporter::new(office);
        let is_told = futures::FutureExt::now_or_never(reporter.round()).is_some();
        let relay = CustomerName::relay();
        let owed = |place: &Place| {
            let heads = place.queued();
            let count = |ours: bool| {
                let all = heads.iter().flat_map(|head| &head.recipients);
                all.filter(|held| (held.owner == relay) == ours).count()
            };
            (count(false), count(true))
        };
        let (failed, reports) = owed(&place);
        assert!(matches!((failed, reports), (2, 0) | (0, 1)), "{failed} failed, {reports} reports");
        // The next process owes what this one did not tell, and no more.
        let reporter = Reporter::new(place.restarted());
        at_once(reporter.round());
        assert_eq!(owed(&place), (0, 1), "died in call {calls}");
        if is_told {
            break;
        }
        deaths += 1;
    }
    assert!(deaths >= 4, "{deaths} deaths only");
}

type Fault = Box<dyn Fn() -> StoreError + Send + Sync>;

/// A drain over a store in which `call` fails from its n-th time on.
fn failing(place: &mut Place, call: &'static str, after: u64, error: Fault) {
    let store =
        Arc::new(Failing { inner: place.memory.clone(), call, left: AtomicU64::new(after), error });
    let policy = Policy::clone(&place.office.policy());
    let world = Arc::new(place.clock.clone());
    place.office = Arc::new(Office::new(store, place.memory.clone(), world, policy));
}

#[test]
fn row_28_a_damaged_body_is_passed_over_and_the_others_are_served() {
    let mut place = Place::default();
    place.put_many(5);
    let damaged = place.queued()[2].id;
    failing(&mut place, "open_body", 2, Box::new(move || StoreError::Corrupt(damaged)));
    let (last, taken) = place.drain_to(Server::default());
    assert_eq!((last.ended.as_str(), taken.messages.len()), ("quit", 4));
    let left: Vec<QueueId> = place.queued().iter().map(|head| head.id).collect();
    assert_eq!(left, [damaged], "kept, not marked, not delivered in part");
    assert_eq!(place.states()[0].1, RecipientState::Queued);
}

#[test]
fn row_29_and_30_what_cannot_be_recorded_ends_the_drain_and_is_in_doubt() {
    let errors: [fn() -> StoreError; 2] =
        [|| StoreError::Broken("a sync failed".into()), || StoreError::Full("no room".into())];
    for (error, window) in errors.into_iter().flat_map(|error| [(error, 1), (error, 3)]) {
        let mut place =
            Place::with(Settings::default(), Window { messages: window, bytes: 1 << 20 });
        place.put_many(20);
        let sink = Sink::default();
        failing(&mut place, "settle", 2, Box::new(error));
        let error = error();
        let server = Server { sink: sink.clone(), ..Server::default() };
        let (last, taken) = place.drain_to(server);
        assert_eq!(last.ended, "store-trouble", "{error}");
        let recorded = 20 - place.queued().len();
        assert_eq!(recorded as u64, last.delivered, "{error}: only what is recorded counts");
        let unrecorded = (taken.messages.len() - recorded) as u64;
        assert!(
            (1..=window).contains(&unrecorded),
            "{error}: {unrecorded} of a window of {window}"
        );
        // The next process with a sound store brings what was in doubt once more, and the rest.
        place.office = place.restarted();
        let (last, _) = place.drain_to(Server { sink: sink.clone(), ..Server::default() });
        assert_eq!(last.ended, "quit");
        let times = times(&sink);
        assert_eq!(times.len(), 20);
        assert_eq!(times.iter().filter(|times| **times > 1).count() as u64, unrecorded);
    }
}

#[test]
fn row_31_a_wall_clock_that_jumps_ends_no_drain_and_no_lease() {
    const DAY: i64 = 86_400;
    for jump in [-DAY, 365 * DAY] {
        let mut place = Place::default();
        place.put_many(5);
        let clock = place.clock.clone();
        let server = Server::default().moody(move |said, transaction, _| {
            if said == "." && transaction == 2 {
                clock.set_wall_ahead(jump);
            }
            (said == "." && transaction == 3).then_some(Reply::After(120))
        });
        let (last, taken) = place.drain_to(server);
        assert_eq!((last.ended.as_str(), last.delivered), ("quit", 5), "a jump of {jump} s");
        assert_eq!(taken.messages.len(), 5);
        assert_eq!(last.milliseconds / 1000, 120, "time-outs go by the other clock");
        assert!(place.is_released());
    }
}

/// One call of a store fails from its n-th time on; `open_body` fails in that one alone.
struct Failing {
    inner: Arc<Memory>,
    call: &'static str,
    left: AtomicU64,
    error: Fault,
}

impl Failing {
    fn fails(&self, call: &'static str) -> Result<(), StoreError> {
        if call != self.call {
            return Ok(());
        }
        let once = call == "open_body";
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            if left > 0 { Some(left - 1) } else { once.then_some(u64::MAX) }
        });
        match before {
            Ok(left) if left > 0 => Ok(()),
            _ => Err((self.error)()),
        }
    }
}

impl Store for Failing {
    fn open_body(&self, id: QueueId, offset: u64) -> Answer<'_, Box<dyn BodyReader>> {
        match self.fails("open_body") {
            Ok(()) => self.inner.open_body(id, offset),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }
    fn settle<'a>(&'a self, lease: &'a Lease, settlements: Vec<Settlement>) -> Answer<'a, ()> {
        match self.fails("settle") {
            Ok(()) => self.inner.settle(lease, settlements),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }
    fn begin_body(&self, id: QueueId, size_hint: u64) -> Answer<'_, Box<dyn BodyWriter>> {
        self.inner.begin_body(id, size_hint)
    }
    fn commit(&self, message: NewMessage, body: Box<dyn BodyWriter>) -> Answer<'_, ()> {
        self.inner.commit(message, body)
    }
    fn lease(&self, request: LeaseRequest) -> Answer<'_, LeaseAnswer> {
        self.inner.lease(request)
    }
    fn renew<'a>(&'a self, lease: &'a Lease) -> Answer<'a, ()> {
        self.inner.renew(lease)
    }
    fn release(&self, lease: Lease) -> Answer<'_, ()> {
        self.inner.release(lease)
    }
    fn next<'a>(
        &'a self,
        lease: &'a Lease,
        after: Option<Position>,
        limit: usize,
    ) -> Answer<'a, Vec<Head>> {
        self.inner.next(lease, after, limit)
    }
    fn conclude(
        &self,
        about: QueueId,
        states: Vec<(u32, RecipientState)>,
        report: Option<Report>,
    ) -> Answer<'_, bool> {
        self.inner.conclude(about, states, report)
    }
    fn count<'a>(&'a self, domain: &'a Domain) -> Answer<'a, Count> {
        self.inner.count(domain)
    }
    fn usage<'a>(&'a self, customer: &'a CustomerName) -> Answer<'a, Count> {
        self.inner.usage(customer)
    }
    fn queues(
        &self,
        after: Option<Domain>,
        limit: usize,
    ) -> Answer<'_, Vec<(Domain, CustomerName, Count)>> {
        self.inner.queues(after, limit)
    }
    fn query(&self, filter: Filter, after: Option<QueueId>, limit: usize) -> Answer<'_, Vec<Head>> {
        self.inner.query(filter, after, limit)
    }
    fn apply(&self, filter: Filter, action: QueueAction) -> Answer<'_, u64> {
        self.inner.apply(filter, action)
    }
    fn overdue(&self, now: Timestamp, limit: usize) -> Answer<'_, Vec<Head>> {
        self.inner.overdue(now, limit)
    }
    fn changes(&self, domains: &[Domain]) -> futures::stream::BoxStream<'static, Changed> {
        self.inner.changes(domains)
    }
    fn health(&self) -> Answer<'_, Health> {
        self.inner.health()
    }
    fn maintain(&self) -> Answer<'_, ()> {
        self.inner.maintain()
    }
    fn close(&self) -> Answer<'_, ()> {
        self.inner.close()
    }
}
