//! A peer: one TCP connection, in clear text or under TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{KeyInit, Mac};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::PATIENCE;

type Tls = StreamOwned<ClientConnection, TcpStream>;

enum Stream {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.sock,
        }
    }

    fn read(&mut self, place: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(place),
            Self::Tls(tls) => tls.read(place),
        }
    }
}

/// One side of a conversation.
pub struct Peer {
    stream: Stream,
    read: Vec<u8>,
}

/// An AUTH PLAIN line.
pub fn plain(authzid: &str, name: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", BASE64.encode(format!("{authzid}\0{name}\0{password}")))
}

impl Peer {
    /// Connects, and reads nothing yet.
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("a listener"))
    }

    /// Connects from this loopback address.
    pub fn connect_from(own: IpAddr, address: SocketAddr) -> Self {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("one");
        socket.bind(&SocketAddr::new(own, 0).into()).expect("a loopback address");
        socket.connect(&address.into()).expect("a listener");
        Self::over(socket.into())
    }

    fn over(socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        socket.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream: Stream::Plain(socket), read: Vec::new() }
    }

    /// TLS over this connection; nothing may be left unread.
    pub fn secure(self, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Self> {
        assert!(self.read.is_empty(), "octets before TLS: {:?}", self.read);
        let Stream::Plain(mut socket) = self.stream else { panic!("TLS inside TLS") };
        let name = name.to_owned().try_into().expect("a name");
        let mut connection =
            ClientConnection::new(config.clone(), name).map_err(std::io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let tls = StreamOwned::new(connection, socket);
        Ok(Self { stream: Stream::Tls(Box::new(tls)), read: Vec::new() })
    }

    /// What TLS knows of the other side.
    pub fn connection(&self) -> &ClientConnection {
        match &self.stream {
            Stream::Tls(tls) => &tls.conn,
            Stream::Plain(_) => panic!("no TLS"),
        }
    }

    /// The socket underneath.
    pub fn socket(&self) -> &TcpStream {
        self.stream.socket()
    }

    /// Writes.
    pub fn say(&mut self, octets: impl AsRef<[u8]>) {
        self.try_say(octets).expect("the provider reads");
    }

    /// Writes, unless the connection is gone.
    pub fn try_say(&mut self, octets: impl AsRef<[u8]>) -> std::io::Result<()> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(octets.as_ref()),
            Stream::Tls(tls) => {
                tls.write_all(octets.as_ref())?;
                tls.flush()
            }
        }
    }

    /// Ends our side: FIN, without close_notify.
    pub fn half_close(&mut self) {
        self.socket().shutdown(Shutdown::Write).expect("open");
    }

    /// As [`Peer::half_close`], unless the other side was quicker.
    pub fn half_close_if_open(&mut self) {
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    /// Whether the other side ends TLS with close_notify before it ends TCP, with nothing left to say.
    pub fn ended_in_order(&mut self) -> bool {
        let mut place = [0; 512];
        self.read.is_empty() && matches!(self.stream.read(&mut place), Ok(0))
    }

    /// Says goodbye in TLS.
    pub fn close_notify(&mut self) {
        if let Stream::Tls(tls) = &mut self.stream {
            tls.conn.send_close_notify();
            tls.flush().expect("open");
        }
    }

    /// Cuts the connection with a reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(self.stream.socket());
        socket.set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    /// More octets; false at the end, however it came.
    fn more(&mut self) -> bool {
        let mut place = [0; 4096];
        match self.stream.read(&mut place) {
            Ok(0) => false,
            Ok(count) => {
                self.read.extend_from_slice(&place[..count]);
                true
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    panic!("no answer; so far {:?}", String::from_utf8_lossy(&self.read))
                }
                _ => false,
            },
        }
    }

    /// One line without its CRLF; `None` at the end.
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(String::from_utf8(line[..end].to_vec()).expect("ASCII"));
            }
            if !self.more() {
                assert!(self.read.is_empty(), "half a line: {:?}", self.read);
                return None;
            }
        }
    }

    /// A whole reply; `None` at the end.
    pub fn reply(&mut self) -> Option<Vec<String>> {
        let mut lines = vec![self.line()?];
        while lines.last().is_some_and(|line| line.as_bytes().get(3) == Some(&b'-')) {
            lines.push(self.line().expect("the rest of the reply"));
        }
        Some(lines)
    }

    /// A whole reply; it must begin with `code`.
    #[track_caller]
    pub fn expect(&mut self, code: &str) -> Vec<String> {
        let reply = self.reply();
        let Some(lines) = reply else { panic!("wanted {code}, and the connection is over") };
        assert!(lines.iter().all(|line| line.starts_with(code)), "wanted {code}, got {lines:?}");
        lines
    }

    /// A whole reply; it must begin with one of `codes`.
    #[track_caller]
    pub fn expect_one(&mut self, codes: &[&str]) -> Vec<String> {
        let lines = self.reply().unwrap_or_else(|| panic!("wanted {codes:?}, got the end"));
        let fits = codes.iter().any(|code| lines[0].starts_with(code));
        assert!(fits, "wanted one of {codes:?}, got {lines:?}");
        lines
    }

    /// Says a line and expects a reply.
    #[track_caller]
    pub fn ask(&mut self, line: &str, code: &str) -> Vec<String> {
        self.say(format!("{line}\r\n"));
        self.expect(code)
    }

    /// Everything until the end.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.read)
    }

    /// Whether anything comes within this time.
    pub fn is_silent(&mut self, span: Duration) -> bool {
        if !self.read.is_empty() {
            return false;
        }
        self.socket().set_read_timeout(Some(span)).expect("a socket");
        let mut place = [0; 512];
        let read = self.stream.read(&mut place);
        self.socket().set_read_timeout(Some(PATIENCE)).expect("a socket");
        match read {
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            Ok(count) => {
                self.read.extend_from_slice(&place[..count]);
                false
            }
        }
    }

    /// In step: exactly one reply to one NOOP.
    #[track_caller]
    pub fn in_step(&mut self) {
        self.ask("NOOP", "250");
        assert!(self.is_silent(Duration::from_millis(20)), "more than one reply: {:?}", self.read);
    }

    /// AUTH CRAM-MD5 (RFC 2195) with a right or wrong password.
    #[track_caller]
    pub fn cram(&mut self, name: &str, password: &str, code: &str) {
        let challenge = self.ask("AUTH CRAM-MD5", "334");
        let challenge = BASE64.decode(&challenge[0][4..]).expect("base64");
        self.ask(&cram_response(&challenge, name, password), code);
    }

    /// How long the reply to this line takes.
    #[track_caller]
    pub fn timed(&mut self, line: &str, code: &str) -> Duration {
        let began = Instant::now();
        self.ask(line, code);
        began.elapsed()
    }
}

/// The response to a challenge, in base64.
pub fn cram_response(challenge: &[u8], name: &str, password: &str) -> String {
    let mut mac = hmac::Hmac::<md5::Md5>::new_from_slice(password.as_bytes()).expect("a key");
    mac.update(challenge);
    let digest: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    BASE64.encode(format!("{name} {digest}"))
}
