//! A customer's server that takes everything and keeps nothing, as fast as it can.

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A listening sink; its threads live as long as the process.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
}

impl Sink {
    /// Speaks SMTP with these keywords.
    pub(crate) fn start(keywords: &'static [&'static str]) -> Self {
        Self::listen(move |stream| serve(&stream, keywords))
    }

    /// Reads and answers with one octet at the end.
    pub(crate) fn swallow() -> Self {
        Self::listen(|mut stream| {
            let mut place = vec![0; 256 << 10];
            while stream.read(&mut place).is_ok_and(|octets| octets > 0) {}
            let _ = stream.write_all(b".");
        })
    }

    fn listen(work: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let work = work.clone();
                std::thread::spawn(move || work(stream));
            }
        });
        Self { address }
    }
}

/// Sends so many octets and waits until the other side has read them.
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

fn serve(stream: &TcpStream, keywords: &[&str]) {
    stream.set_nodelay(true).expect("a socket");
    let mut input = BufReader::with_capacity(256 << 10, stream);
    let mut output = BufWriter::new(stream);
    let mut line = Vec::new();
    let _ = output.write_all(b"220 sink\r\n");
    loop {
        if input.buffer().is_empty() && output.flush().is_err() {
            return;
        }
        line.clear();
        if !matches!(input.read_until(b'\n', &mut line), Ok(octets) if octets > 0) {
            return;
        }
        let reply: &[u8] = match &line[..4] {
            b"EHLO" => {
                // The first line is the server's name, whatever it says.
                let _ = output.write_all(b"250-sink.example\r\n");
                for word in keywords {
                    let _ = write!(output, "250-{word}\r\n");
                }
                b"250 HELP\r\n"
            }
            b"DATA" => {
                let _ = output.write_all(b"354 go\r\n");
                let _ = output.flush();
                if !skip_content(&mut input) {
                    return;
                }
                b"250 2.0.0 taken\r\n"
            }
            b"BDAT" => {
                let text = String::from_utf8_lossy(&line[5..]);
                let size = text.split_whitespace().next().and_then(|size| size.parse().ok());
                let mut content = (&mut input).take(size.expect("a size"));
                if std::io::copy(&mut content, &mut std::io::sink()).is_err() {
                    return;
                }
                b"250 2.0.0 taken\r\n"
            }
            b"QUIT" => {
                let _ = output.write_all(b"221 bye\r\n");
                let _ = output.flush();
                return;
            }
            _ => b"250 2.0.0 fine\r\n",
        };
        if output.write_all(reply).is_err() {
            return;
        }
    }
}

/// Up to the lone dot, without keeping anything.
fn skip_content(input: &mut BufReader<&TcpStream>) -> bool {
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
