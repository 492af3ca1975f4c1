//! The provider's end of the control socket: one connection from first line to last.
//!
//! Called by `net::control` for each connection. Reads requests, has them performed, writes the answers at the
//! pace of the reader. A line that is too long or no request ends the connection with a refusal.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::{Zeroize, Zeroizing};

use super::{Ask, Line, VERSION};
use crate::app::admin::{self, Item, Items, Refused, Request, Sent};
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
        let sends = matches!(ask.request, Request::QueueImport { .. });
        let mut items = Lines { writer: &mut writer, requests: &mut requests, sends };
        let answer = admin::perform(office, who, ask.request, &mut items).await;
        // What nobody wanted to have is not the next request.
        while items.sends {
            if items.take().await.is_err() && items.sends {
                return Ok(());
            }
        }
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

/// Items as lines, and what the command sends as lines of its own.
struct Lines<'a, W, R> {
    writer: &'a mut W,
    requests: &'a mut Requests<R>,
    /// The command has not come to the end of what it sends.
    sends: bool,
}

fn went_away(why: impl std::fmt::Display) -> Refused {
    Refused::new(format!("the command went away: {why}"), "")
}

impl<W: AsyncWrite + Unpin + Send, R: AsyncRead + Unpin + Send> Items for Lines<'_, W, R> {
    fn put(&mut self, item: Item) -> BoxFuture<'_, Result<(), Refused>> {
        Box::pin(async move { write(self.writer, &Line::Item(item)).await.map_err(went_away) })
    }

    fn take(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, Refused>> {
        Box::pin(async move {
            if !self.sends {
                return Ok(None);
            }
            let line = self.requests.next().await.map_err(went_away)?;
            let line = line.ok_or_else(|| went_away("in the middle of a message"))?;
            match serde_json::from_slice(&line).map_err(went_away)? {
                Sent::Octets(octets) => Ok(Some(octets)),
                Sent::End => {
                    self.sends = false;
                    Ok(None)
                }
                Sent::Abort => {
                    self.sends = false;
                    Err(went_away("it could not read its file"))
                }
            }
        })
    }
}
