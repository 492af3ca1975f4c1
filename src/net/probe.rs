//! Short looks at a server: does it answer, in which name, and what does it offer?
//!
//! Called by the doctor. It logs in nowhere and moves no mail; every step has its end.
//!
//! Keeps RFC 5321 §3.1 and §3.2, RFC 3207 §4.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWriteExt};

use super::dial;
use super::patience::within;
use super::tls::{ClientTls, Trust};
use super::wire::Wire;
use crate::mail::TlsFacts;
use crate::smtp::sender::{PeerReply, ReplyReader};

/// How long each step may take.
const STEP: Duration = Duration::from_secs(10);
/// Most octets of an HTTP answer that are looked at.
const PAGE_BYTES_MAX: usize = 4 << 10;

/// What a mail server said.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its greeting, one line with its code.
    pub greeting: String,
    /// The keywords of its answer to EHLO before TLS, or under TLS from the beginning.
    pub offers: Vec<String>,
    /// The same after STARTTLS, if that was wanted and came up.
    pub secured_offers: Vec<String>,
    /// TLS, if it came up.
    pub tls: Option<TlsFacts>,
}

/// When TLS comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From the first octet.
    Implicit,
    /// By STARTTLS, where it is offered.
    StartTls,
}

/// Greets the server at `address` and leaves; its certificate may be any.
///
/// # Errors
/// What did not work, and at which step.
pub async fn mail_server(address: SocketAddr, start: Start, hello: &str) -> Result<Seen, String> {
    let mut wire = step("connecting", dial::connect_to(address)).await?;
    if start == Start::Implicit {
        wire = secured(wire).await?;
    }
    let greeting = reply(&mut wire).await?;
    let said = greeting.said().as_str().to_owned();
    let mut seen =
        Seen { greeting: said, offers: vec![], secured_offers: vec![], tls: wire.tls.clone() };
    if greeting.code != 220 {
        return Ok(seen);
    }
    seen.offers = offers(&ask(&mut wire, &format!("EHLO {hello}")).await?);
    let is_offered = seen.offers.iter().any(|word| word.eq_ignore_ascii_case("STARTTLS"));
    if start == Start::StartTls && is_offered {
        let ready = ask(&mut wire, "STARTTLS").await?;
        if ready.code != 220 {
            return Err(format!("STARTTLS was refused: {}", ready.said()));
        }
        wire = secured(wire).await?;
        seen.tls = wire.tls.clone();
        seen.secured_offers = offers(&ask(&mut wire, &format!("EHLO {hello}")).await?);
    }
    // Courtesy: nothing depends on it.
    let _ = ask(&mut wire, "QUIT").await;
    Ok(seen)
}

/// The status code of a page.
///
/// # Errors
/// What did not work.
pub async fn page(address: SocketAddr, path: &str) -> Result<u16, String> {
    let mut wire = step("connecting", dial::connect_to(address)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    step("writing", wire.stream.write_all(request.as_bytes())).await?;
    step("writing", wire.stream.flush()).await?;
    let mut text = Vec::new();
    let mut place = [0; 512];
    while text.len() < PAGE_BYTES_MAX && !text.contains(&b'\n') {
        match step("reading", wire.stream.read(&mut place)).await? {
            0 => break,
            octets => text.extend_from_slice(&place[..octets]),
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut words = text.split_ascii_whitespace();
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/"));
    let code = words.next().and_then(|word| word.parse().ok());
    code.filter(|_| is_http).ok_or_else(|| "the answer is no HTTP".to_owned())
}

async fn secured(wire: Wire) -> Result<Wire, String> {
    let tls = ClientTls::new(&Trust::Anybody, None)?;
    let name = wire.peer.ip().to_string();
    step("the TLS handshake", tls.connect(&name, wire)).await
}

async fn ask(wire: &mut Wire, line: &str) -> Result<PeerReply, String> {
    step("writing", wire.stream.write_all(format!("{line}\r\n").as_bytes())).await?;
    step("writing", wire.stream.flush()).await?;
    reply(wire).await
}

async fn reply(wire: &mut Wire) -> Result<PeerReply, String> {
    let (mut reader, mut place) = (ReplyReader::default(), [0; 2048]);
    loop {
        let count = step("reading", wire.stream.read(&mut place)).await?;
        if count == 0 {
            return Err("it closed the connection".into());
        }
        let mut octets = &place[..count];
        match reader.read(&mut octets) {
            Ok(Some(reply)) => return Ok(reply),
            Ok(None) => {}
            Err(why) => return Err(format!("it sent {why}")),
        }
    }
}

async fn step<T>(what: &str, work: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match within(STEP, work).await {
        Some(outcome) => outcome.map_err(|error| format!("{what}: {error}")),
        None => Err(format!("{what}: no answer within {} s", STEP.as_secs())),
    }
}

/// The lines of an answer to EHLO behind the first.
fn offers(reply: &PeerReply) -> Vec<String> {
    if reply.code != 250 {
        return Vec::new();
    }
    reply.text.split('\n').skip(1).map(|line| line.trim().to_owned()).collect()
}
