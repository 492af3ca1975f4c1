//! Dump and load: everything a store holds as one stream that any engine can read.
//!
//! Called by the program for `dump` and `load`, and before a migration. It goes through the traits only, holds
//! one chunk at a time, and a stream that was cut off or changed is refused. It never touches an engine's files.
//!
//! The stream is a line of text and then frames: a letter, a length, a CRC-32C, the content. `C` is a customer
//! as JSON, `M` a message's description as JSON, followed by `B` frames with its body and an `E`, or by a `D` if
//! its body could not be read; `Z`, with the numbers of all, is the end.

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::mail::{
    ContentFacts, Customer, CustomerName, Envelope, Outcome, QueueId, RecipientState, Timestamp,
};

use super::{
    BodyWriter, Directory, DirectoryError, Filter, Head, LeaseAnswer, LeaseRequest, NewMessage,
    QueueAction, Settlement, Store, StoreError, Verdict,
};

const FIRST_LINE: &[u8] = b"restante dump 1\n";
/// Longest content of a frame that is believed.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Messages and customers asked for at once.
const PAGE: usize = 200;

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
    Damaged(&'static str),
    /// Only an empty store can be loaded into.
    NotEmpty,
}

impl std::fmt::Display for DumpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Directory(error) => error.fmt(f),
            Self::Damaged(why) => write!(f, "the dump cannot be used: {why}"),
            Self::NotEmpty => f.write_str("the store is not empty; load needs a new one"),
        }
    }
}

impl std::error::Error for DumpError {}

impl From<std::io::Error> for DumpError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            Self::Damaged("it ends too early")
        } else {
            Self::Stream(error)
        }
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

/// Whoever wants to know how far it is; called after each customer and message.
pub type Tell<'a> = &'a mut (dyn FnMut(&Summary) + Send);

#[derive(serde::Serialize, serde::Deserialize)]
struct Described {
    id: QueueId,
    envelope: Envelope,
    facts: ContentFacts,
    arrived: Timestamp,
    recipients: Vec<Standing>,
}

/// What [`Envelope`] does not say about the recipient at the same place.
#[derive(serde::Serialize, serde::Deserialize)]
struct Standing {
    owner: CustomerName,
    state: RecipientState,
    held: bool,
    expires: Timestamp,
}

impl Described {
    fn of(head: Head) -> Self {
        let (recipients, standings) = head
            .recipients
            .into_iter()
            .map(|r| {
                let (owner, state, held, expires) = (r.owner, r.state, r.held, r.expires);
                (r.recipient, Standing { owner, state, held, expires })
            })
            .unzip();
        let envelope = Envelope { recipients, ..head.envelope };
        let (id, facts, arrived) = (head.id, head.facts, head.arrived);
        Self { id, envelope, facts, arrived, recipients: standings }
    }
}

fn checksum(letter: u8, content: &[u8]) -> u32 {
    let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let first = crc32c::crc32c(&[&[letter], &len.to_be_bytes()[..]].concat());
    crc32c::crc32c_append(first, content)
}

type Sink<'a> = &'a mut (dyn AsyncWrite + Send + Unpin);
type Source<'a> = &'a mut (dyn AsyncRead + Send + Unpin);

async fn put(out: Sink<'_>, letter: u8, content: &[u8]) -> Result<(), DumpError> {
    let len = u32::try_from(content.len()).map_err(std::io::Error::other)?;
    let mut head = vec![letter];
    head.extend_from_slice(&len.to_be_bytes());
    head.extend_from_slice(&checksum(letter, content).to_be_bytes());
    out.write_all(&head).await?;
    Ok(out.write_all(content).await?)
}

async fn put_json<T: serde::Serialize>(
    out: Sink<'_>,
    letter: u8,
    said: &T,
) -> Result<(), DumpError> {
    let content = serde_json::to_vec(said).map_err(std::io::Error::other)?;
    put(out, letter, &content).await
}

async fn take(from: Source<'_>) -> Result<(u8, Vec<u8>), DumpError> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await?;
    let [letter, l0, l1, l2, l3, c0, c1, c2, c3] = head;
    let len = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    if len > FRAME_BYTES_MAX {
        return Err(DumpError::Damaged("a frame has an impossible length"));
    }
    let mut content = vec![0; len];
    from.read_exact(&mut content).await?;
    if checksum(letter, &content) != u32::from_be_bytes([c0, c1, c2, c3]) {
        return Err(DumpError::Damaged("a checksum is wrong"));
    }
    Ok((letter, content))
}

fn parsed<'a, T: serde::Deserialize<'a>>(content: &'a [u8]) -> Result<T, DumpError> {
    serde_json::from_slice(content).map_err(|_| DumpError::Damaged("a record is not understood"))
}

/// Writes all customers and all mail to `out`. The provider may run meanwhile: each message is dumped whole, as
/// it stood at one moment, and none twice; one that was delivered before its turn came is left out.
///
/// # Errors
/// [`DumpError`]; what was written until then is no dump.
pub async fn dump(
    store: &dyn Store,
    directory: &dyn Directory,
    out: Sink<'_>,
    tell: Tell<'_>,
) -> Result<Summary, DumpError> {
    let mut summary = Summary::default();
    out.write_all(FIRST_LINE).await?;
    let mut after = None;
    loop {
        let page = directory.customers(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        for customer in page {
            put_json(out, b'C', &*customer).await?;
            summary.customers += 1;
            tell(&summary);
        }
    }
    let mut after = None;
    loop {
        let page = store.query(Filter::default(), after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for head in page {
            dump_message(store, head, out, &mut summary).await?;
            tell(&summary);
        }
    }
    put_json(out, b'Z', &summary).await?;
    out.flush().await?;
    Ok(summary)
}

async fn dump_message(
    store: &dyn Store,
    head: Head,
    out: Sink<'_>,
    summary: &mut Summary,
) -> Result<(), DumpError> {
    let id = head.id;
    let mut reader = match store.open_body(id, 0).await {
        Ok(reader) => reader,
        // Delivered since the page was read.
        Err(StoreError::Missing) => return Ok(()),
        Err(StoreError::Corrupt(_)) => {
            summary.damaged.push(id);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    put_json(out, b'M', &Described::of(head)).await?;
    let mut bytes = 0;
    loop {
        match reader.read().await {
            Ok(chunk) if chunk.is_empty() => break,
            Ok(chunk) => {
                bytes += chunk.len() as u64;
                put(out, b'B', &chunk).await?;
            }
            Err(StoreError::Corrupt(_)) => {
                summary.damaged.push(id);
                return put(out, b'D', &[]).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    summary.messages += 1;
    summary.bytes += bytes;
    put(out, b'E', &bytes.to_be_bytes()).await
}

/// Reads a dump into an empty store. With `None` for the store it only checks the dump, which is worth doing
/// first: a dump that turns out to be damaged in the middle leaves the store half filled.
///
/// # Errors
/// [`DumpError`]; what was loaded until then stays, and the store is no longer empty.
pub async fn load(
    into: Option<(&dyn Store, &dyn Directory)>,
    from: Source<'_>,
    tell: Tell<'_>,
) -> Result<Summary, DumpError> {
    if let Some((store, directory)) = into {
        let mail = store.query(Filter::default(), None, 1).await?;
        if !mail.is_empty() || !directory.customers(None, 1).await?.is_empty() {
            return Err(DumpError::NotEmpty);
        }
    }
    let mut line = vec![0; FIRST_LINE.len()];
    from.read_exact(&mut line).await?;
    if line != FIRST_LINE {
        return Err(DumpError::Damaged("it is no dump of layout 1"));
    }
    let mut summary = Summary::default();
    loop {
        let (letter, content) = take(from).await?;
        match letter {
            b'C' => {
                let customer: Customer = parsed(&content)?;
                if let Some((_, directory)) = into {
                    directory.create(customer).await?;
                }
                summary.customers += 1;
            }
            b'M' => {
                let described: Described = parsed(&content)?;
                load_message(into.map(|(store, _)| store), described, from, &mut summary).await?;
            }
            b'Z' => {
                let said: Summary = parsed(&content)?;
                summary.damaged = said.damaged.clone();
                if said != summary {
                    return Err(DumpError::Damaged("records are missing"));
                }
                return Ok(summary);
            }
            _ => return Err(DumpError::Damaged("a record of an unknown kind")),
        }
        tell(&summary);
    }
}

async fn load_message(
    store: Option<&dyn Store>,
    described: Described,
    from: Source<'_>,
    summary: &mut Summary,
) -> Result<(), DumpError> {
    let Described { id, envelope, facts, arrived, recipients } = described;
    if recipients.len() != envelope.recipients.len() {
        return Err(DumpError::Damaged("a message without owners"));
    }
    let mut writer: Option<Box<dyn BodyWriter>> = match store {
        Some(store) => Some(store.begin_body(id, facts.size).await?),
        None => None,
    };
    let mut bytes = 0;
    loop {
        let (letter, content) = take(from).await?;
        match letter {
            b'B' => {
                bytes += content.len() as u64;
                if let Some(writer) = &mut writer {
                    writer.write(&content).await?;
                }
            }
            b'E' if content == bytes.to_be_bytes() => break,
            // Its dumper could not read it to the end.
            b'D' => return Ok(()),
            _ => return Err(DumpError::Damaged("a body is not whole")),
        }
    }
    summary.messages += 1;
    summary.bytes += bytes;
    let (Some(store), Some(writer)) = (store, writer) else { return Ok(()) };
    let owners = recipients.iter().map(|r| r.owner.clone()).collect();
    let expires = recipients.iter().map(|r| r.expires).collect();
    let message = NewMessage { id, envelope: envelope.clone(), owners, facts, arrived, expires };
    store.commit(message, writer).await?;
    for (index, standing) in (0..).zip(&recipients) {
        stand(store, id, index, &envelope, standing).await?;
    }
    Ok(())
}

/// Makes a recipient stand as it stood.
async fn stand(
    store: &dyn Store,
    id: QueueId,
    index: u32,
    envelope: &Envelope,
    standing: &Standing,
) -> Result<(), DumpError> {
    let place = usize::try_from(index).unwrap_or(usize::MAX);
    let Some(recipient) = envelope.recipients.get(place) else { return Ok(()) };
    let path = &recipient.forward_path;
    let verdict = match &standing.state {
        RecipientState::Queued => None,
        RecipientState::Deferred(reply) => Some(Verdict::Said(Outcome::Later(reply.clone()))),
        RecipientState::Failed(reply) => Some(Verdict::Said(Outcome::Failed(reply.clone()))),
        RecipientState::Relayed(reply) => Some(Verdict::Relayed(reply.clone())),
    };
    if let Some(verdict) = verdict {
        let hour = std::time::Duration::from_secs(3600);
        let request = LeaseRequest {
            customer: standing.owner.clone(),
            domains: vec![path.domain().clone()],
            owner: "load".into(),
            lasts: hour,
            overthrow_after: hour,
        };
        let LeaseAnswer::Granted(lease) = store.lease(request).await? else {
            return Err(
                StoreError::Transient("somebody drains a store that is loaded".into()).into()
            );
        };
        let settled = store.settle(&lease, vec![Settlement { id, index, verdict }]).await;
        store.release(lease).await?;
        settled?;
    }
    if standing.held {
        let filter = Filter {
            ids: vec![id],
            customer: Some(standing.owner.clone()),
            domain: Some(path.domain().clone()),
            recipient: Some(path.as_str().to_owned()),
            ..Filter::default()
        };
        store.apply(filter, QueueAction::Hold).await?;
    }
    Ok(())
}
