//! A provider in this process: a store with mail, an office, and drains over real sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::task::block_on;
use restante::mail::*;
use restante::net::clock::RealWorld;
use restante::net::deliver::deliver_dialed;
use restante::net::dial::connect;
use restante::net::stop::Stop;
use restante::net::wire::Wire;

use super::sink::Tls;
use restante::provider::board::LastDrain;
use restante::provider::{Office, Policy};
use restante::store::{
    Directory, LeaseAnswer, LeaseRequest, Memory, NewMessage, Options, SledStore, Store,
};

/// Which engine holds the mail.
pub(crate) enum Kind {
    Memory,
    Sled(PathBuf),
}

/// A provider with mail.
pub(crate) struct Place {
    pub(crate) office: Arc<Office>,
    pub(crate) messages: usize,
}

fn name(number: usize) -> CustomerName {
    CustomerName::parse(&format!("c{number}")).expect("valid")
}

pub(crate) fn domain(number: usize) -> Domain {
    Domain::parse(&format!("d{number}.example")).expect("valid")
}

fn customer(number: usize, domains: Vec<Domain>) -> Customer {
    Customer {
        name: name(number),
        domains,
        suspended: false,
        credentials: Vec::new(),
        settings: Settings::default(),
        created: Timestamp(0),
        revision: 0,
    }
}

/// A message of about this size, as lines.
pub(crate) fn content(size: usize) -> Vec<u8> {
    let mut text = b"Message-ID: <load@sender.example>\r\nSubject: load\r\n\r\n".to_vec();
    while text.len() + 72 < size {
        text.extend_from_slice(&[b'x'; 70]);
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// Commits one message for `l@d{queue}.example` of customer `owner`.
pub(crate) async fn put(store: &dyn Store, id: u128, owner: usize, queue: usize, content: &[u8]) {
    let id = QueueId::at(1_795_317_540_000, id);
    let mut body = store.begin_body(id, content.len() as u64).await.expect("a body");
    body.write(content).await.expect("written");
    let recipient = Recipient {
        forward_path: ForwardPath::parse(&format!("l@d{queue}.example")).expect("valid"),
        notify: None,
        orcpt: None,
    };
    let envelope = Envelope {
        reverse_path: ReversePath::parse("t@foo.example").expect("valid"),
        recipients: vec![recipient],
        ..Envelope::default()
    };
    let message = NewMessage {
        id,
        envelope,
        owners: vec![name(owner)],
        facts: ContentFacts { size: content.len() as u64, ..ContentFacts::default() },
        arrived: Timestamp(1_795_317_540_000),
        expires: vec![Timestamp(u64::MAX)],
    };
    store.commit(message, body).await.expect("committed");
}

/// A connection to the server there, perhaps under TLS.
pub(crate) async fn called(to: SocketAddr, tls: Option<Arc<Tls>>) -> Wire {
    let wire = connect("127.0.0.1", to.port()).await.expect("connected");
    match tls {
        Some(tls) => tls.client.connect("localhost", wire).await.expect("TLS"),
        None => wire,
    }
}

impl Place {
    fn over(store: Arc<dyn Store>, directory: Arc<dyn Directory>, messages: usize) -> Self {
        let mut policy = Policy::new(Domain::parse("mx.provider.example").expect("valid"));
        policy.drain.hold_open = Some(Seconds(0));
        let window = std::env::var("RESTANTE_DRAIN_WINDOW").ok().and_then(|n| n.parse().ok());
        policy.window.messages = window.unwrap_or(policy.window.messages);
        let office = Office::new(store, directory, Arc::new(RealWorld::default()), policy);
        Self { office: Arc::new(office), messages }
    }

    fn engine(kind: Kind) -> (Arc<dyn Store>, Arc<dyn Directory>) {
        match kind {
            Kind::Memory => {
                let memory = Arc::new(Memory::new());
                (memory.clone(), memory)
            }
            Kind::Sled(folder) => {
                let sled = SledStore::open(&folder, Options::default()).expect("a store");
                let sled = Arc::new(sled);
                (sled.clone(), sled)
            }
        }
    }

    /// One customer with one domain, and so many messages of `size` octets.
    pub(crate) fn new(kind: Kind, messages: usize, size: usize) -> Self {
        Self::spread(kind, messages, 1, size)
    }

    /// The same mail, and nothing that is recorded about it.
    pub(crate) fn unsettled(&self) -> Self {
        let store = Arc::new(super::unsettled::Unsettled(self.office.store.clone()));
        Self::over(store, self.office.directory.clone(), self.messages)
    }

    /// Messages spread over the domains of as many customers.
    pub(crate) fn spread(kind: Kind, messages: usize, domains: usize, size: usize) -> Self {
        let (store, directory) = Self::engine(kind);
        block_on(async {
            // Many at once, so that they share syncs; large ones few, since they wait in memory.
            let together = ((16 << 20) / size).clamp(1, 2048);
            for group in (0..domains).collect::<Vec<_>>().chunks(1024) {
                let create =
                    |number: &usize| directory.create(customer(*number, vec![domain(*number)]));
                for made in futures::future::join_all(group.iter().map(create)).await {
                    made.expect("created");
                }
            }
            let content = content(size);
            for group in (0..messages).collect::<Vec<_>>().chunks(together) {
                let puts = group
                    .iter()
                    .map(|id| put(&*store, *id as u128, id % domains, id % domains, &content));
                futures::future::join_all(puts).await;
            }
        });
        Self::over(store, directory, messages)
    }

    pub(crate) async fn lease(&self, owner: usize) -> Lease {
        let request = LeaseRequest {
            customer: name(owner),
            domains: vec![domain(owner)],
            owner: "bench".into(),
            lasts: Duration::from_secs(900),
            overthrow_after: Duration::from_secs(60),
        };
        match self.office.store.lease(request).await.expect("answered") {
            LeaseAnswer::Granted(lease) => lease,
            LeaseAnswer::Busy { .. } => panic!("busy"),
        }
    }

    /// Drains customer 0 to the server there.
    pub(crate) fn drain(&self, to: SocketAddr) -> LastDrain {
        self.drain_over(to, None)
    }

    /// The same, perhaps under TLS.
    pub(crate) fn drain_over(&self, to: SocketAddr, tls: Option<Arc<Tls>>) -> LastDrain {
        let office = self.office.clone();
        block_on(async_std::task::spawn(async move {
            Self::draining(office, 0, called(to, tls).await).await
        }))
    }

    pub(crate) async fn draining(office: Arc<Office>, owner: usize, wire: Wire) -> LastDrain {
        let place = Self { office: office.clone(), messages: 0 };
        let (_giver, stop) = Stop::new();
        let lease = place.lease(owner).await;
        deliver_dialed(wire, lease, &office, &stop).await
    }

    /// How long it takes from the lease to the first MAIL, of which the server makes an end.
    pub(crate) fn first_mail(&self, owner: usize) -> Duration {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a call");
            let mut input = BufReader::new(&stream);
            let mut line = String::new();
            (&stream).write_all(b"220 x\r\n").expect("written");
            input.read_line(&mut line).expect("EHLO");
            (&stream).write_all(b"250 x\r\n").expect("written");
            input.read_line(&mut line).expect("MAIL");
            assert!(line.contains("MAIL"));
            Instant::now()
        });
        let office = self.office.clone();
        let begin = block_on(async {
            let place = Self { office: office.clone(), messages: 0 };
            let (_giver, stop) = Stop::new();
            let wire = connect("127.0.0.1", address.port()).await.expect("connected");
            let begin = Instant::now();
            let lease = place.lease(owner).await;
            deliver_dialed(wire, lease, &office, &stop).await;
            begin
        });
        server.join().expect("served").duration_since(begin)
    }
}
