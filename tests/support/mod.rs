//! The real program on loopback, and peers that talk to it: for tests and for the load program.

#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs")]

pub mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{KeyInit, Mac};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program's file.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_restante")
}

/// Runs the program with these arguments and this standard input.
pub fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program())
        .args(arguments)
        .env_remove("RESTANTE_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    // A program that does not read its input may be gone already.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("ended")
}

/// A provider with a folder, a configuration and, while it runs, a process.
pub struct Provider {
    folder: PathBuf,
    child: Option<Child>,
}

/// The listeners on ports of the system's choice, logins in clear text, and a certificate for localhost.
pub fn configuration(folder: &Path, more: &str) -> String {
    // Without a word on it reports would look for their way on the Internet.
    let way_out = if more.contains("[relay]") { "" } else { "[relay]\nroute = \"none\"\n" };
    format!(
        "hostname = \"mx.provider.example\"\ndata_dir = {:?}\n[listen]\nmx = [\"127.0.0.1:0\"]\n\
         mxs = [\"127.0.0.1:0\"]\nodmr = [\"127.0.0.1:0\"]\nodmrs = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\n\
         [tls]\ncertificate = {:?}\nprivate_key = {:?}\n[auth]\nrequire_tls = false\n{way_out}{more}",
        folder.join("data"),
        folder.join("certificate.pem"),
        folder.join("key.pem"),
    )
}

impl Provider {
    /// Writes certificate and configuration into `folder`, with `more` at the configuration's end.
    pub fn prepare(folder: &Path, more: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        std::fs::write(folder.join("certificate.pem"), made.cert.pem()).expect("written");
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
        let text = configuration(folder, more);
        std::fs::write(folder.join("restante.toml"), text).expect("written");
        Self { folder: folder.to_owned(), child: None }
    }

    /// The configuration's file.
    pub fn config(&self) -> String {
        self.folder.join("restante.toml").to_string_lossy().into_owned()
    }

    /// Runs a command on this provider; panics if it fails.
    pub fn command(&self, arguments: &[&str], input: &str) -> String {
        let output = self.try_command(arguments, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command on this provider.
    pub fn try_command(&self, arguments: &[&str], input: &str) -> Output {
        let config = self.config();
        run(&[arguments, &["-c", &config]].concat(), input)
    }

    /// What a command answers as JSON.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.command(&[arguments, &["--json"]].concat(), "");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Adds a customer with this password.
    pub fn add_customer(&self, name: &str, domain: &str, password: &str) {
        let arguments = ["customer", "add", name, "--domain", domain, "--password-stdin"];
        self.command(&arguments, &format!("{password}\n"));
    }

    /// Starts `serve` and waits until it listens.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with variables in its environment.
    pub fn start_with(&mut self, variables: &[(&str, &str)]) {
        let mut command = Command::new(program());
        command.envs(variables.iter().copied());
        self.start_by(command);
    }

    /// The same by this command, to which the program's arguments are added.
    pub fn start_by(&mut self, mut command: Command) {
        let log = std::fs::File::create(self.folder.join("log")).expect("a log file");
        let child = command
            .args(["serve", "-c", &self.config()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program");
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(" started ") {
            assert!(Instant::now() < deadline, "did not come up: {}", self.log());
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "ended at once: {}", self.log());
            std::thread::yield_now();
        }
    }

    /// What it logged since it was started.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Waits until the log holds this text.
    pub fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in: {}", self.log());
            std::thread::yield_now();
        }
    }

    fn listener(&self, name: &str) -> Option<String> {
        let output = self.try_command(&["status", "--json"], "");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let listeners = status["listeners"].as_array()?;
        let one = listeners.iter().find(|listener| listener["name"] == name)?;
        Some(one["address"].as_str()?.to_owned())
    }

    /// The address of a listener of the running provider.
    pub fn address(&self, name: &str) -> String {
        self.listener(name).unwrap_or_else(|| panic!("no listener {name}"))
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// SIGTERM; whether it ended with status 0.
    pub fn terminate(&mut self) -> bool {
        self.order_to_stop();
        self.has_ended_well()
    }

    /// SIGTERM, and no more.
    pub fn order_to_stop(&self) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().expect("running"));
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    }

    /// Waits for the end; whether it was with status 0.
    pub fn has_ended_well(&mut self) -> bool {
        let mut child = self.child.take().expect("running");
        child.wait().expect("ended").success()
    }

    /// A plain connection to a listener.
    pub fn connect(&self, listener: &str) -> Peer {
        let stream = TcpStream::connect(self.address(listener)).expect("a listener");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Peer(BufReader::with_capacity(256 << 10, Duplex::Plain(stream)))
    }

    /// What trusts our certificate, and no other.
    pub fn trust(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        use rustls::pki_types::pem::PemObject;
        let file = self.folder.join("certificate.pem");
        let own = rustls::pki_types::CertificateDer::from_pem_file(file).expect("a certificate");
        roots.add(own).expect("a sound certificate");
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// TLS over this connection, with our certificate as the only authority.
    pub fn secure(&self, peer: Peer) -> Peer {
        assert!(peer.0.buffer().is_empty(), "bytes before TLS");
        let Duplex::Plain(stream) = peer.0.into_inner() else { panic!("TLS inside TLS") };
        let name = "localhost".try_into().expect("a name");
        let connection = rustls::ClientConnection::new(self.trust(), name).expect("a client");
        let stream = rustls::StreamOwned::new(connection, stream);
        Peer(BufReader::with_capacity(256 << 10, Duplex::Tls(Box::new(stream))))
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The test is over, one way or the other.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The two kinds of stream.
pub enum Duplex {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Read for Duplex {
    fn read(&mut self, place: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(place),
            Self::Tls(stream) => stream.read(place),
        }
    }
}

/// One side of a conversation.
pub struct Peer(pub BufReader<Duplex>);

impl Peer {
    /// Writes.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_say(bytes).expect("the provider reads");
    }

    /// Writes, unless the wire is lost.
    pub fn try_say(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        match self.0.get_mut() {
            Duplex::Plain(stream) => stream.write_all(bytes.as_ref()),
            Duplex::Tls(stream) => {
                stream.write_all(bytes.as_ref())?;
                stream.flush()
            }
        }
    }

    /// One line; empty at the end of the stream.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the provider answers");
        line
    }

    /// Reads a whole reply, whose last line is given; panics unless it starts with `code`.
    pub fn expect(&mut self, code: &str) -> String {
        loop {
            let line = self.line();
            assert!(line.starts_with(code), "wanted {code}, got {line:?}");
            if line.as_bytes().get(3) == Some(&b' ') {
                return line;
            }
        }
    }

    /// Says a line and expects a reply.
    pub fn ask(&mut self, line: &str, code: &str) -> String {
        self.say(format!("{line}\r\n"));
        self.expect(code)
    }

    /// AUTH CRAM-MD5 (RFC 2195).
    pub fn cram(&mut self, name: &str, password: &str) {
        let challenge = self.ask("AUTH CRAM-MD5", "334");
        let challenge = BASE64.decode(challenge[4..].trim()).expect("base64");
        let mut mac = hmac::Hmac::<md5::Md5>::new_from_slice(password.as_bytes()).expect("a key");
        mac.update(&challenge);
        let digest: String =
            mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.ask(&BASE64.encode(format!("{name} {digest}")), "235");
    }

    /// AUTH PLAIN (RFC 4616).
    pub fn plain(&mut self, name: &str, password: &str) {
        let response = BASE64.encode(format!("\0{name}\0{password}"));
        self.ask(&format!("AUTH PLAIN {response}"), "235");
    }

    /// Sends one message by DATA; `content` is not stuffed yet. Gives the last reply.
    pub fn send(&mut self, from: &str, to: &[&str], content: &[u8]) -> String {
        self.ask(&format!("MAIL FROM:<{from}> BODY=8BITMIME"), "250");
        for recipient in to {
            self.ask(&format!("RCPT TO:<{recipient}>"), "250");
        }
        self.ask("DATA", "354");
        self.say(stuffed(content));
        self.expect("250")
    }
}

/// Content with its dots stuffed and its end (RFC 5321 §4.5.2); it must end in CRLF or be empty.
pub fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() + 100);
    let mut at_start = true;
    for byte in content {
        if at_start && *byte == b'.' {
            wire.push(b'.');
        }
        wire.push(*byte);
        at_start = *byte == b'\n';
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// One message as a customer's server got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub mail: String,
    pub recipients: Vec<String>,
    pub content: Vec<u8>,
}

/// How a [`sink`] behaves.
pub struct Sink<'a> {
    /// What its EHLO offers.
    pub keywords: &'a [&'a str],
    /// Whether it keeps what it takes.
    pub keep: bool,
}

/// The customer's server after the turn: greets, takes everything, and ends with QUIT. Answers are written
/// when the input runs dry. Gives what it took; with `keep` off the contents are empty.
pub fn sink(peer: &mut Peer, manner: &Sink<'_>) -> Vec<Taken> {
    peer.say(b"220 customer.example\r\n");
    let (mut all, mut answers) = (Vec::new(), Vec::new());
    let mut now = Taken { mail: String::new(), recipients: Vec::new(), content: Vec::new() };
    let (mut is_data, mut line) = (false, Vec::new());
    loop {
        line.clear();
        peer.0.read_until(b'\n', &mut line).expect("the provider sends");
        assert!(!line.is_empty(), "the wire was lost after {} messages", all.len());
        if is_data && line != b".\r\n" {
            if manner.keep {
                now.content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            }
            continue;
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let upper = text.to_ascii_uppercase();
        let reply: &[u8] = match upper.split_whitespace().next().unwrap_or_default() {
            "." if is_data => {
                is_data = false;
                all.push(std::mem::replace(
                    &mut now,
                    Taken { mail: String::new(), recipients: Vec::new(), content: Vec::new() },
                ));
                b"250 2.0.0 taken\r\n"
            }
            "EHLO" => {
                answers.extend_from_slice(b"250-customer.example\r\n");
                for keyword in manner.keywords {
                    answers.extend_from_slice(format!("250-{keyword}\r\n").as_bytes());
                }
                b"250 ENHANCEDSTATUSCODES\r\n"
            }
            "MAIL" => {
                now.mail = text;
                b"250 2.0.0 ok\r\n"
            }
            "RCPT" => {
                now.recipients.push(text);
                b"250 2.0.0 ok\r\n"
            }
            "DATA" => {
                is_data = true;
                b"354 go\r\n"
            }
            "BDAT" => {
                let size = upper.split_whitespace().nth(1).and_then(|n| n.parse().ok());
                let mut chunk = (&mut peer.0).take(size.expect("a size"));
                if manner.keep {
                    chunk.read_to_end(&mut now.content).expect("the chunk");
                } else {
                    std::io::copy(&mut chunk, &mut std::io::sink()).expect("the chunk");
                }
                if upper.contains("LAST") {
                    all.push(std::mem::replace(
                        &mut now,
                        Taken { mail: String::new(), recipients: Vec::new(), content: Vec::new() },
                    ));
                }
                b"250 2.0.0 taken\r\n"
            }
            "QUIT" => {
                peer.say(b"221 bye\r\n");
                return all;
            }
            _ => b"250 2.0.0 ok\r\n",
        };
        answers.extend_from_slice(reply);
        if peer.0.buffer().is_empty() {
            peer.say(&answers);
            answers.clear();
        }
    }
}
