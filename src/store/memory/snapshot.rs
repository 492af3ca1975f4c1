//! The engine in memory as it stood at one moment: records are copied, bodies shared.
//!
//! Made by the engine under its lock; it never sees a later change.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;

use crate::mail::Customer;
use crate::store::kept::Kept;
use crate::store::{Answer, Archived, BodyReader, Snapshot, StoreError};

use super::Reader;
use super::state::State;

/// See the module.
pub(super) struct Copy {
    messages: u64,
    left: std::vec::IntoIter<(Kept, Bytes)>,
    body: Option<Bytes>,
    customers: Vec<Arc<Customer>>,
    server_key: Option<[u8; 32]>,
}

impl Copy {
    pub(super) fn of(state: &State) -> Self {
        let all: Vec<_> = state.messages.values().cloned().collect();
        Self {
            messages: all.len() as u64,
            left: all.into_iter(),
            body: None,
            customers: state.roster.page(None, usize::MAX),
            server_key: state.server_key,
        }
    }
}

impl Snapshot for Copy {
    fn messages(&self) -> u64 {
        self.messages
    }

    fn customers(&self) -> Vec<Arc<Customer>> {
        self.customers.clone()
    }

    fn server_key(&self) -> Option<[u8; 32]> {
        self.server_key
    }

    fn next(&mut self) -> Answer<'_, Option<Archived>> {
        let next = self.left.next();
        self.body = next.as_ref().map(|(_, body)| body.clone());
        Box::pin(ready(Ok(next.map(|(kept, _)| Archived(kept)))))
    }

    fn open_body(&mut self) -> Answer<'_, Box<dyn BodyReader>> {
        let body = self.body.clone().ok_or(StoreError::Missing);
        Box::pin(ready(body.map(|body| Box::new(Reader::new(&body, 0)) as Box<dyn BodyReader>)))
    }
}
