//! The other end of a connection: writes what a transcript says and reads what the provider answers.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use futures::task::LocalSpawnExt;
use hmac::{Hmac, KeyInit, Mac};
use restante::net::wire::Wire;
use sasl::client::Mechanism as _;

use super::pipe::Peek;
use super::play::Cut;

/// How long the provider may take; only a fault makes anybody wait that long.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection as the other side sees it.
pub(crate) struct Peer {
    pub(crate) wire: Option<Wire>,
    pub(crate) peek: Peek,
    /// Is ready when the provider's end is done.
    pub(crate) done: Option<futures::channel::oneshot::Receiver<()>>,
    /// The roles have reversed.
    pub(crate) is_server: bool,
    heard: Vec<u8>,
}

/// What reading a line gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Line(String),
    End(String),
    Silence,
}

impl Peer {
    pub(crate) fn new(
        wire: Wire,
        peek: Peek,
        done: futures::channel::oneshot::Receiver<()>,
    ) -> Self {
        Self { wire: Some(wire), peek, done: Some(done), is_server: false, heard: Vec::new() }
    }

    /// Writes, in one piece or octet by octet. A provider that has closed already is for the reader to notice.
    pub(crate) async fn say(&mut self, octets: &[u8], cut: Cut) {
        let Some(wire) = &mut self.wire else { panic!("this side has hung up") };
        let size = match cut {
            Cut::Octets if octets.len() < 4096 => 1,
            // Lines of megabytes come in odd pieces, or nobody would wait for them.
            Cut::Octets => 61,
            Cut::Lines | Cut::Whole => octets.len().max(1),
        };
        for piece in octets.chunks(size) {
            if wire.stream.write_all(piece).await.is_err() {
                return;
            }
            let _ = wire.stream.flush().await;
        }
    }

    /// The next line the provider says.
    pub(crate) async fn hear(&mut self) -> Heard {
        async_std::future::timeout(PATIENCE, self.read_line()).await.unwrap_or(Heard::Silence)
    }

    async fn read_line(&mut self) -> Heard {
        loop {
            if let Some(end) = self.heard.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.heard.drain(..end + 2).collect();
                return Heard::Line(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            let mut octets = [0u8; 4096];
            let count = match &mut self.wire {
                Some(wire) => wire.stream.read(&mut octets).await.unwrap_or(0),
                None => 0,
            };
            if count == 0 {
                let rest = std::mem::take(&mut self.heard);
                return Heard::End(String::from_utf8_lossy(&rest).into_owned());
            }
            self.heard.extend_from_slice(&octets[..count]);
        }
    }

    /// Puts a line back to be heard again.
    fn unhear(&mut self, line: &str) {
        self.heard.splice(0..0, [line.as_bytes(), b"\r\n"].concat());
    }

    /// Whether something was heard that no one asked for.
    pub(crate) fn has_unread(&self) -> bool {
        !self.heard.is_empty() || self.peek.waiting() > 0
    }

    /// Closes this side, and waits for the provider to be done with it.
    pub(crate) async fn hang_up(&mut self) {
        if let Some(mut wire) = self.wire.take() {
            let _ = wire.stream.close().await;
        }
        self.wait_until_done().await;
    }

    /// Waits for the provider's end of the connection.
    pub(crate) async fn wait_until_done(&mut self) {
        if let Some(done) = self.done.take() {
            let ended = async_std::future::timeout(PATIENCE, done).await;
            assert!(ended.is_ok(), "the provider does not end the connection");
        }
    }

    /// Logs in as an honest client does, up to the last reply, which is left to be heard.
    pub(crate) async fn log_in(&mut self, mechanism: &str, name: &str, password: &str, cut: Cut) {
        let exporter = self.wire.as_ref().and_then(|wire| wire.tls.as_ref()?.exporter);
        let mut client = Client::new(mechanism, name, password, exporter);
        let command = match client.initial() {
            Some(octets) if octets.is_empty() => format!("AUTH {mechanism} =\r\n"),
            Some(octets) => format!("AUTH {mechanism} {}\r\n", BASE64.encode(octets)),
            None => format!("AUTH {mechanism}\r\n"),
        };
        self.say(command.as_bytes(), cut).await;
        loop {
            let Heard::Line(line) = self.hear().await else { panic!("no answer to AUTH") };
            let Some(challenge) = line.strip_prefix("334 ") else {
                self.unhear(&line);
                return;
            };
            let challenge = BASE64.decode(challenge).expect("a challenge in base64");
            let response = BASE64.encode(client.respond(&challenge)) + "\r\n";
            self.say(response.as_bytes(), cut).await;
        }
    }
}

/// The client's side of the mechanisms; SCRAM and PLAIN by an implementation that is not ours.
enum Client {
    Plain(String, String),
    CramMd5(String, String),
    /// The name to act as, or nothing.
    External(String),
    Bound(Bound),
    Scram(Box<sasl::client::mechanisms::Scram<sasl::common::scram::Sha256>>, bool),
}

impl Client {
    fn new(mechanism: &str, name: &str, password: &str, exporter: Option<[u8; 32]>) -> Self {
        let (name, password) = (name.to_owned(), password.to_owned());
        match mechanism {
            "PLAIN" => Self::Plain(name, password),
            "CRAM-MD5" => Self::CramMd5(name, password),
            "SCRAM-SHA-256" => {
                let credentials = sasl::common::Credentials::default()
                    .with_username(name)
                    .with_password(password)
                    .with_channel_binding(sasl::common::ChannelBinding::None);
                let scram = sasl::client::mechanisms::Scram::from_credentials(credentials);
                Self::Scram(Box::new(scram.expect("a client")), false)
            }
            "EXTERNAL" => Self::External(if name == "-" { String::new() } else { name }),
            "SCRAM-SHA-256-PLUS" => Self::Bound(Bound {
                name,
                password,
                exporter: exporter.expect("TLS 1.3"),
                first: None,
            }),
            other => panic!("no such mechanism on this stage: {other}"),
        }
    }

    fn initial(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(name, password) => Some(format!("\0{name}\0{password}").into_bytes()),
            Self::CramMd5(..) => None,
            Self::External(name) => Some(name.clone().into_bytes()),
            Self::Bound(bound) => Some(bound.first().into_bytes()),
            Self::Scram(scram, _) => Some(scram.initial()),
        }
    }

    fn respond(&mut self, challenge: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain(..) | Self::External(_) => panic!("a challenge where none belongs"),
            Self::Bound(bound) => bound.respond(std::str::from_utf8(challenge).expect("text")),
            Self::CramMd5(name, password) => {
                let mut mac = Hmac::<md5::Md5>::new_from_slice(password.as_bytes()).expect("a key");
                mac.update(challenge);
                let digest: String =
                    mac.finalize().into_bytes().iter().map(|o| format!("{o:02x}")).collect();
                format!("{name} {digest}").into_bytes()
            }
            Self::Scram(scram, is_final) if *is_final => {
                scram.success(challenge).expect("the server's signature is right");
                Vec::new()
            }
            Self::Scram(scram, is_final) => {
                *is_final = true;
                scram.response(challenge).expect("client-final")
            }
        }
    }
}

/// SCRAM-SHA-256 bound to the TLS layer, straight from RFC 5802 §3 and RFC 9266 §4.
struct Bound {
    name: String,
    password: String,
    exporter: [u8; 32],
    /// The server's first message, once it is known.
    first: Option<String>,
}

impl Bound {
    fn first(&self) -> String {
        format!("p=tls-exporter,,n={},r=fyko+d2lbbFgONRv9qkxdawL", self.name)
    }

    fn respond(&mut self, challenge: &str) -> Vec<u8> {
        if self.first.is_some() {
            assert!(challenge.starts_with("v="), "{challenge}");
            return Vec::new();
        }
        self.first = Some(challenge.to_owned());
        let field = |key: &str| {
            challenge.split(',').find_map(|field| field.strip_prefix(key)).expect("a field")
        };
        let salt = BASE64.decode(field("s=")).expect("base64");
        let rounds = field("i=").parse().expect("a number");
        let bound = BASE64.encode([b"p=tls-exporter,,".as_slice(), &self.exporter].concat());
        let unproven = format!("c={bound},r={}", field("r="));
        let first = self.first();
        let bare = first.strip_prefix("p=tls-exporter,,").expect("as made");
        let message = format!("{bare},{challenge},{unproven}");
        let mut salted = [0u8; 32];
        pbkdf2::pbkdf2_hmac::<sha2::Sha256>(self.password.as_bytes(), &salt, rounds, &mut salted);
        let client_key = hmac_sha256(&salted, b"Client Key");
        let stored_key = <sha2::Sha256 as sha2::Digest>::digest(client_key);
        let signature = hmac_sha256(&stored_key, message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(k, s)| k ^ s).collect();
        format!("{unproven},p={}", BASE64.encode(proof)).into_bytes()
    }
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).expect("a key");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Runs a future beside the play; the receiver is ready when it is over.
pub(crate) fn beside(
    spawner: &futures::executor::LocalSpawner,
    work: impl Future<Output = ()> + 'static,
) -> futures::channel::oneshot::Receiver<()> {
    let (over, done) = futures::channel::oneshot::channel();
    let work = async move {
        work.await;
        // Nobody may be waiting.
        let _ = over.send(());
    };
    spawner.spawn_local(work).expect("the pool runs");
    done
}
