//! Mail servers to deliver to, and a provider with a customer.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::support::{Peer, Provider};

pub(crate) const PASSWORD: &str = "correct-horse-battery";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a host was told in one connection, and the messages in it.
#[derive(Debug, Default)]
pub(crate) struct Visit {
    pub(crate) lines: Vec<String>,
    pub(crate) messages: Vec<String>,
    pub(crate) was_encrypted: bool,
}

/// How a host answers.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    pub(crate) keywords: Vec<&'static str>,
    /// Certificate and key for STARTTLS.
    pub(crate) tls: Option<std::sync::Arc<rustls::ServerConfig>>,
}

/// A mail server that refuses recipients by what their local part starts with: `no` for good, `later` for now.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    pub(crate) visits: Receiver<Visit>,
}

impl Host {
    pub(crate) fn open(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        Self { address, visits: Self::serve(listener, manner) }
    }

    pub(crate) fn serve(listener: TcpListener, manner: Manner) -> Receiver<Visit> {
        let (tell, visits) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, manner, tell) =
                    (stream.expect("a caller"), manner.clone(), tell.clone());
                std::thread::spawn(move || greet(stream, &manner, &tell));
            }
        });
        visits
    }

    /// The next connection that has ended.
    pub(crate) fn visit(&self) -> Visit {
        self.visits.recv_timeout(PATIENCE).expect("a visit")
    }
}

fn greet(mut stream: TcpStream, manner: &Manner, tell: &Sender<Visit>) {
    let mut visit = Visit::default();
    // A caller may be gone before it is greeted.
    if stream.write_all(b"220 host.example ESMTP\r\n").is_err() {
        return;
    }
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    if talk(&mut reader, &mut stream, manner, manner.tls.is_some(), &mut visit) {
        let config = manner.tls.clone().expect("a certificate");
        let connection = rustls::ServerConnection::new(config).expect("a server");
        let mut secured = BufReader::new(Both(rustls::StreamOwned::new(connection, stream)));
        visit.was_encrypted = true;
        loop_over(&mut secured, manner, &mut visit);
    }
    let _ = tell.send(visit);
}

struct Both(rustls::StreamOwned<rustls::ServerConnection, TcpStream>);

impl std::io::Read for Both {
    fn read(&mut self, place: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(place)
    }
}

fn loop_over(reader: &mut BufReader<Both>, manner: &Manner, visit: &mut Visit) {
    let mut line = String::new();
    let mut content: Option<String> = None;
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let Some(reply) = answer(&line, &mut content, manner, false, visit) else { continue };
        let writer = &mut reader.get_mut().0;
        if writer.write_all(reply.as_bytes()).and_then(|()| writer.flush()).is_err() {
            return;
        }
        if reply.starts_with("221") {
            return;
        }
    }
}

/// True if TLS is to come up.
fn talk(
    reader: &mut BufReader<TcpStream>,
    writer: &mut TcpStream,
    manner: &Manner,
    offers_tls: bool,
    visit: &mut Visit,
) -> bool {
    let mut line = String::new();
    let mut content: Option<String> = None;
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return false;
        }
        let Some(reply) = answer(&line, &mut content, manner, offers_tls, visit) else { continue };
        if writer.write_all(reply.as_bytes()).is_err() || reply.starts_with("221") {
            return false;
        }
        if line.starts_with("STARTTLS") {
            return true;
        }
    }
}

fn answer(
    line: &str,
    content: &mut Option<String>,
    manner: &Manner,
    offers_tls: bool,
    visit: &mut Visit,
) -> Option<String> {
    if let Some(text) = content {
        if line != ".\r\n" {
            text.push_str(line.strip_prefix('.').unwrap_or(line));
            return None;
        }
        visit.messages.push(content.take().unwrap_or_default());
        return Some("250 2.0.0 taken\r\n".into());
    }
    visit.lines.push(line.trim_end().to_owned());
    let verb = line.split([' ', '\r']).next().unwrap_or_default();
    Some(match verb {
        "EHLO" => {
            let mut reply = String::from("250-host.example\r\n");
            if offers_tls {
                reply.push_str("250-STARTTLS\r\n");
            }
            manner.keywords.iter().for_each(|word| reply.push_str(&format!("250-{word}\r\n")));
            reply + "250 ENHANCEDSTATUSCODES\r\n"
        }
        "STARTTLS" => "220 2.0.0 go\r\n".into(),
        "AUTH" => "235 2.7.0 yes\r\n".into(),
        "RCPT" if line.contains("<no") => "550 5.1.1 no such user\r\n".into(),
        "RCPT" if line.contains("<later") => "450 4.2.0 later\r\n".into(),
        "DATA" => {
            *content = Some(String::new());
            "354 go\r\n".into()
        }
        "QUIT" => "221 2.0.0 bye\r\n".into(),
        _ => "250 2.0.0 ok\r\n".into(),
    })
}

/// A running provider with customer acme for acme.example, delivering to `host`.
pub(crate) fn provider(folder: &std::path::Path, more: &str, host: Option<SocketAddr>) -> Provider {
    let mut provider = Provider::prepare(folder, more);
    provider.start();
    provider.add_customer("acme", "acme.example", PASSWORD);
    if let Some(host) = host {
        set(&provider, "etrn-host", &host.to_string());
    }
    provider
}

pub(crate) fn set(provider: &Provider, key: &str, value: &str) {
    provider.command(&["customer", "set", "acme", key, value], "");
}

pub(crate) fn send(provider: &Provider, from: &str, to: &str, content: &str) {
    let mut peer = provider.connect("mx");
    peer.expect("220");
    peer.ask("EHLO sender.example", "250");
    peer.send(from, &[to], content.as_bytes());
    peer.ask("QUIT", "221");
}

/// At the mx door, under TLS and logged in.
pub(crate) fn customer(provider: &Provider) -> Peer {
    let mut peer = provider.connect("mx");
    peer.expect("220");
    peer.ask("EHLO acme.example", "250");
    peer.ask("STARTTLS", "220");
    let mut peer = provider.secure(peer);
    peer.ask("EHLO acme.example", "250");
    peer.plain("acme", PASSWORD);
    peer
}

/// Waits until the queues of all customers together hold so many messages.
pub(crate) fn wait_for_queue(provider: &Provider, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = provider.json(&["queue", "list"]);
        if listed["messages"].as_array().map(Vec::len) == Some(count) {
            return;
        }
        assert!(Instant::now() < deadline, "{listed}: {}", provider.log());
        std::thread::yield_now();
    }
}

/// A self-signed certificate, and the SHA-256 of its key.
pub(crate) fn certificate(name: &str) -> (std::sync::Arc<rustls::ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("made");
    let digest = restante::net::tls::key_digest(made.cert.der()).expect("a key");
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let ring = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    (std::sync::Arc::new(config), restante::net::tls::hex(&digest))
}
