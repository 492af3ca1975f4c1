//! The store as a whole: dumped, looked through, compacted.
//!
//! Called for `dump` and `store`. All of it goes on beside the ordinary work; how far it is, is said in between.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::{Either, select, try_join};
use futures::io::AsyncWrite;
use futures::{SinkExt, StreamExt};

use super::{Done, Item, Items, Refused, Stage};
use crate::provider::Office;
use crate::provider::watch::Want;
use crate::store::dump::dump;
use crate::store::{Filter, StoreError};

/// Octets of a dump that are sent together.
const CHUNK_BYTES: usize = 64 * 1024;
/// How long whoever asked may take nothing: what is copied keeps room on the disk from being given back.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two reports of how far it is.
const REPORT_PAUSE: Duration = Duration::from_millis(200);
/// A trace in which nothing happens says so.
const QUIET: Duration = Duration::from_secs(60);
/// Messages asked for at once.
const PAGE: usize = 200;

/// Octets on their way to whoever asked.
struct Chunks {
    chunk: Vec<u8>,
    sender: mpsc::Sender<Vec<u8>>,
}

impl Chunks {
    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.chunk.is_empty() {
            ready!(self.sender.poll_ready(cx)).map_err(io::Error::other)?;
            let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
            self.sender.start_send(chunk).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Chunks {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.chunk.len() >= CHUNK_BYTES {
            ready!(self.poll_pass(cx))?;
        }
        let some = &octets[..octets.len().min(CHUNK_BYTES - self.chunk.len())];
        self.chunk.extend_from_slice(some);
        Poll::Ready(Ok(some.len()))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_pass(cx)
    }
    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Everything as one stream of octets.
pub(super) async fn dumped(office: &Office, items: &mut dyn Items) -> Result<Done, Refused> {
    let mut snapshot = office.store.snapshot().await?;
    let total = snapshot.messages();
    let done = AtomicU64::new(0);
    let (sender, mut chunks) = mpsc::channel(4);
    let dumping = async {
        let mut out = Chunks { chunk: Vec::with_capacity(CHUNK_BYTES), sender };
        let mut tell = |progress: crate::store::dump::Progress<'_>| {
            done.store(progress.summary.messages, Ordering::Relaxed);
        };
        let summary = dump(&mut *snapshot, &mut out, &mut tell).await;
        summary.map_err(|error| Refused::new(error.to_string(), "look at `restante status`"))
    };
    let sending = async {
        let mut pace = Pace::new(office);
        while let Some(chunk) = chunks.next().await {
            patiently(office, items, Item::Body(chunk)).await?;
            if pace.is_due() {
                let done = done.load(Ordering::Relaxed);
                patiently(office, items, stage("messages dumped", done, total)).await?;
            }
        }
        Ok(())
    };
    let (summary, ()) = try_join(dumping, sending).await?;
    items.put(stage("messages dumped", summary.messages, total)).await?;
    Ok(Done::Dumped(summary))
}

async fn patiently(office: &Office, items: &mut dyn Items, item: Item) -> Result<(), Refused> {
    match select(items.put(item), office.world.wait(PATIENCE)).await {
        Either::Left((put, _)) => put,
        Either::Right(_) => Err(Refused::new(
            format!("nothing was taken for {} seconds", PATIENCE.as_secs()),
            "try again",
        )),
    }
}

fn stage(what: &str, done: u64, total: u64) -> Item {
    Item::Stage(Stage { what: what.to_owned(), done, total })
}

/// Not too often.
struct Pace<'a> {
    office: &'a Office,
    last: Duration,
}

impl<'a> Pace<'a> {
    fn new(office: &'a Office) -> Self {
        Self { office, last: office.world.monotonic() }
    }

    fn is_due(&mut self) -> bool {
        let now = self.office.world.monotonic();
        let due = now.saturating_sub(self.last) >= REPORT_PAUSE;
        if due {
            self.last = now;
        }
        due
    }
}

/// What goes on in sessions, until nobody takes it any more.
pub(super) async fn trace(
    office: &Office,
    want: Want,
    items: &mut dyn Items,
) -> Result<Done, Refused> {
    if office.board.listeners().is_empty() {
        let mend = "start it: restante serve";
        return Err(Refused::new("no provider runs, so there are no sessions", mend));
    }
    let mut events = office.watch.join(want);
    loop {
        let item = match select(events.next(), office.world.wait(QUIET)).await {
            Either::Left((Some(seen), _)) => Item::Seen(seen),
            Either::Left((None, _)) => return Ok(Done::Listed),
            // A sign of life; and whoever has gone without a word is noticed.
            Either::Right(_) => stage("waiting", 0, 0),
        };
        items.put(item).await?;
    }
}

/// Reads every message from the first octet to the last.
pub(super) async fn verify(office: &Office, items: &mut dyn Items) -> Result<Done, Refused> {
    let total: u64 = {
        let queues = office.store.queues(None, usize::MAX).await?;
        queues.iter().map(|(_, _, count)| count.messages + count.failed).sum()
    };
    let (mut messages, mut bytes, mut after) = (0, 0, None);
    let mut pace = Pace::new(office);
    loop {
        let page = office.store.query(Filter::default(), after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for head in page {
            match read_through(office, head.id).await {
                Ok(read) => {
                    messages += 1;
                    bytes += read;
                }
                // It was delivered meanwhile.
                Err(StoreError::Missing) => {}
                // The store has noted it.
                Err(StoreError::Corrupt(_)) => messages += 1,
                Err(error) => return Err(error.into()),
            }
            if pace.is_due() {
                items.put(stage("messages read", messages, total.max(messages))).await?;
            }
        }
    }
    items.put(stage("messages read", messages, messages)).await?;
    let damage = office.store.health().await?.damage;
    let damage = damage.into_iter().filter(|line| !line.starts_with("durability is")).collect();
    Ok(Done::Verified { messages, bytes, damage })
}

async fn read_through(office: &Office, id: crate::mail::QueueId) -> Result<u64, StoreError> {
    let mut reader = office.store.open_body(id, 0).await?;
    let mut bytes = 0;
    loop {
        let chunk = reader.read().await?;
        if chunk.is_empty() {
            return Ok(bytes);
        }
        bytes += chunk.len() as u64;
    }
}

/// Gives back what can be given back.
pub(super) async fn compact(office: &Office, items: &mut dyn Items) -> Result<Done, Refused> {
    let before = office.store.health().await?.disk_bytes;
    let (mut sender, mut steps) = mpsc::channel::<u64>(1);
    let compacting = async {
        // A report that finds the last one not yet taken is no loss.
        let mut tell = |done: u64| drop(sender.try_send(done));
        let files = office.store.compact(&mut tell).await;
        // The other side ends with this one.
        let _ = sender.close().await;
        Ok::<_, Refused>(files?)
    };
    let telling = async {
        while let Some(done) = steps.next().await {
            items.put(stage("segments compacted", done, 0)).await?;
        }
        Ok(())
    };
    let (segments, ()) = try_join(compacting, telling).await?;
    let after = office.store.health().await?.disk_bytes;
    Ok(Done::Compacted { segments, before, after })
}
