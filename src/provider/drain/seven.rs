//! A body on its way to a server without 8BITMIME: converted to 7 bits while it is read.
//!
//! Called by the feed when it opens such a body. The message is read three times: to see whether it can be done, to
//! know the size that it will have, and to send it; it is never whole in memory. Keeps RFC 6152 §3.

use std::sync::Arc;

use bytes::Bytes;

use crate::mail::QueueId;
use crate::provider::mime::{Converter, Obstacle, Plan, Planner};
use crate::store::{Answer, BodyReader, Store, StoreError};

/// Most octets given at once, as the store's own readers do.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Why a body cannot be had.
pub(super) enum Trouble {
    /// The store's.
    Store(StoreError),
    /// It has to stay as it is.
    Obstacle(Obstacle),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Obstacle> for Trouble {
    fn from(obstacle: Obstacle) -> Self {
        Self::Obstacle(obstacle)
    }
}

/// A reader of the converted body.
pub(super) struct SevenBit {
    reader: Box<dyn BodyReader>,
    converter: Option<Converter>,
    ready: Vec<u8>,
    given: usize,
    size: u64,
}

impl SevenBit {
    /// Looks through the body of this message, and gives a reader of what it becomes.
    pub(super) async fn open(store: &Arc<dyn Store>, id: QueueId) -> Result<Self, Trouble> {
        let plan = plan(&**store, id).await?;
        let size = size(&**store, id, plan.clone()).await?;
        let reader = store.open_body(id, 0).await?;
        let converter = Some(Converter::new(plan));
        Ok(Self { reader, converter, ready: Vec::new(), given: 0, size })
    }

    async fn next(&mut self) -> Result<Bytes, StoreError> {
        let spoilt = |_| StoreError::Transient("the body changed while it was converted".into());
        while self.given == self.ready.len() {
            self.ready.clear();
            self.given = 0;
            let Some(mut converter) = self.converter.take() else { return Ok(Bytes::new()) };
            let chunk = self.reader.read().await?;
            if chunk.is_empty() {
                converter.finish(&mut self.ready).map_err(spoilt)?;
            } else {
                converter.feed(&chunk, &mut self.ready).map_err(spoilt)?;
                self.converter = Some(converter);
            }
        }
        let end = self.ready.len().min(self.given + CHUNK_BYTES_MAX);
        let piece = Bytes::copy_from_slice(&self.ready[self.given..end]);
        self.given = end;
        Ok(piece)
    }
}

impl BodyReader for SevenBit {
    fn read(&mut self) -> Answer<'_, Bytes> {
        Box::pin(self.next())
    }

    fn size(&self) -> u64 {
        self.size
    }
}

async fn plan(store: &dyn Store, id: QueueId) -> Result<Plan, Trouble> {
    let mut reader = store.open_body(id, 0).await?;
    let mut planner = Planner::default();
    loop {
        let chunk = reader.read().await?;
        if chunk.is_empty() {
            return Ok(planner.finish()?);
        }
        planner.feed(&chunk)?;
    }
}

async fn size(store: &dyn Store, id: QueueId, plan: Plan) -> Result<u64, Trouble> {
    let mut reader = store.open_body(id, 0).await?;
    let (mut converter, mut place, mut size) = (Converter::new(plan), Vec::new(), 0u64);
    loop {
        let chunk = reader.read().await?;
        if chunk.is_empty() {
            converter.finish(&mut place)?;
            return Ok(size + place.len() as u64);
        }
        converter.feed(&chunk, &mut place)?;
        size += place.len() as u64;
        place.clear();
    }
}
