//! Ten thousand customers of the real program on loopback, each logged in: what one costs while ATRN waits for mail and
//! while the reversed connection is held open, in clear text and under TLS, and how soon mail for one of them is there.
//!
//! `cargo bench --bench wait` prints one table; docs/performance-drain.md holds a run and how to read it.
//! `RESTANTE_WAIT_CUSTOMERS` sets their number (default 10000).

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::task::block_on;
use restante::mail::{Credential, Customer, CustomerName, Domain, Secret, Settings, Timestamp};
use restante::smtp::sasl::derive;
use restante::store::{Directory, Options, SledStore, Store};
use support::process::resident_kib;
use support::{Duplex, Peer, Provider};

const PASSWORD: &str = "correct-horse-battery";
/// Customers whose mail is timed.
const TIMED: usize = 1000;

fn main() {
    let customers = std::env::var("RESTANTE_WAIT_CUSTOMERS").ok().and_then(|n| n.parse().ok());
    let customers: usize = customers.unwrap_or(10_000);
    assert!(customers > 1, "what one costs is told from the difference");
    let customers = customers.min(raise_descriptors());
    println!("{customers} customers; KiB of the provider for each, and milliseconds\n");
    println!("{:<58} {:>10} {:>8}", "", "", "of goal");
    for (word, listener) in [("clear text", "odmr"), ("TLS", "odmrs")] {
        measure(word, listener, customers);
    }
}

/// Answers how many customers there can be: the provider keeps two for each session, and only root may go beyond the hard
/// limit.
fn raise_descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = Rlimit { current: Some(65_536), maximum: Some(65_536) };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("allowed");
    }
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(most.saturating_sub(200) / 2).unwrap_or(usize::MAX)
}

fn row(what: &str, value: f64, goal: f64) {
    println!("{what:<58} {value:>10.2} {:>8.2}", value / goal);
}

fn measure(word: &str, listener: &str, customers: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let more = "[limits]\nsessions_max = 100000\nsessions_per_address = 100000\ndisk_free_min = \"64 MiB\"\n\
                [drain]\nwait_for_mail = \"1h\"\nhold_open = \"1h\"\nnoop_after = \"1h\"\n";
    let mut provider = Provider::prepare(folder.path(), more);
    enrol(&folder.path().join("data").join("store"), customers);
    provider.start();
    let door = address(&provider, listener);
    let mut sender = peer(TcpStream::connect(address(&provider, "mx")).expect("a listener"));
    sender.expect("220");
    sender.ask("EHLO sender.example", "250");
    let tls = (listener == "odmrs").then(|| provider.trust());
    // What the first one brings is not one customer's.
    let mut all = vec![waiting(door, tls.as_ref(), 0)];
    let before = resident(&provider);
    all.extend((1..customers).map(|number| waiting(door, tls.as_ref(), number)));
    let each = |now: f64| (now - before) / (customers - 1) as f64;
    row(&format!("{word}, ATRN waits for mail, KiB"), each(settled(&provider)), 20.0);

    let mut timed = Vec::with_capacity(TIMED);
    for number in (0..customers).map(|number| shuffled(number, customers)) {
        let began = send(&mut sender, number);
        all[number].expect("250");
        timed.push(began.elapsed());
        take(&mut all[number]);
    }
    times(&format!("{word}, from the final dot to ATRN's 250"), &mut timed[..TIMED.min(customers)]);
    row(&format!("{word}, held open, KiB"), each(settled(&provider)), 20.0);

    timed.clear();
    for number in (0..TIMED.min(customers)).map(|number| shuffled(number, customers)) {
        let began = send(&mut sender, number);
        let line = all[number].line();
        timed.push(began.elapsed());
        assert!(line.starts_with("MAIL"), "{line}");
        answer(&mut all[number]);
    }
    times(&format!("{word}, held open, from the final dot to MAIL"), &mut timed);
    provider.order_to_stop();
    drop(all);
    assert!(provider.has_ended_well());
}

/// Numbers in no order, each once.
fn shuffled(number: usize, customers: usize) -> usize {
    // A prime that divides no sensible number of customers.
    number * 1_000_003 % customers
}

fn times(what: &str, spans: &mut [Duration]) {
    spans.sort();
    for percent in [50, 99] {
        let span = spans[spans.len() * percent / 100].as_secs_f64() * 1000.0;
        row(&format!("{what}, {percent} %, ms"), span, 50.0);
    }
}

/// Makes the customers, all with one password.
fn enrol(store: &Path, customers: usize) {
    let (scram, cram) = derive(&Secret::from(PASSWORD), vec![7; 16], 4096).expect("derived");
    let store = SledStore::open(store, Options::default()).expect("a store");
    let create = |number: usize| {
        let credential = Credential {
            label: "".into(),
            scram: scram.clone(),
            cram: cram.clone(),
            created: Timestamp(0),
        };
        store.create(Customer {
            name: CustomerName::parse(&format!("c{number}")).expect("valid"),
            domains: vec![Domain::parse(&format!("d{number}.example")).expect("valid")],
            suspended: false,
            credentials: vec![credential],
            settings: Settings::default(),
            created: Timestamp(0),
            revision: 0,
        })
    };
    for group in (0..customers).collect::<Vec<_>>().chunks(1000) {
        let made = block_on(futures::future::join_all(group.iter().map(|n| create(*n))));
        made.into_iter().for_each(|made| made.expect("created"));
    }
    block_on(store.close()).expect("closed");
}

fn address(provider: &Provider, listener: &str) -> SocketAddr {
    provider.address(listener).parse().expect("an address")
}

fn peer(stream: TcpStream) -> Peer {
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    Peer(BufReader::with_capacity(1 << 10, Duplex::Plain(stream)))
}

/// A customer that has said ATRN and waits.
fn waiting(door: SocketAddr, tls: Option<&Arc<rustls::ClientConfig>>, number: usize) -> Peer {
    let mut peer = peer(TcpStream::connect(door).expect("a listener"));
    if let Some(tls) = tls {
        let Duplex::Plain(stream) = peer.0.into_inner() else { panic!("TLS inside TLS") };
        let name = "localhost".try_into().expect("a name");
        let client = rustls::ClientConnection::new(tls.clone(), name).expect("a client");
        let stream = Box::new(rustls::StreamOwned::new(client, stream));
        peer = Peer(BufReader::with_capacity(1 << 10, Duplex::Tls(stream)));
    }
    peer.expect("220");
    peer.ask("EHLO customer.example", "250");
    peer.cram(&format!("c{number}"), PASSWORD);
    peer.say("ATRN\r\n");
    peer
}

/// Sends this customer a message; gives the moment of its final dot.
fn send(sender: &mut Peer, number: usize) -> Instant {
    sender.ask("MAIL FROM:<s@sender.example>", "250");
    sender.ask(&format!("RCPT TO:<l@d{number}.example>"), "250");
    sender.ask("DATA", "354");
    let began = Instant::now();
    sender.say("Subject: wait\r\n\r\nhello\r\n.\r\n");
    sender.expect("250");
    began
}

/// The customer's server from its greeting to the end of the first message.
fn take(peer: &mut Peer) {
    peer.say("220 customer.example\r\n");
    assert!(peer.line().starts_with("EHLO"));
    peer.say("250-customer.example\r\n250 8BITMIME\r\n");
    assert!(peer.line().starts_with("MAIL"));
    answer(peer);
}

/// From behind MAIL to the end of the message.
fn answer(peer: &mut Peer) {
    peer.say("250 fine\r\n");
    assert!(peer.line().starts_with("RCPT"));
    peer.say("250 fine\r\n");
    assert!(peer.line().starts_with("DATA"));
    peer.say("354 go on\r\n");
    while peer.line() != ".\r\n" {}
    peer.say("250 taken\r\n");
}

/// Memory of the provider, in KiB.
fn resident(provider: &Provider) -> f64 {
    resident_kib(provider.pid()) as f64
}

/// The same once it has answered a few questions that were asked after all else was sent.
fn settled(provider: &Provider) -> f64 {
    (0..5).for_each(|_| drop(provider.address("mx")));
    resident(provider)
}
