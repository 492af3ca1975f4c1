//! A post office in memory under a virtual clock, and customers' servers to drain to.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod caller;
pub mod clock;
pub mod flaky;
pub mod pipe;
pub mod server;

use std::sync::Arc;
use std::time::Duration;

use futures::executor::{LocalPool, block_on};
use futures::task::LocalSpawnExt;
use restante::mail::*;
use restante::net::deliver::{deliver, deliver_dialed};
use restante::net::serve::{Host, converse};
use restante::net::stop::{Stop, StopGiver};
use restante::net::wire::Wire;
use restante::provider::board::LastDrain;
use restante::provider::{Office, Policy, Window};
use restante::smtp::Door;
use restante::store::{
    Filter, Head, LeaseAnswer, LeaseRequest, Memory, NewMessage, Store, StoreError,
};

pub use clock::Clock;
use pipe::{End, Traits};

pub fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("valid")
}

/// The keys of [`caller::PASSWORD`], derived once.
pub fn credential() -> Credential {
    static KEYS: std::sync::OnceLock<(ScramVerifier, CramContexts)> = std::sync::OnceLock::new();
    let password = Secret::from(caller::PASSWORD);
    let (scram, cram) = KEYS
        .get_or_init(|| restante::smtp::sasl::derive(&password, vec![7; 16], 4096).expect("keys"))
        .clone();
    Credential { label: "".into(), scram, cram, created: Timestamp(0) }
}

pub fn customer_name() -> CustomerName {
    CustomerName::parse("acme").expect("valid")
}

/// What needs no waiting, from within a task.
pub fn at_once<T>(work: impl Future<Output = T>) -> T {
    futures::FutureExt::now_or_never(work).expect("memory answers at once")
}

/// A customer without a login, which no drain needs.
pub fn customer(settings: Settings) -> Customer {
    Customer {
        name: customer_name(),
        domains: vec![domain("example.com"), domain("example.org")],
        suspended: false,
        credentials: vec![credential()],
        settings,
        created: Timestamp(0),
        revision: 0,
    }
}

fn owner_of(path: &str) -> CustomerName {
    let is_bolt = path.ends_with("bolt.example");
    CustomerName::parse(if is_bolt { "bolt" } else { "acme" }).expect("valid")
}

/// Commits a message; panics if the store refuses.
pub async fn put(
    store: &dyn Store,
    id: u128,
    from: &str,
    to: &[&str],
    content: &[u8],
) -> Result<(), StoreError> {
    let id = QueueId::from_bits(id);
    let mut body = store.begin_body(id, 0).await?;
    body.write(content).await?;
    let envelope = Envelope {
        reverse_path: ReversePath::parse(from).expect("valid"),
        recipients: to
            .iter()
            .map(|path| Recipient {
                forward_path: ForwardPath::parse(path).expect("valid"),
                notify: None,
                orcpt: None,
            })
            .collect(),
        ..Envelope::default()
    };
    let facts = ContentFacts {
        size: content.len() as u64,
        has_8bit_body: !content.is_ascii(),
        message_id: Some(format!("<{id}@test>").into()),
        ..ContentFacts::default()
    };
    let message = NewMessage {
        id,
        owners: to.iter().map(|path| owner_of(path)).collect(),
        expires: vec![Timestamp(u64::MAX); to.len()],
        envelope,
        facts,
        arrived: Timestamp(clock::BEGIN),
    };
    store.commit(message, body).await
}

/// Everything that a test of one customer needs.
pub struct Place {
    pub clock: Clock,
    pub memory: Arc<Memory>,
    pub office: Arc<Office>,
    pub pool: LocalPool,
    pub stop: Stop,
    pub giver: Option<StopGiver>,
    next: u128,
}

impl Default for Place {
    fn default() -> Self {
        Self::with(Settings::default(), Window::default())
    }
}

impl Place {
    pub fn with(settings: Settings, window: Window) -> Self {
        let clock = Clock::default();
        let ticking = clock.clone();
        let memory = Arc::new(Memory::with_clock(Arc::new(move || ticking.now())));
        block_on(restante::store::Directory::create(&*memory, customer(settings)))
            .expect("created");
        let mut policy = Policy::new(domain("mx.provider.example"));
        policy.window = window;
        let office =
            Arc::new(Office::new(memory.clone(), memory.clone(), Arc::new(clock.clone()), policy));
        let (giver, stop) = Stop::new();
        Self { clock, memory, office, pool: LocalPool::new(), stop, giver: Some(giver), next: 1 }
    }

    /// The office of a new process over the same store.
    pub fn restarted(&self) -> Arc<Office> {
        let policy = Policy::clone(&self.office.policy());
        let world = Arc::new(self.clock.clone());
        let office = Office::new(self.memory.clone(), self.memory.clone(), world, policy);
        block_on(office.recall()).expect("recalled");
        Arc::new(office)
    }

    /// Queues a message; gives its id.
    pub fn put(&mut self, from: &str, to: &[&str], content: &[u8]) -> QueueId {
        let id = self.next;
        self.next += 1;
        block_on(put(&*self.memory, id, from, to, content)).expect("committed");
        QueueId::from_bits(id)
    }

    /// A number of messages for one recipient each.
    pub fn put_many(&mut self, count: usize) {
        for number in 0..count {
            let content = format!("Subject: {number}\r\n\r\nmessage {number}\r\n.\r\n..\r\n");
            self.put("t@foo.example", &["l@example.com"], content.as_bytes());
        }
    }

    pub async fn lease(memory: Arc<Memory>) -> Lease {
        let request = LeaseRequest {
            customer: customer_name(),
            domains: vec![domain("example.com"), domain("example.org")],
            owner: "test".into(),
            lasts: Duration::from_secs(900),
            overthrow_after: Duration::from_secs(60),
        };
        match memory.lease(request).await.expect("answered") {
            LeaseAnswer::Granted(lease) => lease,
            LeaseAnswer::Busy { by, .. } => panic!("busy by {by}"),
        }
    }

    /// Begins a drain of these domains alone.
    pub fn drain_domains(
        &mut self,
        end: End,
        domains: &[&str],
    ) -> futures::future::RemoteHandle<LastDrain> {
        let request = LeaseRequest {
            customer: customer_name(),
            domains: domains.iter().map(|text| domain(text)).collect(),
            owner: "test".into(),
            lasts: Duration::from_secs(900),
            overthrow_after: Duration::from_secs(60),
        };
        let LeaseAnswer::Granted(lease) = at_once(self.memory.lease(request)).expect("answered")
        else {
            panic!("busy")
        };
        let (office, stop) = (self.office.clone(), self.stop.clone());
        let peer = "192.0.2.1:25".parse().expect("valid");
        let wire = Wire { stream: Box::new(end), peer, tls: None };
        self.spawn(async move { deliver_dialed(wire, lease, &office, &stop).await })
    }

    /// Begins a drain over `end`; it runs when the place runs.
    pub fn drain(&mut self, end: End, tls: bool) -> futures::future::RemoteHandle<LastDrain> {
        let (office, stop, memory) = (self.office.clone(), self.stop.clone(), self.memory.clone());
        let wire = Wire {
            stream: Box::new(end),
            peer: "192.0.2.1:25".parse().expect("valid"),
            tls: tls.then(TlsFacts::default),
        };
        let work = async move {
            let lease = Place::lease(memory).await;
            deliver_dialed(wire, lease, &office, &stop).await
        };
        self.pool.spawner().spawn_local_with_handle(work).expect("spawned")
    }

    /// Answers a call at the ODMR door; gives how its drain ended, if it came so far.
    pub fn answer(&mut self, end: End) -> futures::future::RemoteHandle<Option<LastDrain>> {
        let mut policy = Policy::clone(&self.office.policy());
        policy.auth_requires_tls = false;
        self.office.set_policy(policy);
        let host = Host { office: self.office.clone(), tls: None, stop: self.stop.clone() };
        let peer = "192.0.2.1:25".parse().expect("valid");
        let wire = Wire { stream: Box::new(end), peer, tls: None };
        let work = async move {
            // A wire that breaks is the peer's matter.
            let reversed = converse(wire, Door::Odmr, &host).await.ok().flatten()?;
            Some(deliver(reversed, &host.office, &host.stop).await)
        };
        self.spawn(work)
    }

    pub fn spawn<T: 'static>(
        &mut self,
        work: impl Future<Output = T> + 'static,
    ) -> futures::future::RemoteHandle<T> {
        self.pool.spawner().spawn_local_with_handle(work).expect("spawned")
    }

    /// Runs, jumping over waits, until `work` is done.
    pub fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = Box::pin(work);
        for _ in 0..100_000 {
            self.pool.run_until_stalled();
            if let Some(done) = futures::FutureExt::now_or_never(&mut work) {
                return done;
            }
            // The work may have woken others.
            self.pool.run_until_stalled();
            if let Some(done) = futures::FutureExt::now_or_never(&mut work) {
                return done;
            }
            assert!(self.clock.jump(), "everybody waits for nothing");
        }
        panic!("no end after 100,000 jumps of the clock");
    }

    /// Drains once to a server.
    pub fn drain_to(&mut self, server: server::Server) -> (LastDrain, server::Taken) {
        self.drain_over(server, Traits::default(), Traits::default())
    }

    pub fn drain_over(
        &mut self,
        server: server::Server,
        out: Traits,
        back: Traits,
    ) -> (LastDrain, server::Taken) {
        let (ours, theirs) = pipe::pair(out, back);
        let drain = self.drain(ours, false);
        let clock = self.clock.clone();
        let serving = self.spawn(server.serve(theirs, clock));
        self.run(futures::future::join(drain, serving))
    }

    /// All that is queued.
    pub fn queued(&self) -> Vec<Head> {
        block_on(self.memory.query(Filter::default(), None, usize::MAX)).expect("a listing")
    }

    /// State of each recipient by address.
    pub fn states(&self) -> Vec<(String, RecipientState)> {
        self.queued()
            .into_iter()
            .flat_map(|head| head.recipients)
            .map(|held| (held.recipient.forward_path.to_string(), held.state))
            .collect()
    }

    /// Whether the queues can be leased at once.
    pub fn is_released(&self) -> bool {
        let request = LeaseRequest {
            customer: customer_name(),
            domains: vec![domain("example.com"), domain("example.org")],
            owner: "look".into(),
            lasts: Duration::from_secs(1),
            overthrow_after: Duration::from_secs(60),
        };
        match block_on(self.memory.lease(request)).expect("answered") {
            LeaseAnswer::Granted(lease) => {
                block_on(self.memory.release(lease)).expect("released");
                true
            }
            LeaseAnswer::Busy { .. } => false,
        }
    }
}
