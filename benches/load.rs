//! Load on the real program over loopback: durable intake and drain, beside the machine's own limit.
//!
//! `cargo bench --bench load` prints one table. The first row appends the same messages to a file with one
//! `fdatasync` for all writers that wait, which no durable server on this disk can beat; the others are the
//! program's, as a ratio of it. The numbers vary with the machine, the ratios little; docs/performance.md holds
//! a run and how to read it. `RESTANTE_LOAD_MESSAGES` sets the messages of each row (default 4000).

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{KeyInit, Mac};

const PASSWORD: &str = "correct-horse-battery";
const BODY_BYTES: usize = 4096;

fn main() {
    let messages =
        std::env::var("RESTANTE_LOAD_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(4000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let body = body();
    println!("{messages} messages of {} octets a row\n", body.len());
    println!("{:<44} {:>12} {:>8}", "row", "messages/s", "ratio");
    let mut limits = Vec::new();
    for writers in [1, 20, 64] {
        let rate = group_commit_limit(folder.path(), &body, writers, messages);
        limits.push(rate);
        row(&format!("append + fdatasync, {writers} writers (the limit)"), rate, 1.0);
    }
    let provider = Provider::start(folder.path());
    for (writers, limit) in [1, 20, 64].into_iter().zip(&limits) {
        let rate = intake(&provider, &body, writers, messages);
        row(&format!("durable intake, {writers} connections"), rate, rate / limit);
        for (label, keywords) in [("lock-step", &[][..])].into_iter().filter(|_| writers == 1) {
            let rate = drain(&provider, keywords);
            row(&format!("drain, {label}"), rate, rate / limits[2]);
        }
        let (label, keywords): (_, &[&str]) = match writers {
            20 => ("PIPELINING", &["PIPELINING", "8BITMIME", "SIZE"]),
            64 => ("CHUNKING", &["PIPELINING", "8BITMIME", "SIZE", "CHUNKING"]),
            _ => continue,
        };
        let rate = drain(&provider, keywords);
        row(&format!("drain, {label}"), rate, rate / limits[2]);
    }
}

fn row(name: &str, rate: f64, ratio: f64) {
    println!("{name:<44} {rate:>12.0} {ratio:>8.2}");
}

/// A message with a header, leading dots and lines of an ordinary length.
fn body() -> Vec<u8> {
    let mut text = b"Message-ID: <load@sender.example>\r\nSubject: load\r\n\r\n".to_vec();
    while text.len() < BODY_BYTES - 72 {
        text.extend_from_slice(&[b'x'; 70]);
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// How many such appends a second the disk makes durable when all waiting writers share a sync.
fn group_commit_limit(folder: &Path, body: &[u8], writers: usize, messages: usize) -> f64 {
    let (queue, waiting) = mpsc::channel::<(Vec<u8>, mpsc::Sender<()>)>();
    let path = folder.join("limit");
    let committer = std::thread::spawn(move || {
        let mut file = File::create(path).expect("a file");
        while let Ok(first) = waiting.recv() {
            let batch: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
            for (bytes, _) in &batch {
                file.write_all(bytes).expect("room");
            }
            file.sync_data().expect("a sync");
            for (_, done) in batch {
                done.send(()).expect("a writer that waits");
            }
        }
    });
    let start = Instant::now();
    std::thread::scope(|scope| {
        for share in shares(messages, writers) {
            let queue = queue.clone();
            scope.spawn(move || {
                let (done, answer) = mpsc::channel();
                for _ in 0..share {
                    queue.send((body.to_vec(), done.clone())).expect("the committer");
                    answer.recv().expect("an answer");
                }
            });
        }
    });
    let rate = messages as f64 / start.elapsed().as_secs_f64();
    drop(queue);
    committer.join().expect("no panic");
    rate
}

fn shares(messages: usize, writers: usize) -> Vec<usize> {
    (0..writers).map(|n| messages / writers + usize::from(n < messages % writers)).collect()
}

/// The program under load.
struct Provider {
    child: Child,
    mx: String,
    odmr: String,
}

impl Provider {
    fn start(folder: &Path) -> Self {
        let config = folder.join("restante.toml");
        let text = format!(
            "hostname = \"mx.load.example\"\ndata_dir = {:?}\n[listen]\nmx = [\"127.0.0.1:0\"]\n\
             mxs = []\nodmr = [\"127.0.0.1:0\"]\nodmrs = []\nhttp = []\n[auth]\nrequire_tls = false\n\
             [limits]\nsessions_per_address = 1000\ndisk_free_min = \"64 MiB\"\n[log]\nlevel = \"error\"\n",
            folder.join("data")
        );
        std::fs::write(&config, text).expect("a configuration");
        let program = env!("CARGO_BIN_EXE_restante");
        let mut add = Command::new(program)
            .args(["customer", "add", "load", "--domain", "load.example", "--password-stdin", "-c"])
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program");
        let mut stdin = add.stdin.take().expect("piped");
        writeln!(stdin, "{PASSWORD}").expect("written");
        drop(stdin);
        assert!(add.wait().expect("ended").success(), "the customer was added");
        let child =
            Command::new(program).arg("serve").arg("-c").arg(&config).spawn().expect("the program");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = Command::new(program)
                .args(["status", "--json", "-c"])
                .arg(&config)
                .output()
                .expect("the program");
            let found: serde_json::Value =
                serde_json::from_slice(&status.stdout).unwrap_or_default();
            let address = |name: &str| {
                let listeners = found["listeners"].as_array()?;
                let one = listeners.iter().find(|l| l["name"] == name)?;
                Some(one["address"].as_str()?.to_owned())
            };
            if let (Some(mx), Some(odmr)) = (address("mx"), address("odmr")) {
                return Self { child, mx, odmr };
            }
            assert!(Instant::now() < deadline, "the provider did not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It is a bench's child: the operating system ends it, whatever state it is in.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One side of a conversation.
struct Peer {
    input: BufReader<TcpStream>,
    output: TcpStream,
}

impl Peer {
    fn connect(address: &str) -> Self {
        let output = TcpStream::connect(address).expect("a listener");
        output.set_nodelay(true).expect("a socket");
        let input =
            BufReader::with_capacity(256 << 10, output.try_clone().expect("a second handle"));
        Self { input, output }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.output.write_all(bytes).expect("the provider reads");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.input.read_line(&mut line).expect("the provider answers");
        line
    }

    /// Reads a reply; panics unless it starts with `code`.
    fn expect(&mut self, code: &str) -> String {
        loop {
            let line = self.line();
            assert!(line.starts_with(code), "wanted {code}, got {line:?}");
            if line.as_bytes().get(3) == Some(&b' ') {
                return line;
            }
        }
    }
}

/// Sends all messages over `writers` connections at once.
fn intake(provider: &Provider, body: &[u8], writers: usize, messages: usize) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for share in shares(messages, writers) {
            scope.spawn(move || {
                let mut peer = Peer::connect(&provider.mx);
                peer.expect("220");
                peer.say(b"EHLO sender.example\r\n");
                peer.expect("250");
                let mut content = body.to_vec();
                content.extend_from_slice(b".\r\n");
                for _ in 0..share {
                    peer.say(
                        b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@load.example>\r\nDATA\r\n",
                    );
                    peer.expect("250");
                    peer.expect("250");
                    peer.expect("354");
                    peer.say(&content);
                    peer.expect("250");
                }
                peer.say(b"QUIT\r\n");
                peer.expect("221");
            });
        }
    });
    messages as f64 / start.elapsed().as_secs_f64()
}

/// Logs in, reverses, and takes everything that waits, as a server with these keywords.
fn drain(provider: &Provider, keywords: &[&str]) -> f64 {
    let mut peer = Peer::connect(&provider.odmr);
    peer.expect("220");
    peer.say(b"EHLO customer.example\r\n");
    peer.expect("250");
    peer.say(b"AUTH CRAM-MD5\r\n");
    let challenge = peer.expect("334");
    let challenge = BASE64.decode(challenge[4..].trim()).expect("base64");
    let mut mac =
        hmac::Hmac::<md5::Md5>::new_from_slice(PASSWORD.as_bytes()).expect("any key length");
    mac.update(&challenge);
    let digest: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    peer.say(format!("{}\r\n", BASE64.encode(format!("load {digest}"))).as_bytes());
    peer.expect("235");
    let start = Instant::now();
    peer.say(b"ATRN\r\n");
    peer.expect("250");
    let taken = sink(&mut peer, keywords);
    taken as f64 / start.elapsed().as_secs_f64()
}

/// An SMTP server that takes everything and counts; answers are written when the input runs dry.
fn sink(peer: &mut Peer, keywords: &[&str]) -> usize {
    peer.say(b"220 customer.example\r\n");
    let (mut taken, mut answers, mut is_data) = (0, Vec::new(), false);
    let mut line = Vec::new();
    loop {
        line.clear();
        peer.input.read_until(b'\n', &mut line).expect("the provider sends");
        if is_data {
            if line == b".\r\n" {
                is_data = false;
                taken += 1;
                answers.extend_from_slice(b"250 2.0.0 taken\r\n");
            } else {
                continue;
            }
        } else {
            let text = String::from_utf8_lossy(&line).to_ascii_uppercase();
            let verb = text.split_whitespace().next().unwrap_or_default();
            match verb {
                "EHLO" => {
                    for keyword in keywords {
                        answers.extend_from_slice(format!("250-{keyword}\r\n").as_bytes());
                    }
                    answers.extend_from_slice(b"250 ENHANCEDSTATUSCODES\r\n");
                }
                "DATA" => {
                    is_data = true;
                    answers.extend_from_slice(b"354 go\r\n");
                }
                "BDAT" => {
                    let size: u64 =
                        text.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("size");
                    let chunk = &mut (&mut peer.input).take(size);
                    std::io::copy(chunk, &mut std::io::sink()).expect("the chunk");
                    taken += usize::from(text.contains("LAST"));
                    answers.extend_from_slice(b"250 2.0.0 taken\r\n");
                }
                "QUIT" => {
                    peer.say(b"221 bye\r\n");
                    return taken;
                }
                "" => panic!("the wire was lost after {taken} messages"),
                _ => answers.extend_from_slice(b"250 2.0.0 ok\r\n"),
            }
        }
        if peer.input.buffer().is_empty() {
            peer.output.write_all(&answers).expect("the provider reads");
            answers.clear();
        }
    }
}
