//! The body under way: its octets, read ahead of the wire by a chunk or more.
//!
//! Made by the feed, emptied by the drain. It holds no more than the reader gives at once beyond what it was told to hold.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::mail::QueueId;
use crate::store::{BodyReader, StoreError};

/// Octets that are held before no more is asked for; the reader may hold twice as much.
const BODY_AHEAD_BYTES_MAX: u64 = 64 << 10;

/// The octets of one message, read ahead by a chunk or more.
pub(super) struct Body {
    reader: Option<Box<dyn BodyReader>>,
    /// What it began with; for most messages that is all.
    first: Option<Bytes>,
    chunks: VecDeque<Bytes>,
    held: u64,
    /// Octets not yet read from the store.
    unread: u64,
    reading: Option<BoxFuture<'static, Read>>,
    /// It could not be read on.
    trouble: Option<StoreError>,
}

type Read = (Box<dyn BodyReader>, Result<Bytes, StoreError>);

/// A body with its first chunk.
pub(super) async fn begun(
    mut reader: Box<dyn BodyReader>,
    id: QueueId,
    size: u64,
) -> Result<Body, StoreError> {
    if reader.size() != size {
        return Err(StoreError::Corrupt(id));
    }
    let mut body = Body {
        reader: None,
        first: None,
        chunks: VecDeque::new(),
        held: 0,
        unread: size,
        reading: None,
        trouble: None,
    };
    if size > 0 {
        let chunk = reader.read().await?;
        body.check(id, &chunk)?;
        body.first = Some(chunk);
    }
    body.reader = (body.unread > 0).then_some(reader);
    Ok(body)
}

impl Body {
    /// Counts the next chunk as held.
    fn check(&mut self, id: QueueId, chunk: &Bytes) -> Result<(), StoreError> {
        let octets = chunk.len() as u64;
        if octets == 0 || octets > self.unread {
            return Err(StoreError::Corrupt(id));
        }
        self.unread -= octets;
        self.held += octets;
        Ok(())
    }

    /// Reads on; true if something moved.
    pub(super) fn poll(&mut self, id: QueueId, context: &mut Context<'_>) -> bool {
        if self.reading.is_none()
            && self.held < BODY_AHEAD_BYTES_MAX
            && let Some(mut reader) = self.reader.take()
        {
            self.reading = Some(
                async move {
                    let chunk = reader.read().await;
                    (reader, chunk)
                }
                .boxed(),
            );
        }
        let Some(reading) = self.reading.as_mut() else { return false };
        let Poll::Ready((reader, chunk)) = reading.poll_unpin(context) else { return false };
        self.reading = None;
        match chunk.and_then(|chunk| self.check(id, &chunk).map(|()| chunk)) {
            Ok(chunk) => {
                self.chunks.push_back(chunk);
                self.reader = (self.unread > 0).then_some(reader);
            }
            Err(error) => self.trouble = Some(error),
        }
        true
    }

    /// The next chunk, and whether it is the last one; an empty body has one empty chunk. `None`: not yet.
    ///
    /// # Errors
    /// The body cannot be read to its end.
    pub(super) fn take(&mut self) -> Result<Option<(Bytes, bool)>, StoreError> {
        if let Some(chunk) = self.first.take().or_else(|| self.chunks.pop_front()) {
            self.held -= chunk.len() as u64;
            let is_last = self.chunks.is_empty() && self.unread == 0;
            return Ok(Some((chunk, is_last)));
        }
        match self.trouble.take() {
            Some(error) => Err(error),
            None if self.unread == 0 => Ok(Some((Bytes::new(), true))),
            None => Ok(None),
        }
    }
}
