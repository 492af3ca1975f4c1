//! When the provider calls, and when it does not: ETRN, flush, retries, pauses, the way out and its changes, under a
//! virtual clock. The calls are answered by the test; nothing is dialled.

mod drain_support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drain_support::flaky::{Dice, Flaky};
use drain_support::{Clock, customer, customer_name, domain};
use futures::FutureExt;
use futures::executor::{LocalPool, block_on};
use futures::future::BoxFuture;
use futures::task::LocalSpawnExt;
use restante::mail::*;
use restante::provider::board::LastDrain;
use restante::provider::call::{Call, CallError, Caller, HostPort, Place};
use restante::provider::policy::RelayRoute;
use restante::provider::report::Reporter;
use restante::provider::rounds::{PAUSE, Rounds};
use restante::provider::{Desk, Office, Policy, etrn, expiry};
use restante::smtp::{Answer, EtrnRequest, Question, Refusal};
use restante::store::*;

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Everything is taken.
    Taken,
    /// The server puts everything off.
    PutOff,
    /// Nobody answers.
    Down,
    /// The domain takes no mail.
    Never,
    /// It never ends.
    Hangs,
}

/// A call that was made: when, to where, for which queues.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Made {
    at: Duration,
    place: Place,
    domains: Vec<String>,
    has_login: bool,
}

#[derive(Clone)]
struct Switchboard {
    office: Arc<Office>,
    clock: Clock,
    fate: Arc<Mutex<Fate>>,
    made: Arc<Mutex<Vec<Made>>>,
    /// Calls under way, and the most there ever were.
    open: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
}

impl Switchboard {
    async fn settle(&self, lease: &Lease, outcome: &Outcome) -> u64 {
        let (mut after, mut count) = (None, 0);
        loop {
            let heads = self.office.store.next(lease, after, 1000).await.expect("read");
            let Some(last) = heads.last() else { return count };
            after = Some(last.position);
            let all: Vec<Settlement> = heads
                .iter()
                .flat_map(|head| {
                    head.recipients.iter().map(|held| Settlement {
                        id: head.id,
                        index: held.index,
                        verdict: Verdict::Said(outcome.clone()),
                    })
                })
                .collect();
            count += all.len() as u64;
            self.office.store.settle(lease, all).await.expect("settled");
        }
    }

    async fn carry(self, call: Call) -> Result<LastDrain, CallError> {
        let made = Made {
            at: self.clock.now(),
            place: call.place,
            domains: call.lease.domains().iter().map(ToString::to_string).collect(),
            has_login: call.login.is_some(),
        };
        self.made.lock().expect("whole").push(made);
        let fate = *self.fate.lock().expect("whole");
        let customer = call.lease.customer().clone();
        let (mut delivered, mut deferred) = (0, 0);
        let said = ReplyText::clean("451 4.3.0 not now");
        match fate {
            Fate::Taken => delivered = self.settle(&call.lease, &Outcome::Delivered(said)).await,
            Fate::PutOff => deferred = self.settle(&call.lease, &Outcome::Later(said)).await,
            Fate::Hangs => futures::future::pending().await,
            Fate::Down | Fate::Never => {}
        }
        self.office.store.release(call.lease).await.expect("released");
        match fate {
            Fate::Down => return Err(CallError::Later("connection refused".into())),
            Fate::Never => return Err(CallError::Never("5.1.10 no mail for them".into())),
            _ => {}
        }
        Ok(LastDrain {
            customer,
            path: "etrn".into(),
            started: Timestamp(0),
            milliseconds: 0,
            delivered,
            deferred,
            failed: 0,
            messages: delivered,
            bytes: 0,
            ended: "quit".into(),
            detail: None,
        })
    }
}

impl Caller for Switchboard {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<LastDrain, CallError>> {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(open, Ordering::SeqCst);
        let this = self.clone();
        async move {
            let counter = this.open.clone();
            let outcome = this.carry(call).await;
            counter.fetch_sub(1, Ordering::SeqCst);
            outcome
        }
        .boxed()
    }
}

/// A provider with customer acme (example.com, example.org; host 192.0.2.9:25).
struct Scene {
    clock: Clock,
    store: Arc<Flaky>,
    office: Arc<Office>,
    board: Switchboard,
    pool: LocalPool,
    next: u128,
}

impl Scene {
    fn new() -> Self {
        let clock = Clock::default();
        let ticking = clock.clone();
        let memory = Arc::new(Memory::with_clock(Arc::new(move || ticking.now())));
        let settings = Settings { etrn_host: Some("192.0.2.9:25".into()), ..Settings::default() };
        block_on(memory.create(customer(settings))).expect("created");
        let store = Arc::new(Flaky {
            inner: memory.clone(),
            dice: Dice::new(1),
            clock: clock.clone(),
            trouble: AtomicU64::new(0),
            is_dead: Arc::new(AtomicBool::new(false)),
            counts: AtomicU64::new(0),
            dies_in: AtomicU64::new(0),
            newest: Mutex::default(),
            looks: AtomicU64::new(0),
        });
        let policy = Policy::new(domain("mx.provider.example"));
        let office = Arc::new(Office::new(store.clone(), memory, Arc::new(clock.clone()), policy));
        let board = Switchboard {
            office: office.clone(),
            clock: clock.clone(),
            fate: Arc::new(Mutex::new(Fate::Taken)),
            made: Arc::default(),
            open: Arc::default(),
            most: Arc::default(),
        };
        Self { clock, store, office, board, pool: LocalPool::new(), next: 1 }
    }

    fn etrn(self) -> Self {
        let rounds = Rounds::etrn(self.office.clone(), Arc::new(self.board.clone()));
        self.pool.spawner().spawn_local(rounds.run()).expect("spawned");
        self
    }

    fn relay(self) -> Self {
        let rounds = Rounds::relay(self.office.clone(), Arc::new(self.board.clone()));
        self.pool.spawner().spawn_local(rounds.run()).expect("spawned");
        self
    }

    fn reporter(self) -> Self {
        let office = self.office.clone();
        let work = async move { Reporter::new(office).run().await };
        self.pool.spawner().spawn_local(work).expect("spawned");
        self
    }

    fn fate(&self, fate: Fate) {
        *self.board.fate.lock().expect("whole") = fate;
    }

    fn made(&self) -> Vec<Made> {
        self.board.made.lock().expect("whole").clone()
    }

    /// When the calls were made, in seconds.
    fn seconds(&self) -> Vec<u64> {
        self.made().iter().map(|made| made.at.as_secs()).collect()
    }

    /// Everybody works until everybody waits.
    fn settle(&mut self) {
        self.pool.run_until_stalled();
    }

    /// Time passes, from one thing that is waited for to the next.
    fn pass(&mut self, seconds: u64) {
        use restante::provider::World;
        let until = self.clock.now() + Duration::from_secs(seconds);
        let clock = self.clock.clone();
        let mut alarm = World::wait(&clock, Duration::from_secs(seconds));
        for _ in 0..100_000 {
            self.pool.run_until_stalled();
            if (&mut alarm).now_or_never().is_some() {
                return;
            }
            self.clock.jump();
        }
        panic!("no end before {until:?}");
    }

    fn take(&mut self, owner: &CustomerName, from: &str, to: &str) -> QueueId {
        use restante::provider::World;
        self.next += 1;
        let id = QueueId::from_bits(self.next);
        let recipient = Recipient {
            forward_path: ForwardPath::parse(to).expect("a path"),
            notify: None,
            orcpt: None,
        };
        let now = World::now(&self.clock);
        let message = NewMessage {
            id,
            envelope: Envelope {
                reverse_path: ReversePath::parse(from).expect("a path"),
                recipients: vec![recipient],
                ..Envelope::default()
            },
            owners: vec![owner.clone()],
            facts: ContentFacts { size: 14, ..ContentFacts::default() },
            arrived: now,
            expires: vec![now.after(Seconds(5 * 86_400))],
        };
        block_on(async {
            let mut body = self.store.begin_body(id, 0).await.expect("a body");
            body.write(b"Subject: x\r\n\r\n").await.expect("written");
            self.store.commit(message, body).await.expect("durable");
        });
        id
    }

    /// Mail for acme.
    fn mail(&mut self, to: &str) -> QueueId {
        self.take(&customer_name(), "t@foo.example", to)
    }

    /// A report that is to leave; the bell is rung as the reporter rings it.
    fn report(&mut self, to: &str) {
        let to_domain = to.rsplit('@').next().expect("a domain");
        self.take(&CustomerName::relay(), "", to);
        self.office.outgoing.ring(restante::provider::rounds::Flush {
            customer: CustomerName::relay(),
            domain: domain(to_domain),
            by_hand: false,
        });
    }

    fn ask(&self, node: &str) -> Result<u64, Refusal> {
        let peer = "192.0.2.1:2525".parse().expect("valid");
        let mut desk = Desk::new(self.office.clone(), peer, None);
        let login = Login { customer: customer_name(), label: "".into() };
        let account = Account { login, domains: vec![], require_tls: false };
        let node = restante::smtp::etrn::read(node).expect("a node");
        match block_on(desk.answer(Question::Etrn(EtrnRequest { account, node }))) {
            Answer::Etrn(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn flush(&self, name: &str) -> Result<u64, String> {
        block_on(etrn::flush(&self.office, &domain(name)))
    }

    fn route(&self, route: RelayRoute) {
        let mut policy = (*self.office.policy()).clone();
        policy.relay.route = route;
        self.office.set_policy(policy);
        self.office.outgoing.ring_everything();
    }

    fn left(&self) -> Vec<Head> {
        block_on(self.store.inner.query(Filter::default(), None, 100)).expect("a listing")
    }

    fn nothing_is_left(&self) -> bool {
        self.left().is_empty()
    }
}

fn host(name: &str, port: u16) -> RelayRoute {
    RelayRoute::Host(HostPort { host: name.into(), port })
}

// covers: D8, E-08
/// One customer asks ten thousand times within a minute: each is answered from a counter, and a host that takes
/// nothing is called six times; no queue is looked at otherwise.
#[test]
fn ten_thousand_etrn_in_a_minute_cost_next_to_nothing() {
    for (fate, calls) in [(Fate::Hangs, 1), (Fate::Down, 7), (Fate::PutOff, 7)] {
        let mut scene = Scene::new().etrn();
        scene.fate(fate);
        scene.mail("a@example.com");
        for second in 0..60 {
            for _ in 0..if second == 0 { 166 + 40 } else { 166 } {
                assert_eq!(scene.ask("example.com"), Ok(1));
            }
            scene.pass(1);
        }
        assert_eq!(scene.made().len(), calls, "{fate:?}: {:?}", scene.seconds());
        assert_eq!(scene.board.most.load(Ordering::SeqCst), 1, "one connection at a time");
        let (counts, looks) =
            (scene.store.counts.load(Ordering::SeqCst), scene.store.looks.load(Ordering::SeqCst));
        assert!((10_000..10_100).contains(&counts), "{fate:?}: {counts} counters were read");
        assert!(looks <= 4 * calls as u64, "{fate:?}: {looks} looks at queues");
    }
}

// covers: O-03
/// Neither mail nor time makes a call, whether the customer has a host of its own or not; asking does.
#[test]
fn nobody_is_called_without_being_asked_for() {
    let mut scene = Scene::new().etrn();
    let bolt = Customer {
        name: CustomerName::parse("bolt").expect("valid"),
        domains: vec![domain("bolt.example")],
        ..customer(Settings::default())
    };
    block_on(scene.office.directory.create(bolt.clone())).expect("created");
    for _ in 0..4 {
        scene.mail("a@example.com");
        scene.take(&bolt.name, "t@foo.example", "b@bolt.example");
        scene.pass(86_400);
    }
    assert_eq!(scene.made(), []);
    assert_eq!(scene.left().len(), 8);
    assert_eq!(scene.ask("example.com"), Ok(4));
    scene.settle();
    assert_eq!(scene.made().len(), 1, "the test would have seen a call");
}

// covers: W-14
#[test]
fn retries_follow_the_configured_pauses_and_the_last_repeats() {
    let mut scene = Scene::new().etrn();
    scene.fate(Fate::Down);
    scene.mail("a@example.com");
    assert_eq!(scene.ask("example.com"), Ok(1));
    scene.pass(3 * 3600);
    // 1m, 5m, 15m, 1h, 1h
    assert_eq!(scene.seconds(), [0, 60, 360, 1260, 4860, 8460]);
    scene.fate(Fate::Taken);
    scene.pass(3600);
    assert_eq!(scene.seconds().last(), Some(&12_060));
    assert!(scene.nothing_is_left());
    scene.pass(86_400);
    assert_eq!(scene.made().len(), 7, "nothing waits, nobody is called");
}

#[test]
fn a_customer_that_asks_again_is_served_soon_and_by_hand_at_once() {
    let mut scene = Scene::new().etrn();
    scene.fate(Fate::Down);
    scene.mail("a@example.com");
    scene.ask("#acme").expect("started");
    scene.pass(2);
    scene.ask("#acme").expect("started");
    scene.pass(20);
    assert_eq!(scene.seconds(), [0, PAUSE.as_secs()], "not at once, and not after a minute only");
    scene.pass(4 * 60);
    let before = scene.made().len();
    assert_eq!(scene.flush("example.com"), Ok(1));
    scene.settle();
    assert_eq!(scene.made().len(), before + 1);
    scene.fate(Fate::Taken);
    assert_eq!(scene.flush("example.com"), Ok(1));
    scene.settle();
    assert!(scene.nothing_is_left());
    assert_eq!(scene.flush("example.com"), Ok(0));
    assert!(scene.flush("other.example").expect_err("nobody's").contains("no customer's domain"));
}

#[test]
fn wishes_join_one_call_and_mail_that_comes_meanwhile_is_not_forgotten() {
    let mut scene = Scene::new().etrn();
    scene.mail("a@example.com");
    scene.mail("b@example.org");
    scene.mail("c@example.org");
    assert_eq!(scene.ask("example.com"), Ok(1));
    assert_eq!(scene.ask("#acme"), Ok(3));
    assert_eq!(scene.ask("@example.org"), Ok(2));
    scene.pass(1);
    let made = scene.made();
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].domains.len(), 2);
    assert_eq!(
        made[0].place,
        Place::Host(HostPort { host: "192.0.2.9".into(), port: 25 }),
        "the host that is set, and nothing else"
    );
    assert_eq!(scene.ask("#acme"), Ok(0), "251");
    scene.mail("d@example.com");
    assert_eq!(scene.ask("example.com"), Ok(1));
    scene.pass(1);
    assert!(scene.nothing_is_left());
}

#[test]
fn the_lease_keeps_the_two_paths_apart() {
    let mut scene = Scene::new().etrn();
    scene.mail("a@example.com");
    let drain = block_on(drain_support::Place::lease(scene.store.inner.clone()));
    assert_eq!(scene.ask("example.com"), Ok(1));
    scene.pass(30);
    assert!(scene.made().is_empty(), "the customer collects by ATRN right now");
    block_on(scene.store.release(drain)).expect("released");
    scene.pass(60);
    assert_eq!(scene.made().len(), 1);
    assert!(scene.nothing_is_left());
}

// covers: W-14
#[test]
fn the_way_out_backs_off_for_each_destination_and_new_reports_change_nothing() {
    let mut scene = Scene::new().relay();
    scene.fate(Fate::Down);
    scene.report("a@down.example");
    scene.settle();
    for _ in 0..30 {
        scene.report("b@down.example");
        scene.pass(60);
    }
    let down: Vec<u64> = scene.seconds();
    assert_eq!(down, [0, 60, 360, 1260], "1m, 5m, 15m, not once for each report");
    scene.report("c@up.example");
    scene.settle();
    let last = scene.made().pop().expect("a call");
    assert_eq!(
        last.place,
        Place::Exchangers(domain("up.example")),
        "another destination has pauses of its own"
    );
}

// covers: W-15
#[test]
fn with_another_route_what_waits_leaves_at_once() {
    let scene = Scene::new();
    scene.route(RelayRoute::Nowhere);
    let mut scene = scene.relay();
    scene.report("a@one.example");
    scene.report("b@two.example");
    scene.pass(3600);
    assert!(scene.made().is_empty(), "no way out");
    assert_eq!(scene.left().len(), 2);
    scene.fate(Fate::Down);
    scene.route(host("relay.example", 587));
    scene.settle();
    let made = scene.made();
    assert_eq!(made.len(), 1, "one smart host, one connection");
    assert_eq!(made[0].domains.len(), 2);
    assert!(!made[0].has_login);
    // It is down; the operator names another, with a login.
    let mut policy = (*scene.office.policy()).clone();
    policy.relay.login = Some(("us".into(), Secret::from("secret")));
    scene.office.set_policy(policy);
    scene.route(host("other.example", 587));
    scene.settle();
    assert_eq!(scene.made().len(), 2, "the pauses of the old one do not count");
    assert!(scene.made()[1].has_login);
    // And then to the exchangers: each domain to its own.
    scene.fate(Fate::Taken);
    scene.route(RelayRoute::Exchangers);
    scene.pass(1);
    let places: Vec<Place> = scene.made()[2..].iter().map(|made| made.place.clone()).collect();
    assert_eq!(
        places,
        [Place::Exchangers(domain("one.example")), Place::Exchangers(domain("two.example"))]
    );
    assert!(scene.made()[2..].iter().all(|made| made.domains.len() == 1 && !made.has_login));
    assert!(scene.nothing_is_left());
}

#[test]
fn a_route_that_changes_during_a_call_is_followed_after_it() {
    let scene = Scene::new();
    scene.route(host("relay.example", 587));
    let mut scene = scene.relay();
    scene.fate(Fate::Down);
    scene.report("a@one.example");
    scene.report("a@two.example");
    scene.settle();
    assert_eq!(scene.made().len(), 1);
    // Without a bell, as between the end of the call and the reload's ring.
    let mut policy = (*scene.office.policy()).clone();
    policy.relay.route = RelayRoute::Exchangers;
    scene.office.set_policy(policy);
    scene.fate(Fate::Taken);
    scene.pass(61);
    assert!(scene.nothing_is_left());
    for (made, name) in scene.made()[1..].iter().zip(["one.example", "two.example"]) {
        assert_eq!(made.place, Place::Exchangers(domain(name)));
        assert_eq!(made.domains, [name], "nobody's reports go to another's exchanger");
    }
}

// covers: W-15
#[test]
fn more_reports_than_a_bell_remembers_are_all_sent() {
    let mut scene = Scene::new();
    for number in 0..10_050 {
        scene.report(&format!("a@d{number}.example"));
    }
    let mut scene = scene.relay();
    scene.pass(300);
    for number in 0..10_050 {
        scene.report(&format!("b@e{number}.example"));
    }
    scene.pass(300);
    assert!(scene.nothing_is_left());
    assert_eq!(scene.made().len(), 20_100);
    assert!(scene.board.most.load(Ordering::SeqCst) <= 64, "and a bounded number at a time");
}

// covers: W-15, H3
#[test]
fn a_report_that_cannot_leave_expires_and_is_kept_for_the_postmaster() {
    let mut scene = Scene::new().relay().reporter();
    scene.fate(Fate::Down);
    scene.report("a@down.example");
    scene.pass(5 * 86_400 + 1);
    assert_eq!(block_on(expiry::expire(&scene.office)).expect("expired"), 1);
    scene.pass(2 * 3600);
    let left = scene.left();
    assert_eq!(left.len(), 1, "no report about a report");
    assert!(left[0].recipients[0].state.is_over());
    let calls = scene.made().len();
    scene.pass(86_400);
    assert_eq!(scene.made().len(), calls, "and nothing is tried any more");
}

#[test]
fn a_domain_that_takes_no_mail_ends_the_attempts() {
    let mut scene = Scene::new().relay().reporter();
    scene.fate(Fate::Never);
    scene.report("a@null.example");
    scene.pass(86_400);
    assert_eq!(scene.made().len(), 1);
    assert!(scene.left()[0].recipients[0].state.is_over(), "kept, visible");
}

#[test]
fn a_domain_that_changed_hands_is_asked_for_no_more() {
    let mut scene = Scene::new().etrn();
    scene.fate(Fate::Down);
    scene.mail("a@example.com");
    assert_eq!(scene.ask("example.com"), Ok(1));
    scene.settle();
    assert_eq!(scene.made().len(), 1);
    // It waits for its next attempt, and belongs to another customer by then.
    let directory = &scene.office.directory;
    let mut acme =
        (*block_on(directory.customer(&customer_name())).expect("read").expect("acme")).clone();
    acme.domains.retain(|mine| *mine != domain("example.com"));
    block_on(directory.update(acme)).expect("changed");
    scene.pass(86_400);
    assert_eq!(scene.made().len(), 1, "nothing of its own waits");
    let counts = scene.store.counts.load(Ordering::Relaxed);
    scene.pass(86_400);
    assert_eq!(scene.store.counts.load(Ordering::Relaxed), counts, "nor is it looked at any more");
}
