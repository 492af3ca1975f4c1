//! Customers learn nothing of each other: not from the envelope or the trace (`hostile_turn.rs`, d12), not from replies, reports,
//! or the work that a question costs. Time is compared by what is done: the same calls to store and directory, in the same
//! order, and the same rounds of key derivation.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::executor::block_on;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use restante::mail::*;
use restante::provider::{Desk, Office, Policy, World};
use restante::smtp::{self, LoginRequest, Proof, Question, Refusal, TurnRequest, sasl};
use restante::store::*;

const PASSWORD: &str = "an ordinary password";

/// A world whose waits are over at once, and written down.
struct StillWorld(Calls);

impl World for StillWorld {
    fn now(&self) -> Timestamp {
        Timestamp(1_795_317_540_000)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn chance(&self, place: &mut [u8]) {
        getrandom::fill(place).expect("chance");
    }
    fn wait(&self, span: Duration) -> BoxFuture<'static, ()> {
        note(&self.0, format!("wait {span:?}"));
        Box::pin(async {})
    }
}

/// What was called, in order.
type Calls = Arc<Mutex<Vec<String>>>;

fn note(calls: &Calls, what: impl Into<String>) {
    calls.lock().expect("free").push(what.into());
}

/// A store and directory in memory that write down what is asked of them.
struct Watched {
    inner: Memory,
    calls: Calls,
}

macro_rules! watched {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(fn $name<'a>(&'a self $(, $argument: $kind)*) -> $answer {
            note(&self.calls, stringify!($name));
            self.inner.$name($($argument),*)
        })*
    };
}

impl Store for Watched {
    fn begin_body(&self, id: QueueId, size_hint: u64) -> Answer<'_, Box<dyn BodyWriter>> {
        self.inner.begin_body(id, size_hint)
    }
    fn commit(&self, message: NewMessage, body: Box<dyn BodyWriter>) -> Answer<'_, ()> {
        self.inner.commit(message, body)
    }
    fn lease(&self, request: LeaseRequest) -> Answer<'_, LeaseAnswer> {
        note(&self.calls, "lease");
        self.inner.lease(request)
    }
    fn release(&self, lease: Lease) -> Answer<'_, ()> {
        note(&self.calls, "release");
        self.inner.release(lease)
    }
    fn open_body(&self, id: QueueId, offset: u64) -> Answer<'_, Box<dyn BodyReader>> {
        note(&self.calls, "open_body");
        self.inner.open_body(id, offset)
    }
    fn conclude(
        &self,
        about: QueueId,
        states: Vec<(u32, RecipientState)>,
        report: Option<Report>,
    ) -> Answer<'_, bool> {
        note(&self.calls, "conclude");
        self.inner.conclude(about, states, report)
    }
    fn queues(
        &self,
        after: Option<Domain>,
        limit: usize,
    ) -> Answer<'_, Vec<(Domain, CustomerName, Count)>> {
        note(&self.calls, "queues");
        self.inner.queues(after, limit)
    }
    fn query(&self, filter: Filter, after: Option<QueueId>, limit: usize) -> Answer<'_, Vec<Head>> {
        note(&self.calls, "query");
        self.inner.query(filter, after, limit)
    }
    fn apply(&self, filter: Filter, action: QueueAction) -> Answer<'_, u64> {
        note(&self.calls, "apply");
        self.inner.apply(filter, action)
    }
    fn overdue(&self, now: Timestamp, limit: usize) -> Answer<'_, Vec<Head>> {
        note(&self.calls, "overdue");
        self.inner.overdue(now, limit)
    }
    fn changes(&self, domains: &[Domain]) -> BoxStream<'static, Changed> {
        note(&self.calls, "changes");
        self.inner.changes(domains)
    }
    fn health(&self) -> Answer<'_, Health> {
        self.inner.health()
    }
    fn maintain(&self) -> Answer<'_, ()> {
        self.inner.maintain()
    }
    fn close(&self) -> Answer<'_, ()> {
        Store::close(&self.inner)
    }
    watched! {
        renew(lease: &'a Lease) -> Answer<'a, ()>;
        next(lease: &'a Lease, after: Option<Position>, limit: usize) -> Answer<'a, Vec<Head>>;
        settle(lease: &'a Lease, settlements: Vec<Settlement>) -> Answer<'a, ()>;
        count(domain: &'a Domain) -> Answer<'a, Count>;
        usage(customer: &'a CustomerName) -> Answer<'a, Count>;
    }
}

impl Directory for Watched {
    fn customers(
        &self,
        after: Option<CustomerName>,
        limit: usize,
    ) -> Answer<'_, Vec<Arc<Customer>>> {
        note(&self.calls, "customers");
        self.inner.customers(after, limit)
    }
    fn create(&self, customer: Customer) -> BoxFuture<'_, Result<(), DirectoryError>> {
        self.inner.create(customer)
    }
    fn update(&self, customer: Customer) -> BoxFuture<'_, Result<(), DirectoryError>> {
        self.inner.update(customer)
    }
    fn learnt(&self) -> Answer<'_, Vec<(CustomerName, String)>> {
        self.inner.learnt()
    }
    fn server_key(&self) -> Answer<'_, [u8; 32]> {
        note(&self.calls, "server_key");
        self.inner.server_key()
    }
    watched! {
        customer(name: &'a CustomerName) -> Answer<'a, Option<Arc<Customer>>>;
        owner(domain: &'a Domain) -> Answer<'a, Option<Arc<Customer>>>;
        learn(name: &'a CustomerName, lesson: Option<String>, is_pressing: bool) -> Answer<'a, ()>;
        remove(name: &'a CustomerName) -> BoxFuture<'a, Result<(), DirectoryError>>;
    }
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("a domain")
}

/// A customer as `customer add` makes it.
fn customer(name: &str, domains: &[&str]) -> Customer {
    let (scram, cram) =
        sasl::derive(&Secret::from(PASSWORD), vec![7; 16], sasl::ITERATIONS).expect("a password");
    Customer {
        name: CustomerName::parse(name).expect("a name"),
        domains: domains.iter().map(|name| domain(name)).collect(),
        suspended: name == "asleep",
        credentials: vec![Credential { label: "".into(), scram, cram, created: Timestamp(0) }],
        settings: Settings::default(),
        created: Timestamp(0),
        revision: 0,
    }
}

struct Place {
    office: Arc<Office>,
    calls: Calls,
}

impl Place {
    /// acme and other, who have mail; asleep, who is suspended.
    fn new() -> Self {
        let calls = Calls::default();
        let store = Arc::new(Watched { inner: Memory::new(), calls: calls.clone() });
        for (name, domains) in [
            ("acme", &["example.com", "example.org"][..]),
            ("other", &["other.example"]),
            ("asleep", &["asleep.example"]),
        ] {
            block_on(store.inner.create(customer(name, domains))).expect("created");
        }
        let mut policy = Policy::new(domain("mx.provider.example"));
        policy.disk_free_min = 0;
        let world = Arc::new(StillWorld(calls.clone()));
        let office = Arc::new(Office::new(store.clone(), store, world, policy));
        Self { office, calls }
    }

    /// A desk for a peer that nobody has seen before.
    fn desk(&self, number: u8) -> Desk {
        let peer = std::net::SocketAddr::from(([192, 0, 2, number], 2525));
        Desk::new(self.office.clone(), peer, None)
    }

    /// The answer to a question, and what was done for it.
    fn work(&self, desk: &mut Desk, question: Question) -> (smtp::Answer, Vec<String>) {
        self.calls.lock().expect("free").clear();
        let answer = block_on(desk.answer(question));
        (answer, self.calls.lock().expect("free").clone())
    }
}

/// A proof is used up by each login.
type MakeProof = fn() -> Proof;

#[test]
fn a_login_that_fails_costs_the_same_whatever_is_wrong() {
    let place = Place::new();
    let cases: [(&str, &str, MakeProof); 9] = [
        ("unknown, PLAIN", "nobody", || Proof::Password(Secret::from("wrong"))),
        ("unknown label, PLAIN", "acme/office", || Proof::Password(Secret::from(PASSWORD))),
        ("wrong, PLAIN", "acme", || Proof::Password(Secret::from("wrong"))),
        ("suspended, PLAIN", "asleep", || Proof::Password(Secret::from("wrong"))),
        ("suspended and right, PLAIN", "asleep", || Proof::Password(Secret::from(PASSWORD))),
        ("unknown", "nobody", || Proof::Wrong),
        ("wrong", "acme", || Proof::Wrong),
        ("suspended", "asleep", || Proof::Wrong),
        ("suspended and right", "asleep", || {
            Proof::Proven(Login::parse("asleep").expect("a login"))
        }),
    ];
    let mut seen: Option<Vec<String>> = None;
    for (number, (what, name, proof)) in (1..).zip(cases) {
        // A name has failures of its own, so each case has a place of its own.
        let place = if number == 1 { &place } else { &Place::new() };
        let request =
            LoginRequest { name: name.into(), authzid: None, mechanism: "X", proof: proof() };
        let (answer, done) = place.work(&mut place.desk(number), Question::Login(request));
        let smtp::Answer::Login(Err(refusal)) = answer else { panic!("{what}: {answer:?}") };
        assert_eq!(refusal, Refusal::LoginFailed, "{what}");
        assert_eq!(done, *seen.get_or_insert(done.clone()), "{what}");
    }
    let seen = seen.expect("cases");
    assert!(seen.contains(&"server_key".into()) && seen.contains(&"customer".into()), "{seen:?}");
}

#[test]
fn what_is_stored_and_what_is_made_up_cost_the_same() {
    let place = Place::new();
    let mut desk = place.desk(1);
    let mut ask = |name: &str| {
        let (answer, done) = place.work(&mut desk, Question::Credential(name.into()));
        let smtp::Answer::Credential(Ok(credential)) = answer else { panic!("{answer:?}") };
        (credential, done)
    };
    let (real, done) = ask("acme");
    for name in ["nobody", "asleep", "acme/office", "a name that none can be"] {
        let (one, same) = ask(name);
        let is_possible = Login::parse(name).is_ok();
        assert!(same == done || !is_possible, "{name}: {same:?}, {done:?}");
        // As many rounds, as much salt: what follows takes as long.
        assert_eq!(one.scram.iterations, real.scram.iterations, "{name}");
        assert_eq!(one.scram.salt.len(), real.scram.salt.len(), "{name}");
    }
}

#[test]
fn a_foreign_domain_costs_what_an_unknown_one_costs() {
    let place = Place::new();
    let turn = |number: u8, domains: &[&str]| {
        let account = Account {
            login: Login::parse("acme").expect("a login"),
            domains: vec![domain("example.com"), domain("example.org")],
            require_tls: false,
        };
        let domains = domains.iter().map(|name| domain(name)).collect();
        let request = TurnRequest { account, domains };
        place.calls.lock().expect("free").clear();
        let mut desk = place.desk(number);
        block_on(desk.worth_deciding(&request));
        let answer = block_on(desk.answer(Question::Turn(request)));
        let smtp::Answer::Turn(Err(refusal)) = answer else { panic!("{answer:?}") };
        (refusal, place.calls.lock().expect("free").clone())
    };
    let unknown = turn(1, &["unknown.example"]);
    assert_eq!(unknown.0, Refusal::NotYourDomain);
    for domains in [
        &["other.example"][..],
        &["asleep.example"],
        &["example.com", "other.example"],
        &["example.com", "unknown.example"],
        &["other.example", "example.org"],
    ] {
        assert_eq!(turn(2, domains), unknown, "{domains:?}");
    }
    // Nobody's queue was looked at.
    assert!(unknown.1.iter().all(|call| call == "customer"), "{unknown:?}");
}

#[test]
fn a_neighbour_that_drains_changes_nothing() {
    let place = Place::new();
    let turn = || {
        let account = Account {
            login: Login::parse("acme").expect("a login"),
            domains: vec![domain("example.com")],
            require_tls: false,
        };
        let request = TurnRequest { account, domains: Vec::new() };
        place.calls.lock().expect("free").clear();
        let answer = block_on(place.desk(1).answer(Question::Turn(request)));
        let smtp::Answer::Turn(Err(refusal)) = answer else { panic!("{answer:?}") };
        (refusal, place.calls.lock().expect("free").clone())
    };
    let alone = turn();
    assert_eq!(alone.0, Refusal::NoMail);
    let wish = LeaseRequest {
        customer: CustomerName::parse("other").expect("a name"),
        domains: vec![domain("other.example")],
        owner: "neighbour".into(),
        lasts: Duration::from_secs(60),
        overthrow_after: Duration::from_secs(60),
    };
    let granted = block_on(place.office.store.lease(wish)).expect("asked");
    assert!(matches!(granted, LeaseAnswer::Granted(_)));
    assert_eq!(turn(), alone);
}
