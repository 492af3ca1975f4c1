//! A flood on the real program over loopback: what a legitimate sender and a legitimate customer notice of 2,000 idle
//! and 200 hostile connections from other addresses.
//!
//! `cargo bench --bench flood` prints one table; docs/performance-flood.md holds a run and how to read it. The numbers vary
//! with the machine; the ratios are what counts. `RESTANTE_FLOOD_MESSAGES` sets the messages of each run (default 2000).

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::process::resident_kib;
use support::{Duplex, Peer, Provider, stuffed};

const PASSWORD: &str = "correct-horse-battery";
const IDLE: usize = 2000;
const HOSTILE: usize = 200;
/// Connections of one flooding address, the default limit.
const PER_ADDRESS: usize = 20;
/// Each hostile connection acts so often.
const HOSTILE_PAUSE: Duration = Duration::from_millis(50);

fn main() {
    let messages =
        std::env::var("RESTANTE_FLOOD_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let limit = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("descriptors");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let more = "[limits]\ndisk_free_min = \"64 MiB\"\n[log]\nlevel = \"info\"\n";
    let mut provider = Provider::prepare(folder.path(), more);
    provider.add_customer("acme", "example.org", PASSWORD);
    provider.start();
    // From here on only errors are logged: a flood's log would be measured, too.
    let text = std::fs::read_to_string(provider.config()).expect("text");
    std::fs::write(provider.config(), text.replace("\"info\"", "\"error\"")).expect("written");
    let process = rustix::process::Pid::from_raw(provider.pid().cast_signed()).expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::HUP).expect("signalled");
    let (mx, odmr) = (address(&provider, "mx"), address(&provider, "odmr"));

    measure(mx, odmr, messages / 4);
    let memory_before = resident_kib(provider.pid()) as f64 / 1024.0;
    let quiet = measure(mx, odmr, messages);
    let flood = Flood::start(mx, odmr);
    let flooded = measure(mx, odmr, messages);
    let memory_flooded = resident_kib(provider.pid()) as f64 / 1024.0;
    let acts = flood.stop();
    let normal_after = back_to_normal(mx, odmr, &quiet);

    println!(
        "{messages} messages a run; {IDLE} idle and {HOSTILE} hostile connections, {acts} hostile acts\n"
    );
    println!("{:<34} {:>10} {:>10} {:>8}", "", "quiet", "flooded", "ratio");
    for (name, quiet, flooded) in [
        ("accepting a message, p50 ms", quiet.intake.p(50), flooded.intake.p(50)),
        ("accepting a message, p99 ms", quiet.intake.p(99), flooded.intake.p(99)),
        ("draining a message, p50 ms", quiet.drain.p(50), flooded.drain.p(50)),
        ("draining a message, p99 ms", quiet.drain.p(99), flooded.drain.p(99)),
        ("connect to greeting, p99 ms", quiet.greeting.p(99), flooded.greeting.p(99)),
    ] {
        println!("{name:<34} {quiet:>10.2} {flooded:>10.2} {:>8.2}", flooded / quiet);
    }
    println!("{:<34} {memory_before:>10.1} {memory_flooded:>10.1}", "resident memory, MiB");
    println!("\nback to normal after {:.2} s", normal_after.as_secs_f64());
}

fn address(provider: &Provider, listener: &str) -> SocketAddr {
    provider.address(listener).parse().expect("an address")
}

/// Times, sorted.
struct Times(Vec<Duration>);

impl Times {
    fn new(mut all: Vec<Duration>) -> Self {
        all.sort();
        Self(all)
    }

    /// A percentile in milliseconds.
    fn p(&self, percent: usize) -> f64 {
        let place = (self.0.len() * percent / 100).min(self.0.len() - 1);
        self.0[place].as_secs_f64() * 1000.0
    }
}

struct Measured {
    intake: Times,
    drain: Times,
    greeting: Times,
}

fn connect(address: SocketAddr) -> Peer {
    let stream = TcpStream::connect(address).expect("a listener");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    Peer(BufReader::new(Duplex::Plain(stream)))
}

/// Sends messages one by one and collects them again, one by one.
fn measure(mx: SocketAddr, odmr: SocketAddr, messages: usize) -> Measured {
    let content = format!("Subject: flood\r\n\r\n{}", "0123456789abcdef\r\n".repeat(220));
    let mut greeting = Vec::new();
    let mut sender = greeted(mx, &mut greeting);
    let mut intake = Vec::with_capacity(messages);
    for number in 0..messages {
        if number % 20 == 19 {
            sender.ask("QUIT", "221");
            sender = greeted(mx, &mut greeting);
        }
        let began = Instant::now();
        sender.ask("MAIL FROM:<s@sender.example>", "250");
        sender.ask("RCPT TO:<l@example.org>", "250");
        sender.ask("DATA", "354");
        sender.say(stuffed(content.as_bytes()));
        sender.expect("250");
        intake.push(began.elapsed());
    }
    sender.ask("QUIT", "221");
    let mut customer = greeted(odmr, &mut greeting);
    customer.cram("acme", PASSWORD);
    customer.ask("ATRN", "250");
    let drain = collect(&mut customer);
    assert_eq!(drain.len(), messages, "all of it came");
    let (intake, drain, greeting) = (Times::new(intake), Times::new(drain), Times::new(greeting));
    Measured { intake, drain, greeting }
}

fn greeted(address: SocketAddr, times: &mut Vec<Duration>) -> Peer {
    let began = Instant::now();
    let mut peer = connect(address);
    peer.expect("220");
    times.push(began.elapsed());
    peer.ask("EHLO client.example", "250");
    peer
}

/// The customer's server in lock-step; from each MAIL to the command behind its final dot.
fn collect(peer: &mut Peer) -> Vec<Duration> {
    peer.say("220 customer.example\r\n");
    let (mut all, mut began) = (Vec::new(), None);
    loop {
        let line = peer.line();
        let verb = line.get(..4).unwrap_or_default();
        if matches!(verb, "MAIL" | "QUIT")
            && let Some(began) = began.replace(Instant::now())
        {
            all.push(began.elapsed());
        }
        match verb {
            "EHLO" => peer.say("250-customer.example\r\n250 8BITMIME\r\n"),
            "DATA" => {
                peer.say("354 go on\r\n");
                while peer.line() != ".\r\n" {}
                peer.say("250 taken\r\n");
            }
            "QUIT" => {
                peer.say("221 bye\r\n");
                return all;
            }
            _ => peer.say("250 fine\r\n"),
        }
    }
}

/// A connection from one of our many addresses.
fn connect_from(number: usize, address: SocketAddr) -> Option<TcpStream> {
    use socket2::{Domain, Protocol, Socket, Type};
    let host = number / PER_ADDRESS;
    let own =
        Ipv4Addr::new(127, 1, u8::try_from(host / 250).ok()?, u8::try_from(host % 250 + 1).ok()?);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).ok()?;
    socket.bind(&SocketAddr::from((own, 0)).into()).ok()?;
    socket.connect_timeout(&address.into(), Duration::from_secs(5)).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket.into())
}

struct Flood {
    over: Arc<AtomicBool>,
    acts: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
    idle: Vec<TcpStream>,
}

impl Flood {
    fn start(mx: SocketAddr, odmr: SocketAddr) -> Self {
        let doors = [mx, odmr];
        let idle: Vec<_> = (0..IDLE).filter_map(|n| connect_from(n, doors[n % 2])).collect();
        assert_eq!(idle.len(), IDLE, "all idle connections stand");
        let (over, acts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..4).map(|part| {
            let (over, acts) = (over.clone(), acts.clone());
            std::thread::spawn(move || press(part, doors, &over, &acts))
        });
        Self { threads: threads.collect(), over, acts, idle }
    }

    /// Everything is cut; gives the number of hostile acts.
    fn stop(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        drop(self.idle);
        self.acts.load(Ordering::Relaxed)
    }
}

/// What hostile peers say; whoever is thrown out comes again.
const ACTS: [&[u8]; 8] = [
    b"EHLO x.example\r\nBOGUS\r\nBOGUS\r\n",
    b"EHLO x.example\r\nAUTH CRAM-MD5\r\nbm9ib2R5IDAw\r\n",
    b"STARTTLS\r\n\x16\x03\x01\x00\x05garba",
    b"MAIL FROM:<a@b.example>\r\nRCPT TO:<x@nobody.example>\r\nDATA\r\n",
    b"EHLO x.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<l@example.org>\r\nDATA\r\nhalf a li",
    b"ATRN example.org\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    &[b'A'; 4096],
];

fn press(part: usize, doors: [SocketAddr; 2], over: &AtomicBool, acts: &AtomicU64) {
    let count = HOSTILE / 4;
    let mut peers: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
    let mut place = [0; 4096];
    let mut round = 0;
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        for (index, peer) in peers.iter_mut().enumerate() {
            let number = IDLE + part * count + index;
            let Some(stream) = peer else {
                *peer = connect_from(number, doors[number % 2]);
                continue;
            };
            let is_gone = stream.read(&mut place).is_ok_and(|count| count == 0);
            if is_gone || stream.write(ACTS[(number + round) % ACTS.len()]).is_err() {
                *peer = None;
            }
            acts.fetch_add(1, Ordering::Relaxed);
        }
        round += 1;
        std::thread::sleep(HOSTILE_PAUSE.saturating_sub(began.elapsed()));
    }
}

/// How long until messages are as quick as before: within three times the quiet p99.
fn back_to_normal(mx: SocketAddr, odmr: SocketAddr, quiet: &Measured) -> Duration {
    let began = Instant::now();
    loop {
        let now = measure(mx, odmr, 20);
        let is_normal = now.intake.p(99) <= quiet.intake.p(99) * 3.0
            && now.drain.p(99) <= quiet.drain.p(99) * 3.0;
        if is_normal || began.elapsed() > Duration::from_secs(60) {
            return began.elapsed();
        }
    }
}
