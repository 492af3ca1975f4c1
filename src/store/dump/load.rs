//! Reading a dump, into a store or only to see whether it is one.
//!
//! Called by the program for `load`. The stream may come from anywhere: nothing in it is believed before it was
//! checked, and no claim of it costs memory. Many messages are on their way into the store at once, so that they
//! share its syncs; what is in memory is bounded all the same.

use futures::StreamExt;
use futures::future::FutureExt;
use futures::stream::FuturesUnordered;

use crate::mail::{Customer, QueueId};
use crate::store::roster::Roster;
use crate::store::{Answer, Archived, BodyWriter, Directory, Filter, Store};

use super::{DumpError, FIRST_LINE, Progress, Reader, Source, Summary, Tell};

/// Messages on their way into the store at once.
const ENTERING_MAX: usize = 512;
/// Octets of their bodies.
const ENTERING_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Messages on their way.
struct Entering<'a> {
    answers: FuturesUnordered<futures::future::BoxFuture<'a, (u64, Result<(), DumpError>)>>,
    bytes: u64,
}

impl<'a> Entering<'a> {
    fn new() -> Self {
        Self { answers: FuturesUnordered::new(), bytes: 0 }
    }

    /// Takes one in, and waits as long as there are too many.
    async fn push(&mut self, bytes: u64, answer: Answer<'a, ()>) -> Result<(), DumpError> {
        self.bytes += bytes;
        self.answers.push(Box::pin(answer.map(move |a| (bytes, a.map_err(DumpError::from)))));
        // They begin when they are looked at.
        while let Some(Some(done)) = self.answers.next().now_or_never() {
            self.done(done)?;
        }
        while self.answers.len() >= ENTERING_MAX || self.bytes > ENTERING_BYTES_MAX {
            let Some(done) = self.answers.next().await else { break };
            self.done(done)?;
        }
        Ok(())
    }

    async fn all(&mut self) -> Result<(), DumpError> {
        while let Some(done) = self.answers.next().await {
            self.done(done)?;
        }
        Ok(())
    }

    fn done(&mut self, (bytes, answer): (u64, Result<(), DumpError>)) -> Result<(), DumpError> {
        self.bytes = self.bytes.saturating_sub(bytes);
        answer
    }
}

type Target<'a> = Option<(&'a dyn Store, &'a dyn Directory)>;

struct Loading<'a, 'r> {
    into: Target<'a>,
    reader: Reader<'r>,
    summary: Summary,
    roster: Roster,
    last: Option<QueueId>,
    entering: Entering<'a>,
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
    let mut reader = Reader { from, last: 0, octets: 0, begun: 0, id: None };
    reader.first_line().await?;
    let (summary, roster) = (Summary::default(), Roster::default());
    let mut loading =
        Loading { into, reader, summary, roster, last: None, entering: Entering::new() };
    while !loading.frame().await? {
        let octets = loading.reader.octets;
        tell(Progress { summary: &loading.summary, messages: 0, octets });
    }
    loading.entering.all().await?;
    Ok(loading.summary)
}

impl<'a> Loading<'a, '_> {
    /// What comes next; true at the end.
    async fn frame(&mut self) -> Result<bool, DumpError> {
        self.reader.id = None;
        let (letter, content) = self.reader.take().await?;
        match letter {
            b'K' => self.key(&content).await?,
            b'C' => self.customer(&content).await?,
            b'M' => self.message(&content).await?,
            b'D' => self.missing(&content)?,
            b'Z' => {
                let said: Summary = self.reader.parsed(&content)?;
                if said != self.summary {
                    return Err(self.reader.damaged("it holds other numbers than it says"));
                }
                self.reader.end().await?;
                return Ok(true);
            }
            _ => return Err(self.reader.damaged("a record of an unknown kind")),
        }
        Ok(false)
    }

    async fn key(&mut self, content: &[u8]) -> Result<(), DumpError> {
        let key: Option<[u8; 32]> = content.try_into().ok();
        let is_first =
            self.summary == Summary::default() && self.reader.begun == FIRST_LINE.len() as u64;
        let Some(key) = key.filter(|_| is_first) else {
            return Err(self.reader.damaged("a key of the wrong length or at the wrong place"));
        };
        match self.into {
            Some((_, directory)) => Ok(directory.take_server_key(key).await?),
            None => Ok(()),
        }
    }

    async fn customer(&mut self, content: &[u8]) -> Result<(), DumpError> {
        let customer: Customer = self.reader.parsed(content)?;
        if self.last.is_some() {
            return Err(self.reader.damaged("a customer behind the first message"));
        }
        // A domain of two customers is found here, before anything was loaded.
        let record = self.roster.created(customer);
        let record = record.map_err(|error| self.reader.damaged(error.to_string()))?;
        self.roster.put(record.clone());
        if let Some((_, directory)) = self.into {
            directory.create(record).await?;
        }
        self.summary.customers += 1;
        Ok(())
    }

    fn in_order(&mut self, id: QueueId) -> Result<(), DumpError> {
        self.reader.id = Some(id);
        if self.last.is_some_and(|last| last >= id) {
            return Err(self.reader.damaged("messages out of order"));
        }
        self.last = Some(id);
        Ok(())
    }

    fn missing(&mut self, content: &[u8]) -> Result<(), DumpError> {
        let bits = content.try_into().map_err(|_| self.reader.damaged("a record is too short"))?;
        let id = QueueId::from_bits(u128::from_be_bytes(bits));
        self.in_order(id)?;
        self.summary.damaged.push(id);
        Ok(())
    }

    async fn message(&mut self, content: &[u8]) -> Result<(), DumpError> {
        let message: Archived = self.reader.parsed(content)?;
        let id = message.id();
        self.in_order(id)?;
        let mut writer: Option<Box<dyn BodyWriter>> = match self.into {
            Some((store, _)) => Some(store.begin_body(id, message.size()).await?),
            None => None,
        };
        let mut bytes = 0u64;
        loop {
            let (letter, content) = self.reader.take().await?;
            match letter {
                b'B' => {
                    bytes += content.len() as u64;
                    if let Some(writer) = &mut writer {
                        writer.write(&content).await?;
                    }
                }
                b'E' if content == bytes.to_be_bytes() && bytes == message.size() => break,
                // Its dumper could not read it to the end.
                b'D' if content == id.to_bits().to_be_bytes() => {
                    self.summary.damaged.push(id);
                    return Ok(());
                }
                _ => return Err(self.reader.damaged("a body is not whole")),
            }
        }
        self.summary.messages += 1;
        self.summary.bytes += bytes;
        if let (Some((store, _)), Some(writer)) = (self.into, writer) {
            self.entering.push(bytes, store.enter(message, writer)).await?;
        }
        Ok(())
    }
}
