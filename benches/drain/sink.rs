//! A customer's server that takes everything and keeps nothing, as fast as it can; in clear text or under TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use restante::net::tls::{ClientTls, Trust};
use restante::net::wire::Wire;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Octets that a sink reads at once.
const READ_BYTES: usize = 64 << 10;

/// Messages that all sinks together have taken.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// How many messages all sinks together have taken so far.
pub(crate) fn taken() -> u64 {
    TAKEN.load(Ordering::Relaxed)
}

/// A certificate for "localhost", and a client that trusts it.
pub(crate) struct Tls {
    server: Arc<ServerConfig>,
    pub(crate) client: ClientTls,
}

impl Tls {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), made.cert.pem()).expect("written");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a pair");
        let trust = Trust::Authority(file.path().to_owned());
        Self { server: Arc::new(server), client: ClientTls::new(&trust, None).expect("a client") }
    }
}

/// A listening sink; its threads live as long as the process.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
}

impl Sink {
    /// Speaks SMTP with these keywords.
    pub(crate) fn start(keywords: &'static [&'static str]) -> Self {
        Self::listen(move |stream| serve(stream, keywords))
    }

    /// The same under TLS from the first octet.
    pub(crate) fn start_tls(tls: &Tls, keywords: &'static [&'static str]) -> Self {
        let config = tls.server.clone();
        Self::listen(move |stream| serve(encrypted(&config, stream), keywords))
    }

    /// Reads to the end and answers with one octet.
    pub(crate) fn swallow() -> Self {
        Self::listen(swallow)
    }

    /// The same under TLS.
    pub(crate) fn swallow_tls(tls: &Tls) -> Self {
        let config = tls.server.clone();
        Self::listen(move |stream| swallow(encrypted(&config, stream)))
    }

    fn listen(work: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> Self {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").expect("a port"));
        let address = listener.local_addr().expect("bound");
        answer(listener, Arc::new(AtomicUsize::new(0)), work);
        Self { address }
    }
}

/// A thread that answers calls one after the other; when the last that waits for one has it, another thread waits. None
/// ever ends: a thread's end costs a tenth of a millisecond, which would be counted as the provider's.
fn answer(
    listener: Arc<TcpListener>,
    waiting: Arc<AtomicUsize>,
    work: impl Fn(TcpStream) + Send + Sync + Clone + 'static,
) {
    waiting.fetch_add(1, Ordering::SeqCst);
    std::thread::spawn(move || {
        loop {
            let (stream, _) = listener.accept().expect("a call");
            if waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
                answer(listener.clone(), waiting.clone(), work.clone());
            }
            stream.set_nodelay(true).expect("a socket");
            work(stream);
            waiting.fetch_add(1, Ordering::SeqCst);
        }
    });
}

fn encrypted(
    config: &Arc<ServerConfig>,
    stream: TcpStream,
) -> StreamOwned<ServerConnection, TcpStream> {
    StreamOwned::new(ServerConnection::new(config.clone()).expect("a connection"), stream)
}

fn swallow(mut stream: impl Read + Write) {
    let mut place = vec![0; READ_BYTES];
    while stream.read(&mut place).is_ok_and(|octets| octets > 0) {}
    let _ = stream.write_all(b".").and_then(|()| stream.flush());
}

/// Sends so many octets by plain writes and waits until the other side has read them.
pub(crate) fn pour(address: SocketAddr, octets: u64) {
    let mut stream = TcpStream::connect(address).expect("connected");
    let chunk = vec![b'x'; 64 << 10];
    let mut left = octets;
    while left > 0 {
        let part = left.min(chunk.len() as u64);
        stream.write_all(&chunk[..part as usize]).expect("written");
        left -= part;
    }
    stream.shutdown(std::net::Shutdown::Write).expect("shut");
    stream.read_exact(&mut [0]).expect("the end");
}

/// Copies a file so many times to the wire, as one does without `sendfile`, and waits until the other side has read
/// it.
pub(crate) async fn copy(mut wire: Wire, file: &std::path::Path, times: usize) {
    use futures::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut chunk = vec![0; 64 << 10];
    for _ in 0..times {
        let mut file = std::fs::File::open(file).expect("a file");
        loop {
            let octets = file.read(&mut chunk).expect("read");
            if octets == 0 {
                break;
            }
            wire.stream.write_all(&chunk[..octets]).await.expect("written");
        }
    }
    wire.stream.close().await.expect("closed");
    wire.stream.read_exact(&mut [0]).await.expect("the end");
}

fn serve(stream: impl Read + Write, keywords: &[&str]) {
    let mut input = BufReader::with_capacity(READ_BYTES, stream);
    let mut output = b"220 sink\r\n".to_vec();
    let mut line = Vec::new();
    loop {
        if input.buffer().is_empty() && !sent(&mut input, &mut output) {
            return;
        }
        line.clear();
        if !matches!(input.read_until(b'\n', &mut line), Ok(octets) if octets > 3) {
            return;
        }
        let reply: &[u8] = match &line[..4] {
            b"EHLO" => {
                // The first line is the server's name, whatever it says.
                output.extend_from_slice(b"250-sink.example\r\n");
                for word in keywords {
                    output.extend_from_slice(format!("250-{word}\r\n").as_bytes());
                }
                b"250 HELP\r\n"
            }
            b"DATA" => {
                output.extend_from_slice(b"354 go\r\n");
                if !sent(&mut input, &mut output) || !skip_content(&mut input) {
                    return;
                }
                TAKEN.fetch_add(1, Ordering::Relaxed);
                b"250 2.0.0 taken\r\n"
            }
            b"BDAT" => {
                let text = String::from_utf8_lossy(&line[5..]);
                let size = text.split_whitespace().next().and_then(|size| size.parse().ok());
                if !skip(&mut input, size.expect("a size")) {
                    return;
                }
                TAKEN.fetch_add(u64::from(text.contains("LAST")), Ordering::Relaxed);
                b"250 2.0.0 taken\r\n"
            }
            b"QUIT" => {
                output.extend_from_slice(b"221 bye\r\n");
                sent(&mut input, &mut output);
                return;
            }
            _ => b"250 2.0.0 fine\r\n",
        };
        output.extend_from_slice(reply);
    }
}

fn sent(input: &mut BufReader<impl Read + Write>, output: &mut Vec<u8>) -> bool {
    let stream = input.get_mut();
    let sent = output.is_empty() || stream.write_all(output).and_then(|()| stream.flush()).is_ok();
    output.clear();
    sent
}

/// So many octets, without keeping anything.
fn skip(input: &mut impl BufRead, mut octets: usize) -> bool {
    while octets > 0 {
        let Ok(buffer) = input.fill_buf() else { return false };
        let part = buffer.len().min(octets);
        if part == 0 {
            return false;
        }
        input.consume(part);
        octets -= part;
    }
    true
}

/// Up to the lone dot, without keeping anything.
fn skip_content(input: &mut impl BufRead) -> bool {
    // The five octets before what is looked at; DATA's own line end counts as the first.
    let mut tail = *b"\0\0\0\r\n";
    loop {
        let Ok(buffer) = input.fill_buf() else { return false };
        if buffer.is_empty() {
            return false;
        }
        let mut end = None;
        let joined: Vec<u8> = [&tail[..], &buffer[..buffer.len().min(5)]].concat();
        if let Some(at) = joined.windows(5).position(|five| five == b"\r\n.\r\n") {
            end = Some(at);
        } else if let Some(at) = memchr::memmem::find(buffer, b"\r\n.\r\n") {
            end = Some(at + 5);
        }
        if let Some(end) = end {
            input.consume(end);
            return true;
        }
        let octets = buffer.len();
        let last: Vec<u8> = [&tail[..], &buffer[octets.saturating_sub(5)..]].concat();
        tail.copy_from_slice(&last[last.len() - 5..]);
        input.consume(octets);
    }
}
