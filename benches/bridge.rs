//! Octets a second through `restante fetch`, beside `socat` on the same line and beside no relay at all.
//!
//! `cargo bench --bench bridge` prints one table. A provider in this process sends one long message, over
//! loopback, to a server in this process: directly, through `socat` (if it is there), and through `restante
//! fetch`; in clear text and, for the two relays, with TLS on the provider's side. Each row is the median of five.
//! `RESTANTE_BRIDGE_MIB` sets the size of the message (default 256).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const RUNS: usize = 5;
const CHALLENGE: &str = "334 PDFAcHJvdmlkZXIuZXhhbXBsZT4=\r\n";

fn main() {
    let mebibytes: usize =
        std::env::var("RESTANTE_BRIDGE_MIB").ok().and_then(|n| n.parse().ok()).unwrap_or(256);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identity = identity();
    let password = folder.path().join("password").display().to_string();
    let authority = folder.path().join("ca.pem").display().to_string();
    std::fs::write(&password, "secret\n").expect("written");
    std::fs::write(&authority, &identity.1).expect("written");
    let sink = sink();
    println!("one message of {mebibytes} MiB\n\n{:<44} {:>8}", "row", "MiB/s");
    let has_socat = Command::new("socat").arg("-V").stdout(Stdio::null()).status().is_ok();
    let rows: [(&str, Relay, bool); 5] = [
        ("no relay, clear text", Relay::None, false),
        ("socat, clear text", Relay::Socat, false),
        ("restante fetch, clear text", Relay::Fetch, false),
        ("socat, TLS to the provider", Relay::Socat, true),
        ("restante fetch, TLS to the provider", Relay::Fetch, true),
    ];
    for (name, relay, over_tls) in rows {
        if relay == Relay::Socat && !has_socat {
            println!("{name:<44} {:>8}", "no socat");
            continue;
        }
        let mut rates: Vec<f64> = (0..RUNS)
            .map(|_| {
                let tls = over_tls.then(|| identity.0.clone());
                let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
                let address = listener.local_addr().expect("an address");
                let child = relay.start(address, sink, over_tls, &password, &authority);
                let socket = match relay {
                    Relay::None => TcpStream::connect(sink).expect("the sink"),
                    _ => listener.accept().expect("the relay").0,
                };
                let seconds = send(socket, tls, relay == Relay::Fetch, mebibytes);
                if let Some(mut child) = child {
                    child.wait().expect("an end");
                }
                mebibytes as f64 / seconds
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        println!("{name:<44} {:>8.0}", rates[RUNS / 2]);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Relay {
    None,
    Socat,
    Fetch,
}

impl Relay {
    fn start(
        self,
        provider: SocketAddr,
        sink: SocketAddr,
        over_tls: bool,
        password: &str,
        authority: &str,
    ) -> Option<Child> {
        let port = provider.port();
        let mut command = match self {
            Self::None => return None,
            Self::Socat => {
                let mut command = Command::new("socat");
                // The default block of 8 KiB would make it look slow.
                command.args(["-b", "65536"]);
                match over_tls {
                    true => command.arg(format!("OPENSSL:localhost:{port},cafile={authority}")),
                    false => command.arg(format!("TCP:localhost:{port}")),
                };
                command.arg(format!("TCP:{sink}"));
                command
            }
            Self::Fetch => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_restante"));
                let tls = if over_tls { "implicit" } else { "none" };
                command.args(["fetch", &format!("localhost:{port}"), "--user", "demo"]);
                command.args(["--password-file", password, "--ca", authority, "--tls", tls]);
                command.args(["--to", &format!("smtp://{sink}")]);
                command
            }
        };
        Some(command.stderr(Stdio::null()).spawn().expect("the relay"))
    }
}

trait Line: Read + Write {}
impl<T: Read + Write> Line for T {}

/// Plays the provider on one connection; gives the seconds from the first octet of content to its 250.
fn send(socket: TcpStream, tls: Option<Arc<ServerConfig>>, calls: bool, mebibytes: usize) -> f64 {
    socket.set_nodelay(true).expect("an option");
    let stream: Box<dyn Line> = match tls {
        None => Box::new(socket),
        Some(config) => {
            let connection = ServerConnection::new(config).expect("a connection");
            Box::new(StreamOwned::new(connection, socket))
        }
    };
    let mut talk = BufReader::new(stream);
    if calls {
        say(&mut talk, "220 provider.example\r\n");
        hear(&mut talk);
        say(&mut talk, "250-provider.example\r\n250-AUTH CRAM-MD5\r\n250 ATRN\r\n");
        for reply in [CHALLENGE, "235 ok\r\n", "250 reversing\r\n"] {
            hear(&mut talk);
            say(&mut talk, reply);
        }
    }
    // The greeting of the server behind the relay, then one transaction.
    hear(&mut talk);
    for command in
        ["EHLO p\r\n", "MAIL FROM:<a@x.example>\r\n", "RCPT TO:<b@y.example>\r\n", "DATA\r\n"]
    {
        say(&mut talk, command);
        hear(&mut talk);
    }
    let block = [&[b'x'; 76][..], b"\r\n"].concat().repeat(840);
    let began = Instant::now();
    let mut left = mebibytes << 20;
    while left > 0 {
        let length = block.len().min(left);
        talk.get_mut().write_all(&block[..length]).expect("sent");
        left -= length;
    }
    say(&mut talk, "\r\n.\r\n");
    hear(&mut talk);
    let seconds = began.elapsed().as_secs_f64();
    say(&mut talk, "QUIT\r\n");
    hear(&mut talk);
    seconds
}

fn say(talk: &mut BufReader<Box<dyn Line>>, text: &str) {
    talk.get_mut().write_all(text.as_bytes()).expect("said");
    talk.get_mut().flush().expect("said");
}

fn hear(talk: &mut BufReader<Box<dyn Line>>) {
    let mut line = String::new();
    talk.read_line(&mut line).expect("a line");
}

/// A mail server that takes everything and looks at nothing but the end.
fn sink() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            swallow(socket);
        }
    });
    address
}

fn swallow(mut socket: TcpStream) {
    socket.write_all(b"220 sink\r\n").expect("said");
    let mut buffer = vec![0; 256 * 1024];
    let mut tail = Vec::new();
    let mut in_content = false;
    while let Ok(length) = socket.read(&mut buffer) {
        if length == 0 {
            return;
        }
        tail.extend_from_slice(&buffer[length.saturating_sub(16)..length]);
        let end: &[u8] = if in_content { b"\r\n.\r\n" } else { b"\r\n" };
        if !tail.ends_with(end) {
            let keep = tail.len().saturating_sub(16);
            tail.drain(..keep);
            continue;
        }
        let is_data = !in_content && buffer[..length].starts_with(b"DATA");
        in_content = is_data;
        tail.clear();
        socket.write_all(if is_data { b"354 go\r\n" } else { b"250 ok\r\n" }).expect("said");
    }
}

/// A certificate for `localhost` that is its own authority; its PEM.
fn identity() -> (Arc<ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("made");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    (Arc::new(config), made.cert.pem())
}
