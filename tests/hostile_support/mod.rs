//! A provider on loopback inside the test's own process, with the program's listeners and a clock that the test may
//! speed up; and peers that say exactly the octets they are told to.

#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs")]

pub mod peer;
pub mod scram;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::channel::mpsc;
use futures::executor::block_on;
use restante::mail::*;
use restante::net::listen::{Bound, Place};
use restante::net::serve::Host;
use restante::net::stop::{Stop, StopGiver};
use restante::net::tls::{ServerFiles, ServerTls};
use restante::provider::{Office, Policy, World};
use restante::smtp::{Door, sasl};
use restante::store::{Directory, Filter, Head, Memory};

pub use peer::Peer;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const PASSWORD: &str = "an ordinary password";
pub const HOST: &str = "mx.provider.example";

/// The real clocks, `speed` times as fast.
pub struct Clock {
    start: Instant,
    speed: u32,
}

impl World for Clock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed() * self.speed
    }
    fn chance(&self, place: &mut [u8]) {
        getrandom::fill(place).expect("chance");
    }
    fn wait(&self, span: Duration) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async_std::task::sleep(span / self.speed))
    }
}

/// What a test wants different.
pub struct Plan {
    pub speed: u32,
    pub policy: Policy,
    pub customers: Vec<Customer>,
    /// Changes where the certificates are.
    pub tls: fn(&mut ServerFiles, &tls::Authority),
}

/// Two customers, login in clear text allowed, ordinary time.
pub fn plan() -> Plan {
    let mut policy = Policy::new(domain(HOST));
    policy.auth_requires_tls = false;
    policy.tls_available = true;
    policy.disk_free_min = 0;
    policy.delay_after_failures = vec![Duration::ZERO];
    policy.sessions_per_address = 500;
    let customers = vec![
        customer("acme", &["example.com", "example.org"]),
        customer("other", &["other.example"]),
    ];
    Plan { speed: 1, policy, customers, tls: |_, _| {} }
}

pub fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("a domain")
}

/// A customer with [`PASSWORD`].
pub fn customer(name: &str, domains: &[&str]) -> Customer {
    let (scram, cram) =
        sasl::derive(&Secret::from(PASSWORD), vec![7; 16], 4096).expect("a password");
    Customer {
        name: CustomerName::parse(name).expect("a name"),
        domains: domains.iter().map(|name| domain(name)).collect(),
        suspended: false,
        credentials: vec![Credential { label: "".into(), scram, cram, created: Timestamp(0) }],
        settings: Settings::default(),
        created: Timestamp(0),
        revision: 0,
    }
}

/// The provider. It stops when dropped.
pub struct Arena {
    pub office: Arc<Office>,
    pub tls: Arc<ServerTls>,
    pub authority: tls::Authority,
    pub folder: tempfile::TempDir,
    host: Arc<Host>,
    alive: mpsc::Sender<()>,
    _giver: StopGiver,
}

impl Arena {
    pub fn new() -> Self {
        Self::with(plan())
    }

    pub fn with(plan: Plan) -> Self {
        let memory = Arc::new(Memory::new());
        for customer in plan.customers {
            block_on(memory.create(customer)).expect("created");
        }
        let world = Arc::new(Clock { start: Instant::now(), speed: plan.speed });
        let office = Arc::new(Office::new(memory.clone(), memory, world, plan.policy));
        let folder = tempfile::tempdir().expect("a folder");
        let authority = tls::Authority::new();
        let mut files = authority.server_files(folder.path(), &[HOST]);
        (plan.tls)(&mut files, &authority);
        let tls = Arc::new(ServerTls::load(files).expect("a certificate"));
        let (giver, stop) = Stop::new();
        let host = Arc::new(Host { office: office.clone(), tls: Some(tls.clone()), stop });
        let (alive, _) = mpsc::channel(0);
        Self { office, tls, authority, folder, host, alive, _giver: giver }
    }

    /// Opens a listener.
    pub fn open(&self, door: Door, implicit_tls: bool) -> SocketAddr {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let bound = Bound::bind(Place { name: "test", address, door, implicit_tls });
        let bound = bound.expect("a socket");
        let address = bound.describe().expect("bound").address;
        async_std::task::spawn(bound.accept(self.host.clone(), self.alive.clone()));
        address
    }

    /// A peer that has read the greeting.
    pub fn peer(&self, door: Door) -> Peer {
        let mut peer = Peer::connect(self.open(door, false));
        peer.expect("220");
        peer
    }

    /// A peer that has said EHLO.
    pub fn greeted(&self, door: Door) -> Peer {
        let mut peer = self.peer(door);
        peer.ask("EHLO client.example", "250");
        peer
    }

    /// A peer that has said EHLO under TLS.
    pub fn secured(&self, door: Door) -> Peer {
        let mut peer = self.greeted(door);
        peer.ask("STARTTLS", "220");
        let mut peer = peer.secure(&self.authority.client(None), HOST).expect("a handshake");
        peer.ask("EHLO client.example", "250");
        peer
    }

    /// A customer that is logged in at the ODMR door, under TLS.
    pub fn customer(&self, name: &str) -> Peer {
        let mut peer = self.secured(Door::Odmr);
        peer.ask(&peer::plain("", name, PASSWORD), "235");
        peer
    }

    /// Everything that waits, oldest first.
    pub fn heads(&self) -> Vec<Head> {
        block_on(self.office.store.query(Filter::default(), None, 10_000)).expect("listed")
    }

    /// The recipients that wait, sorted.
    pub fn waiting(&self) -> Vec<String> {
        let heads = self.heads();
        let all = heads.iter().flat_map(|head| &head.recipients);
        let mut names: Vec<_> = all.map(|r| r.recipient.forward_path.to_string()).collect();
        names.sort();
        names
    }

    /// The content of a message as stored.
    pub fn body(&self, id: QueueId) -> Vec<u8> {
        let mut reader = block_on(self.office.store.open_body(id, 0)).expect("a body");
        let mut whole = Vec::new();
        loop {
            let chunk = block_on(reader.read()).expect("sound");
            if chunk.is_empty() {
                return whole;
            }
            whole.extend(chunk);
        }
    }

    /// The content without our trace line.
    pub fn content(&self, id: QueueId) -> Vec<u8> {
        let body = self.body(id);
        let is_end = |w: &[u8]| w[0] == b'\r' && w[1] == b'\n' && !matches!(w[2], b' ' | b'\t');
        let end = body.windows(3).position(is_end).map_or(body.len(), |at| at + 2);
        body[end..].to_vec()
    }

    /// Puts a message into the queue.
    pub fn queue(&self, to: &[&str], content: &str) {
        let mut peer = self.greeted(Door::Mx);
        peer.ask("MAIL FROM:<sender@remote.example>", "250");
        for path in to {
            peer.ask(&format!("RCPT TO:<{path}>"), "250");
        }
        peer.ask("DATA", "354");
        peer.say(format!("{content}.\r\n"));
        peer.expect("250");
        peer.ask("QUIT", "221");
    }

    /// Waits until this holds.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::yield_now();
        }
    }

    /// Waits until all sessions are gone.
    pub fn until_quiet(&self) {
        self.until("no sessions", |arena| {
            arena.office.board.sessions() == restante::provider::board::Sessions::default()
        });
    }
}
