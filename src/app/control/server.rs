//! The provider's end of the control socket: one connection from first line to last.
//!
//! Called by `net::control` for each connection. Reads requests, has them performed, writes the answers at the
//! pace of the reader. A line that is too long or no request ends the connection with a refusal.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::{Zeroize, Zeroizing};

use super::{Ask, Line, VERSION};
use crate::app::admin::{self, Item, Items, Refused};
use crate::net::control::{Attend, Peer};
use crate::net::wire::Stream;
use crate::provider::Office;

/// Longest request line in octets: a list of a million recipients fits.
const LINE_BYTES_MAX: usize = 128 << 20;
/// Octets with which the memory for a line begins.
const HELD_BYTES: usize = 4096;

/// Serves an office over the control socket.
pub struct Attendant(pub Arc<Office>);

impl Attend for Attendant {
    fn attend(self: Arc<Self>, stream: Box<dyn Stream>, peer: Peer) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let who = format!("uid={}", peer.uid);
            // A command that went away before its answer is no news.
            let _ = converse(&self.0, &who, stream).await;
        })
    }
}

/// Talks on one connection until its end; `who` is for the log.
///
/// # Errors
/// The connection's.
pub async fn converse(office: &Office, who: &str, stream: impl Stream) -> std::io::Result<()> {
    let (reader, mut writer) = futures::AsyncReadExt::split(stream);
    let mut requests = Requests { reader, held: Zeroizing::new(vec![0; HELD_BYTES]), filled: 0 };
    let server = format!("restante {}", env!("CARGO_PKG_VERSION"));
    write(&mut writer, &Line::Hello { version: VERSION, server }).await?;
    while let Some(line) = requests.next().await? {
        let ask = match understand(&line) {
            Ok(ask) => ask,
            Err(refused) => return write(&mut writer, &Line::Refused(refused)).await,
        };
        let mut items = Lines(&mut writer);
        let answer = admin::perform(office, who, ask.request, &mut items).await;
        let last = answer.map_or_else(Line::Refused, Line::Done);
        write(&mut writer, &last).await?;
    }
    Ok(())
}

fn understand(line: &[u8]) -> Result<Ask, Refused> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let same = "use the command of the same release as the running provider";
    if let Ok(Version { version }) = serde_json::from_slice::<Version>(line)
        && version != VERSION
    {
        return Err(Refused::new(
            format!("the provider speaks version {VERSION} of the control language, not {version}"),
            same,
        ));
    }
    serde_json::from_slice(line)
        .map_err(|error| Refused::new(format!("the provider does not understand: {error}"), same))
}

/// What a command says, line by line. A line may hold a password: all memory that held one is wiped.
struct Requests<R> {
    reader: R,
    /// Room for what came, of which `filled` octets are used.
    held: Zeroizing<Vec<u8>>,
    filled: usize,
}

impl<R: AsyncRead + Unpin> Requests<R> {
    /// One line without its end; nothing at the end of the connection.
    async fn next(&mut self) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.held[searched..self.filled]) {
                let end = searched + at;
                let line = Zeroizing::new(self.held[..end].to_vec());
                self.held.copy_within(end + 1..self.filled, 0);
                let left = self.filled - end - 1;
                self.held[left..self.filled].zeroize();
                self.filled = left;
                return Ok(Some(line));
            }
            searched = self.filled;
            if self.filled > LINE_BYTES_MAX {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            if self.filled == self.held.len() {
                // By hand: a vector that grows by itself leaves a copy behind.
                let mut larger = Zeroizing::new(vec![0; self.held.len() * 2]);
                larger[..self.filled].copy_from_slice(&self.held);
                self.held = larger;
            }
            let count = self.reader.read(&mut self.held[self.filled..]).await?;
            if count == 0 {
                return Ok(None);
            }
            self.filled += count;
        }
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), line: &Line) -> std::io::Result<()> {
    // A new password fits without the vector having to grow, which would leave a copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(HELD_BYTES));
    serde_json::to_writer(&mut *text, line)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    writer.flush().await
}

/// Items as lines.
struct Lines<'a, W>(&'a mut W);

impl<W: AsyncWrite + Unpin + Send> Items for Lines<'_, W> {
    fn put(&mut self, item: Item) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(async move {
            let sent = write(self.0, &Line::Item(item)).await;
            sent.map_err(|error| Refused::new(format!("the command went away: {error}"), ""))
        })
    }
}
