//! Bodies on their way into the spool; `reader.rs` has those on their way out.
//!
//! Called through the traits. A small body waits in memory for the committer, which writes many of them at
//! once; a larger one streams into a lane of its own as it comes. All file access happens on threads for
//! blocking work. A body without its tail is nothing, so nothing has to be undone after a crash.

use std::io;
use std::sync::Arc;

use crate::mail::QueueId;
use crate::store::{Answer, BodyWriter, StoreError};

use super::committer::Op;
use super::disk::is_full;
use super::frame::{self, BODY_BYTES_MAX, HEAD_BYTES};
use super::shared::Shared;
use super::spool::Lane;
use super::sync::{Ordering, off};

/// Bodies up to this wait in memory; also what a stream collects before it writes.
const SMALL_BYTES_MAX: usize = 256 * 1024;
/// The same while many bodies are on their way.
const SMALL_BYTES_PRESSED: usize = 32 * 1024;
/// All bodies in memory together, above which each may hold little.
const BUFFERED_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A body that streams.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) lane: Lane,
    /// Where the next frame goes.
    pub(crate) cursor: u64,
    /// Frames written.
    pub(crate) frames: u64,
}

/// What the committer gets.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Octets not written yet.
    pub(crate) rest: Vec<u8>,
    /// Where the others are, if any.
    pub(crate) stream: Option<Stream>,
}

/// The engine's [`BodyWriter`].
pub(crate) struct Writer {
    shared: Arc<Shared>,
    id: QueueId,
    hint: u64,
    written: u64,
    counted: u64,
    /// `None` after an error: nothing more is taken.
    incoming: Option<Incoming>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, id: QueueId, hint: u64) -> Self {
        let incoming = Some(Incoming { rest: Vec::new(), stream: None });
        Self { shared, id, hint, written: 0, counted: 0, incoming }
    }

    /// Hands the body over; the id and the number of octets are checked against it.
    pub(crate) fn finish(mut self) -> Option<(Arc<Shared>, QueueId, u64, Incoming)> {
        let incoming = self.incoming.take()?;
        Some((self.shared.clone(), self.id, self.written, incoming))
    }

    fn recount(&mut self) {
        let holds = self.incoming.as_ref().map_or(0, |i| i.rest.len() as u64);
        let buffered = &self.shared.buffered;
        buffered.fetch_add(holds, Ordering::Relaxed);
        buffered.fetch_sub(self.counted, Ordering::Relaxed);
        self.counted = holds;
    }

    async fn take(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.shared.check()?;
        let Some(incoming) = self.incoming.as_mut() else {
            return Err(StoreError::Transient("the body could not be written".into()));
        };
        incoming.rest.extend_from_slice(chunk);
        self.written += chunk.len() as u64;
        let pressed = self.shared.buffered.load(Ordering::Relaxed) > BUFFERED_BYTES_MAX;
        let most = if pressed { SMALL_BYTES_PRESSED } else { SMALL_BYTES_MAX };
        if incoming.rest.len() <= most || incoming.rest.len() < BODY_BYTES_MAX {
            self.recount();
            return Ok(());
        }
        let Some(mut incoming) = self.incoming.take() else { return Ok(()) };
        let (shared, id, hint) = (self.shared.clone(), self.id, self.hint.max(self.written));
        let (incoming, done) = off(move || {
            let done = spill(&shared, &mut incoming, id, hint);
            (incoming, done)
        })
        .await;
        match done {
            Ok(()) => self.incoming = Some(incoming),
            Err(_) => abort(&self.shared, incoming),
        }
        self.recount();
        done.map_err(|e| refusal(&e))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            abort(&self.shared, incoming);
        }
        self.recount();
    }
}

/// Forgets what was written.
pub(crate) fn abort(shared: &Shared, incoming: Incoming) {
    if let Some(stream) = incoming.stream {
        // After the end of the committer there is nobody to cut, and nothing to cut for.
        let _ = shared.ops.send(Op::Abort(stream.lane));
    }
}

/// What a writer is told when the disk refuses.
pub(crate) fn refusal(error: &io::Error) -> StoreError {
    if is_full(error) {
        StoreError::Full("the disk".into())
    } else {
        StoreError::Transient(format!("writing to the spool: {error}"))
    }
}

/// Writes all whole frames of what waits.
fn spill(shared: &Shared, incoming: &mut Incoming, id: QueueId, hint: u64) -> io::Result<()> {
    let stream = match &mut incoming.stream {
        Some(stream) => stream,
        none => {
            let lane = shared.spool.take_lane(frame::record_bytes(hint))?;
            none.insert(Stream { cursor: lane.end, lane, frames: 0 })
        }
    };
    let whole = incoming.rest.len() / BODY_BYTES_MAX * BODY_BYTES_MAX;
    let mut octets = Vec::with_capacity(whole + whole / 1024 + HEAD_BYTES);
    if stream.frames == 0 {
        frame::put_head(&mut octets, &stream.lane.nonce, id);
    }
    for content in incoming.rest[..whole].chunks(BODY_BYTES_MAX) {
        frame::put_body(&mut octets, &stream.lane.nonce, id, stream.frames, content);
        stream.frames += 1;
    }
    let (free, total) = shared.disk.space(&shared.spool.folder)?;
    if free.saturating_sub(Shared::reserve_bytes(total)) < octets.len() as u64 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    stream.lane.file.write_at(&octets, stream.cursor)?;
    stream.cursor += octets.len() as u64;
    // What is left is less than a frame; give the rest of the memory back.
    incoming.rest = incoming.rest.split_off(whole);
    Ok(())
}

impl BodyWriter for Writer {
    fn write<'a>(&'a mut self, chunk: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(self.take(chunk))
    }
    fn written(&self) -> u64 {
        self.written
    }
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}
