//! Dump and load: everything a store holds as one stream that any engine can read.
//!
//! Called by the program for `dump` and `load`, and before a migration. It goes through the traits only, holds
//! one chunk at a time, and a stream that was cut off or changed is refused. It never touches an engine's files.
//!
//! The stream is a line of text and then frames: a letter, a length, a CRC-32C, the content. Each checksum also
//! covers the one before it, so frames can neither be left out nor change places. `K` is the store's key, `C` a
//! customer as JSON, by name; `M` a message's description as JSON, by id, followed by `B` frames with its body and
//! an `E`, or by a `D` if its body could not be read; `Z`, with the numbers of all, is the end.

mod file;
mod load;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::mail::QueueId;

use super::{DirectoryError, Snapshot, StoreError};

pub use file::PartFile;
pub use load::load;

const FIRST_LINE: &[u8] = b"restante dump 1\n";
/// Longest content of a frame that is believed: a customer with a long list of recipients.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The same for a part of a body.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Octets before a frame's content.
const HEAD_BYTES: usize = 9;
/// Octets read at once: a frame that only claims to be long costs no memory.
const STEP_BYTES: usize = 64 * 1024;

/// Why a dump or a load did not come to its end.
#[derive(Debug)]
pub enum DumpError {
    /// The stream's own trouble.
    Stream(std::io::Error),
    /// The store's trouble.
    Store(StoreError),
    /// The directory's.
    Directory(DirectoryError),
    /// The stream is no dump, was changed, or ends too early.
    Damaged {
        /// What is wrong.
        what: String,
        /// The octet of the stream where it was seen.
        at: u64,
        /// In which message.
        id: Option<QueueId>,
    },
    /// Only an empty store can be loaded into.
    NotEmpty,
}

impl std::fmt::Display for DumpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Directory(error) => error.fmt(f),
            Self::Damaged { what, at, id } => {
                write!(f, "the dump cannot be used: {what}, at octet {at}")?;
                id.map_or(Ok(()), |id| write!(f, ", in message {id}"))
            }
            Self::NotEmpty => f.write_str("the store is not empty; load needs a new one"),
        }
    }
}

impl std::error::Error for DumpError {}

impl From<std::io::Error> for DumpError {
    fn from(error: std::io::Error) -> Self {
        Self::Stream(error)
    }
}

impl From<StoreError> for DumpError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<DirectoryError> for DumpError {
    fn from(error: DirectoryError) -> Self {
        Self::Directory(error)
    }
}

/// What was dumped or loaded, so far or in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// Customers.
    pub customers: u64,
    /// Messages.
    pub messages: u64,
    /// Octets of bodies.
    pub bytes: u64,
    /// Messages whose bodies could not be read; they are not in the dump.
    pub damaged: Vec<QueueId>,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// What is behind us.
    pub summary: &'a Summary,
    /// Messages in all; 0 where nobody knows.
    pub messages: u64,
    /// Octets of the stream behind us.
    pub octets: u64,
}

/// Whoever wants to know how far it is; called after each message.
pub type Tell<'a> = &'a mut (dyn FnMut(Progress<'_>) + Send);

/// Where a dump goes.
pub type Sink<'a> = &'a mut (dyn AsyncWrite + Send + Unpin);
/// Where it comes from.
pub type Source<'a> = &'a mut (dyn AsyncRead + Send + Unpin);

fn checksum(before: u32, letter: u8, content: &[u8]) -> u32 {
    let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let head = [&before.to_be_bytes()[..], &[letter], &len.to_be_bytes()].concat();
    crc32c::crc32c_append(crc32c::crc32c(&head), content)
}

struct Writer<'a> {
    out: Sink<'a>,
    last: u32,
    octets: u64,
}

impl Writer<'_> {
    async fn put(&mut self, letter: u8, content: &[u8]) -> Result<(), DumpError> {
        let len = u32::try_from(content.len()).map_err(std::io::Error::other)?;
        self.last = checksum(self.last, letter, content);
        let mut head = vec![letter];
        head.extend_from_slice(&len.to_be_bytes());
        head.extend_from_slice(&self.last.to_be_bytes());
        self.out.write_all(&head).await?;
        self.octets += (head.len() + content.len()) as u64;
        Ok(self.out.write_all(content).await?)
    }

    async fn put_json<T: serde::Serialize>(
        &mut self,
        letter: u8,
        said: &T,
    ) -> Result<(), DumpError> {
        let content = serde_json::to_vec(said).map_err(std::io::Error::other)?;
        self.put(letter, &content).await
    }

    /// One message, or that it cannot be read.
    async fn message(
        &mut self,
        from: &mut dyn Snapshot,
        message: super::Archived,
        summary: &mut Summary,
    ) -> Result<(), DumpError> {
        let id = message.id();
        let mut reader = match from.open_body().await {
            Ok(reader) => reader,
            Err(StoreError::Corrupt(_)) => return self.unreadable(id, summary).await,
            Err(error) => return Err(error.into()),
        };
        self.put_json(b'M', &message).await?;
        let mut bytes = 0u64;
        loop {
            match reader.read().await {
                Ok(chunk) if chunk.is_empty() => break,
                Ok(chunk) => {
                    bytes += chunk.len() as u64;
                    self.put(b'B', &chunk).await?;
                }
                Err(StoreError::Corrupt(_)) => return self.unreadable(id, summary).await,
                Err(error) => return Err(error.into()),
            }
        }
        summary.messages += 1;
        summary.bytes += bytes;
        self.put(b'E', &bytes.to_be_bytes()).await
    }

    async fn unreadable(&mut self, id: QueueId, summary: &mut Summary) -> Result<(), DumpError> {
        summary.damaged.push(id);
        self.put(b'D', &id.to_bits().to_be_bytes()).await
    }
}

/// Writes all customers and all mail of a snapshot to `out`.
///
/// # Errors
/// [`DumpError`]; what was written until then is no dump.
pub async fn dump(
    from: &mut dyn Snapshot,
    out: Sink<'_>,
    tell: Tell<'_>,
) -> Result<Summary, DumpError> {
    let mut summary = Summary::default();
    out.write_all(FIRST_LINE).await?;
    let mut writer = Writer { out, last: 0, octets: FIRST_LINE.len() as u64 };
    if let Some(key) = from.server_key() {
        writer.put(b'K', &key).await?;
    }
    for customer in from.customers() {
        writer.put_json(b'C', &*customer).await?;
        summary.customers += 1;
    }
    let messages = from.messages();
    loop {
        match from.next().await {
            Ok(None) => break,
            Ok(Some(message)) => writer.message(from, message, &mut summary).await?,
            Err(StoreError::Corrupt(id)) => writer.unreadable(id, &mut summary).await?,
            Err(error) => return Err(error.into()),
        }
        tell(Progress { summary: &summary, messages, octets: writer.octets });
    }
    writer.put_json(b'Z', &summary).await?;
    writer.out.flush().await?;
    Ok(summary)
}

struct Reader<'a> {
    from: Source<'a>,
    last: u32,
    /// Octets read.
    octets: u64,
    /// Where the last frame began.
    begun: u64,
    /// The message that is being read.
    id: Option<QueueId>,
}

impl Reader<'_> {
    fn damaged(&self, what: impl Into<String>) -> DumpError {
        DumpError::Damaged { what: what.into(), at: self.begun, id: self.id }
    }

    async fn exactly(&mut self, place: &mut [u8]) -> Result<(), DumpError> {
        match self.from.read_exact(place).await {
            Ok(()) => {
                self.octets += place.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(self.damaged("it ends too early"))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn first_line(&mut self) -> Result<(), DumpError> {
        let mut line = [0; FIRST_LINE.len()];
        self.exactly(&mut line).await?;
        if line == FIRST_LINE {
            return Ok(());
        }
        Err(self.damaged("it does not begin as a dump of this release does"))
    }

    async fn take(&mut self) -> Result<(u8, Vec<u8>), DumpError> {
        self.begun = self.octets;
        let mut head = [0; HEAD_BYTES];
        self.exactly(&mut head).await?;
        let [letter, l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let len = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let most = if letter == b'B' { BODY_BYTES_MAX } else { FRAME_BYTES_MAX };
        if len > most {
            return Err(self.damaged("a frame has an impossible length"));
        }
        let mut content = Vec::new();
        while content.len() < len {
            let have = content.len();
            content.resize(len.min(have + STEP_BYTES), 0);
            self.exactly(&mut content[have..]).await?;
        }
        self.last = checksum(self.last, letter, &content);
        if self.last != u32::from_be_bytes([c0, c1, c2, c3]) {
            return Err(self.damaged("a checksum is wrong"));
        }
        Ok((letter, content))
    }

    /// Nothing may follow.
    async fn end(&mut self) -> Result<(), DumpError> {
        self.begun = self.octets;
        if self.from.read(&mut [0; 1]).await? == 0 {
            return Ok(());
        }
        Err(self.damaged("something follows its end"))
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, content: &[u8]) -> Result<T, DumpError> {
        serde_json::from_slice(content).map_err(|e| self.damaged(format!("a record is wrong: {e}")))
    }
}
