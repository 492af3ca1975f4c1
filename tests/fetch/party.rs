//! The other parties of a collection: a scripted RFC 2645 provider, and small mail servers to hand mail to.
//!
//! Each runs in a thread of its own on 127.0.0.1 port 0 and is joined by its test. They are written straight
//! against sockets and share no protocol code with the program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Longer than anything here takes; a test that hangs fails by it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) trait Line: Read + Write + Send {}
impl<T: Read + Write + Send> Line for T {}

/// One conversation, line by line.
pub(crate) struct Talk {
    stream: BufReader<Box<dyn Line>>,
    /// What was heard, for the test to look at.
    pub(crate) heard: Vec<String>,
    /// Cuts the line by force.
    socket: TcpStream,
}

impl Talk {
    pub(crate) fn new(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_nodelay(true).expect("an option");
        let stream: Box<dyn Line> = Box::new(socket.try_clone().expect("a clone"));
        Self { stream: BufReader::new(stream), heard: Vec::new(), socket }
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.send(format!("{}\r\n", text.replace('\n', "\r\n")).as_bytes());
    }

    /// The other side may be gone; what it then does is what the test asks.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let stream = self.stream.get_mut();
        let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    }

    /// The next line; empty at the end of the stream.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = Vec::new();
        let _ = self.stream.read_until(b'\n', &mut line);
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        self.heard.push(line.clone());
        line
    }

    pub(crate) fn expect(&mut self, beginning: &str) -> String {
        let line = self.hear();
        assert!(line.starts_with(beginning), "expected {beginning}, heard {line:?}");
        line
    }

    /// A whole reply: its last line.
    pub(crate) fn reply(&mut self) -> String {
        loop {
            let line = self.hear();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    /// STARTTLS has been answered: become TLS.
    pub(crate) fn secure(self, identity: &Identity) -> Self {
        assert!(self.stream.buffer().is_empty(), "clear text before the handshake");
        let connection = ServerConnection::new(identity.config.clone()).expect("a connection");
        let inner = self.socket.try_clone().expect("a clone");
        let stream: Box<dyn Line> = Box::new(StreamOwned::new(connection, inner));
        Self { stream: BufReader::new(stream), ..self }
    }

    /// Says that nothing more will come; still listens.
    pub(crate) fn close_half(&self) {
        self.socket.shutdown(Shutdown::Write).expect("open");
    }

    pub(crate) fn cut(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Greeting, EHLO without TLS, CRAM-MD5 with any answer, up to ATRN.
    pub(crate) fn log_in(&mut self) -> String {
        self.say("220-provider.example\n220 ready");
        self.expect("EHLO ");
        self.log_in_after_hello()
    }

    pub(crate) fn log_in_after_hello(&mut self) -> String {
        self.say("250-provider.example\n250-AUTH CRAM-MD5\n250 ATRN");
        self.expect("AUTH CRAM-MD5");
        self.say("334 PDFAcHJvdmlkZXIuZXhhbXBsZT4=");
        self.hear();
        self.say("235 ok");
        self.hear()
    }

    /// The reversed half: greeting and EHLO; gives the lines of the reply.
    pub(crate) fn hello(&mut self) -> Vec<String> {
        let greeting = self.reply();
        assert!(greeting.starts_with("220"), "{greeting}");
        self.say("EHLO provider.example");
        let before = self.heard.len();
        let last = self.reply();
        assert!(last.starts_with("250"), "{last}");
        self.heard[before..].to_vec()
    }

    /// One message to one recipient, command by command; gives the last reply.
    pub(crate) fn deliver(&mut self, content: &str) -> String {
        for command in ["MAIL FROM:<sender@foo.example>", "RCPT TO:<user@home.example>", "DATA"] {
            self.say(command);
            let reply = self.reply();
            if !reply.starts_with(['2', '3']) {
                return reply;
            }
        }
        self.send(content.as_bytes());
        self.say(".");
        self.reply()
    }

    pub(crate) fn quit(&mut self) {
        self.say("QUIT");
        let reply = self.reply();
        assert!(reply.starts_with("221"), "{reply:?}");
    }
}

/// A certificate for `localhost` that nobody vouches for.
pub(crate) struct Identity {
    pub(crate) config: Arc<ServerConfig>,
    /// The certificate in PEM, to be trusted as an authority.
    pub(crate) pem: String,
    /// SHA-256 of its key.
    pub(crate) pin: [u8; 32],
}

impl Identity {
    pub(crate) fn new() -> Self {
        Self::asking(None)
    }

    /// With `client`, only the client that shows this certificate is let in.
    pub(crate) fn asking(client: Option<CertificateDer<'static>>) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("made");
        let der = made.cert.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        let config = match client {
            None => config.with_no_client_auth(),
            Some(certificate) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(certificate).expect("a certificate");
                let ring = Arc::new(rustls::crypto::ring::default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), ring);
                config.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let config = config.with_single_cert(vec![der.clone()], key).expect("a pair");
        let pin = restante::net::tls::key_digest(&der).expect("a key");
        Self { config: Arc::new(config), pem: made.cert.pem(), pin }
    }
}

/// A party in a thread; its address, and what it gives when it is done.
pub(crate) struct Party<T> {
    pub(crate) address: SocketAddr,
    thread: JoinHandle<T>,
}

impl<T> Party<T> {
    pub(crate) fn done(self) -> T {
        self.thread.join().expect("the party's script holds")
    }
}

/// Accepts one connection and runs `script` on it.
pub(crate) fn provider<T: Send + 'static>(
    script: impl FnOnce(Talk) -> T + Send + 'static,
) -> Party<T> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || {
        let (socket, _) = listener.accept().expect("a caller");
        script(Talk::new(socket))
    });
    Party { address, thread }
}

/// What a server got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got {
    /// Contents as they stood on the wire, without the final dot.
    pub(crate) messages: Vec<String>,
    /// Contents that ended before their dot.
    pub(crate) cut: usize,
    /// Connections.
    pub(crate) connections: usize,
    /// Every command line.
    pub(crate) commands: Vec<String>,
}

/// A mail server that takes everything; `words` of its EHLO reply.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    got: Arc<Mutex<Got>>,
}

#[derive(Clone, Copy)]
pub(crate) struct Habits {
    pub(crate) greeting: &'static str,
    pub(crate) hello: &'static str,
    /// The connection is closed in the content of this message.
    pub dies_in_message: Option<usize>,
}

impl Default for Habits {
    fn default() -> Self {
        let hello = "250-home.example\n250-PIPELINING\n250-STARTTLS\n250 8BITMIME";
        Self { greeting: "220 home.example ready", hello, dies_in_message: None }
    }
}

impl Server {
    pub(crate) fn start(habits: Habits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let got = Arc::new(Mutex::new(Got::default()));
        let place = got.clone();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let Ok(socket) = socket else { break };
                place.lock().expect("no panic").connections += 1;
                serve(Talk::new(socket), habits, &place);
            }
        });
        Self { address, got }
    }

    pub(crate) fn got(&self) -> Got {
        self.got.lock().expect("no panic").clone()
    }
}

/// Speaks SMTP and LMTP alike, with one recipient a message.
pub(crate) fn serve(mut talk: Talk, habits: Habits, got: &Mutex<Got>) {
    talk.say(habits.greeting);
    loop {
        let line = talk.hear();
        got.lock().expect("no panic").commands.push(line.clone());
        let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "" => return,
            "EHLO" | "LHLO" => talk.say(habits.hello),
            "DATA" => {
                talk.say("354 go");
                let number = got.lock().expect("no panic").messages.len();
                if habits.dies_in_message == Some(number) {
                    talk.hear();
                    return talk.cut();
                }
                match content(&mut talk) {
                    Some(content) => {
                        got.lock().expect("no panic").messages.push(content);
                        talk.say("250 2.0.0 taken");
                    }
                    None => {
                        got.lock().expect("no panic").cut += 1;
                        return;
                    }
                }
            }
            "QUIT" => return talk.say("221 bye"),
            _ => talk.say("250 ok"),
        }
    }
}

fn content(talk: &mut Talk) -> Option<String> {
    let mut content = Vec::new();
    loop {
        let start = content.len();
        match talk.stream.read_until(b'\n', &mut content) {
            Ok(length) if length > 0 => {}
            _ => return None,
        }
        if &content[start..] == b".\r\n" {
            content.truncate(start);
            return Some(String::from_utf8_lossy(&content).into_owned());
        }
    }
}
