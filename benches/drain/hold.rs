//! Ten thousand held connections over real sockets: what each costs, and how soon new mail is on its wire.
//!
//! The customers' servers are a process of their own, this program once more, so that neither their memory nor
//! their descriptors count. Both read the system's monotonic clock.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use async_std::io::{ReadExt as _, WriteExt as _};
use async_std::task::block_on;
use restante::mail::Seconds;
use restante::net::deliver::deliver_dialed;
use restante::net::dial::connect;
use restante::net::stop::Stop;

use super::place::{Kind, Place, put};
use super::process::resident_kib;
use super::row;

const CUSTOMERS: usize = 10_000;
/// Set for the process of the customers' servers.
const MARK: &str = "RESTANTE_DRAIN_SERVERS";

/// Microseconds of the system's monotonic clock.
fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// In the process of the servers: serves until its input ends, and never returns. Elsewhere it does nothing.
pub(crate) fn serve_if_child() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("bound"));
    async_std::task::spawn(async move {
        let listener = async_std::net::TcpListener::from(listener);
        loop {
            let (stream, _) = listener.accept().await.expect("a call");
            async_std::task::spawn(serve(stream));
        }
    });
    let _ = std::io::stdin().read_line(&mut String::new());
    std::process::exit(0);
}

/// One server; it says when each MAIL came.
async fn serve(mut stream: async_std::net::TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 x\r\n").await?;
    let (mut place, mut input, mut in_content) = ([0; 512], Vec::new(), false);
    loop {
        let octets = stream.read(&mut place).await?;
        if octets == 0 {
            return Ok(());
        }
        let come = now();
        input.extend_from_slice(&place[..octets]);
        let mut output = Vec::new();
        while let Some(end) = input.iter().position(|octet| *octet == b'\n') {
            let line: Vec<u8> = input.drain(..=end).collect();
            let reply: &[u8] = match &line[..line.len().min(4)] {
                b".\r\n" => {
                    in_content = false;
                    b"250 taken\r\n"
                }
                _ if in_content => b"",
                b"EHLO" => b"250-x\r\n250 PIPELINING\r\n",
                b"DATA" => {
                    in_content = true;
                    b"354 go\r\n"
                }
                b"MAIL" => {
                    println!("{come}");
                    b"250 fine\r\n"
                }
                b"QUIT" => b"221 bye\r\n",
                _ => b"250 fine\r\n",
            };
            output.extend_from_slice(reply);
        }
        stream.write_all(&output).await?;
    }
}

struct Servers {
    child: Child,
    address: SocketAddr,
    mails: Receiver<u64>,
}

impl Servers {
    fn start() -> Self {
        let program = std::env::current_exe().expect("a path");
        let mut child = Command::new(program)
            .env(MARK, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("an output")).lines();
        let first = lines.next().expect("a line").expect("read");
        let (told, mails) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = told.send(line.parse().expect("a time"));
            }
        });
        Self { child, address: first.parse().expect("an address"), mails }
    }

    fn next(&self) -> u64 {
        self.mails.recv_timeout(Duration::from_secs(60)).expect("mail within a minute")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Some(mut input) = self.child.stdin.take() {
            let _ = input.write_all(b"\n");
        }
        let _ = self.child.wait();
    }
}

/// See the module's head.
pub(crate) fn rows() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    held("engine in memory", Kind::Memory);
    held("durable store", Kind::Sled(folder.path().join("store")));
}

fn held(word: &str, kind: Kind) {
    println!("\n# hold: {CUSTOMERS} customers held open over sockets, {word}");
    let place = Place::spread(kind, CUSTOMERS, CUSTOMERS, 64);
    let mut policy = (*place.office.policy()).clone();
    policy.drain.hold_open = Some(Seconds(3600));
    place.office.set_policy(policy);
    let servers = Servers::start();
    let (giver, stop) = Stop::new();
    let before = resident_kib("self");
    let mut drains = Vec::new();
    for group in (0..CUSTOMERS).collect::<Vec<_>>().chunks(100) {
        for owner in group.iter().copied() {
            let (office, stop, port) = (place.office.clone(), stop.clone(), servers.address.port());
            drains.push(async_std::task::spawn(async move {
                let place = Place { office: office.clone(), messages: 0 };
                let wire = connect("127.0.0.1", port).await.expect("connected");
                let lease = place.lease(owner).await;
                deliver_dialed(wire, lease, &office, &stop).await
            }));
        }
        group.iter().for_each(|_| {
            servers.next();
        });
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let queued = || {
        let all = restante::store::Filter::default();
        block_on(place.office.store.query(all, None, 1)).expect("a listing").len()
    };
    while queued() > 0 {
        assert!(Instant::now() < deadline, "not all were settled in a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
    let each = resident_kib("self").saturating_sub(before) as f64 / CUSTOMERS as f64;
    row("memory of each, our side", each, "KiB", each / 20.0, "20 KiB");
    let (mut whole, mut push) = (Vec::new(), Vec::new());
    for number in 0..1000 {
        let owner = (number * 7919) % CUSTOMERS;
        let begin = now();
        block_on(put(&*place.office.store, 1_000_000 + number as u128, owner, owner, b"x\r\n"));
        let committed = now();
        let mail = servers.next();
        whole.push(mail.saturating_sub(begin) as f64 / 1e3);
        push.push(mail.saturating_sub(committed) as f64 / 1e3);
    }
    for (name, mut spans) in [("begin of commit to MAIL", whole), ("end of commit to MAIL", push)] {
        spans.sort_by(f64::total_cmp);
        for (part, at) in [("50 %", 500), ("99 %", 990)] {
            row(&format!("{name}, {part}"), spans[at], "ms", spans[at] / 50.0, "50 ms");
        }
    }
    giver.give();
    let ends = block_on(futures::future::join_all(drains));
    assert!(ends.iter().all(|last| last.ended == "shutdown"));
}
